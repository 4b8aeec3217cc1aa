"""Automatic steps for points that were logged without one: the greatest step of the key + 1."""

from __future__ import annotations

import numpy as np

from lmvp.core.columns import Ints, Keys
from lmvp.core.run_frames import AUTO
from lmvp_server.stores.local.series.stats import Stats

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
