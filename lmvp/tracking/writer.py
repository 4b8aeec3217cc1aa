"""What one process logs to a run: its journal, its keys, and the lock that says that it lives."""

from __future__ import annotations

import os
import secrets
import struct
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lmvp.errors import InvalidArgument
from lmvp.tracking.frames import (
    AUTO,
    BATCH,
    BATCH_HEAD,
    BATCH_POINTS,
    EPOCH,
    EPOCH_FRAME,
    EVEN_STEPS,
    KEY,
    KEY_HEAD,
    ONE_TIME,
    PAYLOAD_LIMIT,
    POINT,
    POINTS,
    POINTS_HEAD,
    STRIDE,
)
from lmvp.tracking.journal import Journal
from lmvp.tracking.owner import Owner

if TYPE_CHECKING:
    from lmvp.tracking.columns import Columns

_MOST = (PAYLOAD_LIMIT - POINTS_HEAD.size) // POINT.size


@lru_cache(maxsize=256)
def packer(count: int) -> Callable[..., bytes]:
    """Return what packs the frame of so many points: kind, time, and key, step and value of each."""
    return struct.Struct("<Bd" + "Iqd" * count).pack


class Writer:
    """One process of a run.

    Attributes
    ----------
    id : str
        32 hex digits.
    keys : dict of str to int
        This writer's numbers of the keys that it has logged.
    """

    def __init__(self, folder: Path, start: bytes) -> None:
        self.id = secrets.token_hex(16)
        self.pid = os.getpid()
        self.keys: dict[str, int] = {}
        self.journal = Journal(folder / f"{self.id}.journal")
        self._owner = Owner(folder / f"{self.id}.lock")
        self._owner.take()
        self.journal.append(start)

    def points(self, values: dict[str, float], step: int, time: float) -> None:
        """Store one number for each key, at one step."""
        keys, numbers = self.keys, list[Any]()
        for key, value in values.items():
            number = keys.get(key)
            numbers += (self.name(key) if number is None else number, step, value)
        if len(values) > _MOST:
            for at in range(0, len(numbers), 3 * _MOST):
                part = numbers[at : at + 3 * _MOST]
                self.journal.append(packer(len(part) // 3)(POINTS, time, *part))
        elif numbers:
            self.journal.append(packer(len(values))(POINTS, time, *numbers))

    def name(self, key: str) -> int:
        """Return the number of a key, given to it now."""
        with self.journal.lock:
            number = self.keys.get(key)
            if number is None:
                number = len(self.keys)
                self.journal.store(KEY_HEAD.pack(KEY, number) + key.encode())
                self.keys[key] = number
        return number

    def batch(self, key: str, points: Columns, *, one_time: bool) -> None:
        """Store many points of one key."""
        import numpy as np

        number = self.keys.get(key)
        number = self.name(key) if number is None else number
        for at in range(0, len(points), BATCH_POINTS):
            rows = slice(at, at + BATCH_POINTS)
            steps, values = points.steps[rows], points.values[rows]
            times = points.times[rows][:1] if one_time else points.times[rows]
            stride = int(steps[1]) - int(steps[0]) if len(steps) > 1 else 0
            even = bool((np.diff(steps) == stride).all()) and int(steps[0]) != AUTO
            head = BATCH_HEAD.pack(BATCH, EVEN_STEPS * even | ONE_TIME * one_time, number, len(steps))
            axis = STRIDE.pack(int(steps[0]), stride) if even else steps.astype("<i8").tobytes()
            self.journal.append(head + axis + times.astype("<f8").tobytes() + values.astype("<f8").tobytes())

    def note(self, kind: int, said: Any) -> None:
        """Store what is said of the run."""
        body = msgspec.json.encode(said)
        if len(body) >= PAYLOAD_LIMIT:
            raise InvalidArgument(f"what is said of a run has {len(body):,} bytes; the limit is {PAYLOAD_LIMIT:,}")
        self.journal.append(bytes([kind]) + body)

    def begin(self, epoch: int, cut: int = AUTO) -> None:
        """Store that points are of another epoch from now on."""
        self.journal.append(EPOCH_FRAME.pack(EPOCH, epoch, cut))

    def close(self) -> None:
        """Close the journal; from now on it counts as left behind."""
        self.journal.close()
        self._owner.let_go()

    def ended(self) -> EndedWriter:
        """Close the journal; return what takes its place."""
        self.close()
        return EndedWriter(self)

    def abandon(self) -> None:
        """Let go in a forked child: the parent goes on with it."""
        self.journal.abandon()
        self._owner.let_go()


class EndedWriter(Writer):
    """Stands where a writer was whose run has ended: what is logged is lost, and that is told once."""

    def __init__(self, before: Writer) -> None:
        self.id, self.pid, self.keys = before.id, before.pid, {}
        self.journal = before.journal
        self._owner = Owner(before.journal.path.with_suffix(".lock"))
        self._told = False

    def _lost(self) -> None:
        if not self._told:
            self._told = True
            what = "this run has ended, and takes no more: `start_run(resume=run)` goes on with it"
            with suppress(Warning):  # where warnings are errors: `log` never fails
                warnings.warn(what, stacklevel=4)

    def points(self, values: dict[str, float], step: int, time: float) -> None:  # noqa: ARG002
        """Say that it is lost."""
        if not all(key.startswith("system/") for key in values):
            self._lost()

    def batch(self, key: str, points: Columns, *, one_time: bool) -> None:  # noqa: ARG002
        """Say that it is lost."""
        self._lost()

    def note(self, kind: int, said: Any) -> None:  # noqa: ARG002
        """Say that it is lost."""
        self._lost()

    def begin(self, epoch: int, cut: int = AUTO) -> None:  # noqa: ARG002
        """Say that it is lost."""
        self._lost()
