"""Atomic and durable file writes for exports and backups, and errors for full or read-only disks."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from lmvp.core import files
from lmvp.core.durability import write_all
from lmvp.errors import DamagedFile, IntegrityError, InvalidArgument, LmvpError, NotFound, StorageFull, StorageReadOnly

PART = "part"
"""Name of the file that is being written, at the root of the folder. The next attempt overwrites a leftover."""

PRIVATE, SHARED = 0o600, 0o666
"""Modes of new files. Files of a backup are always private; files of an export follow the umask."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR),
    *(errno.ENAMETOOLONG, errno.ENOENT, errno.ELOOP, errno.ENOTEMPTY, errno.EXDEV),
}


@contextmanager
def explained(place: Path) -> Iterator[None]:
    """Convert an OSError to `StorageFull` or `StorageReadOnly`, with a hint."""
    try:
        yield
    except LmvpError:  # some of them are an OSError by name
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull(
                f"no room left on the disk of {place}", hint="free some space and do the same again: it goes on"
            ) from error
        if error.errno in _REFUSED:
            raise StorageReadOnly(f"cannot write to {place}: {error.strerror}", hint="choose another place") from error
        raise


def write_whole(target: Path, pieces: Sequence[Any], scratch: Path, mode: int = PRIVATE) -> None:
    """Write a file as `scratch` (on the same disk), sync it, and rename it to `target`."""
    with writing(scratch, mode) as descriptor:
        for piece in pieces:
            write_all(descriptor, piece)
    move(scratch, target, mode)


@contextmanager
def writing(path: Path, mode: int = PRIVATE) -> Iterator[int]:
    """Yield the descriptor of a new file and sync it at the end; delete a leftover of the same name first."""
    with suppress(FileNotFoundError):
        path.unlink()
    # O_EXCL: do not write through a link that another process created under this name.
    flags = os.O_RDWR | os.O_EXCL
    if mode == PRIVATE:
        descriptor = files.create(path, flags)
    else:
        descriptor = os.open(path, flags | os.O_CREAT | getattr(os, "O_BINARY", 0), mode)
    try:
        yield descriptor
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_at(descriptor: int, offset: int, view: memoryview) -> None:
    """Write all bytes at an offset. Several threads can write to the same descriptor."""
    while view:  # `pwrite` can write fewer bytes than requested
        count = os.pwrite(descriptor, view, offset)
        offset, view = offset + count, view[count:]


def move(scratch: Path, target: Path, mode: int = PRIVATE) -> None:
    """Rename a file into place. Create the folder if necessary, a private one for a private file."""
    if mode == PRIVATE:
        files.make_folder(target.parent)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
    scratch.replace(target)


def open_read(path: Path, buffering: int = -1) -> IO[bytes]:
    """Open a regular file of a backup or an export.

    Raises
    ------
    DamagedFile
        If it is not a regular file, for example a link or a folder.
    """
    try:
        return files.open_read(path, buffering)
    except (IntegrityError, IsADirectoryError):
        raise DamagedFile(f"{path} is not a regular file") from None


def read_some(path: Path, limit: int) -> bytes:
    """Read a whole regular file; refuse links and other types of file.

    Raises
    ------
    NotFound
        If it does not exist.
    DamagedFile
        If it is longer than the limit or not a regular file.
    """
    try:
        with open_read(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise DamagedFile(f"{path} has {size:,} bytes; the limit is {limit:,}")
            return file.read(limit)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"there is no file {path}") from None
    except OSError as error:
        if isinstance(error, LmvpError):
            raise
        raise InvalidArgument(f"cannot read {path}: {error.strerror}") from error
