"""The bytes of a file to push, read by ranges across several sources."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from lmvp.formats.base import Source


class Rope:
    """Concatenated sources that are read by ranges without copying.

    Examples
    --------
    >>> from lmvp.formats.base import Bytes
    >>> rope = Rope([Bytes.of(b"abc"), Bytes.of(b""), Bytes.of(b"defg")])
    >>> [bytes(piece) for piece in rope.read(1, 4)], rope.size
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
