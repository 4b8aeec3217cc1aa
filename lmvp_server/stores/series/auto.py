"""Steps for points that were logged without one: the key's greatest step + 1."""

from __future__ import annotations

import numpy as np

from lmvp.tracking.columns import Ints, Keys
from lmvp.tracking.frames import AUTO
from lmvp_server.stores.series.stats import Stats

LAST = (1 << 63) - 1
"""The greatest step; no step follows it, so a point after it has it as well."""


def numbered(keys: Keys, steps: Ints, stats: Stats) -> Ints:
    """Return the steps of points, in the order of their arrival, with a step in place of each `AUTO`."""
    open_ = steps == AUTO
    if not open_.any():
        return steps
    steps = steps.copy()
    mixed = np.unique(keys[open_])[np.isin(np.unique(keys[open_]), keys[~open_])]
    plain = open_ & ~np.isin(keys, mixed)
    _number_all(keys, steps, plain, stats)
    rows = np.flatnonzero(np.isin(keys, mixed))
    rows = rows[np.argsort(keys[rows], kind="stable")]  # sorted once: a request may hold 100,000 keys
    ends = np.searchsorted(keys[rows], mixed, "right").tolist()
    for begin, end, following in zip([0, *ends], ends, stats.next_steps(mixed).tolist(), strict=False):
        _number_some(rows[begin:end], steps, following)
    return steps


def _number_all(keys: Keys, steps: Ints, which: np.ndarray[tuple[int], np.dtype[np.bool_]], stats: Stats) -> None:
    """Give steps to points of keys of which no point has one of its own."""
    rows = np.flatnonzero(which)
    if not len(rows):
        return
    rows = rows[np.argsort(keys[rows], kind="stable")]
    of = keys[rows]
    starts = np.flatnonzero(np.r_[True, of[1:] != of[:-1]])
    rank = np.arange(len(rows)) - np.repeat(starts, np.diff(np.r_[starts, len(rows)]))
    first = stats.next_steps(of)
    following = first + rank
    after_last = (first == AUTO) | (following < first)  # int64 has wrapped: no step follows the last one
    steps[rows] = np.where(after_last, LAST, following)


def _number_some(rows: np.ndarray[tuple[int], np.dtype[np.intp]], steps: Ints, following: int) -> None:
    for row in rows:
        if steps[row] == AUTO:
            steps[row] = following
        following = min(max(following, int(steps[row]) + 1), LAST)
