"""Atomic file writes, and conversion of operating system errors."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from lmvp.core import files
from lmvp.core.durability import storage_error, write_all
from lmvp.errors import LmvpError
from lmvp_server.stores.base import Buffer


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Convert an error of the disk (full, read-only, broken) to an LMVP error with the folder and a hint."""
    try:
        yield
    except LmvpError:  # some LMVP errors are OSErrors too, and need no conversion
        raise
    except OSError as error:
        found = storage_error(error, folder)
        if found is None:
            raise
        raise found from error


def write_whole(
    target: Path,
    pieces: Sequence[Buffer],
    scratch: Path,
    *,
    sync: bool = True,
    rename: Callable[[Path, Path], object] = Path.replace,
) -> None:
    """Write a file atomically: write a temporary file in `scratch`, sync it and rename it.

    Parameters
    ----------
    scratch : Path
        A folder on the same file system as `target`, otherwise the rename is not atomic.
    sync : bool, default True
        Whether to sync the content before the rename.
    rename : callable, default Path.replace
        Gets the temporary file and the target. It renames the file or deletes it.
    """
    temporary = scratch / f"tmp-{secrets.token_hex(12)}"
    try:
        _write(temporary, pieces, sync)
        rename(temporary, target)
    except BaseException:  # also KeyboardInterrupt: leave no temporary file
        with suppress(OSError):
            temporary.unlink()
        raise


def _write(path: Path, pieces: Sequence[Buffer], sync: bool) -> None:
    descriptor = files.create(path)
    try:
        for piece in pieces:
            write_all(descriptor, piece)
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
