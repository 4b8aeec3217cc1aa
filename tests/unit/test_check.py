"""Checking a manifest costs no more than reading it, whatever it says."""

import pytest

from lmvp.core import digest, manifest_validation
from lmvp.core.manifest import (
    Chunk,
    File,
    Manifest,
    Tensor,
)
from lmvp.core.manifest_validation import check_manifest, check_repetition
from lmvp.errors import InvalidManifest

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
    monkeypatch.setattr(manifest_validation, "_HASHED", 0)
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


def repeated(times, size=4 << 20, distinct=1):
    """Return a version of one file that names each of its chunks so many times."""
    chunks = tuple(Chunk(one, size) for one in IDS[:distinct]) * times
    file = File("w", size * len(chunks), digest.of_chunks([one.id for one in chunks]), chunks)
    return Manifest("files", (file,))


def test_version_may_repeat_its_chunks_up_to_a_limit():
    most = (16 << 30) // (4 << 20) + 64
    check_repetition(repeated(most))
    check_repetition(repeated(most // 2, distinct=2))
    with pytest.raises(InvalidManifest, match="16 GiB and 64 times the distinct chunks") as refused:
        check_repetition(repeated(most + 1))
    assert refused.value.http_status == 422
    check_manifest(repeated(most + 1))  # a version of an older server remains readable
