"""What it takes for bytes and names to survive a power cut; the same on both sides."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from lmvp.errors import LmvpError, StorageFailed, StorageFull, StorageReadOnly

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
FAILED = frozenset({errno.EIO, errno.ENXIO, errno.ENODEV, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors of a broken or removed disk, and of a process that may open no more files. A later attempt can succeed."""


def storage_error(error: OSError, place: object) -> LmvpError | None:
    """Return an error of the disk as one with a status and a message; None if it is no error of a disk.

    Examples
    --------
    >>> storage_error(OSError(errno.ENOSPC, "No space left on device"), "/data")
    StorageFull('no room left on the disk of /data')
    """
    reason = (error.strerror or str(error)).lower()
    if error.errno in FULL:
        hint = "free some space and try again; nothing that was acknowledged is lost"
        return StorageFull(f"no room left on the disk of {place}", hint=hint)
    if error.errno in READ_ONLY:
        hint = (
            "check its disk and remount it for writing; the server goes on then"
            if error.errno == errno.EROFS
            else "give the server's user the right to write there"
        )
        return StorageReadOnly(f"cannot write to {place}: {reason}", hint=hint)
    if error.errno in FAILED:
        hint = "nothing of this request was acknowledged; look at the disk and at the server's log, then try again"
        return StorageFailed(f"the storage of {place} failed: {reason}", hint=hint)
    return None


def write_all(descriptor: int, data: Any) -> None:
    """Write all of some bytes, however many calls the system makes of it."""
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(descriptor, view) :]


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
