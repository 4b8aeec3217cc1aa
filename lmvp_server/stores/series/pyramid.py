"""Rows that stand for blocks of points: enough of each to draw it without reading it."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from lmvp.tracking.columns import Columns, Floats, Ints

BLOCK = 256
"""Points that one row of the first level stands for."""
FOLD = 32
"""Rows that one row of the next level stands for."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """A row for each block: its first step, and its least, its greatest, and one of its values that are not finite.

    Where there is no such value, its step is that of the first point and its value that one's: some point of the block.
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
        """Return some rows."""
        return Blocks(*(getattr(self, field.name)[rows] for field in fields(self)))

    def points(self) -> Columns:
        """Return all points of all rows, each as often as it stands there, in no order."""
        steps = np.concatenate([self.low_step, self.high_step, self.odd_step])
        values = np.concatenate([self.low, self.high, self.odd])
        return Columns(steps, values, np.concatenate([self.low_time, self.high_time, self.odd_time]))


def blocks_of(points: Columns, starts: npt.NDArray[np.intp]) -> Blocks:
    """Return the rows for stretches of points that begin at `starts`, none of them empty."""
    low, high, odd = ends(points.values, starts)

    def at(rows: npt.NDArray[np.intp]) -> tuple[Ints, Floats, Floats]:
        return points.steps[rows], points.values[rows], points.times[rows]

    return Blocks(points.steps[starts], *at(low), *at(high), *at(odd))


def fold(blocks: Blocks, starts: npt.NDArray[np.intp]) -> Blocks:
    """Return the rows for stretches of rows that begin at `starts`."""
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
    """Return where, in each stretch, the least and the greatest finite value are, and one that is not finite.

    A stretch without such a value gives its first place.
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
    """Return the first place of the extreme of each stretch."""
    best = reduce.reduceat(values, starts)
    sizes = np.diff(np.r_[starts, len(values)])
    hits = np.flatnonzero(values == np.repeat(best, sizes))
    first = hits[np.searchsorted(hits, starts)]
    return first.astype(np.intp)


def starts_of(sizes: npt.NDArray[np.intp], width: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Cut runs of rows into blocks of at most `width`: where the blocks begin, and how many each run has."""
    counts = -(-sizes // width)
    before = np.cumsum(sizes) - sizes
    rank = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return (np.repeat(before, counts) + rank * width).astype(np.intp), counts
