"""Where an export goes: a folder that can be gone on with, or one `.tar` that is there whole or not at all.

Both take the same files in the same order. In a folder a version counts once its `version.json` is there, which is
written last; a `.tar` of the same versions has the same bytes, whoever writes it and when.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from lmvp import durable
from lmvp.archive import disk
from lmvp.errors import Conflict, InvalidArgument, NotFound
from lmvp.storage import digest
from lmvp.storage.manifest import File

Write = Callable[[int, memoryview], None]
_BLOCK = 512
_RECORD = 20 * _BLOCK
"""A tar ends at a multiple of this."""


class Outlet(Protocol):
    """Where the files of an export go."""

    def read(self, path: str, limit: int) -> bytes | None:
        """Return what is there from an earlier attempt; None where nothing is."""
        ...

    def keeps(self, path: str, file: File) -> bool:
        """Tell whether a file of a version is there already, byte for byte."""
        ...

    def put(self, path: str, data: bytes) -> None:
        """Write a small file."""
        ...

    def place(self, path: str, size: int) -> AbstractContextManager[Write]:
        """Give a function that writes a file at offsets, in any order, from several threads."""
        ...

    @property
    def records_last(self) -> bool:
        """Whether what is said of a version comes after its files."""
        ...


class FolderOutlet:
    """A folder: what an earlier attempt has left in it is kept as far as it is right."""

    records_last = True

    def __init__(self, folder: Path) -> None:
        self._folder, self._part = folder, folder / disk.PART

    @classmethod
    def open(cls, folder: Path, mark: str) -> FolderOutlet:
        """Make the folder, or go on with one that has the file `mark`.

        Raises
        ------
        Conflict
            If there is something else in it.
        """
        with disk.explained(folder):
            if folder.is_dir() and not (folder / mark).exists() and _others(folder):
                raise Conflict(f"{folder} is not an export of a model", hint="choose another folder")
            folder.mkdir(parents=True, exist_ok=True)
        return cls(folder)

    def read(self, path: str, limit: int) -> bytes | None:
        """Return a small file."""
        try:
            return disk.read_some(self._target(path), limit)
        except NotFound:
            return None

    def keeps(self, path: str, file: File) -> bool:
        """Hash what is there."""
        target = self._target(path)
        try:
            return target.is_file() and target.stat().st_size == file.size and _matches(target, file)
        except OSError:  # it will be written anew
            return False

    def put(self, path: str, data: bytes) -> None:
        """Write a file and let it take the place of an earlier one."""
        with disk.explained(self._folder):
            target = self._target(path)
            disk.write_whole(target, [data], self._part, disk.SHARED)
            durable.sync_folder(target.parent)

    @contextmanager
    def place(self, path: str, size: int) -> Iterator[Write]:  # noqa: ARG002 - a tar must know it
        """Write a file beside its place, and rename it when it is whole."""
        with disk.explained(self._folder):
            target = self._target(path)
            with disk.writing(self._part, disk.SHARED) as descriptor:
                yield lambda offset, piece: disk.write_at(descriptor, offset, piece)
            disk.move(self._part, target, disk.SHARED)
            durable.sync_folder(target.parent)

    def _target(self, path: str) -> Path:
        target = self._folder / path
        if not target.parent.resolve().is_relative_to(self._folder.resolve()):
            raise Conflict(f"{target} leads out of {self._folder}, by a link", hint="export to an empty folder")
        return target


def _others(folder: Path) -> bool:
    return any(path.name != disk.PART for path in folder.iterdir())


def _matches(path: Path, file: File) -> bool:
    with path.open("rb") as content:
        return all(digest.of_bytes(content.read(chunk.size)) == chunk.id for chunk in file.chunks)


class TarOutlet:
    """A plain `.tar` (POSIX pax, no compression: weights hardly give way to it)."""

    records_last = False

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._end = descriptor, 0

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[TarOutlet]:
        """Write a tar beside its place, and rename it when it is whole; what fails leaves nothing.

        Raises
        ------
        InvalidArgument
            If there is a folder of that name.
        """
        if path.is_dir():
            raise InvalidArgument(f"{path} is a folder", hint="name a file that ends in .tar, or another folder")
        part = path.with_name(f".{path.name}.part")
        with disk.explained(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with disk.writing(part, disk.SHARED) as descriptor:
                    outlet = cls(descriptor)
                    yield outlet
                    outlet._finish()
                part.replace(path)
                durable.sync_folder(path.parent)
            except BaseException:
                with suppress(OSError):
                    part.unlink()
                raise

    def read(self, path: str, limit: int) -> bytes | None:  # noqa: ARG002 - it is new
        """Return None."""
        return None

    def keeps(self, path: str, file: File) -> bool:  # noqa: ARG002 - it is new
        """Tell that it does not."""
        return False

    def put(self, path: str, data: bytes) -> None:
        """Append a file."""
        with self.place(path, len(data)) as write:
            write(0, memoryview(data))

    @contextmanager
    def place(self, path: str, size: int) -> Iterator[Write]:
        """Append a file whose bytes come in any order."""
        info = tarfile.TarInfo(path)
        info.size, info.mode = size, 0o644
        head = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
        disk.write_at(self._descriptor, self._end, memoryview(head))
        start = self._end + len(head)
        yield lambda offset, piece: disk.write_at(self._descriptor, start + offset, piece)
        self._end = start + -(-size // _BLOCK) * _BLOCK
        disk.write_at(self._descriptor, start + size, memoryview(bytes(self._end - start - size)))

    def _finish(self) -> None:
        size = -(-(self._end + 2 * _BLOCK) // _RECORD) * _RECORD
        disk.write_at(self._descriptor, self._end, memoryview(bytes(size - self._end)))
