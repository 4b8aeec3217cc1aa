"""Streams: byte planes, each encoded in the form that suits its distribution of values.

The first byte of a stream selects the form. The reader knows the number of decoded bytes from the context. See
docs/format.md, "Streams".
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from lmvp.core.codecs import zstd
from lmvp.errors import IntegrityError

Plane = npt.NDArray[np.uint8]

ZERO, PLAIN, HUFFMAN, NARROW = range(4)

DEPTH = 3
"""Maximum nesting of narrow streams."""

# Three values and the escape fit into 2 bits. The threshold is not part of the format: a reader accepts every form.
_ESCAPE = 3
_NARROW_BELOW = 0.45
_LENGTH = struct.Struct("<I")
_GATHER = np.uint32(0x01041040)
"""A factor that moves the low two bits of four bytes into the top byte of a product."""
_SPREAD: npt.NDArray[Any] = np.array(
    [sum((byte >> 2 * at & 3) << 8 * at for at in range(4)) for byte in range(256)], "<u4"
)
"""The four 2-bit symbols of each byte, as four bytes."""


def encode(plane: Plane, depth: int = DEPTH) -> list[Any]:
    """Return the stream of a plane in pieces.

    A Huffman code takes at least one bit per byte. If most bytes are small, four of them are therefore packed as 2-bit
    symbols into one byte, and the larger bytes follow in a separate stream.
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
    """Pack four bytes into one, the first in the lowest bits. The symbol 3 represents every byte of 3 or more."""
    small = np.zeros(-(-len(plane) // 4), "<u4")
    np.minimum(plane, _ESCAPE, out=small.view(np.uint8)[: len(plane)])
    packed: Plane = ((small * _GATHER) >> 24).astype(np.uint8)
    return packed


def _beyond(plane: Plane, large: npt.NDArray[np.bool_]) -> Plane:
    """Return the bytes of 3 or more, minus 3."""
    # An index array is many times faster than the mask itself.
    beyond: Plane = plane[np.flatnonzero(large)] - np.uint8(_ESCAPE)
    return beyond


class Reader:
    """Reads the streams of a payload in order, and checks every length before it allocates memory."""

    def __init__(self, payload: memoryview) -> None:
        self._rest = payload

    def take(self, size: int) -> memoryview:
        """Return the next `size` bytes.

        Raises
        ------
        IntegrityError
            If fewer bytes are left.
        """
        if size > len(self._rest):
            raise IntegrityError(f"a payload ends where {size:,} bytes more should follow, not {len(self._rest):,}")
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken

    def end(self) -> None:
        """Raise an error if bytes are left."""
        if self._rest:
            raise IntegrityError(f"{len(self._rest):,} bytes too many at the end of a payload")

    def stream(self, size: int, depth: int = DEPTH) -> Plane:
        """Decode the next stream to a plane of `size` bytes.

        Raises
        ------
        IntegrityError
            If the stream is invalid.
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
        """Reverse `_narrow`, and insert the larger bytes from the next stream."""
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
