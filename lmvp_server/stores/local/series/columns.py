"""Points of one or many keys as columns, and selection of the points that count."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from lmvp.core.columns import (
    Columns,
    Floats,
    Ints,
    Keys,
)

_HIGHEST = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Table:
    """Points of many keys, in any order. A key is its number in the series (uint32)."""

    keys: Keys
    steps: Ints
    values: Floats
    times: Floats
    epochs: Ints

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, rows: npt.NDArray[np.intp] | npt.NDArray[np.bool_] | slice) -> Table:
        """Return a table with the selected rows."""
        return Table(self.keys[rows], self.steps[rows], self.values[rows], self.times[rows], self.epochs[rows])

    def columns(self) -> Columns:
        """Return steps, values and times."""
        return Columns(self.steps, self.values, self.times)

    @property
    def nbytes(self) -> int:
        """The size in memory, in bytes."""
        return 36 * len(self)  # uint32 + 4 columns of 8 bytes

    @classmethod
    def empty(cls) -> Table:
        """Return a table without points."""
        return cls(np.empty(0, np.uint32), np.empty(0, np.int64), np.empty(0), np.empty(0), np.empty(0, np.int64))

    @classmethod
    def join(cls, parts: Sequence[Table]) -> Table:
        """Concatenate tables."""
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return cls.empty()
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


class Cuts:
    """The cuts of a series. A cut (attempt, step) drops points of older attempts that are above its step.

    A cut is redundant if another cut of the same or a later attempt has the same or a lower step. Only cuts that are
    not redundant are stored. Their attempts and steps both ascend, so one binary search for each point finds the lowest
    step that applies to it. Cuts do not apply to system keys.

    Examples
    --------
    >>> cuts = Cuts([(1, 5), (2, 9)])
    >>> cuts.add(1, 7), cuts.add(3, 6), cuts.pairs()
    (False, True, [(1, 5), (3, 6)])
    """

    def __init__(self, pairs: Iterable[tuple[int, int]] = ()) -> None:
        self._epochs, self._steps = array("q"), array("q")
        for epoch, step in pairs:
            self.add(epoch, step)

    def __len__(self) -> int:
        return len(self._epochs)

    def add(self, epoch: int, step: int) -> bool:
        """Add a cut. Return False if it is redundant."""
        at = bisect_left(self._epochs, epoch)
        if at < len(self) and self._steps[at] <= step:
            return False
        begin, end = bisect_left(self._steps, step), bisect_right(self._epochs, epoch)
        self._epochs[begin:end], self._steps[begin:end] = array("q", [epoch]), array("q", [step])
        return True

    def step_of(self, epoch: int) -> int:
        """Return the step above which points of an attempt do not count."""
        at = bisect_right(self._epochs, epoch)
        return self._steps[at] if at < len(self) else _HIGHEST

    @property
    def lowest(self) -> int:
        """The lowest step of all cuts."""
        return self._steps[0] if self._steps else _HIGHEST

    def dropped(self, table: Table) -> npt.NDArray[np.bool_]:
        """Return a mask of the points that a cut drops. Keys are ignored."""
        if not self._epochs or not len(table):
            return np.zeros(len(table), np.bool_)
        if len(table) == 1:  # avoids numpy's overhead: a request can have 100,000 tables of one point
            return np.array([int(table.steps[0]) > self.step_of(int(table.epochs[0]))])
        at = np.searchsorted(np.frombuffer(self._epochs, np.int64), table.epochs, "right")
        steps = np.append(np.frombuffer(self._steps, np.int64), _HIGHEST)
        dropped: npt.NDArray[np.bool_] = table.steps > steps[at]
        return dropped

    def pairs(self) -> list[tuple[int, int]]:
        """Return the attempt and the step of each cut."""
        return list(zip(self._epochs, self._steps, strict=True))

    def copy(self) -> Cuts:
        """Return a copy that is independent of later cuts."""
        copy = Cuts()
        copy._epochs, copy._steps = self._epochs[:], self._steps[:]
        return copy


def kept(table: Table, cuts: Cuts, spared: npt.NDArray[np.bool_]) -> Table:
    """Return the points that are not dropped by a cut.

    Parameters
    ----------
    spared : array of bool
        For each key, whether cuts do not apply to it.
    """
    gone = cuts.dropped(table)
    if not gone.any():
        return table
    return table.take(~gone | spared[table.keys])


def settled(table: Table) -> Table:
    """Return the points that count, sorted by key and step.

    Of several points at one step, the point of the newest attempt counts; within an attempt, the last one.

    Parameters
    ----------
    table : Table
        The points in order of arrival.
    """
    if len(table) < 2:
        return table
    # Most batches are sorted already; this check is much faster than a sort.
    keys, steps = table.keys, table.steps
    ahead = (keys[1:] > keys[:-1]) | ((keys[1:] == keys[:-1]) & (steps[1:] > steps[:-1]))
    if ahead.all():
        return table
    # lexsort is stable, so among equal attempts the order of arrival remains.
    table = table.take(np.lexsort((table.epochs, steps, keys)))
    last = np.ones(len(table), np.bool_)
    last[:-1] = (table.keys[1:] != table.keys[:-1]) | (table.steps[1:] != table.steps[:-1])
    return table.take(last)
