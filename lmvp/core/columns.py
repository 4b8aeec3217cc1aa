"""Points in columns, as numpy arrays. Needs numpy: import this module lazily."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lmvp.core.run_frames import AUTO

Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]
Keys: TypeAlias = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Columns:
    """Points of one key as columns of equal length: int64 steps, float64 values, float64 times (s since 1970)."""

    steps: Ints
    values: Floats
    times: Floats

    def __len__(self) -> int:
        return len(self.steps)

    @classmethod
    def empty(cls) -> Columns:
        """Return columns without points."""
        return cls(np.empty(0, np.int64), np.empty(0), np.empty(0))

    @classmethod
    def join(cls, parts: Iterable[Columns]) -> Columns:
        """Concatenate columns in this order."""
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
class AttemptStart:
    """Start of an attempt: points after it belong to this attempt.

    Attributes
    ----------
    epoch : int
        The number of the attempt.
    cut : int
        Points of earlier attempts above this step no longer count; `AUTO` means that all of them count.
    """

    epoch: int
    cut: int = AUTO


@dataclass(slots=True)
class ParsedFrames:
    """The parsed frames of one request.

    Attributes
    ----------
    parts : list of Points or Epoch
        Points and starts of attempts, in the order of the frames.
    keys : dict of int to str
        Names of the keys that these frames declare, by writer id.
    notes : list of (int, bytes)
        Kind and JSON of each `START`, `UPDATE` and `END`, in order.
    attempts : list of (int or None)
        For each note, the attempt of the last `ATTEMPT` frame before it in these frames, or None.
    attempt : int or None
        The attempt of the last `ATTEMPT` frame, or None.
    """

    parts: list[Points | AttemptStart] = field(default_factory=list)
    keys: dict[int, str] = field(default_factory=dict)
    notes: list[tuple[int, bytes]] = field(default_factory=list)
    attempts: list[int | None] = field(default_factory=list)
    attempt: int | None = None
