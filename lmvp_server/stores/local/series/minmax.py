"""Downsample rows of a segment to min/max blocks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lmvp.core.columns import Columns
from lmvp.core.downsample import Blocks, blocks_of
from lmvp_server.stores.local.series.pyramid import BLOCK, FOLD
from lmvp_server.stores.local.series.segment import Segment


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
