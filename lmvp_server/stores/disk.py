"""Files that are there whole or not at all, and what the operating system's errors mean to a user."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from lmvp import private
from lmvp.durable import storage_error, write_all
from lmvp.errors import LmvpError
from lmvp_server.stores.base import Buffer


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn an error of the disk (full, read-only, broken) into one that names the folder and the way out."""
    try:
        yield
    except LmvpError:  # some are OSErrors too
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
