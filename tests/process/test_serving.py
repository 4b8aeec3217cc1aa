"""The HTTP server: answers to heads that cannot be read, and refusals that arrive while the client still sends."""

import json
import random
import re
import shutil
import socket
import subprocess
import time
from contextlib import suppress

import pytest
from support.fuzzing import LoggedServer
from support.in_process import TOKEN, Served

from lmvp_server.http.limits import HEADER_LIMIT, Limits
from lmvp_server.http.lingering import _LINGER_BUFFER

MEBIBYTE = 1 << 20
LIMITS = Limits(lingering=3, lingering_per_address=2, lingering_seconds=5.0, lingering_idle_seconds=0.5)


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    made = LoggedServer(tmp_path_factory.mktemp("logged") / "data")
    made.start()
    yield made
    made.end()
    log = made.log.read_text()
    assert "Traceback" not in log
    assert " ERROR " not in log


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with Served(tmp_path_factory.mktemp("serving") / "data") as served:
        assert served("POST", "/projects", json={"name": "p"}).ok
        yield served


@pytest.fixture(scope="module")
def limited(tmp_path_factory):
    with Served(tmp_path_factory.mktemp("limited") / "data", LIMITS) as served:
        yield served


def until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.02)


def exchange(port, *parts):
    """Send all parts, whatever the server does meanwhile, and return what it answers until it closes."""
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        with suppress(BrokenPipeError):
            for part in parts:
                connection.sendall(part)
        answer = b""
        while piece := connection.recv(1 << 16):
            answer += piece
    return answer


def parsed(answer):
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    return int(lines[0].split()[1]), dict(line.split(": ", 1) for line in lines[1:]), body


LONG = HEADER_LIMIT
HEADS = {
    "one long header": (431, b"GET / HTTP/1.1\r\nHost: x\r\nCookie: " + b"a" * LONG + b"\r\n\r\n"),
    "many headers": (431, b"GET / HTTP/1.1\r\n" + b"X-Header: value\r\n" * (LONG // 16) + b"\r\n"),
    "8 MiB of headers": (431, b"GET / HTTP/1.1\r\n" + b"X-Header: value\r\n" * (8 * MEBIBYTE // 17) + b"\r\n"),
    "no end": (431, b"GET / HTTP/1.1\r\nCookie: " + b"a" * (2 * LONG)),
    "long URI": (414, b"GET /" + b"a" * LONG + b" HTTP/1.1\r\nHost: x\r\n\r\n"),
    "long query": (414, b"GET /?q=" + b"a" * (LONG - 20) + b" HTTP/1.1\r\nHost: x\r\nCookie: a\r\n\r\n"),
    "long URI without an end": (414, b"GET /" + b"a" * (8 * MEBIBYTE)),
}


@pytest.mark.parametrize("case", HEADS)
def test_head_that_is_too_long_is_answered(logged, case):
    expected, head = HEADS[case]
    status, headers, body = parsed(exchange(logged.port, head))
    assert status == expected
    assert headers["Connection"] == "close"
    assert headers["Content-Type"] == "application/json"
    assert int(headers["Content-Length"]) == len(body)
    error = json.loads(body)["error"]
    assert error["code"] == "too_large"
    assert f"longer than {LONG:,} bytes" in error["message"]
    assert ("request line" in error["message"]) == (expected == 414)
    assert error["hint"]


def test_head_just_below_the_limit_is_accepted(logged):
    rest = b"GET /api/v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nCookie: "
    head = rest + b"a" * (LONG - len(rest) - 4) + b"\r\n\r\n"
    assert parsed(exchange(logged.port, head))[0] == 200


def test_head_that_is_too_long_is_logged_in_one_line(logged):
    before = logged.log.read_text()
    exchange(logged.port, HEADS["one long header"][1])
    exchange(logged.port, HEADS["long URI"][1])
    until(lambda: "request line from" in logged.log.read_text()[len(before) :])
    lines = logged.log.read_text()[len(before) :].splitlines()
    assert len(lines) == 2
    assert "request head from 127.0.0.1 is longer than 64 kB" in lines[0]
    assert "request line from 127.0.0.1 is longer than 64 kB" in lines[1]


SECRET = "lmvp_s3cret"
MALFORMED = {
    "no request line": b"nonsense",
    "two words": b"GET /",
    "four words": b"GET / a HTTP/1.1",
    "lower version": b"GET / HTTP/0.9",
    "other version": b"GET / HTTP/2.0",
    "binary": bytes(range(128, 200)),
    "NUL": b"GET /\0 HTTP/1.1",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "header without a colon": b"GET / HTTP/1.1\r\nHost: x\r\n" + SECRET.encode(),
    "header with a space": b"GET / HTTP/1.1\r\nHost: x\r\nBad Name: " + SECRET.encode(),
    "header with NUL": b"GET / HTTP/1.1\r\nHost: x\r\nA: " + SECRET.encode() + b"\0b",
    "two hosts": b"GET / HTTP/1.1\r\nHost: x\r\nHost: y",
    "host of a path": b"GET / HTTP/1.1\r\nHost: x/y z",
    "two lengths": b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\nContent-Length: 2",
    "length of letters": b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: " + SECRET.encode(),
    "length and chunks": b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
    "unknown coding": b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: gzip",
    "folded first": b"GET / HTTP/1.1\r\n folded: " + SECRET.encode(),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_head_is_answered_with_a_message(logged, case):
    before = len(logged.log.read_text())
    status, headers, body = parsed(exchange(logged.port, MALFORMED[case] + b"\r\n\r\n"))
    assert 400 <= status < 500
    assert int(headers["Content-Length"]) == len(body)
    assert len(body) > 20
    assert SECRET.encode() not in body
    time.sleep(0.05)
    lines = logged.log.read_text()[before:]
    assert lines.count("\n") <= 1
    assert SECRET not in lines


PIECES = [b"\0", b"\r\n", b" ", b":", b"\xff", b"\t", b"%", b"["]


def test_random_heads_are_answered_or_refused(logged):
    """Each head gets an answer below 500, whatever bytes are in it."""
    chosen = random.Random(7)
    sound = b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 3\r\nCookie: a=b\r\nConnection: close"
    for _ in range(150):
        head = bytearray(sound)
        for _ in range(chosen.randrange(1, 4)):
            at = chosen.randrange(len(head))
            head[at : at + chosen.randrange(3)] = chosen.choice(
                [b"\0", b"\r\n", b" ", b":", b"\xff", b"\t", b"%", b"["]
            )
        answer = exchange(logged.port, bytes(head) + b"\r\n\r\na=b\r\n\r\n", b"\r\n\r\n")
        assert answer, bytes(head)
        assert 200 <= parsed(answer)[0] < 500, bytes(head)


@pytest.mark.parametrize("part", [b"zz\r\n", b"5;" + b"x" * 100, b"-1\r\n", b"5\r\nhelloXX"])
def test_malformed_chunk_is_answered_400(logged, part):
    head = b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    status, _, body = parsed(exchange(logged.port, head, part))
    assert status == 400
    assert b"not a valid HTTP/1.1 request" in body


# -- refusals of long bodies

PUSHED = "/api/v1/projects/p/models/m/pushes/unknown/chunks"
REFUSALS = {
    401: ("PUT", PUSHED, "", "127.0.0.1"),
    403: ("PUT", PUSHED, TOKEN, "evil.example"),
    404: ("PUT", PUSHED, TOKEN, "127.0.0.1"),
    413: ("POST", "/api/v1/projects", TOKEN, "127.0.0.1"),
}


def chunked(size):
    piece = b"%x\r\n" % (1 << 16) + b"\0" * (1 << 16) + b"\r\n"
    return [piece] * (size >> 16) + [b"0\r\n\r\n"]


@pytest.mark.parametrize("coding", ["length", "chunked"])
@pytest.mark.parametrize("status", REFUSALS)
def test_refusal_of_8_mib_is_read_from_a_raw_socket(served, status, coding):
    method, path, token, host = REFUSALS[status]
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n"
    if token:
        head += f"Authorization: Bearer {token}\r\n"
    size = 8 * MEBIBYTE
    if coding == "length":
        parts = [f"{head}Content-Length: {size}\r\n\r\n".encode(), *[b"\0" * MEBIBYTE] * 8]
    else:
        parts = [f"{head}Transfer-Encoding: chunked\r\n\r\n".encode(), *chunked(size)]
    got, headers, body = parsed(exchange(served.port, *parts))
    assert got == status
    assert headers["Connection"] == "close"
    assert json.loads(body)["error"]["message"]


@pytest.mark.parametrize("coding", ["length", "chunked"])
@pytest.mark.parametrize("status", REFUSALS)
def test_refusal_of_8_mib_is_read_by_requests(served, status, coding):
    method, path, token, host = REFUSALS[status]
    data = b"\0" * (8 * MEBIBYTE)
    body = data if coding == "length" else (data[at : at + MEBIBYTE] for at in range(0, len(data), MEBIBYTE))
    answer = served(method, f"~{path}", token, data=body, headers={"Host": host})
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("more", [[], ["-H", "Expect:"], ["-H", "Transfer-Encoding: chunked"]])
def test_refusal_of_8_mib_is_read_by_curl(served, tmp_path, more):
    body = tmp_path / "body"
    body.write_bytes(b"\0" * (8 * MEBIBYTE))
    command = ["curl", "-sS", "--max-time", "30", "-w", "%{http_code}", "--data-binary", f"@{body}", *more]
    done = subprocess.run([*command, f"{served.url}/api/v1/projects"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("401")


def lingering(served):
    return served.app._server._lingering


def refused(served):
    """Send a request that is refused, with a body that never ends; return the connection after the answer."""
    connection = socket.create_connection(("127.0.0.1", served.port), 20)
    connection.sendall(b"POST /api/v1/projects HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 900000000\r\n\r\n")
    answer = b""
    while piece := connection.recv(1 << 16):
        answer += piece
    assert parsed(answer)[0] == 401
    return connection


def send_until_reset(connection, size, pause=0.0):
    """Send pieces of so many bytes; fails if the server takes them for longer than 20 s."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            connection.sendall(b"\0" * size)
        except OSError:
            return
        time.sleep(pause)
    raise AssertionError("the server did not close the connection")


def test_lingering_connection_is_no_open_connection(limited):
    with refused(limited):
        until(lambda: limited.on_loop(lambda: len(lingering(limited))) == 1)
        assert limited.on_loop(lambda: len(limited.app._server._open)) == 0
    until(lambda: limited.on_loop(lambda: len(lingering(limited))) == 0)


def test_lingering_ends_when_the_client_is_silent(limited):
    with refused(limited) as silent:
        until(lambda: limited.on_loop(lambda: len(lingering(limited))) == 1)
        until(lambda: limited.on_loop(lambda: len(lingering(limited))) == 0, LIMITS.lingering_seconds - 1)
        send_until_reset(silent, MEBIBYTE)


def test_lingering_ends_after_its_bytes(limited):
    before = lingering(limited).dropped
    with refused(limited) as endless:
        send_until_reset(endless, MEBIBYTE)
    until(lambda: limited.on_loop(lambda: len(lingering(limited))) == 0)
    dropped = lingering(limited).dropped - before
    assert LIMITS.lingering_bytes <= dropped <= LIMITS.lingering_bytes + _LINGER_BUFFER


def test_lingering_ends_after_its_time(limited):
    began = time.monotonic()
    with refused(limited) as slow:
        send_until_reset(slow, 100, 0.05)
    assert time.monotonic() - began < 2 * LIMITS.lingering_seconds


def test_lingering_connections_of_an_address_are_limited(limited):
    held = [refused(limited) for _ in range(4)]
    assert limited.on_loop(lambda: len(lingering(limited))) <= LIMITS.lingering_per_address
    assert limited("GET", "/health").ok
    for each in held:
        each.close()
    until(lambda: limited.on_loop(lambda: len(lingering(limited))) == 0)


def test_server_with_lingering_connections_ends(tmp_path):
    with Served(tmp_path / "data", Limits(lingering_idle_seconds=60, lingering_seconds=60)) as served:
        connection = refused(served)
        until(lambda: served.on_loop(lambda: len(lingering(served))) == 1)
        began = time.monotonic()
    assert time.monotonic() - began < 20
    connection.close()


def test_other_requests_are_answered_while_connections_linger(limited):
    """The longest wait for an answer, while two clients send as fast as they can, stays below a second."""
    senders = [refused(limited) for _ in range(2)]
    longest = 0.0
    for _ in range(20):
        for each in senders:
            each.setblocking(False)
            with suppress(OSError):
                each.send(b"\0" * MEBIBYTE)
        began = time.monotonic()
        assert limited("GET", "/health").ok
        longest = max(longest, time.monotonic() - began)
    assert longest < 1.0
    for each in senders:
        each.close()


def test_answer_408_follows_an_interim_answer(tmp_path):
    limits = Limits(body_seconds=0.4, lingering_idle_seconds=0.2)
    with Served(tmp_path / "data", limits) as served:
        head = f"POST /api/v1/projects HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n"
        answer = exchange(served.port, f"{head}Expect: 100-continue\r\nContent-Length: 500\r\n\r\n".encode())
    assert re.match(rb"HTTP/1.1 100 .*?\r\n\r\nHTTP/1.1 408 ", answer, re.DOTALL)
