"""What clients of ours never send: refused with a 4xx that says why, and nothing is half-done."""

import http.server
import secrets
import struct
import threading

import msgspec
import numpy as np
import pytest
import requests

import lmvp
from lmvp import errors, local
from lmvp.core import chunk_frames, digest
from lmvp.core import manifest as manifests
from lmvp.core.chunk_frames import Frame
from lmvp.core.manifest import (
    Chunk,
    File,
    Manifest,
    Tensor,
)
from lmvp.formats import pack
from lmvp.transfer.manifest_builder import describe
from lmvp_server.api.devices import DeviceCodesHandler, DeviceTokensHandler
from lmvp_server.api.health import HealthHandler
from lmvp_server.openapi import methods_of
from lmvp_server.routes import API, ROUTES

MODEL = "/projects/d/models/m"


class Server:
    """A real server, spoken to with plain requests."""

    def __init__(self):
        found = local.connection()
        self.url, self.token = found.url + API, found.token

    def __call__(self, method, path, body=None, data=None, token=None, **headers):
        headers["Authorization"] = f"Bearer {token or self.token}"
        encoded = msgspec.json.encode(body) if body is not None else data
        return requests.request(method, self.url + path, data=encoded, headers=headers, timeout=30)

    def push(self, manifest, push=None):
        raw = manifest if isinstance(manifest, bytes) else manifests.encode(manifest)
        push = push or secrets.token_hex(16)
        return push, self("POST", f"{MODEL}/pushes", {"push": push, "manifest": msgspec.Raw(raw)})

    def put(self, push, *pieces):
        return self("PUT", f"{MODEL}/pushes/{push}/chunks", data=b"".join(pieces))


@pytest.fixture
def server(home):
    return Server()


def file_of(data, path="a.bin", **changes):
    ids = [digest.of_bytes(data[i : i + (4 << 20)]) for i in range(0, len(data), 4 << 20)]
    chunks = tuple(Chunk(one, min(4 << 20, len(data) - i * (4 << 20))) for i, one in enumerate(ids))
    return msgspec.structs.replace(File(path, len(data), digest.of_chunks(ids), chunks), **changes)


def frame_of(data, chunk=None):
    return chunk_frames.header(Frame(chunk or digest.of_bytes(data), len(data), len(data))) + data


def said(answer, status, code):
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["code"] == code, answer.text
    return answer.json()["error"]


OPEN = {HealthHandler, DeviceCodesHandler, DeviceTokensHandler}
"""What a client without a token may ask: who is there, and how to get one."""


def test_every_route_is_closed(server):
    for pattern, handler in ROUTES:
        if handler in OPEN:
            continue
        path = pattern.replace("([^/]+)", "x").replace("(.+)", "x")
        for method in methods_of(handler):
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": server.token}):
                answer = requests.request(method, server.url + path, headers=headers, timeout=10)
                assert answer.status_code == 401, (method, path)


def test_the_first_page_is_closed_and_who_waits_learns_nothing(server):
    root = server.url.removesuffix("/api/v1")
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        answer = requests.get(f"{root}/", headers=headers, timeout=10, allow_redirects=False)
        assert (answer.status_code, answer.headers["Location"], answer.content) == (303, "login", b"")
    for path in ("code", "token"):
        for body in (b"", b"[]", b'{"device_code": 3}', b'{"client_name": 1}', b"{" * 3000, b"x" * 5000):
            answer = requests.post(f"{server.url}/device/{path}", data=body, timeout=10)
            assert answer.status_code in (400, 413)
            assert server.token not in answer.text


def test_health_is_open_and_says_little(server):
    answer = requests.get(server.url + "/health", timeout=10)
    assert answer.status_code == 200
    assert server.token not in answer.text


def test_a_foreign_host_is_refused(server):
    assert requests.get(server.url + "/health", headers={"Host": "evil.example"}, timeout=10).status_code == 403


def test_routes_and_methods_that_are_not_there(server):
    said(server("GET", "/nothing"), 404, "not_found")
    said(server("DELETE", "/projects"), 405, "method_not_allowed")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"name": 3}', b'{"name": "x", "more": 1}', b"\xff", b"[" * 100_000]
)
def test_bodies_that_cannot_be_read(server, body):
    said(server("POST", "/projects", data=body), 400, "invalid_request")
    assert server("GET", "/projects").json()["items"] == []


def test_a_body_over_the_limit(server):
    said(server("POST", "/projects", data=b" " * (2 << 20)), 413, "too_large")


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../x", "a/../b", "a//b", "./a", "", "a\\b", "C:x", "a\0b", "x" * 1025, "a/"]
)
def test_bad_paths(server, path):
    said(server.push(Manifest("files", (file_of(b"x", path),)))[1], 422, "invalid_manifest")


@pytest.mark.parametrize(
    "manifest",
    [
        Manifest("files", (file_of(b"x", "a"), file_of(b"y", "a"))),
        Manifest("files", (file_of(b"x", "a"), file_of(b"y", "a/b"))),
        Manifest("files", (file_of(b"x", size=2),)),
        Manifest("files", (file_of(b"x", size=-1),)),
        Manifest("files", (file_of(b"x", size=1 << 63),)),
        Manifest("files", (file_of(b"x", chunks=(Chunk("0" * 64, 5 << 20),), size=5 << 20),)),
        Manifest("files", (file_of(b"x", chunks=(Chunk("zz", 1),)),)),
        Manifest("files", (file_of(b"x", digest="0" * 64),)),
        Manifest("../x", (file_of(b"x"),)),
        Manifest("files", (file_of(b"x"),), lmvp=2),
        Manifest("numpy", (file_of(b"x" * 8),), (Tensor("w", "F32", (2,), "b", 0, 8, "0" * 64),)),
        Manifest("numpy", (file_of(b"x" * 8),), (Tensor("w", "F32", (2,), "a.bin", 4, 8, "0" * 64),)),
        Manifest("numpy", (file_of(b"x" * 8),), (Tensor("w", "F32", (2,), "a.bin", 0, 8, "0" * 64),)),
        Manifest("numpy", (file_of(b"x" * 8),), (Tensor("w", "F32", (3,), "a.bin", 0, 8, digest.of_bytes(b"x" * 8)),)),
        Manifest("numpy", (file_of(b"x" * 8),), (Tensor("w", "F99", (2,), "a.bin", 0, 8, digest.of_bytes(b"x" * 8)),)),
        Manifest("numpy", (file_of(b"x" * 8),), (Tensor("w", "F32", (1 << 62, 1 << 62), "a.bin", 0, 8, "0" * 64),)),
        b'{"format":"files"}',
        b'{"format":"files","files":[],"surprise":1}',
        b"[]",
    ],
    ids=str,
)  # fmt: skip
def test_manifests_that_make_no_sense(server, manifest):
    said(server.push(manifest)[1], 422, "invalid_manifest")
    assert server("GET", "/projects").json()["items"] == []


def test_a_push_needs_an_id_and_no_parents(server):
    said(server.push(Manifest("files", (file_of(b"x"),)), push="../../x")[1], 400, "invalid_request")
    said(server.push(Manifest("files", (file_of(b"x"),), parents=("0" * 64,)))[1], 400, "invalid_request")


def test_frames_that_are_refused(server):
    push, begun = server.push(Manifest("files", (file_of(b"right"),)))
    assert begun.status_code == 201
    good = frame_of(b"right")
    said(server.put(push, frame_of(b"wrong", digest.of_bytes(b"right"))), 422, "integrity")
    said(server.put(push, frame_of(b"other")), 400, "invalid_request")
    said(server.put(push, good[:-1]), 400, "invalid_request")
    said(server.put(push, b"x" * 48), 400, "invalid_request")
    said(
        server.put(push, struct.pack("<2sBBIII32s", b"LF", 1, 9, 5, 5, 0, bytes(32)), b"right"), 400, "invalid_request"
    )
    said(
        server.put(push, struct.pack("<2sBBIII32s", b"LF", 1, 0, 1 << 31, 1 << 31, 0, bytes(32))),
        400,
        "invalid_request",
    )
    error = said(server("POST", f"{MODEL}/pushes/{push}/commit", {}), 422, "missing_chunks")
    assert error["details"]["missing"] == [digest.of_bytes(b"right")]
    assert server("GET", f"{MODEL}/versions").json()["items"] == []
    assert server.put(push, good).json() == {"missing_count": 0}
    assert server("POST", f"{MODEL}/pushes/{push}/commit", {}).status_code == 201


def test_everything_may_be_said_twice(server):
    manifest = Manifest("files", (file_of(b"data"),))
    push, _ = server.push(manifest)
    assert server.push(manifest, push)[1].status_code == 201
    for _ in range(2):
        assert server.put(push, frame_of(b"data")).status_code == 200
    made = [server("POST", f"{MODEL}/pushes/{push}/commit", {}).json() for _ in range(3)]
    assert made[0] == made[1] == made[2]
    assert len(server("GET", f"{MODEL}/versions").json()["items"]) == 1
    said(server("GET", f"{MODEL}/pushes/{push}"), 404, "not_found")


def test_a_small_push_whose_bytes_are_not_all_there(server):
    manifest = Manifest("files", (file_of(b"data"),))
    head = msgspec.json.encode({"push": "0" * 32, "manifest": msgspec.Raw(manifests.encode(manifest))})
    said(server("POST", f"{MODEL}/versions", data=struct.pack("<I", len(head)) + head), 422, "missing_chunks")
    said(server("POST", f"{MODEL}/versions", data=struct.pack("<I", 1 << 31) + head), 400, "invalid_request")
    said(server("POST", f"{MODEL}/versions", data=b"{}"), 400, "invalid_request")
    body = struct.pack("<I", len(head)) + head + frame_of(b"data")
    made = [server("POST", f"{MODEL}/versions", data=body).json() for _ in range(2)]
    assert made[0]["number"] == made[1]["number"] == 1


def test_only_chunks_of_the_version_are_given(server):
    lmvp.update("d/m", {"w": np.zeros(4)})
    lmvp.update("d/secret", {"w": np.ones(4)})
    foreign = describe(pack({"w": np.ones(4)})).manifest.files[0].chunks[-1].id
    said(server("POST", f"{MODEL}/versions/1/chunks", {"want": [foreign]}), 400, "invalid_request")
    said(server("POST", f"{MODEL}/versions/1/chunks", {"want": ["../x"]}), 400, "invalid_request")


def test_files_with_ranges(server, tmp_path):
    data = bytes(range(256)) * 40_000
    (tmp_path / "page.html").write_bytes(data)
    lmvp.update("d/m", tmp_path / "page.html")
    path = f"{MODEL}/versions/latest/files/page.html"
    whole = server("GET", path)
    assert whole.content == data
    assert "sandbox" in whole.headers["Content-Security-Policy"]
    assert whole.headers["Content-Disposition"].startswith("attachment")
    assert whole.headers["X-Content-Type-Options"] == "nosniff"
    for header, start, end in (
        ("bytes=5-9", 5, 10),
        ("bytes=-7", len(data) - 7, len(data)),
        ("bytes=4194300-", 4194300, len(data)),
    ):
        part = server("GET", path, Range=header)
        assert (part.status_code, part.content) == (206, data[start:end])
    said(server("GET", path, Range="bytes=99999999-"), 416, "range_not_satisfiable")
    assert server("HEAD", path).headers["Content-Length"] == str(len(data))
    assert server("GET", path, **{"If-None-Match": whole.headers["ETag"]}).status_code == 304
    said(server("GET", f"{MODEL}/versions/latest/files/none"), 404, "not_found")


def test_manifests_do_not_change(server):
    version = lmvp.update("d/m", {"w": np.zeros(4)})
    answer = server("GET", f"{MODEL}/versions/v1/manifest")
    assert answer.headers["ETag"] == f'"{version.digest}"'
    assert digest.of_bytes(answer.content) == version.digest
    assert server("GET", f"{MODEL}/versions/v1/manifest", **{"If-None-Match": f'"{version.digest}"'}).status_code == 304


def test_pages(server):
    for i in range(5):
        lmvp.update("d/m", {"w": np.full(2, i)})
    first = server("GET", f"{MODEL}/versions?limit=2").json()
    second = server("GET", f"{MODEL}/versions?limit=3&cursor={first['next']}").json()
    assert [v["number"] for v in first["items"] + second["items"]] == [5, 4, 3, 2, 1]
    assert second["next"] is None
    for query in ("limit=0", "limit=1001", "limit=x", "cursor=-1"):
        said(server("GET", f"{MODEL}/versions?{query}"), 400, "invalid_argument")


def test_events_tell_who_did_what(server):
    lmvp.update("d/m", {"w": np.zeros(2)}, alias="best")
    lmvp.Client().amend("d/m@v1", message="better")
    events = server("GET", "/projects/d/events").json()["items"]
    assert [event["action"] for event in events] == ["version.amend", "alias.move", "version.create", "model.create"]
    assert events[0]["before"] == {"message": ""}
    assert server("GET", "/events").json()["items"][0]["action"] == "project.create"


def test_a_damaged_chunk_is_reported_and_not_returned(home):
    model = {"w": np.arange(1000.0), "v": np.zeros(2 << 20)}
    lmvp.update("d/m", model)
    for chunk in (home / "chunks").rglob("*"):
        if chunk.is_file():
            data = bytearray(chunk.read_bytes())
            data[-1] ^= 1
            chunk.write_bytes(data)
    with pytest.raises(errors.IntegrityError, match=r"the chunk \w+ of 'weights.safetensors' is damaged"):
        lmvp.download("d/m")


def test_a_chunk_that_is_gone_is_reported(home):
    lmvp.update("d/m", {"w": np.arange(1000.0)})
    for chunk in [path for path in (home / "chunks").rglob("*") if path.is_file()]:
        chunk.unlink()
    with pytest.raises(errors.IntegrityError, match="is gone from the disk"):
        lmvp.download("d/m")


class Foreign(http.server.BaseHTTPRequestHandler):
    """A web server that is none of ours."""

    answer = (200, {}, b"<html>")

    def do_GET(self):
        status, headers, body = self.answer
        self.send_response(status)
        for name, value in {"Content-Type": "text/html", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def foreign():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Foreign) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("answer", "error", "match"),
    [
        ((200, {}, b"<html>"), errors.ServerUnavailable, "is not an LMVP server"),
        ((302, {"Location": "http://127.0.0.1:1/"}, b""), errors.ServerUnavailable, "sends us on"),
        ((200, {"LMVP-API": "2"}, b"{}"), errors.ServerMismatch, "speaks API 2, this client 1"),
        ((200, {"LMVP-API": "1"}, b"<html>"), errors.ServerError, "cannot be read"),
        ((500, {"LMVP-API": "1"}, b"<html>"), errors.ServerError, "without saying why"),
    ],
)
def test_what_is_no_server_of_ours(home, foreign, monkeypatch, answer, error, match):
    monkeypatch.setattr(Foreign, "answer", answer)
    with pytest.raises(error, match=match):
        lmvp.Client(foreign, "secret").projects()


def test_a_server_that_is_down(home, monkeypatch):
    monkeypatch.setattr("lmvp.connection.time.sleep", lambda _: None)
    with pytest.raises(errors.ServerUnavailable, match=r"no answer from http://127\.0\.0\.1:9: connection refused"):
        lmvp.Client("http://127.0.0.1:9", "secret").projects()


def nested(depth):
    return {"a": msgspec.Raw(b"[" * (depth - 1) + b"]" * (depth - 1))}


@pytest.mark.parametrize("depth", [201, 300, 900, *range(960, 1000, 3), 5000])
def test_what_is_nested_too_deep_is_refused_and_every_project_can_be_opened_again(server, depth):
    described = describe(pack({"w": np.arange(3)}))
    before = server("GET", "/projects").json()
    plain = msgspec.json.decode(manifests.encode(described.manifest))
    for manifest, more in ((plain | {"meta": nested(depth)}, {}), (plain, {"environment": nested(depth)})):
        body = {"push": secrets.token_hex(16), "manifest": manifest} | more
        answer = server("POST", f"{MODEL}/pushes", body)
        assert answer.status_code in {400, 422}, answer.text
        whole = msgspec.json.encode(body)
        answer = server("POST", f"{MODEL}/versions", data=struct.pack("<I", len(whole)) + whole)
        assert answer.status_code in {400, 422}, answer.text
    assert server("GET", "/projects").json() == before


def test_what_is_nested_as_deep_as_may_be_is_kept(server):
    described = describe(pack({"w": np.arange(3)}))
    manifest = msgspec.json.decode(manifests.encode(described.manifest)) | {"meta": nested(200)}
    body = {"push": secrets.token_hex(16), "manifest": manifest, "environment": nested(200)}
    answer = server("POST", f"{MODEL}/pushes", body)
    assert answer.status_code == 201, answer.text
