"""Encoded chunks on the wire: what a server takes and gives; hostile frames and wishes get a 4xx, and nothing else."""

import secrets
import struct

import msgspec
import numpy as np
import pytest
import requests

import lmvp
from lmvp import local
from lmvp.core import chunk_frames, codecs, digest
from lmvp.core import manifest as manifests
from lmvp.core.chunk_frames import (
    DELTA,
    RAW,
    SOLO,
    ZSTD,
    Frame,
    FrameReader,
)
from lmvp.core.codecs import Link
from lmvp.formats import pack
from lmvp.transfer.manifest_builder import describe
from lmvp_server.routes import API

RNG = np.random.default_rng(0)
OLD = {"w": (RNG.standard_normal(50_000) * 0.02).astype(np.float32)}
NEW = {"w": OLD["w"] + np.float32(1e-6)}
OTHER = {"w": (RNG.standard_normal(50_000) * 0.02).astype(np.float32)}


def tensor(tree):
    """Return the bytes of the one tensor, which is a chunk."""
    return tree["w"].tobytes()


def name(tree):
    return digest.of_bytes(tensor(tree))


class Server:
    def __init__(self):
        found = local.connection()
        self.url, self.token = found.url + API, found.token

    def __call__(self, method, path, body=None, data=None):
        encoded = msgspec.json.encode(body) if body is not None else data
        headers = {"Authorization": f"Bearer {self.token}"}
        return requests.request(method, self.url + path, data=encoded, headers=headers, timeout=30)

    def begin(self, tree, model="d/m"):
        project, model = model.split("/")
        self.model = f"/projects/{project}/models/{model}"
        self.push = secrets.token_hex(16)
        manifest = msgspec.Raw(manifests.encode(describe(pack(tree)).manifest))
        return self("POST", f"{self.model}/pushes", {"push": self.push, "manifest": manifest}).json()

    def put(self, *pieces):
        return self("PUT", f"{self.model}/pushes/{self.push}/chunks", data=b"".join(pieces))

    def commit(self):
        return self("POST", f"{self.model}/pushes/{self.push}/commit", {})

    def chunks(self, model="d/m", version=1, **body):
        project, model = model.split("/")
        answer = self("POST", f"/projects/{project}/models/{model}/versions/{version}/chunks", body)
        assert answer.status_code == 200, answer.text
        reader = FrameReader()
        found = [(frame, b"".join(pieces)) for frame, pieces in reader.feed(answer.content)]
        assert reader.between
        return found


@pytest.fixture
def server(home):
    return Server()


def framed(data, encoded, chunk=None, size=None):
    head = Frame(chunk or digest.of_bytes(data), size or len(data), len(encoded.payload), encoded.codec)
    return chunk_frames.header(head) + bytes(encoded.payload)


def delta(data, base, base_name=None, depth=1, **changes):
    encoded = codecs.encode_delta(data, "F32", base, Link(base_name or digest.of_bytes(base), depth))
    assert encoded is not None
    return framed(data, encoded, **changes)


def solo(data):
    encoded = codecs.encode(data, "F32")
    assert encoded.codec == SOLO
    return framed(data, encoded)


def the_rest(tree, server):
    """Send all chunks but that of the tensor."""
    places = describe(pack(tree)).places
    for chunk, place in places.items():
        if chunk != name(tree):
            data = b"".join(place.read())
            assert server.put(chunk_frames.header(Frame(chunk, len(data), len(data))) + data).status_code == 200


def stored(home, chunk):
    [path] = (home / "chunks").glob(f"*/{chunk[:2]}/{chunk[2:]}")
    data = path.read_bytes()
    return chunk_frames.read_header(data[:48]), data[48:]


def is_nowhere(home, chunk):
    return not list((home / "chunks").glob(f"*/{chunk[:2]}/{chunk[2:]}"))


def said(answer, status, code, words):
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["code"] == code
    assert words in error["message"]


# -- up


def test_what_stands_by_itself_is_kept_as_it_came(server, home):
    server.begin(OLD)
    the_rest(OLD, server)
    frame = solo(tensor(OLD))
    for _ in range(2):
        assert server.put(frame).json() == {"missing_count": 0}
    version = server.commit().json()
    assert stored(home, name(OLD))[0].codec == SOLO
    assert version["sent"] < version["size"] - 10_000
    assert (lmvp.download("d/m")["w"] == OLD["w"]).all()


def test_a_delta_against_the_base_is_decoded_and_kept_raw(server, home):
    first = lmvp.update("d/m", OLD)
    begun = server.begin(NEW)
    assert begun["base"] == first.digest
    the_rest(NEW, server)
    assert server.put(delta(tensor(NEW), tensor(OLD))).json() == {"missing_count": 0}
    assert server.commit().status_code == 201
    head, payload = stored(home, name(NEW))
    assert (head.codec, payload) == (RAW, tensor(NEW))
    assert (lmvp.download("d/m")["w"] == NEW["w"]).all()


def test_the_base_of_a_push_is_the_parent_that_it_names(server):
    first = lmvp.update("d/m", OLD)
    lmvp.update("d/m", OTHER)
    manifest = msgspec.Raw(manifests.encode(describe(pack(NEW)).manifest))
    body = {"push": secrets.token_hex(16), "manifest": manifest, "parent": first.digest}
    assert server("POST", "/projects/d/models/m/pushes", body).json()["base"] == first.digest


def test_a_first_push_has_no_base(server, home):
    assert server.begin(NEW)["base"] is None
    said(server.put(delta(tensor(NEW), tensor(OLD))), 400, "invalid_request", "which is no chunk of the base")
    assert is_nowhere(home, name(NEW))


@pytest.mark.parametrize("where", ["d/other", "foreign/m", None])
def test_a_base_from_elsewhere_is_refused(server, home, where):
    """Else one could ask, by trial, what other models hold."""
    if where:
        lmvp.update(where, OLD)
    lmvp.update("d/m", OTHER)
    server.begin(NEW)
    said(server.put(delta(tensor(NEW), tensor(OLD))), 400, "invalid_request", "which is no chunk of the base")
    assert is_nowhere(home, name(NEW))
    said(server.commit(), 422, "missing_chunks", "have not come")


def test_a_chunk_of_the_same_push_is_no_base(server, home):
    lmvp.update("d/m", OTHER)
    both = {"a": OLD["w"], "b": NEW["w"].view(np.int32)}  # of two dtypes, so that they are not joined
    server.begin(both)
    assert server.put(solo(tensor(OLD))).status_code == 200
    said(server.put(delta(tensor(NEW), tensor(OLD))), 400, "invalid_request", "which is no chunk of the base")


def test_a_base_that_is_gone_from_the_disk(server, home):
    lmvp.update("d/m", OLD)
    server.begin(NEW)
    for path in (home / "chunks").glob(f"*/{name(OLD)[:2]}/{name(OLD)[2:]}"):
        path.unlink()
    said(server.put(delta(tensor(NEW), tensor(OLD))), 409, "conflict", "a delta depends on it")
    assert server.put(solo(tensor(NEW))).status_code == 200


def hostile():
    old, new = tensor(OLD), tensor(NEW)
    good = codecs.encode_delta(new, "F32", old, Link(name(OLD), 1))
    payload, id_ = bytes(good.payload), bytes.fromhex(name(NEW))

    def frame(codec, payload, size=None):
        return (
            struct.pack("<2sBBIII32s", b"LF", 1, codec, len(new) if size is None else size, len(payload), 0, id_)
            + payload
        )

    zeros = codecs.encode(bytes(4 << 20), None).payload
    return {
        "another's delta": (delta(new, tensor(OLD | {"w": OLD["w"] + np.float32(2e-6)}), name(OLD)), 422, "integrity"),
        "depth 0": (frame(DELTA, payload[:32] + b"\0" + payload[33:]), 422, "integrity"),
        "depth 17": (frame(DELTA, payload[:32] + b"\x11" + payload[33:]), 422, "integrity"),
        "depth 255": (frame(DELTA, payload[:32] + b"\xff" + payload[33:]), 422, "integrity"),
        "leaning on itself": (frame(DELTA, bytes.fromhex(name(NEW)) + payload[32:]), 400, "invalid_request"),
        "no room for a base": (frame(DELTA, b"x" * 20), 422, "integrity"),
        "cut": (frame(DELTA, payload[:-9]), 422, "integrity"),
        "too long": (frame(DELTA, payload + b"x"), 422, "integrity"),
        "noise": (frame(DELTA, payload[:33] + bytes(RNG.integers(0, 255, 5000, np.uint8))), 422, "integrity"),
        "solo noise": (frame(SOLO, bytes(RNG.integers(0, 255, 5000, np.uint8))), 422, "integrity"),
        "a bomb": (frame(ZSTD, bytes(zeros)), 422, "integrity"),
        "not the chunk": (frame(ZSTD, bytes(codecs.encode(bytes(len(new)), None).payload)), 422, "integrity"),
        "another size": (frame(ZSTD, bytes(zeros), size=4 << 20), 400, "invalid_request"),
        "a failure": (frame(255, b'{"error":{"code":"x","message":"y"}}', size=0), 400, "invalid_request"),
        "codec 4": (frame(4, payload), 400, "invalid_request"),
        "as long as raw": (frame(SOLO, new), 400, "invalid_request"),
        "4 GiB": (struct.pack("<2sBBIII32s", b"LF", 1, 1, 2**32 - 1, 9, 0, bytes(32)), 400, "invalid_request"),
    }


@pytest.mark.parametrize("kind", hostile())
def test_hostile_frames_are_refused_and_leave_nothing(server, home, kind):
    lmvp.update("d/m", OLD)
    server.begin(NEW)
    frame, status, code = hostile()[kind]
    said(server.put(frame), status, code, "")
    assert is_nowhere(home, name(NEW))
    the_rest(NEW, server)
    said(server.commit(), 422, "missing_chunks", "1 of")
    assert len(lmvp.show_history("d/m")) == 1
    assert server.put(delta(tensor(NEW), tensor(OLD))).status_code == 200
    assert server.commit().json()["number"] == 2


# -- down


def test_raw_is_what_comes_unless_more_is_accepted(server):
    lmvp.update("d/m", OLD)
    [(frame, payload)] = server.chunks(want=[name(OLD)])
    assert (frame.codec, payload) == (RAW, tensor(OLD))
    [(frame, payload)] = server.chunks(want=[name(OLD)], accept=["a codec of the future", "delta"])
    assert (frame.codec, payload) == (RAW, tensor(OLD))


def test_what_is_accepted_comes_encoded(server):
    lmvp.update("d/m", OLD)
    [(frame, payload)] = server.chunks(want=[name(OLD)], accept=["zstd", "solo"])
    assert frame.codec == SOLO
    assert codecs.decode(frame, payload, None) == tensor(OLD)


def test_a_delta_comes_against_what_the_client_has(server):
    first, _ = lmvp.update("d/m", OLD), lmvp.update("d/m", NEW)
    wish = {"want": [name(NEW)], "base": first.digest, "have": [name(OLD)], "version": 2}
    [(frame, payload)] = server.chunks(**wish, accept=["zstd", "solo", "delta"])
    assert frame.codec == DELTA
    assert codecs.link(frame, payload).base == name(OLD)
    assert codecs.decode(frame, payload, {name(OLD): tensor(OLD)}.get) == tensor(NEW)
    assert server.chunks(**wish, accept=["zstd", "solo"])[0][0].codec == SOLO


def test_what_lies_encoded_goes_as_it_lies(server, home):
    lmvp.update("d/m", OLD)
    second = lmvp.update("d/m", NEW)
    lmvp.update("d/m", OTHER)
    lmvp.Client().compact()
    head, kept = stored(home, name(NEW))
    assert head.codec == DELTA
    base = lmvp.Client().version("d/m@v1").digest
    wish = {"want": [name(NEW)], "version": 2, "accept": ["zstd", "solo", "delta"]}
    [(frame, payload)] = server.chunks(**wish, base=base, have=[name(OLD)])
    assert (frame, payload) == (head, kept)
    [(frame, payload)] = server.chunks(**wish)  # whoever has no base gets it by itself
    assert frame.codec == SOLO
    assert codecs.decode(frame, payload, None) == tensor(NEW)
    [(frame, payload)] = server.chunks(want=[name(OTHER)], version=3, accept=["solo", "zstd"])
    assert (frame, payload) == stored(home, name(OTHER))
    assert second.number == 2


@pytest.mark.parametrize("wish", ["foreign project", "not in the base", "no such base", "no base", "no id", "not held"])
def test_what_the_client_may_not_have_is_passed_over(server, wish):
    first = lmvp.update("d/m", OLD)
    lmvp.update("d/m", NEW)
    foreign = lmvp.update("foreign/m", OTHER)
    base, have = {
        "foreign project": (foreign.digest, [name(OTHER)]),
        "not in the base": (first.digest, [name(OTHER)]),
        "no such base": ("0" * 64, [name(OLD)]),
        "no base": (None, [name(OLD)]),
        "no id": (first.digest, ["../../x", "", "é"]),
        "not held": (first.digest, []),
    }[wish]
    [(frame, _)] = server.chunks(want=[name(NEW)], version=2, base=base, have=have, accept=["solo", "delta"])
    assert frame.codec == SOLO


def test_a_base_that_is_lost_here_is_no_failure(server, home):
    first, _ = lmvp.update("d/m", OLD), lmvp.update("d/m", NEW)
    [path] = (home / "chunks").glob(f"*/{name(OLD)[:2]}/{name(OLD)[2:]}")
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    wish = {"want": [name(NEW)], "version": 2, "base": first.digest, "have": [name(OLD)]}
    assert server.chunks(**wish, accept=["solo", "delta"])[0][0].codec == SOLO


def test_a_failure_in_the_middle_of_an_answer_is_a_frame(server, home):
    lmvp.update("d/m", {"a": OLD["w"], "b": np.ones((2, 1 << 19), np.float32), "c": NEW["w"]})
    version = manifests.decode(server("GET", "/projects/d/models/m/versions/1/manifest").content)
    want = [chunk.id for chunk in version.files[0].chunks]
    [path] = (home / "chunks").glob(f"*/{want[1][:2]}/{want[1][2:]}")
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    answer = server("POST", "/projects/d/models/m/versions/1/chunks", {"want": want})
    first = chunk_frames.read_header(answer.content[:48], answer=True)
    at = 48 + first.payload
    failed = chunk_frames.read_header(answer.content[at : at + 48], answer=True)
    assert (failed.chunk, failed.codec, failed.size) == (want[1], chunk_frames.FAILED, 0)
    error = msgspec.json.decode(answer.content[at + 48 : at + 48 + failed.payload])["error"]
    assert error["code"] == "integrity"
    last = chunk_frames.read_header(answer.content[at + 48 + failed.payload :][:48], answer=True)
    assert last.chunk == want[2]
