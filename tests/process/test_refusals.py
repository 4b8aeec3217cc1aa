"""Requests that once ended in a 500 or a traceback: each class of them is refused with a message, or accepted."""

from __future__ import annotations

import csv
import io
import json
import re
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path

import msgspec
import pytest
import requests
from support.fuzzing import LoggedServer
from support.runs_over_http import begin

from lmvp.core import digest
from lmvp.core.run_frames import key_frame, points_frame
from lmvp_server.api.export import inert
from lmvp_server.api.route import JSON_LIMIT
from lmvp_server.routes import API

RUN = "a" * 32
HIGHEST = (1 << 63) - 1


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    made = LoggedServer(tmp_path_factory.mktemp("served") / "data")
    made.token = made.start()
    assert ask(made, "POST", "/projects", {"name": "digits"}).status_code == 201
    assert ask(made, "POST", "/projects/digits/runs", {"run": RUN}).status_code == 201
    yield made
    made.end()
    log = made.log.read_text()
    assert "Traceback" not in log
    assert " ERROR " not in log


def ask(server, method, path, body=None, data=None, **headers):
    headers = {"Authorization": f"Bearer {server.token}", **headers}
    encoded = data if body is None else msgspec.json.encode(body)
    return requests.request(method, server.url + API + path, data=encoded, headers=headers, timeout=30)


def raw(server, head, body=b"", pause=0.0):
    """Send bytes; return status, headers and body of the answer."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as line:
        line.sendall(head.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n")
        time.sleep(pause)
        line.sendall(body)
        answer = b""
        while piece := line.recv(65536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    return int(lines[0].split()[1]), dict(line.split(": ", 1) for line in lines[1:]), body


def head_of(server, line, *headers):
    return "\n".join([line, "Host: 127.0.0.1", f"Authorization: Bearer {server.token}", *headers])


@pytest.mark.parametrize("fields", [51, 60, 5000])
def test_form_of_too_many_fields_is_refused(server, fields):
    page = f"{server.url}/account"
    body = "&".join(f"f{number}=1" for number in range(fields))
    answer = requests.post(page, data=body, headers={"Authorization": f"Bearer {server.token}"}, timeout=30)
    assert answer.status_code == 400
    assert "a form of more than 50 fields" in answer.text


@pytest.mark.parametrize(
    ("path", "host", "status"),
    [
        ("/static/tokens.css", "evil.example", 403),
        ("/static/nothing", "evil.example", 403),
        ("/static/%00", "127.0.0.1", 404),
        ("/static/a%00b.css", "127.0.0.1", 404),
        ("/static/" + "a" * 5000, "127.0.0.1", 404),
        ("/static/%2e%2e/settings.py", "127.0.0.1", 403),
        ("/static/console", "127.0.0.1", 403),
        ("/static/tokens.css", "127.0.0.1", 200),
    ],
)
def test_static_file_is_found_or_refused_with_a_message(server, path, host, status):
    answer = requests.get(server.url + path, headers={"Host": host}, timeout=30)
    assert answer.status_code == status
    assert "Server" not in answer.headers
    if status >= 400:
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert 5 < len(answer.text) < 200
        assert "<" not in answer.text
    assert requests.post(server.url + path, headers={"Host": host}, timeout=30).status_code in {403, 405}


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE", "OPTIONS"])
def test_response_names_no_software(server, method):
    for path in (
        "/static/nothing", "/static/tokens.css", "/static/", "/static", "/nothing", "/", "/login", "/p/x", "/device",
        "/api/v1/health", "/api/v1/projects", "/api/v1/projects/x", "/api/v1/nothing", "/api/v1/openapi.json",
    ):  # fmt: skip
        answer = requests.request(method, server.url + path, timeout=30, allow_redirects=False)
        assert "Server" not in answer.headers, path


@pytest.mark.parametrize("step", [HIGHEST, HIGHEST + 1, 1 << 64, -(1 << 63), -(1 << 63) - 1, 10**400, -(10**400)])
def test_step_beyond_int64_is_refused(server, step):
    answer = ask(server, "POST", f"/projects/digits/runs/{RUN}/metrics", {"values": {"loss": 1.0}, "step": step})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] in {"invalid_argument", "invalid_request"}


@pytest.mark.parametrize("bound", ["9.3e18", "-9.3e18", "1e300", "-1e300"])
def test_bounds_of_a_curve_may_lie_beyond_int64(server, bound):
    ask(server, "POST", f"/projects/digits/runs/{RUN}/metrics", {"values": {"bounded": 1.0}, "step": 3})
    for name, count in (("from", bound[0] == "-"), ("to", bound[0] != "-")):
        answer = ask(server, "GET", f"/projects/digits/metrics?run={RUN}&key=bounded&{name}={bound}")
        assert answer.status_code == 200
        assert answer.json()["curves"][0]["count"] == count


def test_point_without_a_step_after_the_last_step_of_int64_is_kept(server):
    """Numbering cannot go on behind 2**63 - 1; the run can still be read after a restart."""
    run, auto = secrets.token_hex(16), -(1 << 63)
    data = begin(run) + key_frame(0, "loss") + points_frame(1.7e9, [(0, HIGHEST, 1.0), (0, auto, 2.0), (0, auto, 3.0)])
    answer = ask(server, "PUT", f"/projects/digits/runs/{run}/writers/{'b' * 32}?from=0", data=data)
    assert answer.status_code == 200
    data = points_frame(1.7e9, [(0, auto, 4.0), (0, HIGHEST - 1, 5.0), (0, auto, 6.0)])
    start = answer.json()["applied"]
    assert ask(server, "PUT", f"/projects/digits/runs/{run}/writers/{'b' * 32}?from={start}", data=data).ok
    before = ask(server, "GET", f"/projects/digits/metrics?run={run}").json()["curves"][0]
    assert before["steps"][-1] == HIGHEST
    assert before["values"][-1] == 6.0
    server.end()
    server.start()
    assert ask(server, "GET", f"/projects/digits/metrics?run={run}").json()["curves"][0] == before


@pytest.mark.parametrize("length", ["\xb2", "9" * 30, "9" * 5000, "1_0", "-1", "x"])
def test_length_that_is_no_number_is_refused(server, length):
    for path in (f"{API}/projects", "/account", f"{API}/nothing"):
        status, _, _ = raw(server, head_of(server, f"POST {path} HTTP/1.1", f"Content-Length: {length}"))
        assert 400 <= status < 500


@pytest.mark.parametrize("digits", ["9" * 30, "9" * 5000])
def test_number_of_many_digits_is_refused(server, digits):
    made = ask(server, "POST", "/projects/digits/models", {"name": "many"})
    assert made.status_code in {200, 201, 409}
    model = "/projects/digits/models/many"
    for path in (
        f"{model}/versions/1/histograms?bins={digits}",
        f"{model}/versions/c{digits}",
        f"{model}/versions/{digits}",
    ):
        assert 400 <= ask(server, "GET", path).status_code < 500, path[:60]
    for rule in (f"last:{digits}", f"best:loss:{digits}"):
        assert ask(server, "POST", f"{model}/prune", {"keep": rule, "dry_run": True}).status_code == 400
    for body in (b'{"name": %s}', b'{"name": "x", "public": -%s}', b'{"name": "x", "more": 1e%s}'):
        assert ask(server, "POST", "/projects", data=body % digits.encode()).status_code == 400


def test_long_body_without_a_length_is_refused_with_a_message(server):
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    head = head_of(
        server, f"POST {API}/projects HTTP/1.1", "Transfer-Encoding: chunked", "Content-Type: application/json"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as line:
        line.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + chunk * (JSON_LIMIT // 65536) + chunk)
        answer = line.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"Connection: close" in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "too_large"


@pytest.mark.parametrize(
    "line",
    [
        "PUT {api}/projects/digits/models/m/pushes/" + "b" * 32 + "/chunks",
        "POST {api}/nothing",
        "BREW {api}/projects",
        "POST /account",
    ],
)
def test_refused_request_is_answered_when_its_body_has_come(server, line):
    """The body comes after the refusal: a connection closed before that is reset, and the answer may be lost."""
    body = b"x" * 200_000
    head = head_of(server, line.format(api=API) + " HTTP/1.1", f"Content-Length: {len(body)}")
    status, headers, answer = raw(server, head, body, pause=0.2)
    assert 400 <= status < 500
    assert headers["Connection"] == "close"
    assert answer


def test_request_that_is_cut_off_leaves_nothing_behind(server):
    """Also where its handler has not begun: no traceback, and no task that waits for the body."""
    for line in (
        f"PUT {API}/projects/digits/models/m/pushes/{'b' * 32}/chunks",
        f"PUT {API}/projects/digits/runs/{RUN}/writers/{RUN}?from=0",
        f"GET {API}/projects/digits/metrics/live?run={RUN}",
        "POST /login",
    ):
        for coding in ("Content-Length: 100", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked, chunked"):
            head = head_of(server, f"{line} HTTP/1.1", coding).replace("\n", "\r\n").encode() + b"\r\n\r\n"
            with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
                connection.sendall(head + b"5\r\nhel")
    assert ask(server, "GET", "/health").ok


def test_stream_of_a_run_that_is_named_twice_ends_without_a_fault(server):
    url = f"{server.url}{API}/projects/digits/metrics/live"
    headers = {"Authorization": f"Bearer {server.token}"}
    with requests.get(url, params={"run": [RUN, RUN]}, headers=headers, stream=True, timeout=30) as answer:
        assert answer.status_code == 200
        assert next(answer.iter_lines()) == b"event: status"
    server.end()  # ends the stream
    server.start()
    assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("value", ['"a\\015\\012b"', '"\\073 x=1"', "\xff", "v" * 5000, '"\\377"', "x y"])
def test_cookie_of_a_visitor_that_no_header_may_hold_is_replaced(server, value):
    status, headers, _ = raw(
        server, f"GET /login HTTP/1.1\nHost: 127.0.0.1\nConnection: close\nCookie: lmvp_visitor={value}"
    )
    assert status == 200
    assert re.match(r"lmvp_visitor=[A-Za-z0-9_-]{16,64};", headers["Set-Cookie"])


def test_token_in_a_malformed_header_is_not_logged(server):
    """As from a file whose lines end with CR LF."""
    secret = "lmvp_" + "s" * 40
    for header in (f"Authorization: Bearer {secret}\rx", f"Cookie: lmvp_session={secret}\x00", f" Bearer {secret}"):
        assert raw(server, f"GET {API}/projects HTTP/1.1\nHost: 127.0.0.1\n{header}")[0] == 400
    log = server.log.read_text()
    assert "Malformed HTTP message" in log
    assert secret not in log


FORMULAS = [
    "=1", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\t1", "\r1", "\n1", " =1", "   @x", "\u00a0=1", "\u2003=1",
    "\u3000=1", "\u200b=1", "\ufeff=1", "\u202e=1", "\x00=1", "\x1f+x", "\uff1d1", "\uff0bx", "\uff0dx", "\uff20x",
    " \uff1d1", "\u3000\uff20x", "\ufe661", "\ufe62x", "\ufe63x", "\ufe6bx", "-", "=", "--1", "-1.5x", "+1e", "-.",
    "- 1", "-\u0661",
]  # fmt: skip
TEXTS = [
    "", " ", "a=1", "loss", "train/loss", "-1.5", "+1.5", "-1", "1", "-1e-5", "+.5", "-5.", "1.5E+10", "'=1",
    "\u65e5\u672c", "x\t=1", "lr=0.1", "#1", "\u2212x", "a-b", "a@b", "(1)",
]  # fmt: skip


def test_text_that_a_spreadsheet_could_run_is_neutralised():
    assert [inert(text) for text in FORMULAS] == [f"'{text}" for text in FORMULAS]
    assert [inert(text) for text in TEXTS] == TEXTS


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_text_that_a_spreadsheet_could_run_is_neutralised_in_the_browser():
    source = Path(__file__).parents[2] / "lmvp_server" / "static" / "widgets" / "saving.js"
    function = re.search(r"^export (function inert\(.*?^\})", source.read_text("utf-8"), re.MULTILINE | re.DOTALL)[1]
    script = f"{function}\nprocess.stdout.write(JSON.stringify({json.dumps(FORMULAS + TEXTS)}.map(inert)))"
    done = subprocess.run(["node", "-e", script], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout) == [f"'{text}" for text in FORMULAS] + TEXTS


def test_export_neutralises_names_and_keys_and_keeps_numbers(server):
    run = secrets.token_hex(16)
    assert ask(server, "POST", "/projects/digits/runs", {"run": run}).status_code == 201
    point = {"values": {"\uff20loss": -1.5}, "step": -3, "time": 1.7e9}
    ask(server, "POST", f"/projects/digits/runs/{run}/metrics", point)
    answer = ask(server, "GET", f"/projects/digits/metrics/export?run={run}")
    rows = list(csv.reader(io.StringIO(answer.content.decode())))
    assert [rows[1][0], *rows[1][2:5]] == [run, "'\uff20loss", "-3", "-1.5"]


def test_refusal_that_ends_its_connection_says_so(server):
    """A client that is not told sends its next request over a connection that is closing, and gets a reset."""
    with requests.Session() as line:
        for number in range(100):
            refused = line.get(f"{server.url}{API}/projects/digits", headers={"Authorization": "Bearer x"}, timeout=30)
            assert (refused.status_code, refused.headers["Connection"]) == (401, "close")
            headers = {"Authorization": f"Bearer {server.token}"}
            made = line.post(f"{server.url}{API}/tokens", json={"name": f"t{number}"}, headers=headers, timeout=30)
            assert made.status_code == 201
            assert made.headers.get("Connection") != "close"


def test_frames_with_a_wrong_method_are_refused_without_a_fault(server):
    """The `server` fixture finds the traceback of an error that nothing handles in the log."""
    data = b"x" * 100
    chunk = digest.of_bytes(data)
    files = [{"path": "w", "size": 100, "digest": digest.of_chunks([chunk]), "chunks": [[chunk, 100]]}]
    manifest = {"files": files, "format": "files", "lmvp": 1, "meta": {}, "parents": [], "tensors": []}
    push = secrets.token_hex(16)
    begun = ask(
        server, "POST", "/projects/digits/models/mlp/pushes", {"push": push, "manifest": manifest, "create": True}
    )
    assert begun.status_code == 201, begun.text
    refused = ask(server, "POST", f"/projects/digits/models/mlp/pushes/{push}/chunks", data=b"?" * 64)
    assert refused.status_code == 405
    time.sleep(0.5)  # asyncio logs an unhandled error when the server collects the task
    assert ask(server, "GET", "/projects/digits/models/mlp/pushes/" + push).ok
