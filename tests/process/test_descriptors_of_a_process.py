"""File descriptors of a server process, seen from outside: clients without a token neither stop it nor fill its log."""

import resource
import socket
import time
from contextlib import suppress

import pytest
import requests
from support.real_server import Server

HALF = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"
"""The beginning of a request whose headers never end."""
HELD = 100
"""Connections of the attack; the server has 64 descriptors."""
LINES = 2000
"""Bytes that the log may get during the attack: a few lines."""


class Limited(Server):
    """A server process whose limit of descriptors `ulimit` sets; its output goes to a file."""

    def __init__(self, data, limit):
        super().__init__(data)
        self.limit, self.log = limit, data.parent / "log"

    def command(self):
        return ["bash", "-c", f'{self.limit}; exec "$@" >{self.log} 2>&1', "x", *super().command()]

    def get(self, path):
        """Return an answer of the API; fail if there is none in time."""
        try:
            return requests.get(
                f"{self.url}/api/v1{path}", headers={"Authorization": f"Bearer {self.token}"}, timeout=8
            )
        except requests.Timeout:
            pytest.fail(f"GET {path} is not answered within 8 s")

    def hold(self, count):
        """Return so many connections with an unfinished request each."""
        held = []
        for _ in range(count):
            held.append(socket.create_connection(("127.0.0.1", self.port), 5))
            with suppress(OSError):  # closed to make room
                held[-1].sendall(HALF)
        return held


@pytest.fixture(scope="module")
def limited(tmp_path_factory):
    limited = Limited(tmp_path_factory.mktemp("limited") / "data", "ulimit -n 64")
    limited.token = limited.start()
    yield limited
    limited.end()


@pytest.fixture
def attacked(limited):
    held = limited.hold(HELD)
    yield limited
    for each in held:
        each.close()


def test_log_stays_small_when_descriptors_are_exhausted(attacked):
    before = attacked.log.stat().st_size
    time.sleep(1)  # a loop that spins writes 7 MB meanwhile
    assert attacked.log.stat().st_size - before < LINES
    assert "Traceback" not in attacked.log.read_text()


def test_client_is_answered_when_descriptors_are_exhausted(attacked):
    for _ in range(3):
        assert attacked.get("/health").status_code == 200


def test_owner_works_when_descriptors_are_exhausted(attacked):
    assert attacked.get("/projects").json()["items"] == []


def test_server_is_as_before_when_the_connections_have_closed(limited):
    for each in limited.hold(HELD):
        each.close()
    for _ in range(5):
        assert limited.get("/projects").status_code == 200


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="this system tells no limits of other processes")
def test_soft_limit_is_raised_at_start(tmp_path):
    server = Limited(tmp_path / "data", "ulimit -Sn 128; ulimit -Hn 512")
    server.token = server.start()
    try:
        assert resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE) == (512, 512)
    finally:
        server.end()
