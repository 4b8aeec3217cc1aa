"""Rights that end while a request goes on: each reader's are looked up again, and nobody else's stream ends."""

import json
import re
import secrets
import socket
import threading
import time

import msgspec
import pytest
import requests
from support.in_process import TOKEN, Served

from lmvp.core import chunk_frames, digest
from lmvp.core.chunk_frames import Frame
from lmvp_server.api import base, sse

RUN = "a" * 32
LIVE = "/projects/p/metrics/live"


def until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        for module in (base, sse):
            patch.setattr(module, "RECHECK", 0.2)
        with Served(tmp_path_factory.mktemp("rights") / "data", public_url="") as served:
            assert served("POST", "/projects", json={"name": "p"}).ok
            assert served("POST", "/projects/p/runs", json={"run": RUN}).ok
            yield served


class Reader(threading.Thread):
    """Follows the run until the stream ends, as a token or as a browser with a session."""

    def __init__(self, served, token=None, session=None):
        super().__init__(daemon=True)
        self.steps, self.end, self.ended, self.leaves = [], None, False, False
        if session is not None:
            self.answer = session.get(f"{served.url}/p/p/-/live?run={RUN}", stream=True, timeout=30)
        else:
            self.answer = served("GET", LIVE, token, params={"run": RUN}, stream=True)
        assert self.answer.status_code == 200, self.answer.text
        self.start()

    def run(self):
        name = b""
        for line in self.answer.iter_lines(chunk_size=1):
            if line.startswith(b"event: "):
                name = line[7:]
            if line.startswith(b"data: "):
                data = json.loads(line[6:])
                if name == b"end":
                    self.end = data
                for one in data.get("curves", ()):
                    self.steps += one["steps"]
            if self.leaves:
                return self.answer.close()
        self.ended = True
        return None


class Points:
    """Logs points, each with a step of its own."""

    def __init__(self, served):
        self.served, self.step = served, 0

    def __call__(self):
        self.step += 1
        answer = self.served("POST", f"/projects/p/runs/{RUN}/metrics", json={"values": {"x": 1.0}, "step": self.step})
        assert answer.ok, answer.text
        return self.step


@pytest.fixture(scope="module")
def points(served):
    return Points(served)


def signed_in(served, name):
    session = requests.Session()
    page = session.get(f"{served.url}/login", timeout=9).text
    form = {"_xsrf": re.search(r'name="_xsrf" value="(\w+)"', page)[1], "name": name}
    answer = session.post(f"{served.url}/login", {**form, "password": f"{name} has a long one"}, allow_redirects=False)
    assert answer.status_code == 303
    return session


def sign_out(served, session):
    page = session.get(f"{served.url}/p/p", timeout=9).text
    form = {"_xsrf": re.search(r'name="_xsrf" value="(\w+)"', page)[1]}
    assert session.post(f"{served.url}/logout", form, timeout=9).ok


ENDS = {
    "token revoked": lambda ask, made, name: ask("DELETE", f"/tokens/{made['id']}"),
    "account disabled": lambda ask, made, name: ask("PATCH", f"/users/{name}", json={"disabled": True}),
    "member removed": lambda ask, made, name: ask("DELETE", f"/projects/p/members/{name}"),
}


@pytest.mark.parametrize("by_session", [False, True], ids=["token", "session"])
@pytest.mark.parametrize("how", ENDS)
def test_stream_ends_with_the_right_of_its_reader_alone(served, points, how, by_session):
    if by_session and how == "token revoked":
        how = "signed out"
    name = f"u{secrets.token_hex(4)}"
    made = served.user(name, "viewer")
    session = signed_in(served, name) if by_session else None
    first = Reader(served, made["token"], session)  # it asks for each event first
    others = [Reader(served, TOKEN) for _ in range(3)]
    step = points()
    until(lambda: all(step in one.steps for one in (first, *others)))
    if how == "signed out":
        sign_out(served, session)
    else:
        assert ENDS[how](served, made, name).ok
    late = [points() for _ in range(5)]
    until(lambda: all(set(late) <= set(one.steps) for one in others))
    until(lambda: first.ended)
    assert not set(late) & set(first.steps)
    assert first.end["code"] in {"not_authenticated", "not_found", "access_denied"}
    assert not any(one.ended for one in others)
    leave(points, *others)


def leave(points, *readers):
    for one in readers:
        one.leaves = True
    points()
    for one in readers:
        one.join(10)


def test_idle_stream_ends_with_the_right_of_its_reader(served):
    made = served.user("idle", "viewer")
    reader = Reader(served, made["token"])
    assert served("PATCH", "/users/idle", json={"disabled": True}).ok
    until(lambda: reader.ended, 3)
    assert reader.end["code"] == "not_authenticated"


def test_stream_of_nobody_ends_when_the_project_is_public_no_more(served, points):
    assert served("PATCH", "/projects/p", json={"public": True}).ok
    reader, other = Reader(served, ""), Reader(served, TOKEN)
    step = points()
    until(lambda: step in reader.steps)
    assert served("PATCH", "/projects/p", json={"public": False}).ok
    late = points()
    until(lambda: late in other.steps)
    until(lambda: reader.ended)
    assert late not in reader.steps
    leave(points, other)


def test_stream_ends_with_its_project_though_another_takes_the_name(served):
    def make():
        assert served("POST", "/projects", json={"name": "short"}).ok
        assert served("POST", "/projects/short/runs", json={"run": RUN}).ok

    make()
    answer = served("GET", "/projects/short/metrics/live", params={"run": RUN}, stream=True)
    assert served("DELETE", "/projects/short").ok
    make()
    got = b"".join(answer.iter_content(None))
    assert b"event: end" in got


def test_stream_ends_when_its_run_is_deleted(served):
    run = "c" * 32
    assert served("POST", "/projects/p/runs", json={"run": run}).ok
    ended = {"status": "finished", "ended_at": "2026-11-26T20:00:00Z"}
    assert served("POST", f"/projects/p/runs/{run}/end", json=ended).ok
    answer = served("GET", LIVE, params={"run": [run, RUN]}, stream=True)
    assert served("DELETE", f"/projects/p/runs/{run}").ok
    assert served("POST", f"/projects/p/runs/{RUN}/metrics", json={"values": {"x": 1.0}}).ok
    assert b"event: end" in b"".join(answer.iter_content(None))


# -- long transfers


@pytest.fixture(scope="module")
def model(served):
    """A version of 24 MB, which no socket buffer holds."""
    assert served("POST", "/projects/p/models", json={"name": "m"}).ok
    parts = [secrets.token_bytes(4 << 20) for _ in range(6)]
    ids = [digest.of_bytes(part) for part in parts]
    file = {
        "path": "w.bin", "size": 24 << 20, "digest": digest.of_chunks(ids),
        "chunks": [[one, 4 << 20] for one in ids],
    }  # fmt: skip
    manifest = {"files": [file], "format": "files", "lmvp": 1, "meta": {}, "parents": [], "tensors": []}
    push = "b" * 32
    assert served("POST", "/projects/p/models/m/pushes", json={"push": push, "manifest": manifest}).ok
    for one, part in zip(ids, parts, strict=True):
        body = chunk_frames.header(Frame(one, len(part), len(part))) + part
        assert served("PUT", f"/projects/p/models/m/pushes/{push}/chunks", data=body).ok
    assert served("POST", f"/projects/p/models/m/pushes/{push}/commit").ok
    return ids


class Slow:
    """A client that asks for something and reads the answer slowly."""

    def __init__(self, served, method, path, token, body=b""):
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        self.socket.connect(("127.0.0.1", served.port))
        head = f"{method} /api/v1{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
        self.socket.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        self.head = self.socket.recv(4096)

    def rest(self):
        got = self.head
        with self.socket:
            while True:
                try:
                    piece = self.socket.recv(1 << 20)
                except ConnectionResetError:
                    return got
                if not piece:
                    return got
                got += piece


@pytest.fixture
def short(served, model):
    """The name of a project with a version of 24 MB, and a function that puts another project of the name in its place.

    The other one belongs to the reader, who may not read the first one any more.
    """
    name, reader = f"short-{secrets.token_hex(3)}", f"r{secrets.token_hex(4)}"
    assert served("POST", "/projects", json={"name": name}).ok
    assert served("POST", "/projects/p/models/m/fork", json={"to": f"{name}/m"}).ok
    token = served.user(reader, "viewer", name)["token"]

    def replace():
        assert served("DELETE", f"/projects/{name}").ok
        assert served("POST", "/projects", token, json={"name": name}).ok
        assert served("POST", f"/projects/{name}/models", token, json={"name": "m"}).ok

    return name, reader, token, replace


@pytest.mark.parametrize("what", ["file", "chunks"])
def test_download_breaks_off_though_another_project_takes_the_name(served, model, short, what):
    name, _, token, replace = short
    if what == "file":
        slow = Slow(served, "GET", f"/projects/{name}/models/m/versions/1/files/w.bin", token)
    else:
        body = msgspec.json.encode({"want": model})
        slow = Slow(served, "POST", f"/projects/{name}/models/m/versions/1/chunks", token, body)
    assert slow.head.startswith(b"HTTP/1.1 200 ")
    replace()
    time.sleep(0.3)  # more than RECHECK
    assert len(slow.rest()) < 24 << 20


def test_progress_ends_though_another_project_takes_the_name(served, short, monkeypatch):
    name, _, token, replace = short
    release = threading.Event()
    monkeypatch.setattr(type(served.services.tensor_changes), "measured", lambda *_: release.wait(20))
    answer = served("POST", f"/projects/{name}/models/m/versions/1/changes", token, json={"against": "v1"}, stream=True)
    lines = answer.iter_lines(chunk_size=1)
    assert b"done" in next(lines)
    replace()
    try:
        assert json.loads(list(lines)[-1])["error"]["code"] == "not_found"
    finally:
        release.set()


def test_push_ends_though_another_project_takes_the_name(served, short):
    name, reader, token, replace = short
    assert served("PUT", f"/projects/{name}/members/{reader}", json={"role": "maintainer"}).ok
    part = secrets.token_bytes(1 << 20)
    one = digest.of_bytes(part)
    file = {"path": "w.bin", "size": 1 << 20, "digest": digest.of_chunks([one]), "chunks": [[one, 1 << 20]]}
    manifest = {"files": [file], "format": "files", "lmvp": 1, "meta": {}, "parents": [], "tensors": []}
    path = f"/projects/{name}/models/m/pushes"
    assert served("POST", path, token, json={"push": "9" * 32, "manifest": manifest}).ok
    body = chunk_frames.header(Frame(one, len(part), len(part))) + part
    with socket.create_connection(("127.0.0.1", served.port), 10) as slow:
        head = f"PUT /api/v1{path}/{'9' * 32}/chunks HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
        slow.sendall(f"{head}Authorization: Bearer {token}\r\n\r\n".encode() + body[:1000])
        until(lambda: served.app._server.in_flight > 0)
        replace()
        time.sleep(0.3)
        slow.sendall(body[1000:])
        assert slow.recv(1000).startswith(b"HTTP/1.1 404 ")


def disable(served, name):
    assert served("PATCH", f"/users/{name}", json={"disabled": True}).ok


@pytest.mark.parametrize("what", ["file", "chunks", "backup"])
def test_download_breaks_off_when_its_reader_is_disabled(served, model, what):
    name = f"d{secrets.token_hex(4)}"
    made = served.user(name, "viewer", admin=what == "backup")
    if what == "file":
        slow = Slow(served, "GET", "/projects/p/models/m/versions/1/files/w.bin", made["token"])
    elif what == "chunks":
        body = msgspec.json.encode({"want": model})
        slow = Slow(served, "POST", "/projects/p/models/m/versions/1/chunks", made["token"], body)
    else:
        backup = served("POST", "/backups", made["token"]).json()
        space = next(one["space"] for one in backup["spaces"] if one["name"] == "p")
        path, body = f"/backups/{backup['id']}/chunks/{space}", msgspec.json.encode({"want": model})
        slow = Slow(served, "POST", path, made["token"], body)
    assert slow.head.startswith(b"HTTP/1.1 200 ")
    disable(served, name)
    time.sleep(0.3)  # more than RECHECK
    assert len(slow.rest()) < 24 << 20


def test_export_breaks_off_when_its_reader_is_disabled(served):
    from support.runs_over_http import begin

    from lmvp.core.run_frames import key_frame, points_frame

    run = "e" * 32
    data = begin(run) + key_frame(0, "x") + b"".join(points_frame(1.0, [(0, i, 0.1 * i)]) for i in range(150_000))
    assert served("PUT", f"/projects/p/runs/{run}/writers/{run}?from=0", data=data).ok
    made = served.user("exporter", "viewer")
    slow = Slow(served, "GET", f"/projects/p/metrics/export?run={run}", made["token"])
    assert slow.head.startswith(b"HTTP/1.1 200 ")
    disable(served, "exporter")
    time.sleep(0.3)
    assert b"0\r\n\r\n" not in slow.rest()[-5:], "the answer has an end as if it were whole"


def test_export_breaks_off_though_another_project_takes_the_name(served, short):
    from support.runs_over_http import begin

    from lmvp.core.run_frames import key_frame, points_frame

    name, _, token, replace = short
    run = "8" * 32
    data = begin(run) + key_frame(0, "x") + b"".join(points_frame(1.0, [(0, i, 0.1 * i)]) for i in range(150_000))
    assert served("PUT", f"/projects/{name}/runs/{run}/writers/{run}?from=0", data=data).ok
    slow = Slow(served, "GET", f"/projects/{name}/metrics/export?run={run}", token)
    assert slow.head.startswith(b"HTTP/1.1 200 ")
    replace()
    time.sleep(0.3)
    assert b"0\r\n\r\n" not in slow.rest()[-5:], "the answer has an end as if it were whole"


def test_progress_ends_when_its_reader_is_disabled(served, monkeypatch):
    made = served.user("checker", admin=True)
    release = threading.Event()
    check = type(served.services.fsck).check

    def wait_first(*arguments):
        release.wait(20)
        return check(*arguments)

    monkeypatch.setattr(type(served.services.fsck), "check", wait_first)
    answer = served("POST", "/fsck", made["token"], json={}, stream=True)
    lines = answer.iter_lines(chunk_size=1)
    assert b"done" in next(lines)
    disable(served, "checker")
    try:
        assert json.loads(list(lines)[-1])["error"]["code"] == "not_authenticated"
    finally:
        release.set()


def test_push_ends_when_its_author_is_disabled(served, model):
    made = served.user("pusher", "maintainer")
    part = secrets.token_bytes(1 << 20)
    one = digest.of_bytes(part)
    file = {"path": "w.bin", "size": 1 << 20, "digest": digest.of_chunks([one]), "chunks": [[one, 1 << 20]]}
    manifest = {"files": [file], "format": "files", "lmvp": 1, "meta": {}, "parents": [], "tensors": []}
    path = "/projects/p/models/m/pushes"
    assert served("POST", path, made["token"], json={"push": "f" * 32, "manifest": manifest}).ok
    body = chunk_frames.header(Frame(one, len(part), len(part))) + part
    with socket.create_connection(("127.0.0.1", served.port), 10) as slow:
        head = f"PUT /api/v1{path}/{'f' * 32}/chunks HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
        slow.sendall(f"{head}Authorization: Bearer {made['token']}\r\n\r\n".encode() + body[:1000])
        disable(served, "pusher")
        time.sleep(0.3)
        slow.sendall(body[1000:])
        assert slow.recv(1000).startswith(b"HTTP/1.1 401 ")


def test_slow_body_is_refused_when_its_token_was_revoked_meanwhile(served):
    made = served.user("slowly", "owner")
    body = b'{"name": "made-too-late"}'
    with socket.create_connection(("127.0.0.1", served.port), 10) as slow:
        head = f"POST /api/v1/projects HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
        slow.sendall(f"{head}Authorization: Bearer {made['token']}\r\n\r\n".encode() + body[:5])
        until(lambda: served.app._server.in_flight > 0)
        assert served("DELETE", f"/tokens/{made['id']}").ok
        time.sleep(0.3)
        slow.sendall(body[5:])
        assert slow.recv(1000).startswith(b"HTTP/1.1 401 ")
    assert served("GET", "/projects/made-too-late").status_code == 404
