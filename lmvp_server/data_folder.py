"""The data folder: its lock, format, token and `server.json`."""

from __future__ import annotations

import logging
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import msgspec

from lmvp.core import files, server_file
from lmvp.core.files import sync_folder
from lmvp.core.server_file import ServerFile
from lmvp.errors import Conflict, DamagedFile, ServerMismatch

if TYPE_CHECKING:
    from filelock import BaseFileLock

FORMAT = 1
"""Format of the data folder. A server refuses a newer one."""


RESTORING = "restoring.json"
"""Name of a file that exists while the folder is restored."""


_OURS = (
    "chunks", "manifests", "notes", "damaged", "staging", "series", "records", "journals", "cache", "config",
    "format.json", "server.json", "token", server_file.LOCK, server_file.LOG, f"{server_file.LOG}.1",
    server_file.START_LOCK, RESTORING,
)  # fmt: skip
"""Names of all files and folders of LMVP in a data folder."""

_logger = logging.getLogger("lmvp_server")


class _Format(msgspec.Struct):
    format: int


class _Restoring(msgspec.Struct):
    backup: str


@dataclass
class DataFolder:
    """A data folder whose lock this process holds until `close`."""

    path: Path
    _lock: BaseFileLock
    _file: os.stat_result
    _said: ServerFile | None = None

    @classmethod
    def open(cls, path: Path, *, patience: float) -> DataFolder:
        """Create the folder if necessary, acquire its lock, and check its format.

        Raises
        ------
        Conflict
            If another server holds the lock for longer than `patience` seconds.
        ServerMismatch
            If a newer version of LMVP created the folder.
        """
        try:
            files.make_folder(path)
            lock = _acquire(path, patience)
            _secure(path)
        except Conflict:
            raise
        except OSError as error:
            raise files.explain(error, path, "choose another folder with --data, or LMVP_HOME") from error
        folder = cls(path, lock, (path / server_file.LOCK).stat())
        try:
            folder._check_format()
        except BaseException:
            folder.close()
            raise
        return folder

    @classmethod
    def restoring(cls, path: Path, backup: str) -> DataFolder:
        """Acquire a new folder for a restore, or a folder whose restore was interrupted.

        Parameters
        ----------
        backup : str
            The digest of the backup.

        Raises
        ------
        Conflict
            If the folder contains something else.
        """
        try:
            _check_new(path)
            files.make_folder(path)
            lock = _acquire(path, 1.0)
            _secure(path)
            try:
                files.atomic_write(path / RESTORING, msgspec.json.encode(_Restoring(backup)))
                sync_folder(path.parent)
            except BaseException:
                lock.release()
                raise
        except Conflict:
            raise
        except OSError as error:
            raise files.explain(error, path, "choose another folder with --data") from error
        return cls(path, lock, (path / server_file.LOCK).stat())

    def restored(self) -> None:
        """Mark the restore as complete, so that servers can open the folder."""
        # The format file is on disk before the marker is removed, so that a crash leaves at least one of them.
        with files.disk_errors(self.path):
            files.atomic_write(self.path / "format.json", msgspec.json.encode(_Format(FORMAT)))
            sync_folder(self.path)
            (self.path / RESTORING).unlink()
            sync_folder(self.path)

    def kept_token(self) -> str:
        """Return the persistent token of the server; create it at the first start."""
        path = self.path / "token"
        kept = (files.read(path) or b"").decode("ascii", "replace").strip()
        if not kept:
            kept = secrets.token_urlsafe(32)
            files.atomic_write(path, kept.encode() + b"\n")
        return kept

    def announce(self, content: ServerFile) -> None:
        """Write `server.json`, which states how to reach the server."""
        self._said = content
        server_file.write(self.path, content)

    def withdraw(self) -> None:
        """Remove `server.json` if it belongs to this server.

        If the folder has become read-only or unreadable, the file stays and the error is ignored, so that the server
        can stop. Clients notice that the server does not answer.
        """
        said, self._said = self._said, None
        with suppress(OSError):
            found = server_file.read(self.path)
            if said and found and found.instance == said.instance:
                (self.path / server_file.NAME).unlink(missing_ok=True)

    def beat(self) -> bool:
        """Update the heartbeat and rewrite a lost `server.json`; return whether this process still owns the folder."""
        try:
            found = (self.path / server_file.LOCK).stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:  # a temporary disk failure; requests report it
            return True
        # Another process created a new lock file, so the folder was replaced.
        if not os.path.samestat(found, self._file):
            return False
        with suppress(OSError):
            if self._said and server_file.read(self.path) != self._said:
                server_file.write(self.path, self._said)
            os.utime(self.path / server_file.NAME, follow_symlinks=False)
        return True

    def close(self) -> None:
        """Remove `server.json` and release the lock."""
        self.withdraw()
        self._lock.release()

    def __enter__(self) -> DataFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_format(self) -> None:
        if (self.path / RESTORING).exists():
            raise Conflict(f"a restore into {self.path} broke off", hint="do it again: it goes on")
        path = self.path / "format.json"
        data = files.read(path)
        if data is None:
            files.atomic_write(path, msgspec.json.encode(_Format(FORMAT)))
            return
        try:
            found = msgspec.json.decode(data, type=_Format).format
            if found < FORMAT:  # LMVP never wrote such a format
                raise msgspec.ValidationError(f"format {found}")
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise DamagedFile(f"{path} is damaged", hint='a folder of this version holds {"format": 1} there') from None
        if found > FORMAT:
            said = f"{path} has format {found}; this version of lmvp reads up to {FORMAT}"
            raise ServerMismatch(said, hint="update lmvp")


def _secure(path: Path) -> None:
    """Restrict a folder, and files of older servers in it, to the server's user."""
    if not files.secure(path, _OURS):
        _logger.warning("%s is open to other accounts and belongs to another user: run chmod 700 on it", path)


def _check_new(path: Path) -> None:
    """Refuse a folder that contains other files than those of a restore; a later backup can continue the restore."""
    if (path / RESTORING).exists() or not path.is_dir():
        return
    others = [entry.name for entry in path.iterdir() if entry.name != server_file.LOCK]
    if any(not name.startswith(f".{RESTORING}") for name in others):
        raise Conflict(f"in {path} there is something already", hint="name a folder that is not there, with --data")


def _acquire(path: Path, patience: float) -> BaseFileLock:
    from filelock import FileLock, Timeout

    # Not thread-local: the event loop can be closed in a thread other than the one that opened the folder.
    lock = FileLock(path / server_file.LOCK, timeout=patience, thread_local=False, mode=files.FILE)
    try:
        lock.acquire()
    except Timeout:
        raise _owned(path) from None
    return lock


def _owned(path: Path) -> Conflict:
    said = server_file.read(path)
    owner = (
        f"the server at {said.url} (pid {said.pid} on {said.host})" if said else "a server that is starting or ending"
    )
    return Conflict(f"{path} is in use by {owner}", hint="stop that one, or give this one another folder with --data")
