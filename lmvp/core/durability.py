"""Durable writes and the errors of disks, for client and server."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from lmvp.errors import LmvpError, StorageFailed, StorageFull, StorageReadOnly

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors of a full disk, a used-up quota, and the file size limit of the process or the file system."""
READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
"""Errors of a read-only file system and of missing permissions."""
FAILED = frozenset({errno.EIO, errno.ENXIO, errno.ENODEV, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors of a broken or removed disk, of too many open files and of missing memory. A later attempt can succeed."""


def storage_error(error: OSError, place: object) -> LmvpError | None:
    """Convert an `OSError` of a disk to an LMVP error with status, message and hint; return None for other errors.

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
    """Write all bytes to a descriptor. `os.write` can write fewer bytes than given, so it is called repeatedly."""
    view = memoryview(data).cast("B")  # slices count bytes then, whatever the item size of the buffer is
    while view:
        view = view[os.write(descriptor, view) :]


def sync_folder(folder: Path) -> None:
    """Flush the entries of a folder to disk. Without this, a new or renamed file can be lost after a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
