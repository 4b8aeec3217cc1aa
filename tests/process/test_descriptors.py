"""Connections and file descriptors: a client without a token can neither use them up nor fill the log."""

import errno
import logging
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest
from support.in_process import TOKEN, Served

from lmvp_server.http.limits import CONNECTIONS, DESCRIPTORS, FEWEST_CONNECTIONS, Limits
from lmvp_server.process import log
from lmvp_server.services.runs import Runs
from lmvp_server.services.webhook_allowlist import WebhookAllowlist

QUICK = Limits(
    connections=12, per_address=12, header_seconds=0.4, idle_seconds=0.8, body_seconds=0.6, body_bytes=100,
    sending_seconds=1.0,
)  # fmt: skip
HALF = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"
HEAD = f"Host: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n"


def connect(served, address="127.0.0.1"):
    return socket.create_connection(("127.0.0.1", served.port), 10, (address, 0))


def rest_of(connection):
    """Return all bytes until the server closes."""
    got = b""
    while piece := connection.recv(1 << 16):
        got += piece
    return got


def until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with Served(tmp_path_factory.mktemp("descriptors") / "data", QUICK) as served:
        yield served


def test_slow_headers_are_answered_408(served):
    with connect(served) as nothing, connect(served) as half:
        half.sendall(HALF)
        began = time.monotonic()
        assert rest_of(half).startswith(b"HTTP/1.1 408 ")
        assert rest_of(nothing).startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - began >= 0.3


def test_headers_that_trickle_are_answered_408(served):
    with connect(served) as slow:
        for byte in HALF * 100:
            try:
                slow.send(bytes([byte]))
            except OSError:
                break
            time.sleep(0.02)
        else:
            raise AssertionError("the server waited for 76 s")


def test_idle_connection_is_closed_without_an_answer(served):
    with connect(served) as idle:
        idle.sendall(b"GET /api/v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        answer = rest_of(idle)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"408" not in answer.partition(b"\r\n\r\n")[2]


def test_stopped_body_is_answered_408(served):
    with connect(served) as stopped:
        stopped.sendall(f"POST /api/v1/projects HTTP/1.1\r\n{HEAD}Content-Length: 500\r\n\r\n".encode() + b"{" * 40)
        assert rest_of(stopped).startswith(b"HTTP/1.1 408 ")


def test_slow_body_arrives_if_it_makes_progress(served):
    body = b'{"name": "slow"' + b" " * 800 + b"}"
    with connect(served) as slow:
        head = f"POST /api/v1/projects HTTP/1.1\r\n{HEAD}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        slow.sendall(head.encode())
        began = time.monotonic()
        for start in range(0, len(body), 60):
            slow.sendall(body[start : start + 60])
            time.sleep(0.12)
        assert time.monotonic() - began > 2 * QUICK.body_seconds
        assert rest_of(slow).startswith(b"HTTP/1.1 201 ")


def test_client_that_takes_no_answer_is_closed(served):
    run = "d" * 32
    assert served("POST", "/projects", json={"name": "p"}).ok
    assert served("POST", "/projects/p/runs", json={"run": run, "params": {"x": "y" * 900_000}}).ok
    with socket.socket() as greedy:
        greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        greedy.connect(("127.0.0.1", served.port))
        greedy.sendall(f"GET /api/v1/projects/p/runs/{run} HTTP/1.1\r\n{HEAD}\r\n".encode() * 20)
        until(lambda: any(one.phase.name == "SENDING" for one in list(served.app._server._open.values())))
        until(lambda: served.app._server.in_flight == 0)


def test_new_client_is_answered_when_all_connections_wait(served):
    held = [connect(served) for _ in range(40)]
    try:
        for each in held:
            each.sendall(HALF)
    except OSError:
        pass  # closed to make room
    assert served("GET", "/health").ok
    assert len(served.app._server._open) <= QUICK.connections
    for each in held:
        each.close()
    until(lambda: not served.app._server._open)


def test_requests_in_progress_are_not_closed_to_make_room(tmp_path):
    limits = Limits(connections=6, per_address=4)
    with Served(tmp_path / "data", limits) as served:
        busy = [connect(served) for _ in range(4)]
        for each in busy:
            each.sendall(f"POST /api/v1/projects HTTP/1.1\r\n{HEAD}Content-Length: 20\r\n\r\n".encode())
        until(lambda: served.app._server.in_flight == 4)
        with connect(served) as further:
            assert further.recv(100).startswith(b"HTTP/1.1 503 ")
        for number, each in enumerate(busy):
            each.sendall(b'{"name": "project%d"}' % number)
            assert each.recv(100).startswith(b"HTTP/1.1 201 ")
            each.close()
        until(lambda: served("GET", "/health").ok)


def unfinished(path="/login", more="", length=60_000):
    return f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{more}Content-Length: {length}\r\n\r\nname=".encode()


def unknown_bodies(served):
    return served.on_loop(lambda: sum(one.is_unknown_body for one in served.app._server._open.values()))


@pytest.mark.parametrize(
    "head",
    [
        unfinished(),
        unfinished("/api/v1/login/device/code"),
        unfinished("/no/such/page"),
        unfinished("/login", "Cookie: lmvp_session=forged\r\n"),
        unfinished("/api/v1/projects", "Authorization: Bearer forged\r\n"),
    ],
    ids=["login", "device", "no_page", "forged_session", "forged_token"],
)
def test_member_is_answered_when_two_addresses_hold_unfinished_bodies(served_by_address, head):
    served, held = served_by_address, []
    for address in ("127.0.0.2", "127.0.0.3"):
        for _ in range(6):
            held.append(connect(served, address))
            held[-1].sendall(head)
    until(lambda: unknown_bodies(served) == 12)
    for _ in range(3):
        assert served("GET", "/projects").status_code == 200
    assert len(served.app._server._open) <= 12
    for each in held:
        each.close()
    until(lambda: not served.app._server._open)


@pytest.fixture(scope="module")
def served_by_address(tmp_path_factory):
    limits = Limits(connections=12, per_address=6, unknown_bodies=6)
    with Served(tmp_path_factory.mktemp("addresses") / "data", limits) as served:
        assert served("POST", "/projects", json={"name": "p"}).ok
        assert served("PATCH", "/projects/p", json={"public": True}).ok
        run = {"run": "d" * 32, "params": {"x": "y" * 900_000}}
        assert served("POST", "/projects/p/runs", json=run).ok
        until(lambda: not served.app._server._open)
        yield served


def test_member_is_answered_when_two_addresses_leave_answers_unread(served_by_address):
    served, held = served_by_address, []
    for address in ("127.0.0.2", "127.0.0.3"):
        for _ in range(6):
            greedy = socket.socket()
            held.append(greedy)
            greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            greedy.bind((address, 0))
            greedy.connect(("127.0.0.1", served.port))
            greedy.sendall(f"GET /api/v1/projects/p/runs/{'d' * 32} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode() * 20)
    server = served.app._server
    until(lambda: served.on_loop(lambda: sum(each.writing() for each in server._open)) == 12)
    assert served("GET", "/projects").status_code == 200
    for each in held:
        each.close()
    until(lambda: not server._open)


def test_requests_behind_an_unread_answer_end_with_their_connection(served_by_address, monkeypatch):
    served, server, read = served_by_address, served_by_address.app._server, []
    before = Runs.run
    monkeypatch.setattr(Runs, "run", lambda *given: read.append(1) or before(*given))
    greedy = socket.socket()
    greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    greedy.bind(("127.0.0.6", 0))
    greedy.connect(("127.0.0.1", served.port))
    greedy.sendall(f"GET /api/v1/projects/p/runs/{'d' * 32} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode() * 20)

    def blocked():
        """Return whether the answers that fit into the buffers of the kernel are sent, and the next one waits."""
        looks = []
        for _ in range(2):
            looks.append(served.on_loop(lambda: (len(read), [each.unsent for each in server._open])))
            time.sleep(0.2)
        return looks[0] == looks[1] and all(looks[0][1]) and looks[0][0] > 0

    until(blocked)
    began = len(read)
    greedy.close()
    until(lambda: not server._open)
    assert served("GET", f"/projects/p/runs/{'d' * 32}").ok
    assert len(read) == began + 1 < 20, "no request behind the unread answer began"


def test_member_is_answered_when_two_addresses_hold_streams(served_by_address):
    served, held = served_by_address, []
    for address in ("127.0.0.2", "127.0.0.3"):
        for _ in range(6):
            held.append(connect(served, address))
            head = f"GET /api/v1/projects/p/metrics/live?run={'d' * 32} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
            held[-1].sendall(head.encode())
            assert held[-1].recv(100).startswith(b"HTTP/1.1 200 ")
    assert served("GET", "/projects").status_code == 200
    for each in held:
        each.close()
    until(lambda: not served.app._server._open)


def test_new_connection_of_another_address_is_not_closed_to_make_room(served_by_address):
    served, held = served_by_address, [connect(served_by_address, "127.0.0.4")]
    until(lambda: len(served.app._server._open) == 1)
    for _ in range(6):
        for address in ("127.0.0.2", "127.0.0.3"):
            held.append(connect(served, address))
            held[-1].sendall(unfinished())
            until(lambda: unknown_bodies(served) in (len(held) - 1, 11))
    held.append(connect(served, "127.0.0.5"))
    held[0].sendall(b"GET /api/v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert held[0].recv(100).startswith(b"HTTP/1.1 200 ")
    for each in held:
        each.close()
    until(lambda: not served.app._server._open)


def test_push_with_a_token_stays_when_its_address_makes_room(served_by_address):
    served, server = served_by_address, served_by_address.app._server
    slow = connect(served, "127.0.0.2")
    slow.sendall(f"POST /api/v1/projects HTTP/1.1\r\n{HEAD}Content-Length: 20\r\n\r\n".encode())
    until(lambda: server.in_flight == 1)
    held = []
    for address in ("127.0.0.2", "127.0.0.3", "127.0.0.4"):
        for _ in range(20):
            held.append(connect(served, address))
            with suppress(OSError):  # closed to make room
                held[-1].sendall(unfinished())
    until(lambda: len(server._open) == 12)
    slow.sendall(b'{"name": "slowpush"}')
    assert slow.recv(100).startswith(b"HTTP/1.1 201 ")
    for each in [slow, *held]:
        each.close()
    until(lambda: not server._open)


def test_oldest_unfinished_body_without_login_ends_when_its_address_has_too_many(tmp_path):
    with Served(tmp_path / "data", Limits(40, 20, unknown_bodies=2)) as served:
        held = [connect(served, "127.0.0.2") for _ in range(4)]
        other = connect(served, "127.0.0.3")
        for each in [other, *held[:2]]:
            each.sendall(unfinished())
            until(lambda: len(served.app._server._busy) == unknown_bodies(served))
        until(lambda: unknown_bodies(served) == 3)
        with_token = f"POST /api/v1/projects HTTP/1.1\r\n{HEAD}Content-Length: 20\r\n\r\n".encode()
        held[2].sendall(with_token)
        until(lambda: served.app._server.in_flight == 4)
        held[3].sendall(unfinished())
        assert rest_of(held[0]).startswith(b"HTTP/1.1 503 ")
        assert unknown_bodies(served) == 3
        held[2].sendall(b'{"name": "bytoken1"}')
        assert held[2].recv(100).startswith(b"HTTP/1.1 201 ")
        for each in [other, *held]:
            each.close()


def test_trickling_body_without_login_is_answered_408(tmp_path):
    limits = Limits(20, 20, body_seconds=60, body_bytes=1, unknown_body_seconds=0.6, unknown_body_bytes=1000)
    with Served(tmp_path / "data", limits) as served, connect(served) as slow, connect(served) as known:
        known.sendall(f"POST /api/v1/projects HTTP/1.1\r\n{HEAD}Content-Length: 20\r\n\r\n".encode())
        slow.sendall(unfinished(length=900))
        slow.settimeout(0.02)
        got = b""
        for _ in range(800):
            with suppress(TimeoutError):
                got = slow.recv(100)
                break
            with suppress(OSError):  # closed meanwhile; the answer is still to be read
                slow.sendall(b"x")
        assert got.startswith(b"HTTP/1.1 408 ")
        known.sendall(b'{"name": "bytoken1"}')
        assert known.recv(100).startswith(b"HTTP/1.1 201 ")


def test_full_server_accepts_again_when_a_connection_closes(tmp_path):
    limits = Limits(connections=3, per_address=3)
    with Served(tmp_path / "data", limits) as served:
        busy = [connect(served) for _ in range(3)]
        for each in busy:
            each.sendall(f"POST /api/v1/projects HTTP/1.1\r\n{HEAD}Content-Length: 20\r\n\r\n".encode())
        until(lambda: served.app._server.in_flight == 3)
        answers = []
        waiting = threading.Thread(target=lambda: answers.append(served("GET", "/health").status_code))
        waiting.start()
        until(lambda: served.app._server._resuming is not None)
        busy[0].close()
        waiting.join(10)
        assert answers == [200]
        for each in busy:
            each.close()


def test_lack_of_descriptors_pauses_accepting_and_logs_one_line(tmp_path, caplog):
    with Served(tmp_path / "data", Limits(50, 50)) as served, socket.socket() as client:
        assert served("GET", "/health").ok
        server, (soft, hard) = served.app._server, resource.getrlimit(resource.RLIMIT_NOFILE)
        until(lambda: not server._open)
        free = os.dup(client.fileno())
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))  # every further descriptor fails with EMFILE
        try:
            client.connect(("127.0.0.1", served.port))
            client.sendall(b"GET /api/v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            began, used = time.monotonic(), time.process_time()
            until(lambda: server._failures >= 2)
            assert time.monotonic() - began > 1.5, "accepting pauses for a second after each failure"
            assert time.process_time() - used < 0.7, "the loop spins"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        client.settimeout(10)
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")
    lines = [record.getMessage() for record in caplog.records if "found no room" in record.getMessage()]
    assert len(lines) == 1
    assert "Too many open files" in lines[0]


def test_limit_of_descriptors_is_raised_to_the_hard_one():
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (128, resource.getrlimit(7)[1]));"
        "from lmvp_server.http import limits; limits.raise_descriptor_limit();"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], limits.Limits.of_process().connections)"
    ).replace("getrlimit(7)", "getrlimit(resource.RLIMIT_NOFILE)")
    told = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    soft, connections = map(int, told.split())
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert soft == (DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS))
    assert connections == min(CONNECTIONS, soft // 2)


def test_address_behind_a_proxy_may_have_all_connections():
    alone, proxied = Limits.of_process(), Limits.of_process(behind_proxy=True)
    assert alone.per_address == max(FEWEST_CONNECTIONS, alone.connections // 2)
    assert proxied.per_address == proxied.connections


def test_log_holds_back_lines_that_repeat_themselves(caplog):
    at = [0.0]
    passes = log.Repetitions(lambda: at[0])
    record = lambda line: logging.LogRecord("x", logging.ERROR, "file.py", line, "no %s", ("room",), None)  # noqa: E731
    assert [passes.filter(record(1)) for _ in range(25)] == [True] * log.OFTEN + [False] * 15
    assert passes.filter(record(2)), "another place of the code"
    at[0] = log.PERIOD
    following = record(1)
    assert passes.filter(following)
    assert following.getMessage() == "no room (15 lines like this one were left out before it)"


def test_failing_search_for_webhook_events_pauses_longer_each_time(tmp_path, monkeypatch):
    from lmvp_server.process import notifier

    monkeypatch.setattr(notifier, "TICK", 0.02)
    tries = []
    with Served(tmp_path / "data", webhook_to=WebhookAllowlist.parse(["hooks.example.org"])) as served:

        def fail(_):
            tries.append(time.monotonic())
            raise OSError(errno.EMFILE, "Too many open files")

        monkeypatch.setattr(type(served.services.webhooks), "due", lambda _self, but: fail(but))
        until(lambda: len(tries) >= 5)
    assert tries[4] - tries[3] > 2 * (tries[1] - tries[0])
