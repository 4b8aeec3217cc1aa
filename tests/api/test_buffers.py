"""Bodies and unread answers have a budget of memory, and a client that reads an answer too slowly is closed."""

import socket
import struct
import time

import numpy as np
import pytest
from support.in_process import TOKEN, Served

from lmvp.client.models import Client
from lmvp.core.run_frames import (
    BATCH_HEAD,
    STRIDE,
    framed,
    key_frame,
    note,
)
from lmvp.errors import TooManyRequests
from lmvp_server.http.buffers import BufferLimits, Buffers
from lmvp_server.http.limits import Limits
from lmvp_server.http.queues import RETRY_SECONDS, CallerQueue
from lmvp_server.routes import API
from lmvp_server.services.access import OPERATOR
from lmvp_server.services.metrics import Metrics

MEBIBYTE = 1 << 20
BUDGET = BufferLimits(total=64 * MEBIBYTE, account=24 * MEBIBYTE, anonymous=24 * MEBIBYTE, address=12 * MEBIBYTE)
CHUNKS = "/projects/p/models/m/versions/v1/chunks"
FILE = "/projects/p/models/m/versions/v1/files/weights.safetensors"
ADA, GRACE = CallerQueue("u1", known=True), CallerQueue("u2", known=True)
HERE, THERE = CallerQueue("192.0.2.1", known=False), CallerQueue("192.0.2.2", known=False)


def test_buffers_bound_each_caller_and_all_together():
    buffers = Buffers(BufferLimits(total=100, account=40, anonymous=50, address=30))
    buffers.add(HERE, 30)
    assert not buffers.has_room(HERE, 1)
    assert buffers.has_room(THERE, 20)
    assert not buffers.has_room(THERE, 21)
    buffers.add(ADA, 50)
    assert not buffers.has_room(ADA, 1)
    assert buffers.has_room(GRACE, 20)
    assert not buffers.has_room(GRACE, 21)
    with pytest.raises(TooManyRequests) as refused:
        buffers.require(GRACE, 21)
    assert refused.value.retry_after == RETRY_SECONDS
    buffers.remove(HERE, 30)
    buffers.remove(ADA, 50)
    assert (buffers.total, buffers.anonymous, buffers.of(HERE), buffers.of(ADA)) == (0, 0, 0, 0)


def test_first_body_of_a_caller_may_be_longer_than_its_share():
    buffers = Buffers(BufferLimits(total=100, account=40, anonymous=50, address=30))
    assert buffers.has_room(ADA, 100)
    assert buffers.has_room(HERE, 50)
    assert not buffers.has_room(HERE, 51)


def test_operator_has_no_share_of_its_own():
    buffers, operator = Buffers(BufferLimits(total=100, account=40)), CallerQueue(OPERATOR, known=True)
    buffers.add(operator, 60)
    assert buffers.has_room(operator, 40)
    assert not buffers.has_room(operator, 41)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    limits = Limits(reading_seconds=3600.0, buffers=BUDGET)
    with Served(tmp_path_factory.mktemp("buffers") / "data", limits) as served:
        fill(served)
        yield served


def fill(served):
    assert served("POST", "/projects", json={"name": "p"}).ok
    root = Client(served.url, TOKEN)
    noise = np.random.default_rng(0).integers(0, 256, 40 * MEBIBYTE, np.uint8)
    root.update("p/m", {"weight": noise}, create=True, progress=False)
    assert served("PATCH", "/projects/p", json={"public": True}).ok
    served.member = served.user("ada", "viewer", scope="read")["token"]


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


def buffers(served):
    return served.app._server.buffers


def held(served):
    return served.on_loop(lambda: buffers(served).total)


def begin(served, method, path, token="", length=0):
    """Send the head of a request; the small buffer of the socket leaves the answer in the server."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(30)
    connection.connect(("127.0.0.1", served.port))
    head = [f"{method} {API}{path} HTTP/1.1", f"Host: 127.0.0.1:{served.port}"]
    head += [f"Authorization: Bearer {token}"] if token else []
    head += [f"Content-Length: {length}"] if length else []
    connection.sendall("\r\n".join([*head, "", ""]).encode())
    return connection


def status(connection):
    return connection.recv(4096).decode("latin-1")


@pytest.mark.parametrize("known", [False, True])
def test_unfinished_bodies_of_a_caller_are_bounded(served, known):
    token, share = (served.member, BUDGET.account) if known else ("", BUDGET.address)
    size = 6 * MEBIBYTE
    open_ = []
    for count in range(1, share // size + 1):
        open_.append(begin(served, "POST", CHUNKS, token, length=8 * MEBIBYTE))
        open_[-1].sendall(b" " * size)
        until(lambda count=count: held(served) == count * size)
    refused = begin(served, "POST", CHUNKS, token, length=8 * MEBIBYTE)
    refused.sendall(b" " * 1024)
    answer = status(refused)
    assert answer.startswith("HTTP/1.1 429")
    assert f"Retry-After: {RETRY_SECONDS}" in answer
    assert held(served) == share
    assert served("GET", "/projects").ok
    for one in [*open_, refused]:
        one.close()
    until(lambda: held(served) == 0)


def test_unread_answers_of_an_address_are_bounded(served):
    open_, most = [], 0
    for _ in range(12):
        open_.append(begin(served, "GET", FILE))
        first = status(open_[-1])
        assert first.startswith(("HTTP/1.1 200", "HTTP/1.1 429"))
        most = max(most, held(served))
    assert "HTTP/1.1 429" in first
    assert 0 < most <= BUDGET.address + 4 * MEBIBYTE
    assert served("GET", FILE, served.member).ok
    for one in open_:
        one.close()
    until(lambda: held(served) == 0)
    assert served("GET", FILE, None).ok


def test_read_answer_leaves_the_budget(served):
    assert len(served("GET", FILE, None).content) > 40 * MEBIBYTE
    until(lambda: held(served) == 0)


def test_client_that_reads_too_slowly_is_closed(tmp_path):
    limits = Limits(reading_seconds=0.5, reading_bytes=64 * MEBIBYTE)
    with Served(tmp_path / "data", limits) as served:
        fill(served)
        run = served("POST", "/projects/p/runs", json={"run": "0" * 32, "format": 1})
        assert run.ok, run.text
        quiet = begin(served, "GET", f"/projects/p/metrics/live?run={'0' * 32}")
        assert status(quiet).startswith("HTTP/1.1 200")
        slow = begin(served, "GET", FILE)
        assert status(slow).startswith("HTTP/1.1 200")
        until(lambda: held(served) == 0)  # the answer is far from read: it was given up
        received = sum(iter(lambda: len(slow.recv(1 << 20)), 0))
        assert received < 40 * MEBIBYTE
        assert served("POST", f"/projects/p/runs/{'0' * 32}/metrics", json={"values": {"loss": 0.5}, "step": 1}).ok
        events = ""
        while "loss" not in events:
            part = quiet.recv(4096).decode()
            assert part, "the quiet stream was closed"
            events += part
        quiet.close()
        slow.close()


def test_long_answer_of_curves_is_made_as_it_is_read(served, monkeypatch):
    made = []
    real = Metrics._curve
    monkeypatch.setattr(Metrics, "_curve", lambda metrics, *args: made.append(args[2]) or real(metrics, *args))
    run, keys, points = "1" * 32, 8, 30_000
    assert served("POST", "/projects/p/runs", json={"run": run, "format": 1}).ok
    values = np.random.default_rng(1).normal(size=points)
    journal = note(1, f'{{"run":"{run}","format":1}}'.encode())
    for key in range(keys):
        journal += key_frame(key, f"key{key}") + framed(
            BATCH_HEAD.pack(4, 3, key, points) + STRIDE.pack(0, 1) + struct.pack("<d", 1.7e9) + values.tobytes()
        )
    sent = served("PUT", f"/projects/p/runs/{run}/writers/{'0' * 32}?from=0", data=journal)
    assert sent.ok, sent.text
    path = f"/projects/p/metrics?run={run}&points={points}"
    slow = begin(served, "GET", path)
    assert status(slow).startswith("HTTP/1.1 200")
    assert len(made) < keys
    whole = served("GET", path, None).json()["curves"]
    assert [curve["key"] for curve in whole] == [f"key{key}" for key in range(keys)]
    assert all(curve["values"] == values.tolist() for curve in whole)
    few = served("GET", f"/projects/p/metrics?run={run}&points=100", None)
    assert "Content-Length" in few.headers
    assert [curve["key"] for curve in few.json()["curves"]] == [f"key{key}" for key in range(keys)]
    slow.close()
    until(lambda: held(served) == 0)
