"""Checking a manifest costs no more than reading it, whatever it says."""

import pytest

from lmvp.errors import InvalidManifest
from lmvp.storage import check, digest
from lmvp.storage.check import check_manifest
from lmvp.storage.manifest import Chunk, File, Manifest, Tensor

IDS = [digest.of_bytes(bytes([i])) for i in range(50)]
ONE = File("w", 50, digest.of_chunks(IDS), tuple(Chunk(one, 1) for one in IDS))


def tensor(name, start, end, **changed):
    fields = {"shape": (end - start,), "offset": start, "size": end - start, "digest": digest.of_chunks(IDS[start:end])}
    return Tensor(name=name, dtype="U8", path="w", **{**fields, **changed})


@pytest.fixture
def hashed(monkeypatch):
    """Count the chunks that are hashed for digests."""
    counted, of_chunks = [], digest.of_chunks
    monkeypatch.setattr(digest, "of_chunks", lambda ids: counted.append(len(ids)) or of_chunks(ids))
    return counted


def test_tensors_that_are_tied_are_hashed_once(hashed):
    tied = [tensor(str(i), 0, 50) for i in range(100)]
    hashed.clear()
    check_manifest(Manifest("numpy", (ONE,), tuple(tied)))
    assert hashed == [50, 50]  # the file, and all of the tensors


def test_overlapping_tensors_are_let_pass_up_to_a_bound(hashed, monkeypatch):
    views = Manifest("numpy", (ONE,), tuple(tensor(f"{i}", i % 40, 41 + i // 40) for i in range(280)))
    monkeypatch.setattr(check, "_HASHED", 0)
    hashed.clear()
    with pytest.raises(InvalidManifest, match="too many tensors share"):
        check_manifest(views)
    assert sum(hashed) <= 50 + 64 * 50
    monkeypatch.undo()
    check_manifest(views)


@pytest.mark.parametrize(("start", "end"), [(0, 50), (3, 9), (49, 50)])
def test_a_wrong_digest_is_found(start, end):
    right = tensor("right", start, end)
    check_manifest(Manifest("numpy", (ONE,), (right,)))
    for wrong in (tensor("wrong", start, end, digest="0" * 64), tensor("out", start, end, offset=start + 1)):
        with pytest.raises(InvalidManifest):
            check_manifest(Manifest("numpy", (ONE,), (right, wrong)))
