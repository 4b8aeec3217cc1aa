"""Where a file is cut into chunks. Fixed cuts: tensors do not shift. See docs/format.md, "Chunking"."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lmvp.storage.frames import CHUNK_LIMIT
from lmvp.storage.safetensors import Span

JOIN_LIMIT = 1 << 20
"""Tensors shorter than this are joined with neighbours of their dtype, to chunks no longer than this."""

GAP_LIMIT = 1 << 12
"""Tensors that do not touch are neighbours if they lie no farther apart than this."""

APART_LIMIT = 1 << 16
"""Neighbours that do not touch are joined if they are shorter than this: what lies between breaks up the numbers."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A chunk to be: `size` bytes of a file from `offset` on, and the tensors that share it, if there are several."""

    offset: int
    size: int
    shared: tuple[Span, ...] = ()


def cut(size: int, tensors: Sequence[Span] = (), breaks: Sequence[int] = ()) -> list[Cut]:
    """Cut a file of `size` bytes, given the tensors in it, and where else something begins.

    Parameters
    ----------
    tensors : sequence of Span
        Without overlaps.
    breaks : sequence of int
        Ascending offsets; those inside of tensors are passed over.

    Returns
    -------
    list of Cut
        Without gaps or overlaps, in the order of the file.

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
    """Cuts what lies between tensors; to be asked from front to back."""

    def __init__(self, breaks: Sequence[int]) -> None:
        self._breaks, self._next = breaks, 0

    def cut(self, start: int, end: int) -> Iterator[Cut]:
        """Give the cuts from `start` to `end`."""
        for stop in (*self._between(start, end), end):
            yield from _every_limit(start, stop)
            start = stop

    def _between(self, start: int, end: int) -> Iterator[int]:
        while self._next < len(self._breaks) and self._breaks[self._next] < end:
            if self._breaks[self._next] > start:
                yield self._breaks[self._next]
            self._next += 1


def _every_limit(start: int, end: int) -> Iterator[Cut]:
    for offset in range(start, end, CHUNK_LIMIT):
        yield Cut(offset, min(CHUNK_LIMIT, end - offset))


def _groups(tensors: Sequence[Span]) -> Iterator[list[Span]]:
    """Join neighbours that are short, and of one dtype if they touch; the others stand alone."""
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
    limit = APART_LIMIT if gap else JOIN_LIMIT
    return (
        gap <= GAP_LIMIT
        and (gap > 0 or span.dtype == first.dtype)
        and max(first.size, last.size, span.size) < limit
        and span.offset + span.size - first.offset <= JOIN_LIMIT
    )
