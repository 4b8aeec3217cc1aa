"""A range of rows of a segment as rows that stand for blocks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lmvp.tracking.columns import Columns
from lmvp.tracking.outline import Blocks, blocks_of
from lmvp_server.stores.series.pyramid import BLOCK, FOLD
from lmvp_server.stores.series.segment import Segment


def blocks_between(segment: Segment, key: int, begin: int, end: int, level: int) -> Iterator[Blocks]:
    """Yield rows for the points of a key from row `begin` to row `end`, in their order.

    Whole blocks come from a level of the pyramid; what sticks out of them at the ends is read, in blocks of the finest
    size.
    """
    first, last = segment.all_rows(key)
    width = BLOCK * FOLD**level
    if end - begin < 2 * width or last - first <= 2 * BLOCK:
        yield from _read(segment, begin, end)
        return
    low = -(-(begin - first) // width)
    high = -(-(end - first) // width) if end == last else (end - first) // width
    yield from _read(segment, begin, first + low * width)
    yield segment.level(level, key).take(slice(low, high))
    yield from _read(segment, min(end, first + high * width), end)


def _read(segment: Segment, begin: int, end: int) -> Iterator[Blocks]:
    for table in segment.rows(begin, end):
        yield blocks_of_points(table.columns())


def blocks_of_points(points: Columns) -> Blocks:
    """Return rows for points in their order, which are not none."""
    return blocks_of(points, np.arange(0, len(points), BLOCK))


def ends_between(segment: Segment, begin: int, end: int) -> Columns:
    """Return the points at the first and the last row of a range that is not empty."""
    rows = [*segment.rows(begin, begin + 1), *segment.rows(end - 1, end)]
    return Columns.join([table.columns() for table in rows])
