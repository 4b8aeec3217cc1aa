"""Division of a file into chunks.

Cuts are fixed rather than content-defined, because tensors do not shift within a file. See docs/format.md, "Chunking".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lmvp.core.chunk_frames import CHUNK_LIMIT
from lmvp.core.safetensors import Span

JOIN_LIMIT = 1 << 20
"""Adjacent tensors of the same dtype that are shorter than this are joined to chunks of at most this many bytes."""

GAP_LIMIT = 1 << 12
"""Maximum gap in bytes between tensors that are joined."""

APART_LIMIT = 1 << 16
"""Tensors with a gap between them are joined if they are shorter than this. The gap disturbs the coding of numbers, so
longer tensors get separate chunks."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A future chunk: `size` bytes of a file at `offset`, and its tensors if there are several."""

    offset: int
    size: int
    shared: tuple[Span, ...] = ()


def cut(size: int, tensors: Sequence[Span] = (), breaks: Sequence[int] = ()) -> list[Cut]:
    """Divide a file of `size` bytes, given its tensors and other offsets to cut at.

    Parameters
    ----------
    tensors : sequence of Span
        The tensors of the file, without overlaps.
    breaks : sequence of int
        Ascending offsets. Offsets inside of tensors are ignored.

    Returns
    -------
    list of Cut
        The chunks in the order of the file, without gaps and overlaps.

    Examples
    --------
    >>> [(c.offset, c.size) for c in cut(5 << 20)]
    [(0, 4194304), (4194304, 1048576)]
    >>> a, b = Span("a", "F32", (4,), 100, 16), Span("b", "F32", (1,), 116, 4)
    >>> [(c.offset, c.size, len(c.shared)) for c in cut(120, [a, b])]
    [(0, 100, 0), (100, 20, 2)]
    >>> [(c.offset, c.size) for c in cut(140, [a, b], [50, 110])]
    [(0, 50), (50, 50), (100, 20), (120, 20)]
    """
    cuts: list[Cut] = []
    gaps = _Gaps(breaks)
    position = 0
    for group in _groups(sorted((span for span in tensors if span.size), key=lambda span: span.offset)):
        start, end = group[0].offset, group[-1].offset + group[-1].size
        cuts += gaps.cut(position, start)
        cuts += [Cut(start, end - start, tuple(group))] if len(group) > 1 else _every_limit(start, end)
        position = end
    cuts += gaps.cut(position, size)
    return cuts


class _Gaps:
    """Divides the bytes between tensors. Calls must proceed from the start of the file to its end."""

    def __init__(self, breaks: Sequence[int]) -> None:
        self._breaks, self._next = breaks, 0

    def cut(self, start: int, end: int) -> Iterator[Cut]:
        """Yield the cuts from `start` to `end`."""
        for stop in (*self._between(start, end), end):
            yield from _every_limit(start, stop)
            start = stop

    def _between(self, start: int, end: int) -> Iterator[int]:
        while self._next < len(self._breaks) and self._breaks[self._next] < end:
            if self._breaks[self._next] > start:
                yield self._breaks[self._next]
            self._next += 1


def _every_limit(start: int, end: int) -> Iterator[Cut]:
    # Aligned to `start`, not to the file, so that equal tensors have equal chunks in every file.
    for offset in range(start, end, CHUNK_LIMIT):
        yield Cut(offset, min(CHUNK_LIMIT, end - offset))


def _groups(tensors: Sequence[Span]) -> Iterator[list[Span]]:
    """Group short adjacent tensors that are joined to one chunk; every other tensor is a group alone."""
    group: list[Span] = []
    for span in tensors:
        if group and not _joins(group, span):
            yield group
            group = []
        group.append(span)
    if group:
        yield group


def _joins(group: Sequence[Span], span: Span) -> bool:
    first, last = group[0], group[-1]
    gap = span.offset - last.offset - last.size
    # If there is a gap, dtypes can differ, because the gap already disturbs the coding of numbers.
    limit = APART_LIMIT if gap else JOIN_LIMIT
    return (
        gap <= GAP_LIMIT
        and (gap > 0 or span.dtype == first.dtype)
        and max(first.size, last.size, span.size) < limit
        and span.offset + span.size - first.offset <= JOIN_LIMIT
    )
