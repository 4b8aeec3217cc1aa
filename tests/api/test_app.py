"""The parts of a server process: its settings, its folder, what it listens with, and what it logs."""

import asyncio
import logging
import os
import stat
import threading
from pathlib import Path

import pytest
from filelock import FileLock
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine
from tornado.web import Application, RequestHandler

from lmvp.core import files, server_file
from lmvp.errors import Conflict, InvalidArgument, StorageFull
from lmvp_server.__main__ import main
from lmvp_server.app import App
from lmvp_server.data_folder import DataFolder
from lmvp_server.http.host_check import foreign_host
from lmvp_server.http.server import make_server
from lmvp_server.http.sockets import bind, url_of
from lmvp_server.process import log
from lmvp_server.settings import Settings, is_loopback


def said(**changes):
    fields = {"url": "http://h", "token": "secret", "pid": 1, "host": "h", "boot": "", "instance": "a", "version": "0"}
    return server_file.ServerFile(**{**fields, **changes})


def request_for(path, **headers):
    line = RequestStartLine("GET", path, "HTTP/1.1")
    return HTTPServerRequest(start_line=line, headers=HTTPHeaders({"Host": "h", **headers}))


def test_settings(tmp_path):
    settings = Settings(tmp_path, token="secret")
    assert settings.idle_seconds is None
    assert settings.local
    assert "secret" not in repr(settings)
    assert not Settings(tmp_path, host="0.0.0.0").local
    assert Settings(tmp_path, embedded=True).idle_seconds == 3600
    assert Settings(tmp_path, embedded=True, idle_seconds=1).idle_seconds == 1
    assert Settings(tmp_path).instance != Settings(tmp_path).instance
    before = settings.last_used
    settings.touch()
    assert settings.last_used > before


@pytest.mark.parametrize("host", ["::1", "127.0.0.1", "127.255.0.1", "localhost", "LocalHost"])
def test_loopback(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["::", "0.0.0.0", "", "example.org", "127.1", "0x7f000001", "localhost."])
def test_no_loopback(host):
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("host", "foreign"), [("localhost:1", False), ("evil.example", True), ("[::1", True), ("a:b:c", True)]
)
def test_foreign_hosts(host, foreign):
    request = request_for("/", Host=host)
    assert foreign_host(request, Settings(Path("data"))) is foreign
    assert foreign_host(request, Settings(Path("data"), host="0.0.0.0")) is False
    proxied = Settings(Path("data"), public_url="https://evil.example")
    assert foreign_host(request, proxied) is (foreign and host != "evil.example")


def test_a_folder_has_one_owner_at_a_time(tmp_path):
    with DataFolder.open(tmp_path / "d", patience=0) as folder:
        with pytest.raises(Conflict, match="a server that is starting or ending"):
            DataFolder.open(tmp_path / "d", patience=0)
        folder.announce(said(url="http://127.0.0.1:5"))
        with pytest.raises(Conflict, match=r"the server at http://127\.0\.0\.1:5 "):
            DataFolder.open(tmp_path / "d", patience=0)
    DataFolder.open(tmp_path / "d", patience=0).close()


def test_a_refused_format_lets_go_of_the_folder(tmp_path):
    (tmp_path / "format.json").write_text('{"format": 99}')
    with pytest.raises(ConnectionError, match="format 99"):
        DataFolder.open(tmp_path, patience=0)
    with FileLock(tmp_path / "lock", timeout=0):
        pass


def test_only_our_own_announcement_is_taken_back(tmp_path):
    with DataFolder.open(tmp_path, patience=0) as folder:
        folder.announce(said())
        server_file.write(tmp_path, said(instance="of a successor"))
    assert server_file.read(tmp_path).instance == "of a successor"


def test_a_beat_touches_the_file(tmp_path):
    with DataFolder.open(tmp_path, patience=0) as folder:
        folder.announce(said())
        os.utime(tmp_path / "server.json", (0, 0))
        assert server_file.silent(tmp_path)
        assert folder.beat()
        assert not server_file.silent(tmp_path)
        (tmp_path / "lock").unlink()
        (tmp_path / "lock").touch()
        assert not folder.beat(), "the lock that others see is another one"


def test_server_json_shows_no_token():
    assert "secret" not in repr(said())


def test_private_files(tmp_path):
    path = tmp_path / "secret"
    assert files.read(path) is None
    previous = os.umask(0)
    try:
        files.atomic_write(path, b"one")
    finally:
        os.umask(previous)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    files.atomic_write(path, b"two")
    assert files.read(path) == b"two"
    path.chmod(0o666)
    assert files.read(path) == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_failed_write_leaves_what_was_there(tmp_path):
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(OSError):
        files.atomic_write(tmp_path / "folder", b"a file cannot replace a folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_full_disk_is_named(tmp_path):
    with pytest.raises(OSError) as caught, open("/dev/full", "wb", buffering=0) as full:
        full.write(b"x")
    assert isinstance(files.explain(caught.value, tmp_path, "a hint"), StorageFull)


class Slow(RequestHandler):
    """Begins to answer, and ends when it is told to."""

    async def get(self):
        self.settings["began"].set()
        await self.settings["go_on"].wait()
        self.finish(b"done")


def slow_application():
    return Application([("/slow", Slow)], began=asyncio.Event(), go_on=asyncio.Event(), log_function=lambda _: None)


async def ask(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
    return reader, writer


def serve_slowly(scenario):
    async def run():
        application, uses = slow_application(), []
        server = make_server(application, lambda: uses.append(1))
        sockets = bind("127.0.0.1", 0)
        server.add_sockets(sockets)
        reader, writer = await ask(sockets[0].getsockname()[1])
        await application.settings["began"].wait()
        assert server.in_flight == 1
        await scenario(server, application, reader, writer)
        assert server.in_flight == 0
        assert len(uses) == 2, "one at the begin, one at the end"
        writer.close()
        await server.drain(0, asyncio.Event())

    asyncio.run(run())


def test_a_request_is_in_flight_until_it_is_answered():
    async def scenario(server, application, reader, writer):
        application.settings["go_on"].set()
        assert (await reader.readuntil(b"done")).startswith(b"HTTP/1.1 200")
        await until(lambda: not server.in_flight)

    serve_slowly(scenario)


def test_a_client_that_goes_away_is_not_counted_for_ever():
    async def scenario(server, application, reader, writer):
        writer.close()
        await until(lambda: not server.in_flight)

    serve_slowly(scenario)


def test_draining_waits_for_a_request_in_flight():
    async def scenario(server, application, reader, writer):
        drained = asyncio.create_task(server.drain(30, asyncio.Event()))
        await asyncio.sleep(0.1)
        assert not drained.done()
        application.settings["go_on"].set()
        assert (await reader.readuntil(b"done")).startswith(b"HTTP/1.1 200")
        await drained

    serve_slowly(scenario)


@pytest.mark.parametrize(("seconds", "hurried"), [(0.1, False), (3600, True)])
def test_draining_ends(seconds, hurried):
    async def scenario(server, application, reader, writer):
        hurry = asyncio.Event()
        if hurried:
            hurry.set()
        await asyncio.wait_for(server.drain(seconds, hurry), 20)
        assert await reader.read() == b""

    serve_slowly(scenario)


async def until(condition):
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not happen")


def test_urls_of_sockets():
    for host, expected in [("127.0.0.1", "http://127.0.0.1:"), ("0.0.0.0", "http://127.0.0.1:")]:
        sockets = bind(host, 0)
        assert url_of(sockets).startswith(expected)
        for each in sockets:
            each.close()


def test_an_app_in_a_loop_of_ones_own(tmp_path):
    async def scenario():
        app = App(Settings(tmp_path, idle_seconds=0.1))
        await app.start()
        assert server_file.read(tmp_path).url == app.url
        await asyncio.wait_for(app.run(), 20)
        await app.stop()

    asyncio.run(scenario())
    assert not (tmp_path / "server.json").exists()
    with FileLock(tmp_path / "lock", timeout=0):
        pass


def test_an_app_that_cannot_listen_lets_go_of_everything(tmp_path):
    async def scenario():
        with pytest.raises(InvalidArgument, match="ports end at 65535"):
            await App(Settings(tmp_path, port=65536)).start()

    before = threading.active_count()
    asyncio.run(scenario())
    assert threading.active_count() == before
    with FileLock(tmp_path / "lock", timeout=0):
        pass
    assert not (tmp_path / "server.json").exists()


def test_options_that_make_no_sense(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--port", "many"])
    assert caught.value.code == 2
    assert "--port" in capsys.readouterr().err


@pytest.fixture
def logging_as_it_was():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers, root.level = handlers, level


def test_the_log_of_an_embedded_server_is_a_small_file(tmp_path, logging_as_it_was):
    log.configure(Settings(tmp_path, embedded=True))
    logging.getLogger("lmvp_server").info("a line")
    for _ in range(3):
        logging.getLogger("lmvp_server").info("x" * 700_000)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["server.log", "server.log.1"]


class Answer:
    def __init__(self, status, seconds):
        self.request = request_for("/api/v1/x?token=secret", Authorization="secret")
        self.request.request_time = lambda: seconds
        self.get_status = lambda: status


@pytest.mark.parametrize(("status", "seconds", "lines"), [(200, 0.1, 0), (404, 0.1, 0), (500, 0.1, 1), (200, 9, 1)])
def test_what_is_logged_of_requests(caplog, status, seconds, lines):
    caplog.set_level(logging.INFO)
    log.log_request(Answer(status, seconds))
    assert len(caplog.records) == lines
    assert "secret" not in caplog.text


def test_greeting_names_addresses_for_other_machines(tmp_path, capsys):
    import json
    import socket
    from types import SimpleNamespace

    from lmvp_server.__main__ import addresses, greet

    found = addresses("0.0.0.0", "http://127.0.0.1:8000")
    assert all(url.endswith(":8000") and "127.0.0.1" not in url for url in found)
    if socket.gethostname() != "localhost":
        assert f"http://{socket.gethostname()}:8000" in found
    assert addresses("127.0.0.1", "http://127.0.0.1:8000") == []
    settings = SimpleNamespace(data=tmp_path, host="0.0.0.0", embedded=False, public_url="")
    app = SimpleNamespace(settings=settings, url="http://127.0.0.1:8000", setup="code")
    greet(app)
    told = capsys.readouterr().out
    assert "at http://127.0.0.1:8000" in told
    assert all(url in told for url in found)
    greet(app, json=True)
    assert json.loads(capsys.readouterr().out)["addresses"] == found
    greet(app, quiet=True)
    assert capsys.readouterr().out == "http://127.0.0.1:8000/join?code=code\n"
