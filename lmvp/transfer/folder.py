"""Pulling files to a folder: each is there whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lmvp.errors import InvalidManifest, LmvpError, StorageFull, StorageReadOnly
from lmvp.storage.check import path_problem
from lmvp.storage.manifest import File
from lmvp.transfer.pull import VersionReader


def pull_files(reader: VersionReader, folder: Path) -> list[Path]:
    """Write all files of a version below a folder, byte-identical, replacing what is there under the same names.

    Every file is written beside its place and renamed when all of them are complete, so a pull that fails leaves the
    folder as it was.

    Returns
    -------
    list of Path
        Where they are, in the order of the version.

    Raises
    ------
    StorageFull, StorageReadOnly
        If they cannot be written.
    InvalidManifest
        If a path would lead out of the folder.
    """
    with _explained(folder), _temporaries() as temporaries:
        targets = [(file, _target(folder, file)) for file in reader.manifest.files]
        for file, target in targets:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".lmvp-{secrets.token_hex(6)}.part")
            temporaries[temporary] = target
            _write(reader, file, temporary)
        for temporary, target in temporaries.items():
            temporary.replace(target)
    return [target for _, target in targets]


def _target(folder: Path, file: File) -> Path:
    problem = path_problem(file.path)
    if problem:  # the server has checked it, but the disk is ours
        raise InvalidManifest(f"the path {file.path[:80]!r} {problem}")
    target = folder / file.path
    if not target.parent.resolve().is_relative_to(folder.resolve()):
        raise InvalidManifest(f"{file.path!r} leads out of {folder}, by a link", hint="pull to an empty folder")
    return target


def _write(reader: VersionReader, file: File, path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        reader.fetch(file, lambda offset, piece: _write_at(descriptor, offset, piece))
    finally:
        os.close(descriptor)


def _write_at(descriptor: int, offset: int, piece: memoryview) -> None:
    while piece:
        count = os.pwrite(descriptor, piece, offset)
        offset, piece = offset + count, piece[count:]


@contextmanager
def _temporaries() -> Iterator[dict[Path, Path]]:
    """Hand out a table of temporary files; remove those that are left over."""
    table: dict[Path, Path] = {}
    try:
        yield table
    finally:
        for temporary in table:
            with suppress(OSError):
                temporary.unlink()


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    import errno

    try:
        yield
    except LmvpError:  # some of them are an OSError by name only
        raise
    except OSError as error:  # among them ENOENT, for a folder in a place that takes none, such as /proc
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StorageFull(f"no room left on the disk of {folder}", hint="free some space and pull again") from error
        said = error.strerror or str(error)
        raise StorageReadOnly(f"cannot write to {folder}: {said}", hint="choose another folder") from error
