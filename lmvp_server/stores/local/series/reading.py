"""Reading of one key of a series, in full or downsampled, from its segments and from memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from lmvp.core.columns import Columns
from lmvp.core.downsample import Blocks, blocks_of, ends_of, reduced, reduced_blocks
from lmvp_server.stores.local.series.columns import (
    Cuts,
    Table,
    kept,
    settled,
)
from lmvp_server.stores.local.series.segment import BLOCK, FOLD, PAGE_ROWS, Segment


def blocks_between(segment: Segment, key: int, begin: int, end: int, level: int) -> Iterator[Blocks]:
    """Yield blocks for the points of a key from row `begin` to row `end`, in order.

    Complete blocks come from a level of the pyramid. Rows at both ends that do not fill a block are read and reduced to
    blocks of the finest size.
    """
    first, last = segment.all_rows(key)
    width = BLOCK * FOLD**level
    # A short range needs the rows themselves; a short key has no pyramid.
    if end - begin < 2 * width or last - first <= 2 * BLOCK:
        yield from _read(segment, begin, end)
        return
    low = -(-(begin - first) // width)
    # The last block of a key can be shorter than the others, but it is complete if the range includes its end.
    high = -(-(end - first) // width) if end == last else (end - first) // width
    yield from _read(segment, begin, first + low * width)
    yield segment.level(level, key).take(slice(low, high))
    yield from _read(segment, min(end, first + high * width), end)


def _read(segment: Segment, begin: int, end: int) -> Iterator[Blocks]:
    for table in segment.rows(begin, end):
        yield blocks_of_points(table.columns())


def blocks_of_points(points: Columns) -> Blocks:
    """Reduce points to blocks. There must be at least one point."""
    return blocks_of(points, np.arange(0, len(points), BLOCK))


def ends_between(segment: Segment, begin: int, end: int) -> Columns:
    """Return the points of the first and the last row of a range. The range must not be empty."""
    rows = [*segment.rows(begin, begin + 1), *segment.rows(end - 1, end)]
    return Columns.join([table.columns() for table in rows])


_LOWEST, _HIGHEST = np.iinfo(np.int64).min, np.iinfo(np.int64).max
_PLAIN_READ = 4 * PAGE_ROWS
"""Ranges with at most this number of points are read in full; larger ranges are read from the pyramid."""


@dataclass(frozen=True, slots=True)
class View:
    """A consistent snapshot of one key.

    Attributes
    ----------
    key : int
        The number of the key in the series.
    segments : sequence of Segment
        The segments with points of the key, in order of arrival.
    loose : Table
        The points that are not sealed yet and count, in the order of steps.
    cuts : Cuts
        The cuts that apply to the key.
    spared : array of bool
        For each key of the series, whether cuts do not apply to it.
    """

    key: int
    segments: Sequence[Segment]
    loose: Table
    cuts: Cuts
    spared: npt.NDArray[np.bool_]

    def count(self, first: int | None, last: int | None) -> int:
        """Implement `SeriesStore.count`."""
        low, high = _range(first, last)
        sealed = sum(end - begin for _, begin, end in self._rows(low, high))
        return sealed + len(_within(self.loose, low, high))

    def read(self, first: int | None, last: int | None) -> Iterator[Columns]:
        """Implement `SeriesStore.read`."""
        low, high = _range(first, last)
        # Segments that overlap must be merged in memory. Otherwise they can be read one after the other.
        if not self._in_order():
            yield from _pages(self._merged(low, high))
            return
        for segment, begin, end in self._rows(low, high):
            for table in segment.rows(begin, end):
                yield from _pages(kept(table, self.cuts, self.spared))
        yield from _pages(_within(self.loose, low, high))

    def sample(self, points: int, first: int | None, last: int | None) -> Columns:
        """Implement `SeriesStore.sample`."""
        low, high = _range(first, last)
        ranges = self._rows(low, high)
        total = sum(end - begin for _, begin, end in ranges)
        # The pyramid contains all points, so it is exact only if all of them count.
        if total > max(_PLAIN_READ, BLOCK // 4 * points) and self._in_order() and not self._cut_through():
            return self._outline(ranges, _within(self.loose, low, high), total, points)
        return reduced(self._merged(low, high).columns(), points)

    def _rows(self, low: int, high: int) -> list[tuple[Segment, int, int]]:
        return [(segment, *segment.rows_of(self.key, low, high)) for segment in self.segments]

    def _spans(self) -> list[tuple[int, int]]:
        spans = [span[:2] for segment in self.segments if (span := segment.span(self.key))]
        return [*spans, (int(self.loose.steps[0]), int(self.loose.steps[-1]))] if len(self.loose) else spans

    def _in_order(self) -> bool:
        """Whether the segments and the unsealed points follow one another by step, without overlap."""
        return all(before[1] < after[0] for before, after in pairwise(self._spans()))

    def _cut_through(self) -> bool:
        """Whether a cut can drop sealed points."""
        last = max((last for _, last in self._spans()), default=_LOWEST)
        return self.cuts.lowest < last

    def _merged(self, low: int, high: int) -> Table:
        """Read all points in a range and return those that count, in order."""
        parts = [table for segment, begin, end in self._rows(low, high) for table in segment.rows(begin, end)]
        return settled(kept(Table.join([*parts, _within(self.loose, low, high)]), self.cuts, self.spared))

    def _outline(self, ranges: Sequence[tuple[Segment, int, int]], loose: Table, total: int, points: int) -> Columns:
        """Downsample a range from the pyramid, with the rows at both ends that do not fill a block."""
        level = 1 if total > BLOCK * FOLD * points else 0
        filled = [each for each in ranges if each[1] < each[2]]
        parts = [blocks for segment, a, b in filled for blocks in blocks_between(segment, self.key, a, b, level)]
        ends = [ends_between(*each) for each in filled]
        if len(loose):
            parts.append(blocks_of_points(loose.columns()))
            ends.append(loose.columns())
        return reduced_blocks(parts, ends_of(Columns.join(ends)), points)


def _range(first: int | None, last: int | None) -> tuple[int, int]:
    return _LOWEST if first is None else first, _HIGHEST if last is None else last


def _within(table: Table, low: int, high: int) -> Table:
    """Return the points with steps from `low` to `high`. The table must be sorted by step."""
    begin, end = np.searchsorted(table.steps, low, "left"), np.searchsorted(table.steps, high, "right")
    return table.take(slice(int(begin), int(end)))


def _pages(table: Table) -> Iterator[Columns]:
    for at in range(0, len(table), PAGE_ROWS):
        yield table.take(slice(at, at + PAGE_ROWS)).columns()


def has_dropped(segment: Segment, cuts: Cuts, spared: npt.NDArray[np.bool_]) -> bool:
    """Whether a segment has points that a cut drops."""
    if not cuts:
        return False
    return any(len(kept(page, cuts, spared)) < len(page) for page in segment.rows(0, int(segment.starts[-1])))


def overlap(segments: Sequence[Segment]) -> bool:
    """Whether two segments have points of one key whose ranges of steps overlap."""
    last = np.full(max((int(segment.keys[-1]) + 1 for segment in segments if len(segment.keys)), default=0), _LOWEST)
    for segment in segments:  # one numpy operation for all keys: a run can have 100,000
        if (segment.first <= last[segment.keys]).any():
            return True
        last[segment.keys] = segment.last
    return False
