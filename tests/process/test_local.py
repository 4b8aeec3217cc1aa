"""Real processes: one server per data folder, whatever else lies or sits there."""

import contextlib
import errno
import http.client
import http.server
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

from lmvp import local
from lmvp.cli.tables import Status
from lmvp.client.models import Client
from lmvp.core import server_file
from lmvp.core.schemas import Health
from lmvp.core.schemas.runs import Applied
from lmvp.errors import InvalidArgument, LmvpError, ServerUnavailable, StorageFull, StorageReadOnly
from lmvp_jupyter.upstream import Exchange, Upstream

SERVER = [sys.executable, "-m", "lmvp_server"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    folder = tmp_path / "home"
    monkeypatch.setenv("LMVP_HOME", str(folder))
    yield folder
    forget_all()
    said = server_file.read(folder)
    if said and said.pid != os.getpid() and is_server(said.pid):
        os.kill(said.pid, signal.SIGKILL)


def forget_all():
    local._known.clear()


def is_server(pid):
    try:
        return "lmvp_server" in " ".join(psutil.Process(pid).cmdline())
    except psutil.NoSuchProcess:
        return False


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def ended(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def leave_behind(home, **changes):
    """Write the `server.json` of a server that is no longer there."""
    content = server_file.ServerFile(
        **{
            "url": "http://127.0.0.1:9",
            "token": "old-token",
            "pid": dead_pid(),
            "host": socket.gethostname(),
            "boot": server_file.boot_id(),
            "instance": "0" * 32,
            "version": "0.0.1",
            **changes,
        }
    )
    home.mkdir(exist_ok=True)
    server_file.write(home, content)
    return content


def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def get(url, path="/api/v1/health", **headers):
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


def test_ten_processes_at_once_get_one_server(home):
    code = "from lmvp import local; c = local.find_or_start(); print(c.pid, c.instance, c.url)"
    callers = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(10)]
    answers = {caller.communicate(timeout=60)[0] for caller in callers}
    assert [caller.returncode for caller in callers] == [0] * 10
    assert len(answers) == 1
    pid = int(answers.pop().split()[0])
    assert pid == local.find(home).pid
    servers = [p.pid for p in psutil.process_iter(["cmdline"]) if str(home) in (p.info["cmdline"] or [])]
    assert servers == [pid]


def test_what_a_start_leaves_in_the_folder_and_in_the_caller(home):
    children = psutil.Process().children()
    found = local.connection()
    assert local.connection() is found
    assert psutil.Process().children() == children, "no child, so no zombie"
    assert os.getsid(found.pid) != os.getsid(0), "an interrupt in the notebook does not reach it"
    assert found.token not in repr(found)
    assert stat.S_IMODE((home / "server.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert json.loads((home / "format.json").read_text()) == {"format": 1}
    assert not (home / "token").exists(), "an embedded server has a new token each time"
    assert found.token not in (home / "server.log").read_text()
    assert local.stop(home) is True
    assert not (home / "server.json").exists()
    wait_for(lambda: ended(found.pid))  # its lock is freed a moment before it is gone
    assert local.stop(home) is False
    assert local.connection().instance != found.instance


def test_it_outlives_the_process_that_started_it_and_its_group(home):
    code = "from lmvp import local; print(local.find_or_start().pid, flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], start_new_session=True, text=True, **pipes) as caller:
        pid = int(caller.stdout.readline())
        os.killpg(caller.pid, signal.SIGKILL)
    assert local.find(home).pid == pid


def test_a_killed_server_has_a_successor(home):
    first = local.connection()
    os.kill(first.pid, signal.SIGKILL)
    wait_for(lambda: ended(first.pid))
    assert (home / "server.json").exists()
    local.forget(first)
    second = local.connection()
    assert second.pid != first.pid
    assert second.token != first.token


@pytest.mark.parametrize("pid", ["dead", "recycled"])
def test_the_file_of_a_server_long_gone_is_not_believed(home, pid):
    old = leave_behind(home, **({} if pid == "dead" else {"pid": os.getpid()}))
    assert local.find(home) is None
    assert local.find_or_start(home).instance != old.instance


def test_a_file_from_before_the_last_boot_is_not_believed(home):
    found = local.find_or_start(home)
    said = server_file.read(home)
    server_file.write(home, server_file.ServerFile(**{**as_dict(said), "boot": "another"}))
    assert local.find(home) is None
    server_file.write(home, said)
    assert local.find(home) == found


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"url": 3}', b"\xff\xfe"])
def test_a_damaged_file_is_no_file(home, content):
    home.mkdir()
    (home / "server.json").write_bytes(content)
    assert local.find(home) is None


def test_the_right_server_under_another_instance_is_not_taken(home):
    local.find_or_start(home)
    said = server_file.read(home)
    server_file.write(home, server_file.ServerFile(**{**as_dict(said), "instance": "f" * 32}))
    assert local.find(home) is None


def as_dict(struct):
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


@pytest.fixture
def stranger():
    """A server of somebody else on a port; it answers with `body`, and keeps what it was sent."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            server.heard.append(self.path + str(self.headers))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(server.body)

        def log_message(self, *args):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    server.heard, server.body = [], b"<html>It works!</html>"
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_stranger_on_the_port_gets_no_token(home, stranger):
    old = leave_behind(home, url=stranger.url)
    found = local.find_or_start(home)
    assert found.url != stranger.url
    assert stranger.heard
    assert old.token not in "".join(stranger.heard)


def test_a_stranger_who_repeats_an_old_proof_is_not_believed(home, stranger):
    first = local.find_or_start(home)
    said = server_file.read(home)
    nonce = "0123456789abcdef"
    status, stranger.body = get(first.url, f"/api/v1/health?nonce={nonce}")
    assert status == 200
    assert json.loads(stranger.body)["proof"]
    server_file.write(home, server_file.ServerFile(**{**as_dict(said), "url": stranger.url}))
    assert local.find(home) is None
    server_file.write(home, said)


@pytest.fixture
def mute():
    """A port where somebody listens and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        yield f"http://127.0.0.1:{silent.getsockname()[1]}"


@pytest.mark.parametrize("pid", ["dead", "recycled"])
def test_a_port_where_nobody_ever_answers_is_not_waited_for(home, mute, monkeypatch, pid):
    monkeypatch.setattr(local, "_PATIENCE", (0.2, 60.0))
    leave_behind(home, url=mute, **({} if pid == "dead" else {"pid": os.getpid()}))
    assert local.find(home) is None
    found = local.find_or_start(home)
    assert found.url != mute


def test_ten_processes_at_a_mute_port_get_one_server(home, mute):
    old = leave_behind(home, url=mute, pid=os.getpid())
    code = "from lmvp import local; print(local.find_or_start().instance)"
    callers = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(10)]
    answers = {caller.communicate(timeout=60)[0].strip() for caller in callers}
    assert [caller.returncode for caller in callers] == [0] * 10
    assert answers == {local.find(home).instance}
    assert old.instance not in answers


def test_a_server_that_was_stopped_is_named_and_found_again_when_it_goes_on(home, server, monkeypatch):
    monkeypatch.setattr(local, "_PATIENCE", (0.1, 0.2))
    os.kill(server.pid, signal.SIGSTOP)
    try:
        for call in (local.find_or_start, local.find, local.stop):
            with pytest.raises(ServerUnavailable, match="is there, but does not answer") as caught:
                call(home)
            assert str(server.pid) in caught.value.hint
        assert "is there, but does not answer" in repr(Status.now())
    finally:
        os.kill(server.pid, signal.SIGCONT)
    monkeypatch.setattr(local, "_PATIENCE", (5.0,))
    assert local.find(home).pid == server.pid


def test_a_slow_answer_is_waited_for_as_long_as_the_lock_is_held(home, server, monkeypatch):
    monkeypatch.setattr(local, "_PATIENCE", (0.1, 20.0))
    os.kill(server.pid, signal.SIGSTOP)
    threading.Timer(0.5, os.kill, (server.pid, signal.SIGCONT)).start()
    assert local.find(home).pid == server.pid


def test_a_server_on_another_machine_is_an_error_until_it_is_long_gone(home):
    leave_behind(home, host="node17", boot="another")
    with pytest.raises(ServerUnavailable, match="another machine, node17") as caught:
        local.connection()
    assert "LMVP_URL" in caught.value.hint
    long_ago = time.time() - 3600
    os.utime(home / "server.json", (long_ago, long_ago))
    assert local.find(home) is None


def test_this_machine_under_another_name_is_still_this_machine(home):
    found = local.find_or_start(home)
    said = server_file.read(home)
    server_file.write(home, server_file.ServerFile(**{**as_dict(said), "host": "renamed"}))
    assert local.find(home) == found


def test_it_ends_when_it_is_idle_and_comes_back(home):
    command = [*SERVER, "--embedded", "--detach", "--idle", "1", "--data", str(home)]
    assert subprocess.run(command, check=False, timeout=30).returncode == 0
    first = local.find(home)
    with slow_request(first.url):
        time.sleep(1.5)
        assert not ended(first.pid), "a request is in flight"
    wait_for(lambda: ended(first.pid))
    assert not (home / "server.json").exists()
    assert "not used for" in (home / "server.log").read_text()
    assert local.find_or_start(home).pid != first.pid


class slow_request:
    """A request whose body does not end before `finish`."""

    def __init__(self, url):
        host, port = url.removeprefix("http://").split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=20)
        self.socket.sendall(b"GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nab")
        time.sleep(0.1)  # the headers must have been read

    def finish(self):
        self.socket.sendall(b"cd")
        return self.socket.recv(1 << 16)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.socket.close()


def start(home, *options, **popen):
    process = subprocess.Popen(
        [*SERVER, "--data", str(home), *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **popen
    )
    process.greeting = "".join(process.stdout.readline() for _ in range(3))
    assert process.greeting.startswith("LMVP"), process.communicate(timeout=10)
    return process


@pytest.fixture
def server(home):
    with start(home) as process:
        yield process
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_in_flight_is_finished_at_the_end(home, server, number):
    url = server_file.read(home).url
    with slow_request(url) as request:
        server.send_signal(number)
        wait_for(lambda: not (home / "server.json").exists())
        with pytest.raises(OSError):
            wait_for(lambda: get(url) and False)
        assert server.poll() is None
        assert request.finish().startswith(b"HTTP/1.1 200")
    assert server.wait(10) == 0


def test_a_second_interrupt_does_not_wait(home, server):
    with slow_request(server_file.read(home).url):
        server.send_signal(signal.SIGINT)
        wait_for(lambda: not (home / "server.json").exists())
        server.send_signal(signal.SIGINT)
        assert server.wait(10) == 0


def test_a_token_is_kept_over_restarts_and_never_shown(home):
    tokens, shown = set(), ""
    for _ in range(2):
        with start(home) as process:
            tokens.add(server_file.read(home).token)
            process.terminate()
            shown += process.greeting + "".join(process.communicate(timeout=10))
            assert process.returncode == 0
    (token,) = tokens
    assert (home / "token").read_text().strip() == token
    assert stat.S_IMODE((home / "token").stat().st_mode) == 0o600
    assert token not in shown
    assert str(home / "token") in shown


def refused(home, *options):
    answer = subprocess.run(
        [*SERVER, "--data", str(home), *options], capture_output=True, text=True, timeout=30, check=False
    )
    assert "Traceback" not in answer.stderr
    return answer


def test_a_second_server_of_the_same_folder_is_refused(home, server):
    answer = refused(home)
    assert answer.returncode == 4
    assert f"{home} is in use by the server at {server_file.read(home).url} (pid {server.pid}" in answer.stderr
    assert "--data" in answer.stderr
    assert local.find(home).pid == server.pid


def test_server_that_starts_by_itself_is_found_when_the_start_of_another_fails(home, server, monkeypatch):
    """A process that is killed while it starts a server leaves that server starting: it has the folder, and no file."""
    hidden = home / "server.json.hidden"
    (home / "server.json").rename(hidden)
    run_detached = local._run_detached

    def fail_while_the_other_announces_itself(folder, log):
        hidden.rename(home / "server.json")
        return run_detached(folder, log) or 1

    monkeypatch.setattr(local, "_run_detached", fail_while_the_other_announces_itself)
    monkeypatch.setattr(local, "_LAUNCH", "import sys; sys.exit(3)")
    assert local.find_or_start(home).pid == server.pid


def test_a_taken_port_is_named(home, server, tmp_path):
    port = server_file.read(home).url.rsplit(":", 1)[1]
    answer = refused(tmp_path / "second", "--port", port)
    assert answer.returncode == 2
    assert f"cannot listen on port {port} of 127.0.0.1: Address already in use" in answer.stderr
    assert not (tmp_path / "second" / "server.json").exists()


@pytest.mark.parametrize("options", [("--host", "no.such.host.invalid"), ("--port", "70000"), ("--port", "-1")])
def test_an_address_that_does_not_exist_is_named(home, options):
    answer = refused(home, *options)
    assert answer.returncode == 2
    assert "cannot listen on port" in answer.stderr


def test_a_folder_of_a_newer_version_is_refused(home):
    home.mkdir()
    (home / "format.json").write_text('{"format": 2}')
    answer = refused(home)
    assert answer.returncode == 8
    assert "format 2; this version of lmvp reads up to 1" in answer.stderr
    (home / "format.json").write_text("{")
    assert "format.json is damaged" in refused(home).stderr


def test_a_server_that_does_not_start_says_why(home):
    home.mkdir()
    (home / "server.log").write_text("an older line\n")
    (home / "format.json").write_text('{"format": 2}')
    before = psutil.Process().children()
    with pytest.raises(ServerUnavailable, match=r"did not start: lmvp server: .* has format 2") as caught:
        local.find_or_start(home)
    assert "an older line" not in str(caught.value)
    assert psutil.Process().children() == before


def test_a_full_disk_is_told_when_a_server_should_start(home):
    home.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(home)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk can be mounted by root on Linux only")
    try:
        with (home / "filler").open("wb", buffering=0) as filler:
            filler.write(bytes(1 << 20))  # as much of it as there is room for
        assert shutil.disk_usage(home).free == 0
        with pytest.raises(StorageFull, match="no room on the disk") as caught:
            local.find_or_start(home)
        assert "free some space" in caught.value.hint
    finally:
        subprocess.run(["umount", "-l", str(home)], check=True)


def test_a_home_that_is_no_folder_is_named(home):
    home.write_text("")
    with pytest.raises(InvalidArgument, match="is not a folder") as caught:
        local.connection()
    assert "LMVP_HOME" in caught.value.hint


def test_a_home_where_nobody_may_write_is_named(home, monkeypatch):
    monkeypatch.setenv("LMVP_HOME", "/proc/lmvp")
    with pytest.raises(StorageReadOnly, match="cannot write in /proc/lmvp") as caught:
        local.connection()
    assert "LMVP_HOME" in caught.value.hint


def test_an_embedded_server_waits_for_the_one_before(home):
    home.mkdir()
    with FileLock(home / "lock", thread_local=False) as held:
        threading.Timer(1.0, held.release, ()).start()  # as one that still finishes its requests
        assert local.find_or_start(home)


def test_a_lost_server_json_is_written_again_and_a_lost_folder_ends_the_server(home, tmp_path):
    with start(home, "--idle", "4") as process:
        said = server_file.read(home)
        (home / "server.json").unlink()
        wait_for(lambda: server_file.read(home) == said)
        home.rename(tmp_path / "elsewhere")
        assert process.wait(20) == 0
        assert "was taken away" in process.communicate()[1]


def test_proxies_are_not_asked(home, monkeypatch, stranger):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, stranger.url)
    assert local.find_or_start(home)
    assert stranger.heard == []


def test_lmvp_need_not_be_installed(home, tmp_path, monkeypatch):
    """As in a notebook beside the sources, where only its own `sys.path` knows the packages."""
    root = str(Path(local.__file__).resolve().parent.parent)
    code = f"import sys; sys.path.insert(0, {root!r}); from lmvp import local; print(local.find_or_start().pid)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert is_server(int(answer.stdout))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:80", "127.9.9.9", "[::1]", "[::1]:8000", "LOCALHOST:1"])
def test_hosts_of_this_machine_are_served(server, home, host):
    assert get(server_file.read(home).url, Host=host)[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example:80", "10.0.0.1", "[2001:db8::1]", "0.0.0.0", "127.0.0.1.nip.io"]
)
def test_foreign_hosts_are_refused(server, home, host):
    status, body = get(server_file.read(home).url, Host=host)
    assert status == 403
    assert json.loads(body)["error"]["code"] == "access_denied"


@pytest.mark.parametrize("nonce", ["abc", "x" * 16, "A" * 16, "a" * 129])
def test_a_bad_nonce_is_refused(server, home, nonce):
    assert get(server_file.read(home).url, f"/api/v1/health?nonce={nonce}")[0] == 400


@pytest.fixture
def thief():
    """A process of another account that takes the port of a server that has ended, and answers as asked."""
    takers = []

    def take(url, answer=None):
        port = int(url.rpartition(":")[2])
        taker = Thief(port, answer)
        takers.append(taker)
        return taker

    yield take
    for taker in takers:
        taker.close()


class Thief(http.server.ThreadingHTTPServer):
    """Answers every request with acknowledgements, or as `answer(path)` says; keeps all that it received."""

    daemon_threads = True

    def __init__(self, port, answer):
        thief = self
        self.heard = []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _reply(self):
                length = int(self.headers.get("Content-Length") or 0)
                thief.heard.append(f"{self.command} {self.path}\n{self.headers}\n{self.rfile.read(length)}")
                body = answer(self.path) if answer else b'{"applied": 1000000, "items": [], "total": 0}'
                self.send_response(200)
                self.send_header("LMVP-API", "1")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_PUT = do_POST = do_HEAD = _reply

            def log_message(self, *args):
                pass

        super().__init__(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self):
        self.shutdown()
        self._thread.join()
        self.server_close()

    def learned(self):
        """Return what a stranger must not learn: the requests that are no plain question for a proof."""
        return [
            one
            for one in self.heard
            if "authorization" in one.lower() or not one.startswith("GET /api/v1/health?nonce=")
        ]


def end(found):
    os.kill(found.pid, signal.SIGKILL)
    wait_for(lambda: ended(found.pid))


def ask_as_client(connection):
    assert [one.name for one in Client().projects()] == []


def ship_a_run(connection):
    applied = connection.once(
        "PUT", f"/projects/p/runs/{'a' * 32}/writers/{'b' * 32}", Applied, timeout=30, data=b"secret"
    )
    raise AssertionError(f"a server that cannot read this acknowledged {applied}")


def upload(connection):
    connection.send("POST", "/projects", data=b"secret" * 1000)


def rob(home, thief, use):
    """Use the server, end it, and let the thief take its port; again if somebody else took the port meanwhile."""
    while True:
        first = local.connection()
        use()
        end(first)
        try:
            return first, thief(first.url)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            local.forget(first)


@pytest.mark.parametrize("call", [ask_as_client, ship_a_run, upload])
def test_client_sends_neither_token_nor_data_to_a_process_that_took_the_port(home, thief, call):
    connection = Client()._connection
    first, taken = rob(home, thief, lambda: connection.get("/health", Health))
    with contextlib.suppress(LmvpError):
        call(connection)  # one attempt of a shipper fails, a request of a client finds the successor
    assert taken.heard, "the client does ask there"
    assert taken.learned() == []
    assert connection.get("/health", Health).instance == local.find(home).instance != first.instance


def test_proxy_of_jupyter_sends_no_token_to_a_process_that_took_the_port(home, thief):
    upstream = Upstream()

    def ask(method, path, body=b""):
        exchange = Exchange()
        upstream.ask(exchange, method, path, {"Content-Type": "application/json"}, body)
        exchange.close()
        return exchange.response.status

    _, taken = rob(home, thief, lambda: ask("GET", "/api/v1/me"))
    assert ask("POST", "/api/v1/projects", b'{"name": "secret"}') == 201, "the successor answers"
    upstream.close()
    assert taken.heard
    assert taken.learned() == []


def test_client_believes_no_proof_that_is_relayed_from_the_successor(home, thief):
    """A server started by hand keeps its token, so the successor could prove that it knows it."""
    connection, relayed = Client()._connection, []

    def relay(path):
        _, body = get(server_file.read(home).url, path)
        relayed.append(json.loads(body) | {"instance": first.instance})
        return json.dumps(relayed[-1]).encode()

    while True:
        with start(home) as old:
            first = local.find(home)
            assert connection.get("/health", Health).instance == first.instance
            old.kill()
            old.communicate()
        try:
            taken = thief(first.url, relay)
            break
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            forget_all()
            connection = Client()._connection
    with start(home) as successor:
        assert connection.get("/health", Health).instance == server_file.read(home).instance != first.instance
        assert relayed[0]["proof"], "the relay works"
        assert taken.learned() == []
        successor.kill()
        successor.communicate()


def test_client_proves_each_connection_once(home, monkeypatch):
    from lmvp import local_session

    proofs = []
    monkeypatch.setattr(local_session, "prove", lambda *place: proofs.append(place) or local.prove(*place))
    connection = Client()._connection
    for _ in range(20):
        connection.get("/health", Health)
    assert len(proofs) == 1
