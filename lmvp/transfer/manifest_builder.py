"""Computation of a package's manifest: cut the files into chunks and hash them in several threads.

Each byte is hashed once, except in short tensors that share a chunk: they have a digest besides that of the chunk.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate

from lmvp.core import digest
from lmvp.core.chunking import Cut, cut
from lmvp.core.manifest import (
    Chunk,
    File,
    Manifest,
    Tensor,
)
from lmvp.formats.base import Package, PackedFile, Source, Span

SINGLE = 4 << 20
"""Maximum bytes of a file that is hashed in one thread. For these, starting threads takes longer than hashing."""


@dataclass(frozen=True, slots=True)
class Place:
    """The position of a chunk's bytes in a file."""

    rope: JoinedSources
    offset: int
    size: int

    def read(self) -> list[memoryview]:
        """Return the bytes in pieces."""
        return self.rope.read(self.offset, self.size)


@dataclass(frozen=True, slots=True)
class Description:
    """A manifest, and the position of each of its chunks."""

    manifest: Manifest
    places: dict[str, Place]

    @property
    def bytes(self) -> int:
        """Bytes of all distinct chunks."""
        return sum(place.size for place in self.places.values())


@dataclass(frozen=True, slots=True)
class _Hashed:
    """A cut with the id of its chunk, and the digests of the tensors that share the chunk."""

    cut: Cut
    id: str
    shared: dict[str, str]


def describe(package: Package, advance: Callable[[int], None] = lambda _: None) -> Description:
    """Compute the manifest of a package.

    Parameters
    ----------
    advance : callable
        Called after each hashed chunk with its number of bytes.
    """
    files: list[File] = []
    tensors: list[Tensor] = []
    places: dict[str, Place] = {}
    for packed in package.files:
        rope = JoinedSources(packed.sources)
        hashed = list(_hash_all(rope, cut(rope.size, packed.tensors, packed.breaks), advance))
        files.append(_file(packed, rope.size, hashed))
        tensors += _tensors(packed, hashed)
        places.update({chunk.id: Place(rope, chunk.cut.offset, chunk.cut.size) for chunk in hashed})
    manifest = Manifest(package.format, tuple(files), tuple(tensors), package.meta)
    return Description(manifest, places)


def _hash_all(rope: JoinedSources, cuts: Sequence[Cut], advance: Callable[[int], None]) -> Iterator[_Hashed]:
    def one(piece: Cut) -> _Hashed:
        hashed = _hash(rope, piece)
        advance(piece.size)
        return hashed

    if rope.size <= SINGLE:
        yield from map(one, cuts)
        return
    # blake3 releases the GIL, so threads hash on several cores.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as threads:
        yield from threads.map(one, cuts)


def _hash(rope: JoinedSources, piece: Cut) -> _Hashed:
    chunk = digest.of_bytes(*rope.read(piece.offset, piece.size))
    shared = {span.name: digest.of_bytes(*rope.read(span.offset, span.size)) for span in piece.shared}
    return _Hashed(piece, chunk, shared)


def _file(packed: PackedFile, size: int, hashed: Sequence[_Hashed]) -> File:
    chunks = tuple(Chunk(one.id, one.cut.size) for one in hashed)
    return File(packed.path, size, digest.of_chunks([chunk.id for chunk in chunks]), chunks)


def _tensors(packed: PackedFile, hashed: Sequence[_Hashed]) -> Iterator[Tensor]:
    shared = {name: shared_digest for chunk in hashed for name, shared_digest in chunk.shared.items()}
    starts = {chunk.cut.offset: index for index, chunk in enumerate(hashed)}
    for span in packed.tensors:
        shared_digest = shared.get(span.name) or _own_digest(span, hashed, starts)
        yield Tensor(span.name, span.dtype, tuple(span.shape), packed.path, span.offset, span.size, shared_digest)


def _own_digest(span: Span, hashed: Sequence[_Hashed], starts: dict[int, int]) -> str:
    """Return the digest of a tensor that consists of whole chunks, from their ids."""
    if not span.size:
        return digest.of_chunks([])
    ids, end = [], span.offset + span.size
    for chunk in hashed[starts[span.offset] :]:
        if chunk.cut.offset >= end:
            break
        ids.append(chunk.id)
    return digest.of_chunks(ids)


class JoinedSources:
    """Concatenated sources that are read by ranges without copying.

    Examples
    --------
    >>> from lmvp.formats.base import Bytes
    >>> sources = JoinedSources([Bytes.of(b"abc"), Bytes.of(b""), Bytes.of(b"defg")])
    >>> [bytes(piece) for piece in sources.read(1, 4)], sources.size
    ([b'bc', b'de'], 7)
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        # Without empty sources, so that `bisect_right` finds the source of every offset.
        self._sources = [source for source in sources if source.size]
        self._ends = list(accumulate(source.size for source in self._sources))

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self._ends[-1] if self._ends else 0

    def read(self, offset: int, size: int) -> list[memoryview]:
        """Return a range of bytes, in one piece for each source that it covers."""
        pieces = []
        index = bisect_right(self._ends, offset)
        while size:
            source, start = self._sources[index], self._ends[index] - self._sources[index].size
            length = min(size, self._ends[index] - offset)
            pieces.append(source.read(offset - start, length))
            offset, size, index = offset + length, size - length, index + 1
        return pieces
