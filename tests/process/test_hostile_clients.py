"""Clients that speak badly on purpose: endless headers, garbage behind a request, one byte a second."""

from __future__ import annotations

import socket
import threading
import time
from urllib.parse import quote

import pytest
import requests
from support.in_process import TOKEN, Served
from support.real_server import Server

from lmvp_server.routes import API, LONG_READS


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("served") / "data")
    server.token = server.start()
    yield server
    server.kill()


def talk(server, data, seconds=5):
    """Send bytes; return what comes back until the server has nothing more to say."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=seconds) as line:
        line.sendall(data)
        answer = b""
        try:
            while piece := line.recv(65536):
                answer += piece
        except (TimeoutError, ConnectionResetError):
            pass
        return answer


def alive(server):
    answer = requests.get(f"{server.url}/api/v1/health", timeout=5)
    return answer.status_code == 200


@pytest.mark.parametrize(
    "data",
    [
        b"GET /api/v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /api/v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        (
            b"GET /api/v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        ),
        b"POST /api/v1/projects HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
        b"GET /api/v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: b\rGET /x HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
        b"\r\n\r\n\r\n\r\n" * 1000,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=["header", "path", "two lengths", "length and chunks", "negative", "bare return", "tls", "newlines", "http2"],
)
def test_what_is_no_request_is_refused_and_hurts_nobody(server, data):
    answer = talk(server, data, seconds=3)
    assert not answer or b" 200 " not in answer.split(b"\r\n")[0] or b"Content-Length: 4" in data
    assert server.token.encode() not in answer
    assert b"Traceback" not in answer
    assert alive(server)


def test_garbage_behind_a_request_is_not_part_of_it(server):
    good = b"GET /api/v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    answer = talk(server, good + b"garbage \x00\xff\r\n\r\n" + good, seconds=3)
    assert answer.count(b"HTTP/1.1 200") == 1, "what comes behind garbage is not read"
    assert alive(server)


def test_slow_clients_do_not_keep_others_waiting(server):
    lines = [socket.create_connection(("127.0.0.1", server.port), timeout=5) for _ in range(200)]
    try:
        for line in lines:
            line.sendall(b"POST /api/v1/projects HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n")
        for line in lines:
            line.sendall(b"X: y\r\n")
        began = time.perf_counter()
        assert alive(server)
        assert time.perf_counter() - began < 3
    finally:
        for line in lines:
            line.close()
    assert alive(server)


@pytest.mark.parametrize(
    "path", ["/static/../settings.py", "/static/%2e%2e/settings.py", "/static//etc/passwd", "/static/..%5c..%5cx"]
)
def test_no_path_leads_out_of_the_static_files(server, path):
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
    first = talk(server, request).split(b"\r\n")[0]
    assert b" 403 " in first or b" 404 " in first


def test_names_cannot_write_headers(server):
    headers = {"Authorization": f"Bearer {server.token}"}
    for name in ("a%0d%0aSet-Cookie:%20x=1", "a%00b", "..", "%2e%2e%2fserver"):
        answer = requests.get(f"{server.url}/api/v1/projects/{name}", headers=headers, timeout=5)
        assert answer.status_code in {400, 404}
        assert "Set-Cookie" not in answer.headers


def test_long_questions_leave_threads_for_others_and_end_with_their_clients(tmp_path):
    """Questions of one account hold all but one of few threads; those whose client has left are not answered at all."""
    started, release = [], threading.Event()

    def curves(*_):
        started.append(1)
        release.wait(30)
        return [list]

    with Served(tmp_path / "data") as served:
        served("POST", "/projects", json={"name": "p"})
        served.services.metrics.batches = curves
        served.services.metrics.incomplete = lambda *_: ""
        head = f"Host: localhost\r\nAuthorization: Bearer {TOKEN}"
        request = f"GET {API}/projects/p/metrics?run=a HTTP/1.1\r\n{head}\r\n\r\n"
        clients = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(30)]
        try:
            for client in clients:
                client.sendall(request.encode())
            time.sleep(0.5)
            assert served("GET", "/projects").ok
            assert len(started) == LONG_READS - 1
        finally:
            for client in clients:
                client.close()
            time.sleep(0.5)
            release.set()
        time.sleep(0.5)
        assert len(started) == LONG_READS - 1


def test_form_of_a_run_with_any_name_leads_back_to_it(tmp_path):
    with Served(tmp_path / "data") as served:
        served("POST", "/projects", json={"name": "p"})
        for number, name in enumerate(("日本", "é", "a b", "x?y#z", "%", "../../x")):
            served("POST", "/projects/p/runs", json={"run": f"{number:032x}", "name": name})
            quoted = quote(name, safe="")
            answer = served("POST", f"~/p/p/-/runs/{quoted}", data={"do": "end"})
            assert answer.status_code == 303
            assert answer.headers["Location"].endswith(f"p/p/-/runs/{quoted}")
