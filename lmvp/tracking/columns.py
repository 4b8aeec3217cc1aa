"""Points in columns. Needs numpy: import this where it is used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lmvp.tracking.frames import AUTO

Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]
Keys: TypeAlias = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Columns:
    """Points as columns of one length: steps int64, values float64, times float64 (seconds since 1970)."""

    steps: Ints
    values: Floats
    times: Floats

    def __len__(self) -> int:
        return len(self.steps)

    @classmethod
    def empty(cls) -> Columns:
        """Return no points."""
        return cls(np.empty(0, np.int64), np.empty(0), np.empty(0))

    @classmethod
    def join(cls, parts: Iterable[Columns]) -> Columns:
        """Return the points of several, one after the other."""
        parts = list(parts)
        if not parts:
            return cls.empty()
        return cls(
            np.concatenate([part.steps for part in parts]),
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.times for part in parts]),
        )


@dataclass(frozen=True, slots=True)
class Points:
    """Points of several keys, in the order in which they were logged; `keys` are the writer's ids (uint32)."""

    keys: Keys
    steps: Ints
    values: Floats
    times: Floats

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True)
class Epoch:
    """From here on points are of this epoch.

    Attributes
    ----------
    cut : int
        Points of older epochs above this step do not count; `AUTO`: all of them do.
    """

    epoch: int
    cut: int = AUTO


@dataclass(slots=True)
class Shipment:
    """What the frames of one request say.

    Attributes
    ----------
    parts : list of Points or Epoch
        In the order of the frames.
    keys : dict of int to str
        Names that writer ids get here.
    notes : list of (int, bytes)
        Kind and JSON of each `START`, `UPDATE` and `END`, in order.
    attempts : list of (int or None)
        For each note, the epoch of the last `EPOCH` frame before it in these frames, or None.
    """

    parts: list[Points | Epoch] = field(default_factory=list)
    keys: dict[int, str] = field(default_factory=dict)
    notes: list[tuple[int, bytes]] = field(default_factory=list)
    attempts: list[int | None] = field(default_factory=list)
    attempt: int | None = None
