"""A lock file that a process holds while it lives. It distinguishes the journal of a live writer from an unsent one.

Some file systems have no locks (Lustre without `-o flock`, some NFS servers). There the lock file names its process,
and other processes check whether that process is alive.
"""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from lmvp.core import files
from lmvp.core.server_file import boot_id

ATTEMPTS: Final = 20
"""Number of attempts to create a file in a folder that another process may delete at the same time."""

# Systems report a held lock with different errors. Any other error means that the file system has no locks.
_HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, getattr(errno, "EDEADLOCK", errno.EACCES)}


class Process(msgspec.Struct, frozen=True):
    """A process, as a lock file names it.

    Attributes
    ----------
    boot : str
        Id of the boot of the machine.
    space : str
        The namespace of process ids; each container has its own.
    started : float
        Seconds since 1970, by the clock of the machine. It distinguishes processes, because process ids are reused.
    """

    host: str
    boot: str
    space: str
    pid: int
    started: float

    @classmethod
    def current(cls) -> Process:
        """Return this process."""
        return cls(socket.gethostname(), boot_id(), _space(), os.getpid(), _started(os.getpid()) or 0.0)

    def is_alive(self) -> bool | None:
        """Return whether the process is alive; None if it runs on another machine or in another container."""
        if (self.boot or self.host) != (boot_id() or socket.gethostname()):
            return None if self.host != socket.gethostname() else False
        if self.space != _space():
            return None
        started = _started(self.pid)
        return started is not None and abs(started - self.started) < 1.0


def _space() -> str:
    with suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return ""


def _started(pid: int) -> float | None:
    """Return the start time of a process; None if it does not exist or is a zombie."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:
        return None


class ProcessLock:
    """A lock on a file beside a journal.

    A forked child inherits the descriptor of the lock. It must call `release`, otherwise the lock stays held after the
    end of its owner.

    Attributes
    ----------
    reason : str
        The reason why the lock could not be taken, if this machine cannot find out whether the process has ended.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        self._wrote = 0
        self.reason = ""

    @classmethod
    def create(cls, path: Path) -> ProcessLock:
        """Create a lock file and lock it before it becomes visible, in a folder that others may delete."""
        lock = cls(path.with_name(f".{path.name}"))
        for _ in range(ATTEMPTS):
            with suppress(FileNotFoundError):
                try:
                    files.make_folder(path.parent)
                    lock._open(force=True)
                    lock._path.replace(path)
                    break
                except FileNotFoundError:
                    lock.release()
                    raise
                except OSError:  # the disk is full or read-only; the journal warns about it
                    break
        lock._path = path
        return lock

    def take(self, *, force: bool = False) -> bool:
        """Take the lock if it is free; return whether it was free.

        If the lock file cannot be created, the lock counts as taken by this process.

        Parameters
        ----------
        force : bool
            Take the lock also if this machine cannot find out whether its process has ended.
        """
        try:
            return self._open(force=force)
        except OSError:
            return True

    def _open(self, *, force: bool) -> bool:
        self._descriptor = files.create(self._path, os.O_RDWR)
        locked = _locked(self._descriptor)
        if locked is None:
            locked = self._take_by_name(force=force)
        if not locked:
            self.release()
        return locked

    def _take_by_name(self, *, force: bool) -> bool:
        """Write this process into the file, unless the file names a process that is alive."""
        with suppress(OSError):
            text = os.read(self._descriptor, 1 << 16)
            alive = _alive(text)
            if alive or (alive is None and not force):
                process = _named(text)
                name = f"on {process.host}" if process else "of an older version of lmvp"
                if alive is None:
                    self.reason = f"this file system has no locks, and a process {name} may still log to the run"
                return False
            self._write(msgspec.json.encode(Process.current()))
            self._wrote = os.getpid()
        return True

    def _write(self, text: bytes) -> None:
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        os.write(self._descriptor, text)

    def is_deleted(self) -> bool:
        """Return whether the lock file is no longer at its path."""
        return self._descriptor >= 0 and is_deleted(self._path, self._descriptor)

    def release(self) -> None:
        """Close the file; the lock is free when no process has the file open."""
        with suppress(OSError):
            # A forked child must not mark the lock of its parent as free.
            if self._wrote == os.getpid() and self._descriptor >= 0:
                self._write(_FREE)
        with suppress(OSError):
            if self._descriptor >= 0:
                os.close(self._descriptor)
        self._descriptor, self._wrote = -1, 0


_FREE = b"{}"
"""Content of a lock file whose process has released it. Older versions of lmvp leave the file empty, released or not.
"""


def _named(text: bytes) -> Process | None:
    with suppress(msgspec.DecodeError):
        return msgspec.json.decode(text, type=Process)
    return None


def _alive(text: bytes) -> bool | None:
    """Return whether the process that a lock file names is alive; None if this machine cannot find out."""
    if text == _FREE:
        return False
    process = _named(text)
    return process.is_alive() if process else None


def _locked(descriptor: int) -> bool | None:
    """Lock a file; return whether it was free, or None if its file system has no locks."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in _HELD else None
    return True


def is_deleted(path: Path, descriptor: int) -> bool:
    """Return whether an open file is no longer at its path because another process deleted or moved the folder."""
    try:
        return not os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return True
    except OSError:
        return False
