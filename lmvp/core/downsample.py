"""Downsampling of curves to the minimum and maximum of each block. Needs numpy: import this module lazily.

Points are split into blocks of equal width. Of each block, the smallest and greatest finite values and one value that
is not finite remain. So a plot shows every spike and every NaN at any zoom level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from lmvp.core.columns import Columns, Floats, Ints


@dataclass(frozen=True, slots=True)
class Blocks:
    """Columns with one row for each block: first step, minimum, maximum, and one value that is not finite.

    If a block has no finite value, or only finite values, its first point takes the place of the missing one.
    """

    first: Ints
    low_step: Ints
    low: Floats
    low_time: Floats
    high_step: Ints
    high: Floats
    high_time: Floats
    odd_step: Ints
    odd: Floats
    odd_time: Floats

    def __len__(self) -> int:
        return len(self.first)

    def take(self, rows: npt.NDArray[np.intp] | slice) -> Blocks:
        """Return the rows with these indices."""
        return Blocks(*(getattr(self, field.name)[rows] for field in fields(self)))

    def points(self) -> Columns:
        """Return the points of all rows, unsorted and with duplicates."""
        steps = np.concatenate([self.low_step, self.high_step, self.odd_step])
        values = np.concatenate([self.low, self.high, self.odd])
        return Columns(steps, values, np.concatenate([self.low_time, self.high_time, self.odd_time]))


def blocks_of(points: Columns, starts: npt.NDArray[np.intp]) -> Blocks:
    """Return a row for each block of points; blocks begin at `starts` and are not empty."""
    low, high, odd = ends(points.values, starts)

    def at(rows: npt.NDArray[np.intp]) -> tuple[Ints, Floats, Floats]:
        return points.steps[rows], points.values[rows], points.times[rows]

    return Blocks(points.steps[starts], *at(low), *at(high), *at(odd))


def fold(blocks: Blocks, starts: npt.NDArray[np.intp]) -> Blocks:
    """Merge rows into coarser blocks; each begins at a row of `starts`."""
    low, _, _ = ends(blocks.low, starts)
    _, high, _ = ends(blocks.high, starts)
    _, _, odd = ends(blocks.odd, starts)
    return Blocks(
        blocks.first[starts],
        blocks.low_step[low],
        blocks.low[low],
        blocks.low_time[low],
        blocks.high_step[high],
        blocks.high[high],
        blocks.high_time[high],
        blocks.odd_step[odd],
        blocks.odd[odd],
        blocks.odd_time[odd],
    )


def ends(
    values: Floats, starts: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the index of the minimum, the maximum and one value that is not finite, for each block.

    If a block has no finite value, or only finite values, the index of its first point takes the place of the missing
    one.
    """
    finite = np.isfinite(values)
    low = _first_where(np.where(finite, values, np.inf), np.minimum, starts)
    high = _first_where(np.where(finite, values, -np.inf), np.maximum, starts)
    if finite.all():
        return low, high, starts
    odd = _first_where((~finite).astype(np.int8), np.maximum, starts)
    return low, high, odd


def _first_where(
    values: npt.NDArray[np.generic], reduce: np.ufunc, starts: npt.NDArray[np.intp]
) -> npt.NDArray[np.intp]:
    """Return the index of the first occurrence of each block's extreme."""
    best = reduce.reduceat(values, starts)
    sizes = np.diff(np.r_[starts, len(values)])
    hits = np.flatnonzero(values == np.repeat(best, sizes))
    # `hits` is sorted, so this is the first hit at or after the start of each block.
    first = hits[np.searchsorted(hits, starts)]
    return first.astype(np.intp)


def stretches(steps: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.intp]:
    """Return the start indices of blocks of equal width in sorted steps; blocks without points are left out."""
    # Floats, because the difference of two int64 can overflow.
    low, high = float(steps[0]), float(steps[-1])
    # The width is 0 if all steps are equal.
    width = (high - low) / count or 1.0
    number = np.minimum(((steps.astype(np.float64) - low) / width).astype(np.int64), count - 1)
    return np.flatnonzero(np.concatenate([[True], number[1:] != number[:-1]]))


def reduced(points: Columns, most: int) -> Columns:
    """Return at most `most` points of points that are sorted by step.

    Three points of each of `most // 3` blocks remain (minimum, maximum, one that is not finite), and the first and last
    point.
    """
    if len(points) <= most:
        return points
    # Three points for each block, plus the first and last point, are at most `most`.
    return _chosen([blocks_of(points, stretches(points.steps, max(1, (most - 2) // 3)))], ends_of(points))


def reduced_blocks(parts: Sequence[Blocks], first_and_last: Columns, most: int) -> Columns:
    """Return at most `most` points of rows of blocks that are sorted by step."""
    blocks = Blocks(*(np.concatenate([getattr(part, name) for part in parts]) for name in Blocks.__slots__))
    return _chosen([fold(blocks, stretches(blocks.first, max(1, (most - 2) // 3)))], first_and_last)


def ends_of(points: Columns) -> Columns:
    """Return the first and the last point."""
    return Columns(points.steps[[0, -1]], points.values[[0, -1]], points.times[[0, -1]])


def _chosen(parts: Sequence[Blocks], more: Columns) -> Columns:
    """Return the points of the rows and further points, without duplicates and sorted by step."""
    found = Columns.join([*(part.points() for part in parts), more])
    _, rows = np.unique(found.steps, return_index=True)
    return Columns(found.steps[rows], found.values[rows], found.times[rows])
