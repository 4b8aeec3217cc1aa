"""Points of one key or of many as columns, and what counts of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from lmvp.tracking.columns import Columns, Floats, Ints, Keys


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


@dataclass(frozen=True, slots=True)
class Cut:
    """Points of epochs before `epoch` above `step` do not count; keys of the system are not cut."""

    epoch: int
    step: int


def kept(table: Table, cuts: Sequence[Cut], spared: npt.NDArray[np.bool_]) -> Table:
    """Return the points that no cut drops.

    Parameters
    ----------
    spared : array of bool
        By key: whether cuts leave it alone.
    """
    gone = np.zeros(len(table), np.bool_)
    for cut in cuts:
        gone |= (table.epochs < cut.epoch) & (table.steps > cut.step)
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
