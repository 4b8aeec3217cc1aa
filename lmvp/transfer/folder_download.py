"""Pull of the files of a version to a folder. Each file is complete or does not exist."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from lmvp.core.files import write_errors
from lmvp.core.manifest import File
from lmvp.core.manifest_validation import path_problem
from lmvp.errors import InvalidArgument, InvalidManifest, StorageFull
from lmvp.transfer.download import VersionReader

_RESERVED = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])(?:\..*)?", re.IGNORECASE)


def pull_files(reader: VersionReader, folder: Path) -> list[Path]:
    """Write all files of a version to a folder, byte-identical. Existing files with the same names are replaced.

    All files are written under temporary names and renamed when they are complete, so a failed pull leaves the folder
    unchanged.

    Returns
    -------
    list of Path
        Paths of the files, in the order of the version.

    Raises
    ------
    StorageFull, StorageReadOnly
        If the disk is full or does not allow writing.
    InvalidManifest
        If a path leads out of the folder, or if the disk treats two names of the version as the same.
    InvalidArgument
        If a folder exists under the name of a file.
    """
    files = reader.manifest.files
    full, refused = "free some space and pull again", "choose another folder"
    with write_errors(folder, full=full, refused=refused), _temporaries() as temporaries:
        targets = [(file, _target(folder, file)) for file in files]
        _check_room(folder, sum(file.size for file in files))
        folder.mkdir(parents=True, exist_ok=True)
        _check_case(folder, files)
        parts: dict[str, Path] = {}
        for file, target in targets:
            target.parent.mkdir(parents=True, exist_ok=True)
            parts[file.path] = temporary = target.with_name(f".lmvp-{secrets.token_hex(6)}.part")
            temporaries[temporary] = target
            # The mode before the umask, as for every file that a user creates.
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        reader.fetch_all(files, lambda path, offset, piece: _write(parts[path], offset, piece))
        for temporary, target in temporaries.items():
            temporary.replace(target)
    return [target for _, target in targets]


def _target(folder: Path, file: File) -> Path:
    problem = path_problem(file.path)
    if not problem and os.name == "nt" and is_reserved(file.path):
        problem = "is reserved on Windows"
    if problem:  # the server checked this too, but a client must not rely on it
        raise InvalidManifest(f"the path {file.path[:80]!r} {problem}")
    target = folder / file.path
    if not target.parent.resolve().is_relative_to(folder.resolve()):
        raise InvalidManifest(f"{file.path!r} leads out of {folder}, by a link", hint="pull to an empty folder")
    if target.is_dir() and not target.is_symlink():
        raise InvalidArgument(f"{target} is a folder, but a file in this version", hint="pull to an empty folder")
    return target


def is_reserved(path: str) -> bool:
    """Return whether Windows would treat a part of a path as a device, a stream, or another name.

    Examples
    --------
    >>> [is_reserved(path) for path in ("a/CON", "nul.txt", "a:b", "x.", "y /z", "console.txt", "a.b")]
    [True, True, True, True, True, False, False]
    """
    return any(
        _RESERVED.fullmatch(part) or part[-1:] in ". " or set(part) & set('<>:"|?*\\') for part in path.split("/")
    )


def _check_room(folder: Path, size: int) -> None:
    """Check the free space first: a manifest can name one small chunk any number of times."""
    above = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    disk = shutil.disk_usage(above)
    if disk.total and size > disk.free:  # some file systems report a size of 0
        raise StorageFull(f"no room for {size:,} bytes on the disk of {folder}", hint="free some space and pull again")


def _check_case(folder: Path, files: Sequence[File]) -> None:
    """Refuse names that the disk treats as the same, because one file would replace the other."""
    seen: dict[str, str] = {}
    for file in files:
        path = file.path
        while path:  # folders too, for example `A/x` and `a/y`
            other = seen.setdefault(_folded(path), path)
            if other != path and not _tells_apart(folder, other, path):
                raise InvalidManifest(
                    f"{other!r} and {path!r} are one name on the disk of {folder}", hint="pull to another disk"
                )
            path = path.rpartition("/")[0]


def _folded(path: str) -> str:
    """Return a form that is equal for names that some disk treats as the same, in case or Unicode normalization."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _tells_apart(folder: Path, one: str, other: str) -> bool:
    """Return whether the disk treats two names with the same `_folded` form as different."""
    composed = [unicodedata.normalize("NFC", path) for path in (one, other)]
    # Probe with names of this process, so that no file of the user is touched.
    mark = f".lmvp-{secrets.token_hex(6)}"
    pairs = [(f"{mark}.part", f"{mark.upper()}.PART")] if composed[0] != composed[1] else []
    if len({one, other}) > 1 and (composed[0] == composed[1] or [one, other] != composed):
        pairs.append((f"{mark}\u00e4.part", f"{mark}a\u0308.part"))
    return all(_are_two(folder, *pair) for pair in pairs)


def _are_two(folder: Path, one: str, other: str) -> bool:
    probe = folder / one
    probe.touch(exist_ok=False)
    try:
        return not (folder / other).exists()
    finally:
        probe.unlink()


def _write(path: Path, offset: int, piece: memoryview) -> None:
    """Write a piece of an existing file. It is opened for each piece, because thousands of files can be in progress."""
    descriptor = os.open(path, os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0))
    try:
        _write_at(descriptor, offset, piece)
    finally:
        os.close(descriptor)


def _write_at(descriptor: int, offset: int, piece: memoryview) -> None:
    while piece:  # `pwrite` can write fewer bytes than requested
        count = os.pwrite(descriptor, piece, offset)
        offset, piece = offset + count, piece[count:]


@contextmanager
def _temporaries() -> Iterator[dict[Path, Path]]:
    """Yield a table of temporary files; delete those that still exist at the end."""
    table: dict[Path, Path] = {}
    try:
        yield table
    finally:
        for temporary in table:
            with suppress(OSError):
                temporary.unlink()
