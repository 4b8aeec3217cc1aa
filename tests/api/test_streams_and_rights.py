"""Rights that end while an answer is sent, seen from outside: of a server process, over the network alone."""

import json
import secrets
import socket
import threading
import time
from contextlib import suppress

import pytest
import requests
from support.local_server import SharedServer

from lmvp.client.models import Client

RUN = "a" * 32
SIZE = 48 << 20
"""Bytes of the file that is downloaded: more than the buffers of both sockets hold."""
PATIENCE = 15
"""Seconds until a stream without rights has ended; the server looks them up every 2 s."""


class Asked(SharedServer):
    """A server process that is asked over HTTP."""

    def __call__(self, method, path, token=None, **options):
        headers = {"Authorization": f"Bearer {self.token if token is None else token}"} if token != "" else {}
        return requests.request(method, f"{self.url}/api/v1{path}", headers=headers, timeout=30, **options)

    def do(self, method, path, **options):
        answer = self(method, path, **options)
        assert answer.ok, answer.text
        return answer

    def viewer(self):
        """Return the name of a new viewer of the project, and a token of it."""
        name = f"u{secrets.token_hex(4)}"
        self.do("POST", "/users", json={"name": name, "password": f"{name} has a long one"})
        self.do("PUT", f"/projects/p/members/{name}", json={"role": "viewer"})
        return name, self.do("POST", "/tokens", json={"name": "of it", "user": name, "scope": "read"}).json()

    def log(self):
        """Log a point; return its step."""
        self.step += 1
        self.do("POST", f"/projects/p/runs/{RUN}/metrics", json={"values": {"loss": 0.5}, "step": self.step})
        return self.step


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Asked(tmp_path_factory.mktemp("streams") / "data")
    server.token, server.step = server.start(), 0
    server.do("POST", "/projects", json={"name": "p"})
    server.do("POST", "/projects/p/runs", json={"run": RUN})
    folder = tmp_path_factory.mktemp("files")
    (folder / "w.bin").write_bytes(secrets.token_bytes(SIZE))
    Client(server.url, server.token).update("p/m", str(folder), create=True, progress=False)
    yield server
    server.kill()


class Reader(threading.Thread):
    """Reads the live stream of the run until the server ends it."""

    def __init__(self, server, token=None):
        super().__init__(daemon=True)
        self.steps, self.ended = [], False
        self.answer = server("GET", f"/projects/p/metrics/live?run={RUN}", token, stream=True)
        assert self.answer.status_code == 200, self.answer.text
        self.start()

    def run(self):
        try:
            for line in self.answer.iter_lines(chunk_size=1):
                if line.startswith(b"data: "):
                    for curve in json.loads(line[6:]).get("curves", ()):
                        self.steps += curve["steps"]
        except requests.RequestException:
            return  # the test is over, or nothing came for 30 s
        self.ended = True


def until(condition, seconds=PATIENCE):
    """Wait for a condition; return whether it came true."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


ENDS = {
    "token revoked": lambda server, name, token: server.do("DELETE", f"/tokens/{token['id']}"),
    "account disabled": lambda server, name, token: server.do("PATCH", f"/users/{name}", json={"disabled": True}),
    "member removed": lambda server, name, token: server.do("DELETE", f"/projects/p/members/{name}"),
}


def see_that_it_ends(server, reader, others, end):
    """End the right of a reader; see that it gets no later point and that nobody else misses one."""
    first = server.log()
    assert until(lambda: all(first in one.steps for one in (reader, *others)))
    end()
    late = [server.log() for _ in range(3)]
    assert until(lambda: all(set(late) <= set(one.steps) for one in others)), "another reader misses points"
    until(lambda: reader.ended or set(late) & set(reader.steps))
    assert not set(late) & set(reader.steps), "points that came after the end of the right were sent"
    assert reader.ended, "the stream did not end"
    assert not any(one.ended for one in others)


@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
@pytest.mark.parametrize("how", ENDS)
def test_stream_ends_with_the_right_of_its_reader(server, how, first):
    """Of several readers of one run, at the same place, the one whose right ends came first or last."""
    name, token = server.viewer()
    _, other = server.viewer()
    readers = [Reader(server, each) for each in ([token["token"], None, other["token"]][:: 1 if first else -1])]
    reader = readers.pop(0 if first else -1)
    see_that_it_ends(server, reader, readers, lambda: ENDS[how](server, name, token))


def test_idle_stream_ends_with_the_right_of_its_reader(server):
    name, token = server.viewer()
    reader = Reader(server, token["token"])
    ENDS["account disabled"](server, name, token)
    assert until(lambda: reader.ended), "the stream did not end"


def test_stream_of_nobody_ends_when_the_project_is_public_no_more(server):
    server.do("PATCH", "/projects/p", json={"public": True})
    reader, others = Reader(server, ""), [Reader(server)]
    see_that_it_ends(server, reader, others, lambda: server.do("PATCH", "/projects/p", json={"public": False}))


class Download:
    """A download whose reader takes its time."""

    def __init__(self, server, token):
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        self.socket.settimeout(20)
        self.socket.connect(("127.0.0.1", server.port))
        path = "/api/v1/projects/p/models/m/versions/1/files/w.bin"
        lines = (f"GET {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {token}", "", "")
        self.socket.sendall("\r\n".join(lines).encode())
        self.head = self.socket.recv(4096)
        assert self.head.startswith(b"HTTP/1.1 200 ")

    def size(self):
        """Return how many bytes come until the server closes, or the file is whole."""
        got = len(self.head)
        with self.socket, suppress(ConnectionResetError):
            while got < SIZE and (piece := self.socket.recv(1 << 20)):
                got += len(piece)
        return got


def test_download_breaks_off_with_the_right_of_its_reader(server):
    viewers = {how: server.viewer() for how in ENDS}
    downloads = {how: Download(server, token["token"]) for how, (_, token) in viewers.items()}
    other = Download(server, server.token)
    for how, (name, token) in viewers.items():
        ENDS[how](server, name, token)
    time.sleep(2.5)  # rights are looked up at a piece that is sent later than 2 s after the last look
    whole = [how for how, each in downloads.items() if each.size() >= SIZE]
    assert whole == [], "the whole file was sent"
    assert other.size() >= SIZE, "another download broke off too"
