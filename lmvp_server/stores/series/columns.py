"""Points of one key or of many as columns, and the points that count."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from lmvp.tracking.columns import Columns, Floats, Ints, Keys

_HIGHEST = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Table:
    """Points of many keys, in some order; keys are the series' own numbers (uint32)."""

    keys: Keys
    steps: Ints
    values: Floats
    times: Floats
    epochs: Ints

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, rows: npt.NDArray[np.intp] | npt.NDArray[np.bool_] | slice) -> Table:
        """Return some rows."""
        return Table(self.keys[rows], self.steps[rows], self.values[rows], self.times[rows], self.epochs[rows])

    def columns(self) -> Columns:
        """Return steps, values and times."""
        return Columns(self.steps, self.values, self.times)

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return 36 * len(self)

    @classmethod
    def empty(cls) -> Table:
        """Return no points."""
        return cls(np.empty(0, np.uint32), np.empty(0, np.int64), np.empty(0), np.empty(0), np.empty(0, np.int64))

    @classmethod
    def join(cls, parts: Sequence[Table]) -> Table:
        """Return the points of several, one after the other."""
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return cls.empty()
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


class Cuts:
    """The cuts of a series: points of epochs before a cut's epoch, above its step, do not count.

    A cut is redundant if another one of the same or a later epoch has the same or a lower step. Only the others are
    kept: their epochs and steps both ascend, so one binary search per point finds the lowest step that applies to it.
    Keys of the system are not cut.

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
        """Add a cut; return False if it is redundant."""
        at = bisect_left(self._epochs, epoch)
        if at < len(self) and self._steps[at] <= step:
            return False
        begin, end = bisect_left(self._steps, step), bisect_right(self._epochs, epoch)
        self._epochs[begin:end], self._steps[begin:end] = array("q", [epoch]), array("q", [step])
        return True

    def step_of(self, epoch: int) -> int:
        """Return the step above which points of an epoch do not count."""
        at = bisect_right(self._epochs, epoch)
        return self._steps[at] if at < len(self) else _HIGHEST

    @property
    def lowest(self) -> int:
        """The lowest step of any cut."""
        return self._steps[0] if self._steps else _HIGHEST

    def dropped(self, table: Table) -> npt.NDArray[np.bool_]:
        """Return by point whether a cut drops it, without regard to its key."""
        if not self._epochs or not len(table):
            return np.zeros(len(table), np.bool_)
        if len(table) == 1:  # a request may hold 100,000 tables of one point
            return np.array([int(table.steps[0]) > self.step_of(int(table.epochs[0]))])
        at = np.searchsorted(np.frombuffer(self._epochs, np.int64), table.epochs, "right")
        steps = np.append(np.frombuffer(self._steps, np.int64), _HIGHEST)
        dropped: npt.NDArray[np.bool_] = table.steps > steps[at]
        return dropped

    def pairs(self) -> list[tuple[int, int]]:
        """Return epoch and step of each cut."""
        return list(zip(self._epochs, self._steps, strict=True))

    def copy(self) -> Cuts:
        """Return a copy that later cuts do not change."""
        copy = Cuts()
        copy._epochs, copy._steps = self._epochs[:], self._steps[:]
        return copy


def kept(table: Table, cuts: Cuts, spared: npt.NDArray[np.bool_]) -> Table:
    """Return the points that no cut drops.

    Parameters
    ----------
    spared : array of bool
        By key: whether cuts leave it alone.
    """
    gone = cuts.dropped(table)
    if not gone.any():
        return table
    return table.take(~gone | spared[table.keys])


def settled(table: Table) -> Table:
    """Return the points that count, by key and step: of several at one step, that of the highest epoch, then the last.

    Parameters
    ----------
    table : Table
        In the order of arrival.
    """
    if len(table) < 2:
        return table
    keys, steps = table.keys, table.steps
    ahead = (keys[1:] > keys[:-1]) | ((keys[1:] == keys[:-1]) & (steps[1:] > steps[:-1]))
    if ahead.all():
        return table
    table = table.take(np.lexsort((table.epochs, steps, keys)))
    last = np.ones(len(table), np.bool_)
    last[:-1] = (table.keys[1:] != table.keys[:-1]) | (table.steps[1:] != table.steps[:-1])
    return table.take(last)
