"""Files that are there whole or not at all, and what the operating system's errors mean to a user."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from lmvp import private
from lmvp.durable import write_all
from lmvp.errors import StorageFull, StorageReadOnly
from lmvp_server.stores.base import Buffer

_FULL = {errno.ENOSPC, errno.EDQUOT}
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn a full or read-only disk into an error that names the folder and the way out."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull(
                f"no room left on the disk of {folder}", hint="free some space and try again; nothing was lost"
            ) from error
        if error.errno in _READ_ONLY:
            is_mount = error.errno == errno.EROFS
            raise StorageReadOnly(
                f"cannot write to {folder}: {error.strerror}",
                hint="check its disk and remount it for writing; the server goes on then"
                if is_mount
                else "give the server's user the right to write there",
            ) from error
        raise


def write_whole(
    target: Path,
    pieces: Sequence[Buffer],
    scratch: Path,
    *,
    sync: bool = True,
    rename: Callable[[Path, Path], object] = Path.replace,
) -> None:
    """Write a file under a temporary name in `scratch` (on the same filesystem), sync it, and rename it into place.

    Parameters
    ----------
    rename : callable
        Gets the temporary file and its target, and gives it that name, or deletes it.
    """
    temporary = scratch / f"tmp-{secrets.token_hex(12)}"
    try:
        _write(temporary, pieces, sync)
        rename(temporary, target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def _write(path: Path, pieces: Sequence[Buffer], sync: bool) -> None:
    descriptor = private.create(path)
    try:
        for piece in pieces:
            write_all(descriptor, piece)
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
