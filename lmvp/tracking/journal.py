"""The journal of a writer: a file mapped into memory. Storing a frame takes neither a lock nor a system call.

A stored frame survives a kill of the process at any later moment. `sync`, which a thread calls once a second, makes it
survive a power failure. If the file cannot grow, frames stay in memory, up to `MEMORY` bytes.

Storing needs no lock, so it works from any thread and from a signal handler that interrupts another store at any
instruction:

1. A frame *claims* the next free offset with `dict.setdefault`, which is atomic. The claims form a chain: the length of
   one frame determines the offset of the next.
2. All frames in the chain are written in order, including those that other threads or an interrupted caller claimed.
   Writing a frame twice is harmless, because it writes the same bytes to the same place.
3. The size is updated with an atomic maximum, so an interrupted caller that resumes cannot decrease it.

See docs/runs.md, "The journal".
"""

from __future__ import annotations

import mmap
import os
import secrets
import struct
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from heapq import heappushpop
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from zlib import crc32

import msgspec

from lmvp.core import files
from lmvp.core.framing import HEAD
from lmvp.core.metric_values import checked
from lmvp.core.run_frames import (
    ATTEMPT,
    ATTEMPT_FRAME,
    AUTO,
    BATCH,
    BATCH_HEAD,
    BATCH_POINTS,
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
from lmvp.core.sanitize import escaped
from lmvp.errors import InvalidArgument
from lmvp.tracking.process_lock import ATTEMPTS, ProcessLock, is_deleted

if TYPE_CHECKING:
    from lmvp.core.columns import Columns
    from lmvp.tracking.destination import Target

# First length of the file, and the most by which it grows at once, in bytes.
_FIRST, _MOST = 1 << 20, 16 << 20
# Distance of the marks, in bytes.
_MARK = 1 << 19
MEMORY: Final = 64 << 20
"""Maximum number of bytes in memory if the file cannot grow."""

_pack_head = HEAD.pack
_Claim: TypeAlias = list[Any]
"""The payload of a frame, and whether it is stored."""
_SEAL: Final[_Claim] = [b"", False]
"""Ends the chain of claims. It is compared by identity, because a frame could be equal."""


class _File:
    """A descriptor that is closed with its last reference.

    A thread that still stores a frame holds a reference. If the descriptor were closed before, its number could already
    belong to another file.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self) -> None:
        with suppress(OSError):
            os.close(self.descriptor)


class Journal:
    """Frames in a file, or in memory if the file cannot grow.

    Attributes
    ----------
    lost : int
        Number of frames that neither the disk nor the memory accepted.
    marks : list of int
        Offsets of frame ends, at least `_MARK` bytes apart. They split the journal into parts without parsing it.
    successor : callable, optional
        Returns the journal for frames that arrive after `seal`; without it they are dropped.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost = 0
        self.marks: list[int] = []
        self.successor: Callable[[], Journal | None] | None = None
        self._size = [0]  # a heap of one number, since `heappushpop` is an atomic maximum
        self._claims: dict[int, _Claim] = {}
        self._memory: dict[int, bytes] = {}
        self._next_mark = _MARK
        self._synced = 0
        self._map: mmap.mmap | bytes = b""
        self._file: _File | None = None
        try:
            self._open()
        except OSError as error:
            self._go_without(error)

    def _open(self) -> None:
        files.make_folder(self.path.parent)
        self._file = _File(files.create(self.path, os.O_RDWR | os.O_EXCL))
        self._map = self._longer(self._file, _FIRST)

    @property
    def size(self) -> int:
        """Bytes of the stored frames."""
        return self._size[0]

    @property
    def sealed(self) -> bool:
        """Whether the journal accepts no more frames."""
        return self._claims.get(self._size[0]) is _SEAL

    # -- storing

    def append(self, payload: bytes, *, late: bool = True) -> None:
        """Store a frame. An error of the disk is not raised.

        Parameters
        ----------
        late : bool
            Pass the frame to the successor if the journal is sealed.
        """
        if self._full:
            self._drop()
            return
        claims, size = self._claims, self._size
        claim: _Claim = [payload, False]
        at = size[0]
        while (holder := claims.setdefault(at, claim)) is not claim or at < size[0]:
            if at < size[0]:  # the frame at this offset has been stored in the meantime
                if holder is claim:
                    if claim[1]:  # another caller has stored this frame
                        return
                    claims.pop(at, None)
                at = size[0]
            elif holder is _SEAL:
                if late and self.successor is not None and (journal := self.successor()) is not None:
                    journal.append(payload)
                return
            else:
                at += 8 + len(holder[0])
        self._store_until(at + 1)

    def store_waiting(self) -> None:
        """Store the frames of callers that a signal handler or an exception interrupted."""
        self._store_until(sys.maxsize)

    def _store_until(self, end: int) -> None:
        """Store claimed frames in order until the size reaches an offset or the chain ends."""
        claims, size = self._claims, self._size
        while (at := size[0]) < end:
            claim = claims.get(at)
            if at < size[0]:  # another caller has stored it
                continue
            if claim is None or claim is _SEAL:
                return
            payload = claim[0]
            length = len(payload)
            frame_end = at + 8 + length
            room = self._map
            if frame_end + 8 > len(room):  # the eight zeros after the last frame mark the end
                self._put_in_new_room(at, frame_end, payload)
            else:
                # The payload first: without its head, a torn frame reads as the end of the journal.
                room[at + 8 : frame_end] = payload  # type: ignore[index]
                room[at : at + 8] = _pack_head(length, crc32(payload))  # type: ignore[index]
            if frame_end > self._next_mark:
                self.marks.append(frame_end)
                self._next_mark = frame_end + _MARK
            claim[1] = True
            heappushpop(size, frame_end)
            claims.pop(at, None)

    def _put_in_new_room(self, at: int, end: int, payload: bytes) -> None:
        """Store a frame that exceeds the mapped length: extend the file, or else store it in memory."""
        file = self._file
        if at < self._size[0]:  # another caller has stored it and may have closed the journal
            return
        if file is not None and not self._refused:
            try:
                room = self._longer(file, max(end + 8, min(2 * len(self._map), len(self._map) + _MOST)))
            except (OSError, ValueError, OverflowError, MemoryError) as error:
                self._go_without(error)
            else:
                self._map = room
                room[at + 8 : end] = payload
                room[at : at + 8] = _pack_head(len(payload), crc32(payload))
                return
        if at in self._memory or at < self._size[0]:
            return
        if not self._memory:
            self._on_disk = at
        self._memory[at] = _pack_head(len(payload), crc32(payload)) + payload
        self._full = end - self._on_disk >= MEMORY

    @staticmethod
    def _longer(file: _File, size: int) -> mmap.mmap:
        """Extend the file with zeros to at least this length, and map it.

        The previous map is not closed, because another thread may be writing to it. It is freed with its last
        reference.
        """
        size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        if hasattr(os, "posix_fallocate"):
            # Reserves the blocks, so that a full disk raises here. A write to a sparse map would raise SIGBUS and kill
            # the process.
            os.posix_fallocate(file.descriptor, 0, size)
        elif os.fstat(file.descriptor).st_size < size:
            os.ftruncate(file.descriptor, size)
        return mmap.mmap(file.descriptor, size)

    def _go_without(self, error: Exception) -> None:
        """Store all later frames in memory; earlier frames stay on the disk."""
        if not self._refused:
            self._refused = True
            why = f"{self.path.parent} takes no metrics ({getattr(error, 'strerror', None) or error})"
            _warn(f"{why}: they stay in memory until the server has them, and end with this process")

    def _drop(self) -> None:
        """Count a frame that neither the disk nor the memory accepts."""
        self.lost += 1
        if self.lost == 1:
            room = f"neither {self.path.parent} nor memory ({MEMORY >> 20} MiB) takes more metrics"
            _warn(f"{room}: what is logged from now on is lost")

    # -- reading

    def read(self, start: int, limit: int) -> bytes:
        """Return whole frames from `start` on: at least one frame, and at most `limit` bytes if the marks permit.

        `start` is the beginning of a frame. A closed journal whose file was deleted reads as empty.
        """
        end = self._size[0]
        if end > start + limit:
            end = next((mark for mark in reversed(self.marks) if start < mark <= start + limit), end)
        if self._memory and start >= self._on_disk:
            parts = []
            while start < end:
                parts.append(self._memory[start])
                start += len(parts[-1])
            return b"".join(parts)
        if self._memory:
            end = min(end, self._on_disk)
        room = self._map
        if len(room) >= end:
            return bytes(room[start:end])
        with suppress(FileNotFoundError):
            return read_file(self.path, start, end - start)
        return b""

    # -- the end

    def sync(self) -> None:
        """Sync new frames to the disk."""
        self.store_waiting()
        size, file = self.size, self._file
        if size == self._synced or file is None:
            return
        with suppress(OSError):
            files.sync_data(file.descriptor)
            self._synced = size

    def seal(self) -> None:
        """Accept no more frames; pass later ones to the successor."""
        claims, size = self._claims, self._size
        while True:
            self.store_waiting()
            at = size[0]
            holder = claims.setdefault(at, _SEAL)
            if at < size[0]:
                if holder is _SEAL:
                    claims.pop(at, None)
            elif holder is _SEAL:
                return

    def is_deleted(self) -> bool:
        """Return whether the file is no longer at its path."""
        file = self._file
        return file is not None and is_deleted(self.path, file.descriptor)

    def close(self) -> None:
        """Seal and sync the file, and truncate it to its frames."""
        self.seal()
        file, self._file = self._file, None
        if file is None:
            return
        with suppress(OSError):
            os.ftruncate(file.descriptor, min(self.size, self._on_disk) if self._memory else self.size)
            os.fsync(file.descriptor)
            self._map = b""

    def abandon(self) -> None:
        """Release the file in a forked child without a change; the parent continues to use it."""
        self._claims = {self._size[0]: _SEAL}
        self._file, self._map = None, b""

    _full = _refused = False
    _on_disk = 0


def _warn(text: str) -> None:
    """Show a warning; ignore the exception where warnings are errors, because it would fail the training."""
    with suppress(Exception):
        warnings.warn(text, stacklevel=6)


def read_file(path: Path, start: int, limit: int) -> bytes:
    """Return bytes of a journal that another process writes or wrote; they can end with zeros."""
    with files.open_read(path) as file:
        file.seek(start)
        return file.read(limit)


# -- the writer of a process


# Greatest number of points in one `POINTS` frame.
_MOST_POINTS = (PAYLOAD_LIMIT - POINTS_HEAD.size) // POINT.size


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
        self._lock, self.journal = _begin(folder, self.id, target)
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
        if len(values) > _MOST_POINTS:
            for at in range(0, len(numbers), 3 * _MOST_POINTS):
                part = numbers[at : at + 3 * _MOST_POINTS]
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

    def note(self, kind: int, record: Any) -> None:
        """Store an update of the run's record, or its end."""
        body = encode(record)
        if len(body) >= PAYLOAD_LIMIT:
            raise InvalidArgument(f"an update of a run has {len(body):,} bytes; the limit is {PAYLOAD_LIMIT:,}")
        self.journal.append(bytes([kind]) + body)

    def begin(self, epoch: int, cut: int = AUTO) -> None:
        """Store the start of an attempt."""
        self.journal.append(ATTEMPT_FRAME.pack(ATTEMPT, epoch, cut))

    def close(self) -> None:
        """Close the journal and release the lock, so that other processes can deliver it."""
        self.journal.close()
        self._lock.release()

    def abandon(self) -> None:
        """Close the files in a forked child; the parent continues to use them."""
        self.journal.abandon()
        self._lock.release()


def _begin(folder: Path, name: str, target: Target | None) -> tuple[ProcessLock, Journal]:
    """Create the lock and the journal of a writer.

    Another process can delete the folder at any moment, after it has delivered its content. So the lock is held before
    the journal exists, and both are created again if they are not in the folder afterwards.
    """
    for attempt in range(ATTEMPTS):
        lock = ProcessLock.create(folder / f"{name}.lock")
        if target is not None:
            target.write(folder)
        journal = Journal(folder / f"{name}.journal")
        if attempt == ATTEMPTS - 1 or not (journal.is_deleted() or lock.is_deleted()):
            break
        journal.abandon()
        lock.release()
    return lock, journal


def encode(record: Any) -> bytes:
    """Return a struct as JSON; text that is not valid UTF-8 is escaped."""
    try:
        return msgspec.json.encode(record)
    except (UnicodeEncodeError, TypeError):
        return msgspec.json.encode(escaped(msgspec.to_builtins(record, str_keys=True)))


def columns_of(steps: Any, values: Mapping[str, Any], times: Any) -> dict[str, Columns]:
    """Return the columns of each key.

    Raises
    ------
    InvalidArgument
        If the arrays are not numeric or differ in length.
    """
    import numpy as np

    from lmvp.core.columns import Columns

    if not isinstance(values, Mapping):
        raise InvalidArgument("log_batch() takes a mapping of names to arrays", hint='{"loss": losses}')
    given = {checked(key): _floats_of(key, value) for key, value in values.items()}
    axis = None if steps is None else _steps_of(steps)
    columns = {}
    for key, column in given.items():
        at = np.full(len(column), AUTO, np.int64) if axis is None else axis
        moments = np.broadcast_to(
            np.asarray(times, np.float64), column.shape if np.ndim(times) == 0 else np.shape(times)
        )
        if not len(at) == len(column) == len(moments):
            raise InvalidArgument(
                f"{key!r} has {len(column):,} values for {len(at):,} steps and {len(moments):,} times"
            )
        if not np.isfinite(moments).all():
            raise InvalidArgument("time= holds what is no time: seconds since 1970 are finite")
        if len(column):
            columns[key] = Columns(at, column, moments)
    return columns


def _floats_of(key: str, value: Any) -> Any:
    import numpy as np

    detach = getattr(value, "detach", None)
    try:
        # `double`, because numpy lacks bfloat16.
        column = np.asarray(detach().double().cpu().numpy() if callable(detach) else value, np.float64)
    except (TypeError, ValueError):
        raise InvalidArgument(f"{key!r} is no array of numbers") from None
    if column.ndim != 1:
        raise InvalidArgument(f"{key!r} has the shape {column.shape}, not one row of numbers")
    return column


def _steps_of(steps: Any) -> Any:
    import numpy as np

    detach = getattr(steps, "detach", None)
    axis = np.asarray(detach().cpu().numpy() if callable(detach) else steps)
    # An empty list has the dtype float64.
    if axis.ndim != 1 or (axis.dtype.kind not in "iu" and len(axis)):
        raise InvalidArgument("steps= is no row of integers", hint="range(n), or None")
    return axis.astype(np.int64)
