"""Writers of an export: to a folder, which can be continued, or to a `.tar` file, which is written atomically.

Both receive the same files in the same order. In a folder, a version is complete once its `version.json` exists, which
is written last. A `.tar` of the same versions always has the same bytes, because it contains no times and no owners.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from lmvp.core import digest, files
from lmvp.core.files import sync_folder
from lmvp.core.manifest import File
from lmvp.errors import Conflict, InvalidArgument, NotFound

Write = Callable[[int, memoryview], None]
# tar is a sequence of blocks; a file is padded to a full block.
_BLOCK = 512
_RECORD = 20 * _BLOCK
"""The size of a tar file is a multiple of this."""


class Outlet(Protocol):
    """The interface of a writer of an export."""

    def read(self, path: str, limit: int) -> bytes | None:
        """Return the content of a file from an earlier attempt; None if it does not exist."""
        ...

    def keeps(self, path: str, file: File) -> bool:
        """Return whether a file of a version exists with the same bytes."""
        ...

    def put(self, path: str, data: bytes) -> None:
        """Write a small file."""
        ...

    def place(self, path: str, size: int) -> AbstractContextManager[Write]:
        """Yield a function that writes a file at any offsets, in any order, from several threads."""
        ...

    @property
    def records_last(self) -> bool:
        """Whether the record and manifest of a version are written after its files."""
        ...


class FolderOutlet:
    """Writes to a folder and reuses undamaged files of an earlier attempt."""

    records_last = True

    def __init__(self, folder: Path) -> None:
        self._folder, self._part = folder, folder / files.PART

    @classmethod
    def open(cls, folder: Path, mark: str) -> FolderOutlet:
        """Create the folder, or open an existing one that has the file `mark`.

        Raises
        ------
        Conflict
            If the folder has other content.
        """
        with files.archive_errors(folder):
            if folder.is_dir() and not (folder / mark).exists() and _others(folder):
                raise Conflict(f"{folder} is not an export of a model", hint="choose another folder")
            folder.mkdir(parents=True, exist_ok=True)
        return cls(folder)

    def read(self, path: str, limit: int) -> bytes | None:
        """Return a small file; None if it does not exist."""
        try:
            return files.read_copy(self._target(path), limit)
        except NotFound:
            return None

    def keeps(self, path: str, file: File) -> bool:
        """Hash the existing file and compare its chunks."""
        target = self._target(path)
        try:
            return target.is_file() and target.stat().st_size == file.size and _matches(target, file)
        except OSError:  # it is written again, which reports the error
            return False

    def put(self, path: str, data: bytes) -> None:
        """Write a file atomically; it replaces an earlier one."""
        with files.archive_errors(self._folder):
            target = self._target(path)
            files.atomic_write(target, data, temporary=self._part, mode=files.SHARED)
            sync_folder(target.parent)

    @contextmanager
    def place(self, path: str, size: int) -> Iterator[Write]:  # noqa: ARG002 - only a tar needs the size in advance
        """Write to the part file, and rename it when it is complete."""
        with files.archive_errors(self._folder):
            target = self._target(path)
            with files.atomic_file(target, temporary=self._part, mode=files.SHARED) as descriptor:
                yield lambda offset, piece: files.write_at(descriptor, offset, piece)
            sync_folder(target.parent)

    def _target(self, path: str) -> Path:
        target = self._folder / path
        # A link in an existing folder could lead to files of other programs.
        if not target.parent.resolve().is_relative_to(self._folder.resolve()):
            raise Conflict(f"{target} leads out of {self._folder}, by a link", hint="export to an empty folder")
        return target


def _others(folder: Path) -> bool:
    return any(path.name != files.PART for path in folder.iterdir())


def _matches(path: Path, file: File) -> bool:
    with path.open("rb") as content:
        return all(digest.of_bytes(content.read(chunk.size)) == chunk.id for chunk in file.chunks)


class TarOutlet:
    """Writes a plain `.tar` (POSIX pax) without compression, because compression hardly reduces weights."""

    records_last = False

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._end = descriptor, 0

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[TarOutlet]:
        """Write the tar under a temporary name and rename it when it is complete; delete it after a failure.

        Raises
        ------
        InvalidArgument
            If `path` is a folder.
        """
        if path.is_dir():
            raise InvalidArgument(f"{path} is a folder", hint="name a file that ends in .tar, or another folder")
        part = path.with_name(f".{path.name}.part")
        with files.archive_errors(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            with files.atomic_file(path, temporary=part, mode=files.SHARED) as descriptor:
                outlet = cls(descriptor)
                yield outlet
                outlet._finish()
            sync_folder(path.parent)

    def read(self, path: str, limit: int) -> bytes | None:  # noqa: ARG002 - the file is always new
        """Return None."""
        return None

    def keeps(self, path: str, file: File) -> bool:  # noqa: ARG002 - the file is always new
        """Return False."""
        return False

    def put(self, path: str, data: bytes) -> None:
        """Append a file."""
        with self.place(path, len(data)) as write:
            write(0, memoryview(data))

    @contextmanager
    def place(self, path: str, size: int) -> Iterator[Write]:
        """Append a file of a known size; its bytes can be written in any order."""
        info = tarfile.TarInfo(path)
        info.size, info.mode = size, 0o644
        # Owner and time of the member are zero, so equal versions result in equal bytes.
        head = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
        files.write_at(self._descriptor, self._end, memoryview(head))
        start = self._end + len(head)
        yield lambda offset, piece: files.write_at(self._descriptor, start + offset, piece)
        self._end = start + -(-size // _BLOCK) * _BLOCK
        files.write_at(self._descriptor, start + size, memoryview(bytes(self._end - start - size)))

    def _finish(self) -> None:
        # The end of a tar is two empty blocks, padded to a full record.
        size = -(-(self._end + 2 * _BLOCK) // _RECORD) * _RECORD
        files.write_at(self._descriptor, self._end, memoryview(bytes(size - self._end)))
