"""A tensor that shares its chunk has the digest of its bytes: false ones are refused, and stored ones are named."""

import secrets
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from support.local_server import SharedServer
from support.workshop import ADA, Shop

from lmvp.client.models import Client
from lmvp.core import digest
from lmvp.core import manifest as manifests
from lmvp.core.chunk_frames import Frame
from lmvp.core.manifest import Chunk, File
from lmvp.core.schemas import ImportedMetadata, NewPush, Parent
from lmvp.errors import IntegrityError, InvalidManifest
from lmvp.formats import pack
from lmvp.transfer.manifest_builder import describe
from lmvp_server.restore import restore
from lmvp_server.services import tensors
from lmvp_server.services.tensors import TensorDigests, TensorReader


@pytest.fixture
def shop(tmp_path):
    shop = Shop(tmp_path)
    yield shop
    shop.services.close()


def small(seed=0, count=3):
    """Return tensors that share one chunk."""
    rng = np.random.default_rng(seed)
    return {f"fc{i}.weight": rng.standard_normal((32, 32)).astype(np.float32) for i in range(count)}


def lying(tree, before):
    """Return a tree's description with the tensor digests of another tree of the same form."""
    described, other = describe(pack(tree)), describe(pack(before))
    digests = {tensor.name: tensor.digest for tensor in other.manifest.tensors}
    tensors = tuple(
        msgspec.structs.replace(tensor, digest=digests[tensor.name]) for tensor in described.manifest.tensors
    )
    assert tensors != described.manifest.tensors
    return described, msgspec.structs.replace(described.manifest, tensors=tensors)


def push(shop, described, manifest, *, small_push, model="m", **fields):
    pushes = shop.services.pushes
    body = NewPush(
        push=secrets.token_hex(16), manifest=msgspec.Raw(msgspec.json.encode(manifest, order="sorted")), **fields
    )
    if small_push:
        open_ = pushes.prepare_small(ADA, "p", model, body)
    else:
        pushes.begin(ADA, "p", model, body)
        open_ = pushes.resume(ADA, "p", model, body.push)
    for chunk in sorted(open_.missing):
        data = b"".join(described.places[chunk].read())
        pushes.receive(open_, Frame(chunk, len(data), len(data)), [memoryview(data)])
    return pushes.commit_small(ADA, open_) if small_push else pushes.commit(ADA, "p", model, body.push)


def negated(tree):
    return {**tree, "fc1.weight": -tree["fc1.weight"]}


@pytest.mark.parametrize("small_push", [True, False])
@pytest.mark.parametrize("propose", [True, False])
def test_push_with_a_false_tensor_digest_is_refused(shop, small_push, propose):
    shop.push(small())
    with pytest.raises(InvalidManifest, match=r"'fc1.weight' has a wrong digest"):
        push(shop, *lying(negated(small()), small()), small_push=small_push, propose=propose)
    assert shop.services.versions.version(ADA, "p", "m", "latest")["number"] == 1
    described = describe(pack(negated(small())))
    assert push(shop, described, described.manifest, small_push=small_push)["number"] == 2


def test_import_with_a_false_tensor_digest_is_refused(shop):
    first = shop.push(small())
    described, false = lying(negated(small()), small())
    parent = Parent(number=1, digest=first["digest"])
    whole = msgspec.structs.replace(false, parents=(first["digest"],))
    said = ImportedMetadata(
        number=2, digest=manifests.digest_of(whole), created_at="2026-11-20T13:41:00Z", author="ada", parents=(parent,)
    )
    said = msgspec.convert(msgspec.to_builtins(said), ImportedMetadata)
    with pytest.raises(InvalidManifest, match=r"'fc1.weight' has a wrong digest"):
        push(shop, described, false, small_push=True, recorded=said)


def test_tensor_across_chunks_has_the_digest_of_its_bytes(shop):
    """A manifest of another client may cut a file anywhere."""
    tree = small()
    described = describe(pack(tree))
    data = b"".join(b"".join(described.places[chunk.id].read()) for chunk in described.manifest.files[0].chunks)
    parts = [data[at : at + 3001] for at in range(0, len(data), 3001)]
    chunks = tuple(Chunk(digest.of_bytes(part), len(part)) for part in parts)
    file = File("weights.safetensors", len(data), digest.of_chunks([one.id for one in chunks]), chunks)
    manifest = msgspec.structs.replace(described.manifest, files=(file,))
    content = dict(zip((one.id for one in chunks), parts, strict=True))

    class Cut:
        """What `push` uses of a description."""

        def __init__(self):
            self.places = {chunk: SimpleNamespace(read=lambda part=part: [part]) for chunk, part in content.items()}

    assert push(shop, Cut(), manifest, small_push=False)["number"] == 1
    tensors = (*manifest.tensors[:2], msgspec.structs.replace(manifest.tensors[2], digest=digest.of_bytes(b"x")))
    with pytest.raises(InvalidManifest, match=r"'fc2.weight' has a wrong digest"):
        push(shop, Cut(), msgspec.structs.replace(manifest, tensors=tensors), small_push=False)


@pytest.fixture
def old(shop, monkeypatch):
    """A store in which an older server has taken a version and a proposal with false digests."""
    monkeypatch.setattr(TensorDigests, "require_true", lambda *_: None)
    shop.push(small())
    push(shop, *lying(negated(small()), small()), small_push=True)
    push(shop, *lying(negated(negated(small(1))), small(2)), small_push=True, propose=True)
    monkeypatch.undo()
    return shop


def test_fsck_names_false_tensor_digests(old):
    found = old.services.fsck.check(ADA, repair=False)["problems"]
    assert sorted((one.kind, one.what) for one in found) == [
        ("version", "p/m@c1: wrong digest of the tensor 'fc0.weight', 'fc1.weight', 'fc2.weight'"),
        ("version", "p/m@v2: wrong digest of the tensor 'fc1.weight'"),
    ]


def test_stored_false_tensor_digests_are_not_forked_or_accepted(old):
    services = old.services
    with pytest.raises(IntegrityError, match=r"'fc1.weight' has a wrong digest"):
        services.forks.fork(ADA, "p", "m", "q/n")
    with pytest.raises(IntegrityError, match=r"'fc0.weight' has a wrong digest"):
        services.contributions.accept(ADA, "p", "m", "c1")
    assert services.versions.version(ADA, "p", "m", "latest")["number"] == 2


def test_verified_tensors_are_not_read_again(shop, monkeypatch):
    read = []
    blocks = TensorReader.blocks
    monkeypatch.setattr(TensorReader, "blocks", lambda self, one: read.append(one.name) or blocks(self, one))
    shop.push(small())
    assert sorted(read) == ["fc0.weight", "fc1.weight", "fc2.weight"]
    shop.push(small(), message="again")
    assert len(read) == 3
    rng = np.random.default_rng(0)
    shop.push({"large.weight": rng.standard_normal((1500, 1000)).astype(np.float32)}, model="large")
    assert len(read) == 3  # it fills its chunks, so their ids tell its digest


def test_verification_reads_each_chunk_once(shop, monkeypatch):
    tree = small(count=4000)  # 16 MB in several shared chunks
    described = describe(pack(tree))
    decoded = []
    push_id, described, answer = shop.begin(tree)
    shop.send(push_id, described, answer.missing)
    chunk_reader = shop.services.pushes._chunk_reader
    data = type(chunk_reader).data
    monkeypatch.setattr(
        type(chunk_reader), "data", lambda self, space, chunk: decoded.append(chunk) or data(self, space, chunk)
    )
    shop.services.pushes.commit(ADA, "p", "m", push_id)
    assert len(decoded) == len(set(decoded)) > 2


def test_tensors_that_share_many_bytes_are_refused_before_they_are_read(shop, monkeypatch):
    """Overlapping tensors would make the server hash the same bytes again and again."""
    monkeypatch.setattr(tensors, "_DIGEST_FREE", 0)
    described = describe(pack(small()))
    first = described.manifest.tensors[0]
    size = described.manifest.files[0].size - first.offset - 4
    many = tuple(
        msgspec.structs.replace(first, name=f"t{i}", dtype="U8", shape=(size,), size=size, digest="0" * 64)
        for i in range(50)
    )
    monkeypatch.setattr(TensorReader, "blocks", None)
    with pytest.raises(InvalidManifest, match="too many tensors share the bytes"):
        push(shop, described, msgspec.structs.replace(described.manifest, tensors=many), small_push=True)


def test_restore_names_versions_with_false_tensor_digests(old, tmp_path):
    old.services.close()
    server = SharedServer(tmp_path)
    try:
        Client(server.url, server.start()).back_up(tmp_path / "backup", progress=False)
    finally:
        server.kill()
    done = restore(tmp_path / "backup", tmp_path / "restored", keep_going=True)
    false = sorted(one.rpartition(" of p ")[2] for one in done.problems)
    assert false == [
        "has a wrong digest of the tensor 'fc0.weight'",
        "has a wrong digest of the tensor 'fc1.weight'",
    ]
    with pytest.raises(IntegrityError, match="has a wrong digest of the tensor"):
        restore(tmp_path / "backup", tmp_path / "again")
