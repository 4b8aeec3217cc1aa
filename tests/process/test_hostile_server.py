"""A client and a server that lies: nothing false is returned, written outside the folder, or sent to another host."""

import argparse
import email.utils
import io
import json
import os
import socket
import threading
import time
from contextlib import contextmanager, redirect_stderr, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import distributions
from itertools import count, cycle, product

import numpy as np
import pytest
import requests
from IPython.lib.pretty import pretty
from support.soak import size

import lmvp
from lmvp import errors, local
from lmvp.cli import main
from lmvp.cli.parser import NOTEBOOK, make_parser, read
from lmvp.cli.shell import ShellHost
from lmvp.connection import Connection


class Lying(ThreadingHTTPServer):
    """A server that passes on what the real one answers, changed by `lie(path, status, headers, body)`.

    Attributes
    ----------
    heard : list of (path, headers)
        The requests that came.
    """

    daemon_threads = True

    def __init__(self, real):
        self.real, self.heard, self.lie = real, [], lambda path, *answer: answer
        super().__init__(("127.0.0.1", 0), Passing)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Passing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        self.server.heard.append((self.path, dict(self.headers)))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kept = {name: self.headers[name] for name in ("Authorization", "Content-Type") if name in self.headers}
        kept["Accept-Encoding"] = "identity"
        real = requests.request(self.command, self.server.real + self.path, data=body, headers=kept, timeout=30)
        told = {name: real.headers[name] for name in ("Content-Type", "LMVP-API") if name in real.headers}
        status, headers, body = self.server.lie(self.path, real.status_code, told, real.content)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": len(body)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

    def log_message(self, *_):
        pass


@contextmanager
def serving(server):
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def liar(home, tmp_path, monkeypatch):
    monkeypatch.setenv("LMVP_CACHE", str(tmp_path / "cache"))
    lmvp.update("digits/mlp", {"w": np.arange(100_000.0)}, progress=False)
    with serving(Lying(local.connection().url)) as server:
        yield server


@pytest.fixture
def client(liar, monkeypatch):
    monkeypatch.setattr("lmvp.connection.time.sleep", lambda _: None)  # between attempts
    return lmvp.Client(liar.url, local.connection().token)


def test_a_download_through_an_honest_proxy_works(client, liar):
    assert np.array_equal(client.download("digits/mlp", progress=False)["w"], np.arange(100_000.0))
    assert [path for path, _ in liar.heard if path.endswith("/chunks")]


def flipped(body, at):
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


def with_a_changed_chunk(at, path, status, headers, body):
    return status, headers, flipped(body, at % len(body)) if path.endswith("/chunks") else body


def test_a_changed_chunk_is_refused_and_leaves_no_file(client, liar, tmp_path):
    for at in (0, 5, 20, 60, 1000, -1):
        liar.lie = partial(with_a_changed_chunk, at)
        with pytest.raises(errors.LmvpError):
            client.download("digits/mlp", progress=False)
        with pytest.raises(errors.LmvpError):
            client.download("digits/mlp", to=tmp_path / "folder", progress=False)
        assert [path for path in (tmp_path / "folder").rglob("*") if path.is_file()] == []
    liar.lie = lambda path, *answer: answer
    assert np.array_equal(client.download("digits/mlp", progress=False)["w"], np.arange(100_000.0))


@pytest.mark.parametrize("coded", [False, True], ids=["raw", "coded"])
def test_changed_chunk_does_not_reach_the_tensors_of_the_caller(client, liar, monkeypatch, coded):
    monkeypatch.setattr("lmvp.transfer.download.VersionReader._better_coded", lambda _: coded)
    for at in (0, 20, 60, 1000, 400_000, -1):
        liar.lie = partial(with_a_changed_chunk, at)
        into = {"w": np.full(100_000, 7.0)}
        with pytest.raises(errors.LmvpError):
            client.download("digits/mlp", into=into, progress=False)
        assert (into["w"] == 7.0).all(), at
    liar.lie = lambda path, *answer: answer
    client.download("digits/mlp", into=into, progress=False)
    assert np.array_equal(into["w"], np.arange(100_000.0))


def test_damaged_download_leaves_old_and_sound_values_only(client, liar, monkeypatch):
    """A tensor over several chunks, of which one is damaged: each value is the old or the right one."""
    monkeypatch.setattr("lmvp.transfer.download.VersionReader._better_coded", lambda _: False)
    weights = np.random.default_rng(7).random(2_000_000)
    lmvp.update("digits/long", {"w": weights}, progress=False)
    liar.lie = partial(with_a_changed_chunk, -1000)
    into = {"w": np.full(len(weights), 7.0)}
    with pytest.raises(errors.IntegrityError, match="do not match its id"):
        client.download("digits/long", into=into, progress=False)
    assert ((into["w"] == 7.0) | (into["w"] == weights)).all()
    assert (into["w"] == 7.0).sum() >= 400_000


def with_cursor(cursors, path, status, headers, body):
    """Answer a list with one more page, whatever page it is."""
    if "limit=" in path:
        body = json.dumps({**json.loads(body), "next": next(cursors)}).encode()
    return status, headers, body


@pytest.mark.parametrize("call", ["projects", "tokens", "history"])
def test_cursor_that_is_repeated_is_an_error(client, liar, call):
    cursors = cycle(["5", "6"])
    liar.lie = partial(with_cursor, cursors)
    with pytest.raises(errors.ServerError, match="does not end: the server sends the same cursor again") as caught:
        client.show_history("digits/mlp") if call == "history" else getattr(client, call)()
    assert "LMVP_URL" in caught.value.hint
    assert len([path for path, _ in liar.heard if "limit=" in path]) <= 4


def test_list_without_an_end_is_an_error(client, liar, monkeypatch):
    monkeypatch.setattr("lmvp.client._base.PAGES_LIMIT", 5)
    liar.lie = partial(with_cursor, map(str, count(1)))
    with pytest.raises(errors.ServerError, match="it has more than 5 pages"):
        client.projects()
    assert len([path for path, _ in liar.heard if "limit=" in path]) == 5


def test_list_that_fills_the_memory_is_an_error(client, liar, monkeypatch):
    monkeypatch.setattr("lmvp.client._base.LIST_LIMIT", 3 << 20)
    projects = []

    def lie(path, status, headers, body):
        if "limit=" not in path:
            return status, headers, body
        projects.extend(json.loads(body)["items"])
        page = {"items": [{**projects[0], "description": "x" * (1 << 20)}], "next": str(len(liar.heard)), "total": 1}
        return status, headers, json.dumps(page).encode()

    liar.lie = lie
    with pytest.raises(errors.ServerError, match="it has more than 3 MiB"):
        client.projects()
    assert len([path for path, _ in liar.heard if "limit=" in path]) == 3


@contextmanager
def endless(head, piece):
    """Serve one request with a body that repeats a piece; yields the URL and the list of the lengths sent."""
    sent = []

    def serve(listening):
        with suppress(OSError), listening.accept()[0] as connection:
            connection.sendall(head)
            while len(sent) < 1000:
                connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
                sent.append(len(piece))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}", sent
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


CHUNKED = b"HTTP/1.1 200 OK\r\nLMVP-API: 1\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_line_without_an_end_is_an_error(monkeypatch):
    monkeypatch.setattr("lmvp.connection.LINE_LIMIT", 1 << 20)
    with endless(CHUNKED, b" " * (1 << 16)) as (url, sent):
        with pytest.raises(errors.ServerError, match="has a line of more than 1 MiB") as caught:
            lmvp.Client(url, "token").check()
        assert "LMVP_URL" in caught.value.hint
    assert len(sent) < 1000


def test_lines_of_an_answer_are_split_at_line_feeds_only():
    class Answer:
        def __init__(self, *pieces):
            self.pieces = pieces

        def iter_content(self, _size):
            return iter(self.pieces)

    pieces = b'{"a":', b'1}\r\n{"b"', b":2}\n\n", b'{"c": "\x0b\xc2\x85"}'
    assert list(Connection.lines(Answer(*pieces))) == [b'{"a":1}', b'{"b":2}', b"", b'{"c": "\x0b\xc2\x85"}']


def block_of(head):
    data = json.dumps(head).encode()
    return len(data).to_bytes(4, "little") + data + bytes(1000)


@pytest.mark.parametrize(
    "block",
    [
        b"\xff\xff\xff\xff" + bytes(1000),
        block_of({"key": "a", "rows": 1e300, "columns": [["step", "<i8"]]}),
        block_of({"key": "a", "rows": 10**11, "columns": [["step", "<i8"]]}),
        block_of({"key": "a", "rows": -1, "columns": [["step", "<i8"]]}),
        block_of({"key": "a", "rows": 1, "columns": [["step", "|O"]]}),
        block_of({"key": "a", "rows": 1, "columns": [["step", "V1000000000"]]}),
    ],
)
def test_block_of_points_that_fills_the_memory_is_an_error(client, liar, block):
    with lmvp.start_run("digits") as run:
        run.log({"loss": 1.0})
    found = client.run("digits", run.id)
    liar.lie = lambda path, status, headers, body: (
        status,
        headers,
        block + bytes(1 << 20) if "/export" in path else body,
    )
    with pytest.raises(errors.ServerError, match="cannot be read"):
        found.history()


def with_another_path(name, path, status, headers, body):
    if path.endswith("/manifest"):
        manifest = json.loads(body)
        manifest["files"][0]["path"] = name
        manifest["tensors"] = []
        body = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
    return status, headers, body


def test_a_path_out_of_the_folder_is_refused(client, liar, tmp_path):
    for name in ("../outside", "/etc/lmvp-outside", "a/../../outside", "a\\..\\outside", "C:x", ".."):
        liar.lie = partial(with_another_path, name)
        with pytest.raises(errors.LmvpError):
            client.download("digits/mlp", to=tmp_path / "folder", progress=False)
        assert [path.name for path in tmp_path.iterdir() if path.name not in {"home", "cache"}] == []


def test_another_version_than_the_digest_that_was_asked_for_is_refused(client, liar):
    first = lmvp.showHistory("digits/mlp")[0]
    lmvp.update("digits/mlp", {"w": np.ones(3)}, progress=False)

    def lie(path, status, headers, body):
        if first.digest[:12] in path:
            newest = requests.get(
                f"{liar.real}/api/v1/projects/digits/models/mlp/versions/latest",
                headers={"Authorization": f"Bearer {local.connection().token}"},
                timeout=30,
            )
            body = newest.content
        return status, headers, body

    assert client.version(f"digits/mlp@{first.digest[:12]}").number == 1
    liar.lie = lie
    with pytest.raises(errors.IntegrityError, match=f"not a version with the digest {first.digest[:12]}"):
        client.download(f"digits/mlp@{first.digest[:12]}", progress=False)


def redirected(target, status, ours, path, _status, headers, _body):
    return status, {**(headers if ours else {}), "Location": target + path}, b""


def test_a_redirect_takes_no_token_to_another_host(client, liar):
    with serving(Lying(liar.real)) as other:
        for status, ours in product((301, 302, 303, 307, 308), (True, False)):
            liar.lie = partial(redirected, other.url, status, ours)
            with pytest.raises(errors.LmvpError):
                client.projects()
        assert len(liar.heard) >= 10
        assert other.heard == []


def test_an_error_of_the_server_shows_no_control_characters(client, liar, capsys, monkeypatch):
    message = "gone\x1b]0;owned\x07\r\n\u202eevil"
    told = json.dumps({"error": {"code": "not_found", "message": message, "hint": message}}).encode()
    liar.lie = lambda path, status, headers, body: (404, headers, told)
    with pytest.raises(errors.NotFound) as caught:
        client.projects()
    monkeypatch.setenv("LMVP_URL", liar.url)
    monkeypatch.setenv("LMVP_TOKEN", local.connection().token)
    assert main(["ls"]) != 0
    for shown in (str(caught.value), capsys.readouterr().err):
        assert "gone" in shown
        assert "hint: gone" in shown
        assert not [letter for letter in shown if (letter < " " and letter != "\n") or letter == "\u202e"]


def test_a_warning_of_the_server_shows_no_control_characters(client, liar):
    liar.lie = lambda path, status, headers, body: (status, {**headers, "LMVP-Incomplete": "a\x1b]0;b\x07\x9bc"}, body)
    with pytest.warns(UserWarning, match="a") as caught:
        client.projects()
    assert all(str(one.message).isprintable() for one in caught)


def test_chunks_without_an_end_are_not_read_in_full_for_a_short_length(monkeypatch):
    """A body that is chunked counts by what comes, whatever `Content-Length` stands beside it."""
    monkeypatch.setattr("lmvp.connection.ANSWER_LIMIT", 1 << 20)
    piece, sent = b"10000\r\n" + bytes(1 << 16) + b"\r\n", []

    def serve(listening):
        connection = listening.accept()[0]
        head = b"HTTP/1.1 200 OK\r\nLMVP-API: 1\r\nContent-Length: 10\r\nTransfer-Encoding: chunked\r\n\r\n"
        with connection, suppress(OSError):
            connection.sendall(head)
            while len(sent) < 1000:
                connection.sendall(piece)
                sent.append(len(piece))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        client = lmvp.Client(f"http://127.0.0.1:{listening.getsockname()[1]}", "token")
        with pytest.raises(errors.ServerError, match="longer than 1 MiB"):
            client.projects()
        thread.join()
    assert len(sent) < 1000


def broken(value):
    """Return a JSON value in which every number and text is a list; an empty list gets an item."""
    if isinstance(value, dict):
        return {key: each if key in {"next", "total"} else broken(each) for key, each in value.items()}
    return [broken(each) for each in value] or [[1]] if isinstance(value, list) else [value]


VERBS = ["history digits/mlp", "history digits", "ls", "ls digits", "runs digits", "tokens", "audit list digits",
         "audit head", "users", "groups", "members digits", "show digits/mlp", "alias digits/mlp", "undelete",
         "contributions digits", "webhooks digits", "du digits/mlp", "fsck", "gc"]  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_answer_of_another_form_is_an_error_of_the_server(liar, verb, capsys, monkeypatch):
    monkeypatch.setenv("LMVP_URL", liar.url)
    monkeypatch.setenv("LMVP_TOKEN", local.connection().token)
    lies = []

    def lie(path, status, headers, body):
        if status != 200 or not body or "/manifest" in path:
            return status, headers, body
        lines = [line for line in body.splitlines() if line]
        lies.append(path)
        return status, headers, b"\n".join(json.dumps(broken(json.loads(line))).encode() for line in lines)

    with lmvp.start_run("digits") as run:
        run.log({"loss": 1.0})
    lmvp.alias("digits/mlp", "best")
    liar.lie = lie
    assert main(verb.split()) == errors.ServerError.exit_code
    shown = capsys.readouterr().err
    assert lies
    assert f"the answer of {liar.url} cannot be read" in shown
    assert "hint: check LMVP_URL" in shown


@pytest.mark.parametrize(
    "header", ["999999999", "61", pytest.param(email.utils.formatdate(time.time() + 86400, usegmt=True), id="tomorrow")]
)
def test_long_retry_after_is_an_error_at_once(client, liar, header, monkeypatch):
    waits = []
    monkeypatch.setattr("lmvp.connection.time.sleep", waits.append)
    liar.lie = lambda path, status, headers, body: (503, {**headers, "Retry-After": header}, b"")
    with pytest.raises(errors.ServerUnavailable, match=r"asks to wait [0-9,]+ s; the limit is 60 s"):
        client.projects()
    assert len(liar.heard) == 1
    assert waits == []


HOSTILE = "x\x1b]0;p\x07\x1b[2J\x9b31m\u061c\u200f\u2028\u2029\u202e\u2066\r\x08"
PRINTED = [*VERBS, "audit list digits --json", "show digits/mlp@v1", "diff digits/mlp@v1 digits/mlp@v2", "status",
           "pull digits/mlp", "runs digits --where status!=stale", "compare digits/first digits/second",
           "metrics digits/first", "rm digits/other --yes", "undelete digits/other", "members digits add ada",
           "amend digits/mlp@v1 --message new", "alias digits/mlp@v1 good", "alias digits/mlp best --history",
           "groups add team grace", "push digits/mlp FILE", "fork digits/mlp copy"]  # fmt: skip


PACKAGES = {one.metadata["Name"] for one in distributions()} - {"numpy", "lmvp"}
"""Names of installed packages, which a run records; all are printed alike, and one of them is in the test."""


def with_hostile(key, value, seen):
    """Return a JSON value in which every text, text in a list, and name of a mapping under a key is hostile."""
    if isinstance(value, list):
        return [with_hostile(key, each, seen) for each in value]
    if not isinstance(value, dict):
        return value
    seen.update(name for name in value if name not in PACKAGES)
    changed = {name: with_hostile(key, each, seen) for name, each in value.items()}
    old = value.get(key)
    if isinstance(old, str):
        changed[key] = HOSTILE
    elif isinstance(old, list) and all(isinstance(each, str) for each in old):
        changed[key] = [HOSTILE]
    elif isinstance(old, dict):
        changed[key] = {HOSTILE: HOSTILE, **{HOSTILE + name: each for name, each in old.items()}}
    return changed


def unprintable(text):
    return {letter for letter in text if letter in HOSTILE and (letter < " " or letter > "~")}


@pytest.fixture(scope="module")
def shared_liar(tmp_path_factory):
    """A project with something to print of each kind, for all verbs; a verb may change it."""
    folder = tmp_path_factory.mktemp("shared")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("LMVP_")]:
            patch.delenv(name)
        patch.setenv("LMVP_HOME", str(folder / "home"))
        patch.setenv("LMVP_CACHE", str(folder / "cache"))
        fields = {"metrics": {"acc": 0.5}, "params": {"lr": 0.1}, "tags": {"by": "ada"}}
        lmvp.update("digits/mlp", {"w": np.arange(1000.0)}, progress=False)
        lmvp.update("digits/mlp", {"w": np.ones(3)}, message="second", alias="best", **fields, progress=False)
        lmvp.update("digits/other", {"w": np.ones(2)}, progress=False)
        for name in ("first", "second"):
            with lmvp.start_run("digits", name=name, params={"lr": 0.1, "name": name}) as run:
                run.log({"loss": 1.0})
        try:
            with serving(Lying(local.connection().url)) as server:
                server.home, server.token = folder / "home", local.connection().token
                yield server
        finally:
            local.stop(folder / "home")


@pytest.fixture
def full_project(shared_liar, monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("LMVP_")]:
        monkeypatch.delenv(name)
    (tmp_path / "file").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LMVP_HOME", str(shared_liar.home))
    monkeypatch.setenv("LMVP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LMVP_URL", shared_liar.url)
    monkeypatch.setenv("LMVP_TOKEN", shared_liar.token)
    monkeypatch.setattr("lmvp.connection.time.sleep", lambda _: None)
    yield shared_liar
    shared_liar.lie = lambda path, *answer: answer


ALL_KEYS = size("LIES", 0) > 0
tested_keys = set()
"""Keys that a test of this process has made hostile; a sample leaves them out."""


def chosen(keys):
    """Return the keys that a verb is tested with: all in `make soak`, otherwise those that no test had before.

    Each verb has at least one key, and over all verbs each key is tested at least once.
    """
    some = sorted(keys if ALL_KEYS else keys - tested_keys) or sorted(keys)[:1]
    tested_keys.update(some)
    return some


@pytest.mark.soak
@pytest.mark.parametrize("verb", PRINTED)
def test_hostile_values_do_not_control_the_terminal(full_project, verb, capsys, tmp_path):
    words, keys = verb.replace("FILE", str(tmp_path / "file")).split(), set()

    def lie(key, path, status, headers, body):
        if not body or "/manifest" in path or "json" not in headers.get("Content-Type", ""):
            return status, headers, body
        lines = [with_hostile(key, json.loads(line), keys) for line in body.splitlines() if line]
        return status, headers, b"\n".join(json.dumps(line).encode() for line in lines)

    full_project.lie = partial(lie, "")
    main(words)
    assert keys, "no answer of the server has a key"
    for key in chosen(keys):
        full_project.lie = partial(lie, key)
        main(words)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        assert unprintable(captured.out + captured.err) == set(), key
        with redirect_stderr(io.StringIO()), suppress(errors.LmvpError, SystemExit):
            options = read(make_parser(NOTEBOOK, "%lmvp", argparse.ArgumentParser), words, NOTEBOOK)
            shown = pretty(options.act(options, ShellHost()))  # the text that IPython shows for the magic's result
            assert unprintable(shown) == set(), key


def test_audit_json_escapes_to_the_same_value(full_project, capsys):
    full_project.lie = lambda path, status, headers, body: (
        status, headers, json.dumps(with_hostile("what", json.loads(body), set())).encode()
    )  # fmt: skip
    assert main(["audit", "list", "digits", "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {json.loads(line)["what"] for line in lines} == {HOSTILE}
