"""The writer of a process: its journal, its keys, and the lock that shows that the process is alive."""

from __future__ import annotations

import secrets
import struct
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lmvp.core.run_frames import (
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
from lmvp.core.text import escaped
from lmvp.errors import InvalidArgument
from lmvp.tracking.journal import Journal
from lmvp.tracking.process_lock import ATTEMPTS, Owner

if TYPE_CHECKING:
    from lmvp.core.columns import Columns
    from lmvp.tracking.destination import Target

# Greatest number of points in one `POINTS` frame.
_MOST = (PAYLOAD_LIMIT - POINTS_HEAD.size) // POINT.size


@lru_cache(maxsize=256)
def packer(count: int) -> Callable[..., bytes]:
    """Return the packer of a frame with this number of points: kind, time, and key, step and value of each."""
    return struct.Struct("<Bd" + "Iqd" * count).pack


class Writer:
    """One process that logs to a run.

    Parameters
    ----------
    names : mapping of int to str, optional
        Keys by id that are already in use, if this writer continues the frames of another one.
    target : Target, optional
        Written into the folder.

    Attributes
    ----------
    id : str
        32 hex digits.
    keys : dict of str to int
        The ids of the keys that are declared in the journal.
    names : dict of int to str
        The keys of all ids that are in use.
    """

    def __init__(
        self, folder: Path, start: bytes, names: Mapping[int, str] | None = None, target: Target | None = None
    ) -> None:
        self.id = secrets.token_hex(16)
        self.keys: dict[str, int] = {}
        self.names: dict[int, str] = {}
        self._owner, self.journal = _begin(folder, self.id, target)
        self.journal.append(start)
        for number, key in dict(names or {}).items():
            self._declare(number, key)
        self._numbers = count(max(self.names, default=-1) + 1)

    def points(self, values: dict[str, float], step: int, time: float, *, late: bool = True) -> None:
        """Store one number for each key, at one step. `late` is passed to `Journal.append`."""
        keys, numbers = self.keys, list[Any]()
        for key, value in values.items():
            number = keys.get(key)
            numbers += (self.name(key) if number is None else number, step, value)
        if len(values) > _MOST:
            for at in range(0, len(numbers), 3 * _MOST):
                part = numbers[at : at + 3 * _MOST]
                self.journal.append(packer(len(part) // 3)(POINTS, time, *part), late=late)
        elif numbers:
            self.journal.append(packer(len(values))(POINTS, time, *numbers), late=late)

    def name(self, key: str) -> int:
        """Return the id of a key; declare the key in the journal if it is new.

        A key that two threads declare at the same time gets two ids. Readers map both to the same key.
        """
        number = self.keys.get(key)
        if number is None:
            number = next(self._numbers)
            self._declare(number, key)
        return number

    def _declare(self, number: int, key: str) -> None:
        self.names[number] = key  # before the frame, because the successor of the journal declares all of these
        self.journal.append(KEY_HEAD.pack(KEY, number) + key.encode())
        self.keys[key] = number  # after the frame, because a point must follow the declaration of its key

    def batch(self, key: str, points: Columns, *, one_time: bool) -> None:
        """Store many points of one key."""
        import numpy as np

        number = self.keys.get(key)
        number = self.name(key) if number is None else number
        for at in range(0, len(points), BATCH_POINTS):
            rows = slice(at, at + BATCH_POINTS)
            steps, values = points.steps[rows], points.values[rows]
            times = points.times[rows][:1] if one_time else points.times[rows]
            # Evenly spaced steps, the usual case, take 16 bytes in total, other steps 8 bytes each.
            stride = int(steps[1]) - int(steps[0]) if len(steps) > 1 else 0
            even = bool((np.diff(steps) == stride).all()) and int(steps[0]) != AUTO
            head = BATCH_HEAD.pack(BATCH, EVEN_STEPS * even | ONE_TIME * one_time, number, len(steps))
            axis = STRIDE.pack(int(steps[0]), stride) if even else steps.astype("<i8").tobytes()
            self.journal.append(head + axis + times.astype("<f8").tobytes() + values.astype("<f8").tobytes())

    def note(self, kind: int, said: Any) -> None:
        """Store an update of the run's record, or its end."""
        body = encode(said)
        if len(body) >= PAYLOAD_LIMIT:
            raise InvalidArgument(f"an update of a run has {len(body):,} bytes; the limit is {PAYLOAD_LIMIT:,}")
        self.journal.append(bytes([kind]) + body)

    def begin(self, epoch: int, cut: int = AUTO) -> None:
        """Store the start of an attempt."""
        self.journal.append(EPOCH_FRAME.pack(EPOCH, epoch, cut))

    def close(self) -> None:
        """Close the journal and release the lock, so that other processes can deliver it."""
        self.journal.close()
        self._owner.let_go()

    def abandon(self) -> None:
        """Close the files in a forked child; the parent continues to use them."""
        self.journal.abandon()
        self._owner.let_go()


def _begin(folder: Path, name: str, target: Target | None) -> tuple[Owner, Journal]:
    """Create the lock and the journal of a writer.

    Another process can delete the folder at any moment, after it has delivered its content. So the lock is held before
    the journal exists, and both are created again if they are not in the folder afterwards.
    """
    for attempt in range(ATTEMPTS):
        owner = Owner.create(folder / f"{name}.lock")
        if target is not None:
            target.write(folder)
        journal = Journal(folder / f"{name}.journal")
        if attempt == ATTEMPTS - 1 or not (journal.is_deleted() or owner.is_deleted()):
            break
        journal.abandon()
        owner.let_go()
    return owner, journal


def encode(said: Any) -> bytes:
    """Return a struct as JSON; text that is not valid UTF-8 is escaped."""
    try:
        return msgspec.json.encode(said)
    except (UnicodeEncodeError, TypeError):
        return msgspec.json.encode(escaped(msgspec.to_builtins(said, str_keys=True)))
