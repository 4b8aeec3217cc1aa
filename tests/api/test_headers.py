"""Tensors of a manifest that are not those of their file's header: refused on every way in, named by `fsck`."""

import secrets
import struct
from datetime import datetime, timezone

import msgspec
import numpy as np
import pytest
from support.in_process import Served
from support.workshop import ADA, Shop

from lmvp.client.models import Client
from lmvp.core import digest, safetensors
from lmvp.core import manifest as manifests
from lmvp.core.chunk_frames import Frame
from lmvp.core.manifest import (
    Chunk,
    File,
    Manifest,
    Tensor,
)
from lmvp.core.schemas import ImportedMetadata, NewPush
from lmvp.errors import IntegrityError, InvalidManifest, LmvpError, NotFound
from lmvp_server.restore import restore
from lmvp_server.services import headers, pushes

TRUE, DECOY = np.full(256, 1, "<f4").tobytes(), np.full(256, 2, "<f4").tobytes()
HEAD = safetensors.header([("enc", "F32", (256,)), ("head", "F32", (256,))])
FILE = HEAD + TRUE + DECOY
ENC, OTHER = len(HEAD), len(HEAD) + len(TRUE)


def tensor(name="enc", offset=ENC, dtype="F32", shape=(256,), path="w.safetensors"):
    size = safetensors.tensor_size(dtype, shape)
    return Tensor(name, dtype, shape, path, offset, size, digest.of_bytes(FILE[offset : offset + size]))


HONEST = (tensor(), tensor("head", OTHER))


def manifest_of(tensors, *more, data=FILE, path="w.safetensors"):
    chunk = Chunk(digest.of_bytes(data), len(data))
    file = File(path, len(data), digest.of_chunks([chunk.id]), (chunk,))
    return Manifest("files", (file, *more), tuple(tensors))


def begin(shop, manifest, *chunks, model="m", **fields):
    body = NewPush(push=secrets.token_hex(16), manifest=msgspec.Raw(manifests.encode(manifest)), **fields)
    push = shop.services.pushes.prepare_small(ADA, "p", model, body)
    for data in chunks or (FILE,):
        if digest.of_bytes(data) in push.missing:
            frame = Frame(digest.of_bytes(data), len(data), len(data))
            shop.services.pushes.receive(push, frame, [memoryview(data)])
    return push


def commit(shop, *args, **fields):
    return shop.services.pushes.commit_small(ADA, begin(shop, *args, **fields))


@pytest.fixture
def shop(tmp_path):
    shop = Shop(tmp_path / "data")
    yield shop
    shop.services.close()


def commit_false(shop, monkeypatch, model="m"):
    """Make a version like those that servers took before they compared headers."""
    with monkeypatch.context() as patch:
        patch.setattr(pushes, "check_headers", lambda *_: None, raising=False)
        return commit(shop, manifest_of([tensor(offset=OTHER), tensor("head", OTHER)]), model=model)


FALSE = {
    "decoy": (
        [tensor(offset=OTHER), tensor("head", OTHER)],
        r"as F32 \[256\], 1,024 bytes at 1,160; the header of the file says F32 \[256\], 1,024 bytes at 136",
    ),
    "shape": ([tensor(shape=(16, 16)), tensor("head", OTHER)], r"as F32 \[16, 16\]"),
    "dtype": ([tensor(dtype="I32"), tensor("head", OTHER)], "as I32"),
    "part": ([tensor(shape=(128,)), tensor("head", OTHER)], "512 bytes at"),
    "unknown": ([*HONEST, tensor("more")], "has no tensor 'more', which the manifest lists"),
    "omitted": ([tensor()], "has the tensor 'head', which the manifest omits"),
}


@pytest.mark.parametrize("tensors", [HONEST, HONEST[::-1], ()], ids=["all", "model order", "just bytes"])
def test_push_with_the_tensors_of_the_header_is_taken(shop, tensors):
    assert commit(shop, manifest_of(tensors))["number"] == 1


def test_header_is_compared_whatever_the_case_of_the_suffix(shop):
    moved = [msgspec.structs.replace(one, path="W.SafeTensors") for one in HONEST]
    assert commit(shop, manifest_of(moved, path="W.SafeTensors"))["number"] == 1
    moved[0] = msgspec.structs.replace(moved[0], offset=OTHER, digest=HONEST[1].digest)
    with pytest.raises(InvalidManifest, match="the manifest lists the tensor 'enc'"):
        commit(shop, manifest_of(moved, path="W.SafeTensors"))


@pytest.mark.parametrize(("tensors", "said"), FALSE.values(), ids=FALSE)
def test_push_with_other_tensors_than_the_header_is_refused(shop, tensors, said):
    with pytest.raises(InvalidManifest, match=said) as refused:
        commit(shop, manifest_of(tensors))
    assert refused.value.http_status == 422
    assert "'w.safetensors'" in refused.value.message
    with pytest.raises(NotFound):
        shop.services.versions.version(ADA, "p", "m", "latest")


@pytest.mark.parametrize(
    "head", [b"", b"\xff" * 8, struct.pack("<Q", 6) + b"[1, 2]", struct.pack("<Q", 8) + b"no json!"]
)
def test_push_with_tensors_of_a_file_without_a_header_is_refused(shop, head):
    data = head + TRUE
    listed = Tensor("enc", "F32", (256,), "w.safetensors", len(head), 1024, digest.of_bytes(TRUE))
    with pytest.raises(InvalidManifest, match=r"'w.safetensors' is a damaged safetensors file: .*lists tensors of it"):
        commit(shop, manifest_of([listed], data=data), data)


def test_staged_push_with_other_tensors_is_refused_at_the_commit(shop):
    false = manifest_of([tensor(offset=OTHER), tensor("head", OTHER)])
    body = NewPush(push=secrets.token_hex(16), manifest=msgspec.Raw(manifests.encode(false)))
    shop.services.pushes.begin(ADA, "p", "m", body)
    commit(shop, manifest_of(HONEST), model="other")  # brings the chunk
    with pytest.raises(InvalidManifest, match="the manifest lists the tensor 'enc'"):
        shop.services.pushes.commit(ADA, "p", "m", body.push)


def test_import_with_other_tensors_is_refused(shop):
    false = manifest_of([tensor(offset=OTHER), tensor("head", OTHER)])
    at = datetime(2026, 1, 2, tzinfo=timezone.utc)
    said = ImportedMetadata(number=1, digest=manifests.digest_of(false), created_at=at, author="ada", parents=())
    with pytest.raises(InvalidManifest, match="the manifest lists the tensor 'enc'"):
        commit(shop, false, recorded=said)


def test_fork_of_a_version_with_other_tensors_is_refused(shop, monkeypatch):
    commit_false(shop, monkeypatch)
    with pytest.raises(LmvpError, match="the manifest lists the tensor 'enc'"):
        shop.services.forks.fork(ADA, "p", "m", "q/fork")


def test_names_of_an_onnx_model_may_differ_from_those_of_its_weights(shop):
    model = b"just bytes"
    onnx = File("m.onnx", len(model), digest.of_bytes(model), (Chunk(digest.of_bytes(model), len(model)),))
    renamed = manifest_of([tensor("graph.enc")], onnx)
    assert commit(shop, renamed, FILE, model)["number"] == 1
    with pytest.raises(InvalidManifest, match="the manifest lists the tensor 'enc'"):
        commit(shop, manifest_of([tensor(offset=OTHER)], onnx), FILE, model)


def test_fsck_names_a_version_with_other_tensors(shop, monkeypatch):
    commit(shop, manifest_of(HONEST), model="honest")
    commit_false(shop, monkeypatch)
    found = shop.services.fsck.check(ADA, False)["problems"]
    assert [(one.kind, one.what.partition(":")[0]) for one in found] == [("version", "p/m@v1")]
    assert "the manifest lists the tensor 'enc' of 'w.safetensors'" in found[0].what
    assert found[0].hint == "remove the version, and push its files again: older servers took wrong tensors"


def test_restore_names_a_version_with_other_tensors(shop, monkeypatch, tmp_path):
    commit(shop, manifest_of(HONEST), model="honest")
    version = commit_false(shop, monkeypatch)
    shop.services.close()
    with Served(shop.folder) as served:
        Client(served.url, served.settings.token).back_up(tmp_path / "backup", progress=False)
    done = restore(tmp_path / "backup", tmp_path / "restored", keep_going=True)
    (problem,) = done.problems
    assert problem.startswith(f"the version {version['digest'][:12]} of p: the manifest lists the tensor 'enc'")
    with pytest.raises(IntegrityError, match="the manifest lists the tensor 'enc'"):
        restore(tmp_path / "backup", tmp_path / "strict")


def test_headers_that_share_chunks_are_checked_within_a_limit(shop, monkeypatch):
    """A manifest of many files can name one large chunk for the header of each."""
    monkeypatch.setattr(headers, "_FREE", 0)
    names = [f"{number}.safetensors" for number in range(3)]
    files = tuple(msgspec.structs.replace(manifest_of(()).files[0], path=name) for name in names)
    tensors = [msgspec.structs.replace(one, path=name) for name in names for one in HONEST]
    with pytest.raises(InvalidManifest, match="too many safetensors files share the chunks of their headers"):
        commit(shop, Manifest("files", files, tuple(tensors)))
    monkeypatch.setattr(headers, "HEADER_LIMIT", 2 * (len(HEAD) + 8))
    monkeypatch.setattr(headers, "_FREE", 1 << 30)
    with pytest.raises(InvalidManifest, match="the headers of the safetensors files have more than"):
        commit(shop, Manifest("files", files, tuple(tensors)))


def test_push_that_repeats_a_chunk_beyond_the_limit_is_refused(shop):
    """16 MB of manifest could make a version of 839 GB, which everything that reads it then reads."""
    chunk = Chunk(digest.of_bytes(bytes(4 << 20)), 4 << 20)
    chunks = (chunk,) * ((16 << 30) // chunk.size + 65)
    file = File("w.bin", chunk.size * len(chunks), digest.of_chunks([one.id for one in chunks]), chunks)
    with pytest.raises(InvalidManifest, match="but their distinct chunks only 4,194,304; the limit for these is"):
        begin(shop, Manifest("files", (file,)))
