"""Statistics of each key of a series, updated with every batch of points, so that no points need to be read."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lmvp.core.columns import Ints, Keys
from lmvp.core.run_frames import AUTO
from lmvp_server.stores.local.series.columns import Table

ROW = np.dtype(
    [
        ("count", "<i8"),
        ("first", "<i8"),
        ("step", "<i8"),
        ("value", "<f8"),
        ("time", "<f8"),
        ("low", "<f8"),
        ("high", "<f8"),
        ("epoch", "<i8"),
    ]
)
"""count: points received; step, value, time, epoch: of the point with the greatest step; low, high: finite values."""

_LAST = np.iinfo(np.int64).max - 1
# A row without points: minima start at the maximum value, and the other way round.
_NONE = np.array([(0, np.iinfo(np.int64).max, AUTO, np.nan, 0.0, np.inf, -np.inf, AUTO)], ROW)[0]


class Stats:
    """Rows with statistics. The index of a row is the number of the key."""

    def __init__(self, rows: npt.NDArray[np.void] | None = None) -> None:
        self._rows = np.empty(0, ROW) if rows is None else rows
        self._used = len(self._rows)

    @property
    def rows(self) -> npt.NDArray[np.void]:
        """The rows of all keys."""
        return self._rows[: self._used]

    def make_room(self, keys: int) -> None:
        """Ensure that rows for `keys` keys exist."""
        # Doubling the array keeps the cost of adding keys linear.
        if keys > len(self._rows):
            more = np.full(max(keys, 2 * len(self._rows), 16) - len(self._rows), _NONE)
            self._rows = np.concatenate([self._rows, more])
        self._used = max(self._used, keys)

    def forget(self) -> None:
        """Reset the statistics of all keys."""
        self._rows[:] = _NONE

    def add(self, table: Table) -> None:
        """Add points, in order of arrival. Their keys must have rows."""
        if not len(table):
            return
        order = np.lexsort((table.epochs, table.steps, table.keys))
        by_key = table.take(order)
        starts = np.flatnonzero(np.r_[True, by_key.keys[1:] != by_key.keys[:-1]])
        ends = np.r_[starts[1:], len(by_key)] - 1
        at = by_key.keys[starts]
        rows = self._rows
        rows["count"][at] += ends + 1 - starts
        rows["first"][at] = np.minimum(rows["first"][at], by_key.steps[starts])
        finite = np.isfinite(by_key.values)
        lows = np.minimum.reduceat(np.where(finite, by_key.values, np.inf), starts)
        highs = np.maximum.reduceat(np.where(finite, by_key.values, -np.inf), starts)
        rows["low"][at] = np.minimum(rows["low"][at], lows)
        rows["high"][at] = np.maximum(rows["high"][at], highs)
        self._move_last(at, by_key.take(ends))

    def _move_last(self, at: npt.NDArray[np.uint32], newest: Table) -> None:
        """Replace the last points of keys with newer ones: a greater step, or the same step in a later attempt."""
        rows = self._rows
        ahead = newest.steps > rows["step"][at]
        ahead |= (newest.steps == rows["step"][at]) & (newest.epochs >= rows["epoch"][at])
        to, point = at[ahead], newest.take(ahead)
        for name, column in (
            ("step", point.steps),
            ("value", point.values),
            ("time", point.times),
            ("epoch", point.epochs),
        ):
            rows[name][to] = column

    def next_steps(self, keys: npt.NDArray[np.uint32]) -> Ints:
        """Return the greatest step + 1 of each key; 0 for a key without points."""
        rows = self._rows[keys]
        steps: Ints = np.where(rows["step"] == AUTO, 0, np.minimum(rows["step"], _LAST) + 1)
        return steps


LAST = (1 << 63) - 1
"""The greatest possible step. A point that would come after it gets the same step."""


def numbered(keys: Keys, steps: Ints, stats: Stats) -> Ints:
    """Return the steps of points, in order of arrival, with each `AUTO` replaced by a step."""
    # Keys that mix `AUTO` and explicit steps need a slow loop, because an explicit step moves the next automatic one.
    open_ = steps == AUTO
    if not open_.any():
        return steps
    steps = steps.copy()
    mixed = np.unique(keys[open_])[np.isin(np.unique(keys[open_]), keys[~open_])]
    plain = open_ & ~np.isin(keys, mixed)
    _number_all(keys, steps, plain, stats)
    rows = np.flatnonzero(np.isin(keys, mixed))
    rows = rows[np.argsort(keys[rows], kind="stable")]  # one sort for all keys: a request can have 100,000 keys
    ends = np.searchsorted(keys[rows], mixed, "right").tolist()
    for begin, end, following in zip([0, *ends], ends, stats.next_steps(mixed).tolist(), strict=False):
        _number_some(rows[begin:end], steps, following)
    return steps


def _number_all(keys: Keys, steps: Ints, which: np.ndarray[tuple[int], np.dtype[np.bool_]], stats: Stats) -> None:
    """Assign steps to the points of keys that have no explicit step in this batch."""
    rows = np.flatnonzero(which)
    if not len(rows):
        return
    rows = rows[np.argsort(keys[rows], kind="stable")]
    of = keys[rows]
    starts = np.flatnonzero(np.r_[True, of[1:] != of[:-1]])
    rank = np.arange(len(rows)) - np.repeat(starts, np.diff(np.r_[starts, len(rows)]))
    first = stats.next_steps(of)
    following = first + rank
    after_last = (first == AUTO) | (following < first)  # int64 overflow: there is no step after the last one
    steps[rows] = np.where(after_last, LAST, following)


def _number_some(rows: np.ndarray[tuple[int], np.dtype[np.intp]], steps: Ints, following: int) -> None:
    """Assign steps to the points of one key that also has explicit steps."""
    for row in rows:
        if steps[row] == AUTO:
            steps[row] = following
        following = min(max(following, int(steps[row]) + 1), LAST)
