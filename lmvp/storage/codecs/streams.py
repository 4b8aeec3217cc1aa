"""Streams: planes of bytes, coded one by one, each in the way that its share of small bytes asks for.

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

ZERO, PLAIN, HUFFMAN, NARROW = range(4)

DEPTH = 3
"""Narrow streams that may be nested."""

_ESCAPE = 3
_NARROW_BELOW = 0.45
_LENGTH = struct.Struct("<I")
_GATHER = np.uint32(0x01041040)
"""Times this, the low two bits of four bytes stand together in the top byte."""
_SPREAD: npt.NDArray[Any] = np.array(
    [sum((byte >> 2 * at & 3) << 8 * at for at in range(4)) for byte in range(256)], "<u4"
)
"""The four bytes whose low two bits a byte holds."""


def encode(plane: Plane, depth: int = DEPTH) -> list[Any]:
    """Return the pieces of the stream of a plane.

    Huffman codes spend a whole bit on a byte at least. So where small bytes prevail, four of them are narrowed to two
    bits each and coded as one; the larger ones follow apart.
    """
    if not np.count_nonzero(plane):
        return [bytes([ZERO])]
    large = plane >= _ESCAPE
    if depth and np.count_nonzero(large) < _NARROW_BELOW * len(plane):
        return [bytes([NARROW]), *encode(_narrow(plane), depth - 1), *encode(_beyond(plane, large), depth - 1)]
    packed = zstd.entropy(plane)
    if len(packed) + _LENGTH.size < len(plane):
        return [bytes([HUFFMAN]), _LENGTH.pack(len(packed)), packed]
    return [bytes([PLAIN]), plane.data]


def _narrow(plane: Plane) -> Plane:
    """Return four bytes in one, the first lowest; 3 stands for all that is larger too."""
    small = np.zeros(-(-len(plane) // 4), "<u4")
    np.minimum(plane, _ESCAPE, out=small.view(np.uint8)[: len(plane)])
    packed: Plane = ((small * _GATHER) >> 24).astype(np.uint8)
    return packed


def _beyond(plane: Plane, large: npt.NDArray[np.bool_]) -> Plane:
    """Return the large bytes, less what is known of them. By index: many times faster than by mask."""
    beyond: Plane = plane[np.flatnonzero(large)] - np.uint8(_ESCAPE)
    return beyond


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

    def stream(self, size: int, depth: int = DEPTH) -> Plane:
        """Return the plane of `size` bytes whose stream is next.

        Raises
        ------
        IntegrityError
            If no encoder writes such a stream.
        """
        way = self.take(1)[0]
        if way == ZERO:
            return np.zeros(size, np.uint8)
        if way == PLAIN:
            return np.frombuffer(self.take(size), np.uint8)
        if way == HUFFMAN and size:
            return np.frombuffer(zstd.decompress(self.take(self._length()), size), np.uint8)
        if way == NARROW and depth and size:
            return self._widen(self.stream(-(-size // 4), depth - 1), size, depth - 1)
        raise IntegrityError(f"a stream begins with {way}, which stands for nothing here")

    def _length(self) -> int:
        return int(_LENGTH.unpack(self.take(_LENGTH.size))[0])

    def _widen(self, narrow: Plane, size: int, depth: int) -> Plane:
        """Undo `_narrow`, and put the larger bytes in their places."""
        plane = _SPREAD.take(narrow).view(np.uint8)
        if plane[size:].any():
            raise IntegrityError("a narrow stream does not end where its plane does")
        plane = plane[:size]
        large = np.flatnonzero(plane == _ESCAPE)
        beyond = self.stream(len(large), depth)
        if len(beyond) and beyond.max() > 255 - _ESCAPE:
            raise IntegrityError("a narrow stream has values beyond a byte")
        plane[large] = beyond + np.uint8(_ESCAPE)
        return plane
