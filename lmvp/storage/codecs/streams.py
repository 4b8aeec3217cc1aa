"""Streams: planes of bytes, coded one by one, each in the way that its share of zeros asks for.

A stream is a byte that tells the way, and what that way needs; docs/format.md, "Streams", has the table. How many bytes
it stands for is known from outside.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from lmvp.errors import IntegrityError
from lmvp.storage.codecs import zstd

Plane = npt.NDArray[np.uint8]

ZERO, PLAIN, PACKED, SPARSE, SPLIT = range(5)
SPARSE_DEPTH = 3
_SPARSE_BELOW = 0.45
_BLOCK = 4096
_LENGTH = struct.Struct("<I")


def encode(plane: Plane) -> list[Any]:
    """Return the pieces of the stream of a plane, split in two where its tail turns sparse."""
    at = _split(plane)
    if not at:
        return _encode(plane, SPARSE_DEPTH)
    head, tail = _encode(plane[:at], SPARSE_DEPTH), _encode(plane[at:], SPARSE_DEPTH)
    return [bytes([SPLIT]), _LENGTH.pack(at), *head, *tail]


def _split(plane: Plane) -> int:
    """Return where the part ends in which non-zeros outweigh zeros the most; 0 if that is all of it or nothing."""
    blocks = len(plane) // _BLOCK
    if blocks < 2:
        return 0
    filled = np.count_nonzero(plane[: blocks * _BLOCK].reshape(blocks, _BLOCK), axis=1)
    weight = np.cumsum(2 * filled - _BLOCK)
    best = int(np.argmax(weight))
    return (best + 1) * _BLOCK if weight[best] > 0 and best + 1 < blocks else 0


def _encode(plane: Plane, depth: int) -> list[Any]:
    filled = int(np.count_nonzero(plane))
    if not filled:
        return [bytes([ZERO])]
    if depth and filled < _SPARSE_BELOW * len(plane):
        where = plane != 0
        bitmap = np.packbits(where, bitorder="little")
        return [bytes([SPARSE]), *_encode(bitmap, depth - 1), *_encode(plane[where], 0)]
    packed = zstd.entropy(plane)
    if len(packed) + _LENGTH.size < len(plane):
        return [bytes([PACKED]), _LENGTH.pack(len(packed)), packed]
    return [bytes([PLAIN]), plane.data]


class Reader:
    """Takes the streams of a payload one after the other; every length is held against what is there."""

    def __init__(self, payload: memoryview) -> None:
        self._rest = payload

    def take(self, size: int) -> memoryview:
        """Return the next bytes.

        Raises
        ------
        IntegrityError
            If there are not as many.
        """
        if size > len(self._rest):
            raise IntegrityError(f"a payload ends where {size:,} bytes more should follow, not {len(self._rest):,}")
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken

    def end(self) -> None:
        """Demand that nothing is left."""
        if self._rest:
            raise IntegrityError(f"{len(self._rest):,} bytes too many at the end of a payload")

    def stream(self, size: int) -> Plane:
        """Return the plane of `size` bytes whose stream is next."""
        return self._stream(size, SPARSE_DEPTH, may_split=True)

    def _stream(self, size: int, depth: int, *, may_split: bool = False) -> Plane:
        way = self.take(1)[0]
        if way == ZERO:
            return np.zeros(size, np.uint8)
        if way == PLAIN:
            return np.frombuffer(self.take(size), np.uint8)
        if way == PACKED:
            return np.frombuffer(zstd.decompress(self.take(self._length()), size), np.uint8)
        if way == SPARSE and depth:
            return self._sparse(size, depth - 1)
        if way == SPLIT and may_split:
            return self._halves(size, depth)
        raise IntegrityError(f"a stream begins with {way}, which stands for nothing here")

    def _length(self) -> int:
        return int(_LENGTH.unpack(self.take(_LENGTH.size))[0])

    def _sparse(self, size: int, depth: int) -> Plane:
        bitmap = self._stream(-(-size // 8), depth)
        where = np.unpackbits(bitmap, bitorder="little")
        if where[size:].any():
            raise IntegrityError("a bitmap marks bytes beyond the end of its plane")
        where = where[:size].view(np.bool_)
        plane = np.zeros(size, np.uint8)
        plane[where] = self._stream(int(np.count_nonzero(where)), 0)
        return plane

    def _halves(self, size: int, depth: int) -> Plane:
        at = self._length()
        if not 0 < at < size:
            raise IntegrityError(f"a plane of {size:,} bytes is split at {at:,}")
        return np.concatenate([self._stream(at, depth), self._stream(size - at, depth)])
