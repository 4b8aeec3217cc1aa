"""Verification of the digests of tensors that do not fill their chunks, computed from their bytes.

`check_manifest` compares the digest of a tensor that fills its chunks with their ids. The digest of a tensor that
shares a chunk is the BLAKE3 of its bytes, so only the bytes can verify it. Views compare versions by these digests; a
wrong digest would show a changed layer as identical.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

from blake3 import blake3

from lmvp.core.manifest import Manifest, Tensor
from lmvp.errors import IntegrityError, InvalidManifest
from lmvp_server.services.chunk_reader import Decoder
from lmvp_server.services.tensors import TensorReader

_BYTES_TIMES, _CHUNKS_TIMES, _FREE = 4, 4, 64 << 20
"""Limits of reading: multiples of the bytes and chunks of a version, and bytes that are always allowed."""

_PROVED = 200_000
"""The number of verified digests that are cached, at about 100 bytes each."""


class _Place(NamedTuple):
    """A tensor with its chunks, and the position of its first byte in the first chunk."""

    tensor: Tensor
    chunks: tuple[str, ...]
    start: int

    @property
    def fact(self) -> bytes:
        """A key of the cache: the digest of the tensor's position, size, digest and chunks."""
        stated = (self.start, self.tensor.size, self.tensor.digest, self.chunks)
        return blake3(repr(stated).encode()).digest(16)


class TensorDigests:
    """Verifies the tensor digests of manifests that `check_manifest` has accepted.

    Memory is bounded: a tensor is hashed in blocks, and only the last two chunks are cached. Verified digests are
    cached by chunk, so only the chunks that differ from earlier versions are read.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._proved: set[bytes] = set()

    def require_true(self, space: str, manifest: Manifest) -> None:
        """Verify all digests of a push.

        Raises
        ------
        InvalidManifest
            If a digest is wrong; the message names the first such tensor. Also if tensors share so many bytes that the
            verification would be too expensive.
        IntegrityError
            If a chunk is missing or damaged.
        """
        for tensor in self.false(space, manifest):
            raise InvalidManifest(
                f"the tensor {tensor.name[:80]!r} has a wrong digest",
                hint="a tensor that shares its chunk has the BLAKE3 of its bytes: see docs/format.md, Digests",
            )

    def require_stored(self, space: str, manifest: Manifest) -> None:
        """Verify all digests of a stored version, which an older server may have accepted without verification.

        Raises
        ------
        IntegrityError
            If a digest is wrong. The message names the first such tensor.
        """
        for tensor in self.false(space, manifest):
            raise IntegrityError(
                f"the tensor {tensor.name[:80]!r} has a wrong digest",
                hint="`lmvp fsck` names every such version; remove it, and push its files again",
            )

    def cost(self, manifest: Manifest) -> int:
        """Return the number of bytes to hash, without those of cached digests.

        Raises
        ------
        InvalidManifest
            If tensors share so many bytes that the verification would be too expensive.
        """
        return sum(place.tensor.size for place in _places(manifest) if place.fact not in self._proved)

    def false(self, space: str, manifest: Manifest) -> Iterator[Tensor]:
        """Yield the tensors with wrong digests. Bytes are read as the caller iterates."""
        reader: TensorReader | None = None
        for place in _places(manifest):
            fact = place.fact
            if fact in self._proved:
                continue
            reader = reader or TensorReader(self._decoder, space, manifest)
            hasher = blake3()
            for block in reader.blocks(place.tensor):
                hasher.update(block)
            if hasher.hexdigest() != place.tensor.digest:
                yield place.tensor
                continue
            # Clearing all is simpler than removing the oldest. It costs a repeated verification at most.
            if len(self._proved) >= _PROVED:
                self._proved.clear()
            self._proved.add(fact)


def _places(manifest: Manifest) -> list[_Place]:
    """Return the tensors that do not fill their chunks, sorted by position, so that each chunk is read once.

    Raises
    ------
    InvalidManifest
        If tensors share so many bytes that the verification would cost far more than reading the version.
    """
    places: list[_Place] = []
    ends = {file.path: list(accumulate(chunk.size for chunk in file.chunks)) for file in manifest.files}
    ids = {file.path: [chunk.id for chunk in file.chunks] for file in manifest.files}
    # Tensors can overlap, so a small manifest could demand a large amount of hashing.
    room = _FREE + _BYTES_TIMES * sum(file.size for file in manifest.files)
    chunks = 2 * len(manifest.tensors) + _CHUNKS_TIMES * sum(map(len, ids.values()))
    for tensor in sorted(manifest.tensors, key=lambda one: (one.path, one.offset, one.size)):
        end, of = tensor.offset + tensor.size, ends[tensor.path]
        # `check_manifest` has verified tensors that fill their chunks.
        if not tensor.size or (_is_boundary(of, tensor.offset) and _is_boundary(of, end)):
            continue
        first, last = bisect_right(of, tensor.offset), bisect_left(of, end)
        room, chunks = room - tensor.size, chunks - (last + 1 - first)
        if room < 0 or chunks < 0:
            raise InvalidManifest(f"too many tensors share the bytes of {tensor.path!r}")
        start = tensor.offset - (of[first - 1] if first else 0)
        places.append(_Place(tensor, tuple(ids[tensor.path][first : last + 1]), start))
    return places


def _is_boundary(ends: list[int], offset: int) -> bool:
    if offset == 0:
        return True
    at = bisect_left(ends, offset)
    return at < len(ends) and ends[at] == offset
