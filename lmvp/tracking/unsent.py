"""Journals of runs that were killed or whose server was unreachable. `lmvp sync` delivers these journals."""

from __future__ import annotations

import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from lmvp.core import files
from lmvp.core.run_frames import (
    END,
    POINTS,
    POINTS_HEAD,
    START,
    framed,
    read_journal,
    whole_frames,
    whole_size,
)
from lmvp.core.schemas.runs import NewRun, RunEnd
from lmvp.errors import (
    AccessDenied,
    Conflict,
    LmvpError,
    NotAuthenticated,
    NotFound,
    RunRemoved,
    ServerError,
    ServerUnavailable,
)
from lmvp.tracking.destination import (
    NAME,
    Target,
    files_in,
    journals,
)
from lmvp.tracking.process_lock import ProcessLock
from lmvp.tracking.sender import JournalTransfer, file_reader, writer_path

# Seconds until a request fails.
_SECONDS = 30.0
_SOONEST, _LATEST = 5.0, 60.0
"""Shortest and longest pause between two attempts in the background, in seconds."""
_FILLED = 60.0
"""Seconds after which a folder without journals counts as abandoned."""
_GONE, _TRASH = ".gone-", ".trash-"
"""Prefixes of a folder that was moved for a possible deletion, and of one whose deletion is decided."""
_TRIES, _MOMENT = 4, 0.03
"""Number of attempts on a folder that another process holds, and the pause between them in seconds."""
# Number of digits from which the beginning of a run's id is accepted.
_DIGITS = 6
_AGAIN = (ServerError, ServerUnavailable, NotFound, AccessDenied, NotAuthenticated)
"""Errors of a server, project, role or token. They can disappear without a change of the journal."""


@dataclass(slots=True)
class Delivery:
    """The result of the delivery of a run.

    Attributes
    ----------
    state : str
        `delivered`, `running` (its process delivers it), `removed` (the run was removed on the server), or `waiting`.
        Only delivered journals are deleted.
    bytes : int
        Bytes that were sent, or that are unsent.
    why : str
        The reason why the run is not delivered.
    """

    run: str
    name: str = ""
    project: str = ""
    url: str = ""
    state: str = "waiting"
    bytes: int = 0
    why: str = ""
    hint: str | None = field(default=None, repr=False)
    again: bool = field(default=False, repr=False)
    """Whether another attempt can succeed."""


def deliver(
    *, dry_run: bool = False, force: bool = False, tell: Callable[[Delivery], None] = lambda _: None
) -> list[Delivery]:
    """Deliver the unsent journals of processes that have ended.

    Parameters
    ----------
    dry_run : bool
        Only list the unsent runs.
    force : bool
        Also deliver runs whose process may still be active: runs of other machines, on a file system without locks.
    tell : callable
        Called after each delivery, with its result.

    Returns
    -------
    list of Delivery
        One for each run with journals.
    """
    results = []
    for folder in _folders():
        delivery = _deliver(folder, dry_run=dry_run, force=force)
        if delivery is not None:
            results.append(delivery)
            tell(delivery)
    return results


def deliver_later(folder: Path) -> None:
    """Deliver a run in the background, as soon as its server answers."""

    def work() -> None:
        pause = _SOONEST
        while folder.is_dir():
            time.sleep(pause)
            pause = min(2 * pause, _LATEST)
            with suppress(LmvpError, OSError):
                delivery = _deliver(folder, dry_run=False)
                if delivery is None or (delivery.state != "running" and not delivery.again):
                    return

    with suppress(RuntimeError):  # a thread cannot start at interpreter shutdown
        threading.Thread(target=work, name="lmvp-later", daemon=True).start()


def discard(run: str) -> int:
    """Delete the journals of an unsent run; return their size in bytes.

    Raises
    ------
    NotFound
        If no unsent run, or more than one, matches.
    Conflict
        If the process of the run still logs to it.
    """
    by_id = len(run) >= _DIGITS
    matching = [each for each in _folders() if (by_id and each.name.startswith(run)) or _name(each) == run]
    if len(matching) != 1:
        raise NotFound(f"{len(matching) or 'no'} runs {run[:60]!r} wait here", hint="`lmvp sync --dry-run` lists them")
    locks, _ = _taken(matching[0], force=True)
    if locks is None:
        raise Conflict(f"the run {run[:60]!r} is running: its process still logs to it", hint="end it first")
    try:
        size = sum(len(data) for data in map(_content, files_in(matching[0])))
        shutil.rmtree(matching[0], ignore_errors=True)
    finally:
        _release(locks)
    return size


def waiting() -> int:
    """Return the number of runs with unsent journals whose process has ended."""
    count = 0
    for folder in _folders():
        locks, _ = _taken(folder)
        _release(locks or [])
        count += locks is not None and bool(files_in(folder))
    return count


def forget(folder: Path, delivered: set[str] | Callable[[], set[str]]) -> None:
    """Delete the folder of a run if all its journals are delivered and no other process logs to it.

    Parameters
    ----------
    delivered : set of str or callable
        Names of the journals of which the server acknowledged every byte. A callable is called while the locks of all
        journals are held, because a child could log and end after its journal was found to be delivered.
    """
    for _ in range(_TRIES):
        locks, _ = _taken(folder)
        if locks is not None:
            try:
                _remove(folder, delivered() if callable(delivered) else delivered)
            finally:
                _release(locks)
            return
        time.sleep(_MOMENT)  # another process may hold the lock only to list unsent runs


def _remove(folder: Path, delivered: set[str]) -> None:
    """Delete a folder, unless it has a journal that is not delivered.

    Another process can add a journal at any moment. So the folder is renamed first, and renamed back if it contains a
    new journal. The other process checks that its journal is still in place; see `writer._begin`. Each step is one
    rename, so a kill, or a second process that does the same, leaves a complete folder.
    """
    mark = f"{folder.name}-{secrets.token_hex(4)}"
    gone, trash = folder.with_name(_GONE + mark), folder.with_name(_TRASH + mark)
    try:
        folder.rename(gone)
        if any(path.name not in delivered for path in files_in(gone)):
            _put_back(gone, folder)
            return
        gone.rename(trash)
    except FileNotFoundError:  # another process has deleted it
        return
    except OSError:  # Windows refuses to rename a folder with open files
        trash = folder
    shutil.rmtree(trash, ignore_errors=True)


def _put_back(gone: Path, folder: Path) -> None:
    with suppress(OSError):
        gone.rename(folder)
        return
    with suppress(OSError):
        for path in list(gone.iterdir()):
            with suppress(OSError):
                path.rename(folder / path.name)
        gone.rmdir()


def _folders() -> Iterator[Path]:
    folder = journals()
    with suppress(FileNotFoundError, NotADirectoryError):
        for path in list(folder.iterdir()):  # finish the work of processes that were killed while they deleted a folder
            if path.name.startswith(_GONE):
                _put_back(path, folder / path.name[len(_GONE) :].rpartition("-")[0])
            elif path.name.startswith(_TRASH):
                shutil.rmtree(path, ignore_errors=True)
        yield from sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir())


def _name(folder: Path) -> str:
    target = Target.read(folder)
    return target.name if target else ""


def _deliver(folder: Path, *, dry_run: bool, force: bool = False) -> Delivery | None:
    """Deliver a run; return None if its folder is empty or no longer exists."""
    delivery = Delivery(folder.name)
    locks, reason = _taken(folder, force=force)
    target = Target.read(folder)
    if target is not None:
        delivery.name, delivery.project, delivery.url = target.name, target.project, target.url or "this machine"
    if locks is None:
        delivery.state = "waiting" if reason else "running"
        delivery.why = f"{reason}; once it has ended, `lmvp sync --force` delivers it" if reason else ""
        return delivery if folder.is_dir() else None
    try:
        there = {path.name: _content(path) for path in files_in(folder)}
        if not there:
            if not dry_run and _is_old(folder):
                _remove(folder, set())
            return None
        if target is None:
            missing = "damaged" if (folder / NAME).exists() else "missing"
            delivery.why = f"{folder / NAME}, which names the server, is {missing}"
            delivery.hint = f"`lmvp sync --discard {folder.name[:8]}` deletes it"
            return delivery
        delivery.bytes = sum(map(whole_size, there.values()))
        if not dry_run:
            _ship(folder, target, delivery)
            if delivery.state == "delivered":
                _remove(folder, set(there))
    except FileNotFoundError:  # another process has delivered it in the meantime
        return None
    finally:
        _release(locks)
    return delivery


def _content(path: Path) -> bytes:
    try:
        return files.read_bytes(path)
    except FileNotFoundError:
        return b""


def _is_old(folder: Path) -> bool:
    """Return whether a folder without journals is old: a new one may belong to a run that is starting."""
    try:
        return abs(time.time() - folder.stat().st_mtime) > _FILLED
    except OSError:
        return False


def _taken(folder: Path, *, force: bool = False) -> tuple[list[ProcessLock] | None, str]:
    """Take the locks of all journals of a run.

    Return None if a lock is held, with the reason if its process may have ended.
    """
    locks: list[ProcessLock] = []
    names = {path.stem for suffix in (".journal", ".lock") for path in files_in(folder, suffix)}
    # The lock `sync` is taken first. Otherwise two processes that deliver could each hold a part of the locks.
    for name in ["sync", *sorted(names - {"sync"})]:
        lock = ProcessLock(folder / f"{name}.lock")
        if not lock.take(force=force or name == "sync"):
            _release(locks)
            return None, lock.reason
        locks.append(lock)
    return locks, ""


def _release(locks: list[ProcessLock]) -> None:
    for lock in locks:
        lock.release()


def _ship(folder: Path, target: Target, delivery: Delivery) -> None:
    try:
        connection = target.connection()
        for path in _main_first(folder):
            _finish(path)
            transfer = JournalTransfer(writer_path(target.project, folder.name, path.stem), file_reader(path))
            while transfer.send_next(connection, _SECONDS):
                pass
        damaged = _damage(folder)
        if damaged:  # frames after the damage are not sent, so the file stays
            delivery.why = f"{'; '.join(damaged)}: the frames before it are delivered, the file is kept"
            delivery.hint = f"`lmvp sync --discard {folder.name[:8]}` deletes it"
            return
        delivery.state = "delivered"
    except LmvpError as error:  # an error deletes nothing: the journals stay until the server acknowledges them
        delivery.why, delivery.hint = error.message, error.hint
        delivery.again = isinstance(error, _AGAIN)
        if isinstance(error, RunRemoved):
            delivery.state = "removed"
            delivery.hint = (
                f"`lmvp undelete` restores the run, then `lmvp sync` delivers it; "
                f"`lmvp sync --discard {folder.name[:8]}` deletes it"
            )


def _main_first(folder: Path) -> list[Path]:
    """Return the journals of a run in the order of its attempts; the first one creates the run."""
    starts = {path: _start(path) for path in files_in(folder)}
    return sorted(starts, key=lambda path: (starts[path].joins, starts[path].epoch, path.name))


def _start(path: Path) -> NewRun:
    with suppress(OSError, msgspec.DecodeError):
        for kind, body, _ in whole_frames(files.read_bytes(path)):
            if kind == START:
                return msgspec.json.decode(body, type=NewRun)
            break
    return NewRun(run="", joins=True)


def _damage(folder: Path) -> list[str]:
    """Return a description of each damaged journal of a run."""
    found = {path: read_journal(files.read_bytes(path)).gaps for path in files_in(folder)}
    return [f"{path} is {gaps[0]}" for path, gaps in found.items() if gaps]


def _finish(path: Path) -> None:
    """Truncate the torn end of a journal; append an `end` frame with `killed` if its process did not write one.

    A damaged journal is not changed.
    """
    data = files.read_bytes(path)
    if read_journal(data).gaps:
        return
    size, ended = whole_size(data), any(kind == END for kind, _, _ in whole_frames(data))
    word, start = b"", _start(path)
    if not ended and not start.joins:
        at = _last_sign(data, start, path.stat().st_mtime)
        end = RunEnd(status="killed", ended_at=at, error="the process ended without a word")
        word = framed(bytes([END]) + msgspec.json.encode(end))
    if word or size != len(data):
        with os.fdopen(files.open_file(path, os.O_RDWR), "r+b") as file:
            file.truncate(size)
            file.seek(size)
            file.write(word)


def _last_sign(data: bytes, start: NewRun, changed: float) -> datetime:
    """Return the time at which a killed process was last alive: its last point, or the last change of its journal.

    Callers can log points with any time, so a time before the start of the run or after the change of the file is
    ignored.
    """
    last = _last_time(data)
    began = start.started_at.timestamp() if start.started_at else 0.0
    return datetime.fromtimestamp(last if began <= last <= max(changed, time.time()) else changed, timezone.utc)


def _last_time(data: bytes) -> float:
    """Return the time of the last points that were logged one by one; 0 if no such points exist."""
    last = max(
        ((end, body) for kind, body, end in whole_frames(data) if kind == POINTS),
        default=None,
        key=lambda each: each[0],
    )
    return float(POINTS_HEAD.unpack(b"\0" + last[1][: POINTS_HEAD.size - 1])[1]) if last else 0.0
