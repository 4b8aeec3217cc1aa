"""Small files that hold secrets: readable by their owner alone, and replaced as a whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import suppress
from pathlib import Path

from lmvp.errors import InvalidArgument, LmvpError, StorageFull, StorageReadOnly

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def make_folder(folder: Path) -> None:
    """Create a folder that only its owner may enter; one that is there already keeps its mode."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def write(path: Path, data: bytes) -> None:
    """Replace a file atomically by one of mode 0600; no other mode exists at any moment."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def read(path: Path) -> bytes | None:
    """Return what a file holds, or None where there is none; takes it from the eyes of others if it has to."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & 0o077:
                with suppress(OSError):
                    os.fchmod(file.fileno(), mode & 0o700)
            return file.read()
    except FileNotFoundError:
        return None


def explain(error: OSError, folder: Path, hint: str, verb: str = "write in") -> LmvpError:
    """Turn what the system says about a folder of ours into an error that a user can act on.

    Examples
    --------
    >>> print(explain(OSError(errno.ENOSPC, "No space left on device"), Path("/data"), "set LMVP_HOME"))
    no room on the disk of /data
      hint: set LMVP_HOME
    """
    if error.errno in _FULL:
        return StorageFull(f"no room on the disk of {folder}", hint=hint)
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        return InvalidArgument(f"{_in_the_way(folder)} is not a folder", hint=hint)
    reason = (error.strerror or str(error)).lower()
    return StorageReadOnly(f"cannot {verb} {folder}: {reason}", hint=hint)


def _in_the_way(folder: Path) -> Path:
    """Return the file that stands where a folder should, be it the folder itself or one above it."""
    above = (path for path in (folder, *folder.parents) if path.is_file())
    return next(above, folder)
