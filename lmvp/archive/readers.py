"""Readers of an export: from a folder, or from a `.tar` without unpacking it."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lmvp.archive import tar_index
from lmvp.archive.export_format import MODEL
from lmvp.archive.tar_index import Member
from lmvp.core import digest, files
from lmvp.core.manifest import File
from lmvp.errors import DamagedFile, FileChanged, InvalidArgument, NotFound
from lmvp.formats.files import DiskFile
from lmvp.transfer.byte_sources import Rope
from lmvp.transfer.manifest_builder import Place


class Inlet(Protocol):
    """The interface of a reader of an export."""

    def shown(self, path: str) -> str:
        """Return the name of a file for an error message."""
        ...

    def read(self, path: str, limit: int) -> bytes:
        """Return a small file; raises `NotFound` if it does not exist."""
        ...

    def source(self, path: str, size: int) -> Rope:
        """Return a file that can be read by ranges; raises `DamagedFile` if it has another size."""
        ...


def open_inlet(path: Path) -> Inlet:
    """Open a folder or an archive.

    Raises
    ------
    NotFound
        If the path does not exist.
    DamagedFile
        If it is not a valid archive.
    InvalidArgument
        If it is neither a folder nor a file.
    """
    if path.is_dir():
        return FolderInlet(path)
    if path.exists() and not path.is_file():
        raise InvalidArgument(f"{path} is neither a folder nor a file")
    return TarInlet(path)


class FolderInlet:
    """Reads a folder and follows no links in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def shown(self, path: str) -> str:
        """Return the path of the file."""
        return str(self._folder / path)

    def read(self, path: str, limit: int) -> bytes:
        """Return the content of a small file."""
        return files.read_copy(self._inside(path), limit)

    def source(self, path: str, size: int) -> Rope:
        """Open a file that can be read by ranges."""
        place = self._inside(path)
        try:
            regular = stat.S_ISREG(place.lstat().st_mode)
        except OSError:
            raise DamagedFile(f"{place} is missing", hint="export the model again") from None
        if not regular:
            raise DamagedFile(f"{place} is not a regular file")
        file = DiskFile.open(place)
        if file.size != size:
            raise DamagedFile(f"{place} has {file.size:,} bytes instead of {size:,}", hint="export the model again")
        return Rope([file])

    def _inside(self, path: str) -> Path:
        place = self._folder / path
        if not place.parent.resolve().is_relative_to(self._folder.resolve()):
            raise DamagedFile(f"{place} leads out of {self._folder}, by a link")
        return place


@dataclass(frozen=True, slots=True)
class _Slice:
    """A member of an archive as a byte source."""

    archive: DiskFile
    member: Member

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.member.size

    def read(self, offset: int, size: int) -> memoryview:
        """Read a range of the member."""
        return self.archive.read(self.member.offset + offset, size)


class TarInlet:
    """Reads a `.tar` that an export wrote, or that a user packed from an exported folder."""

    def __init__(self, path: Path) -> None:
        self._path, self._members = path, tar_index.scan(path)
        self._archive = DiskFile.open(path)
        self._top = _top(self._members)

    def shown(self, path: str) -> str:
        """Return the archive and the name of the member."""
        return f"{self._path}: {self._top}{path}"

    def read(self, path: str, limit: int) -> bytes:
        """Return the content of a small member."""
        member = self._members.get(self._top + path)
        if member is None:
            raise NotFound(f"there is no file {self.shown(path)}")
        if member.size > limit:
            raise DamagedFile(f"{self.shown(path)} has {member.size:,} bytes; the limit is {limit:,}")
        return bytes(self._archive.read(member.offset, member.size))

    def source(self, path: str, size: int) -> Rope:
        """Open a member that can be read by ranges."""
        member = self._members.get(self._top + path)
        if member is None:
            raise DamagedFile(f"{self.shown(path)} is missing", hint="export the model again")
        if member.size != size:
            raise DamagedFile(f"{self.shown(path)} has {member.size:,} bytes instead of {size:,}")
        return Rope([_Slice(self._archive, member)])


def _top(members: Iterable[str]) -> str:
    """Return the folder of the model in the archive: the root, or the only top folder that has a `model.json`."""
    found = [name.removesuffix(MODEL) for name in members if name in (MODEL, f"{name.partition('/')[0]}/{MODEL}")]
    return found[0] if len(found) == 1 else ""


@dataclass(frozen=True, slots=True)
class ProvedPlace(Place):
    """A chunk in a file of an export. Each read verifies the bytes against the id of the chunk."""

    chunk: str
    shown: str

    def read(self) -> list[memoryview]:
        """Return the bytes of the chunk.

        Raises
        ------
        DamagedFile
            If the bytes do not match the id.
        """
        try:
            pieces = self.rope.read(self.offset, self.size)
        except FileChanged as error:  # an OSError would count as a connection error
            raise DamagedFile(error.message, hint="import it again when nothing writes to it") from None
        if digest.of_bytes(*pieces) != self.chunk:
            end = self.offset + self.size
            raise DamagedFile(
                f"{self.shown} is damaged between the bytes {self.offset:,} and {end:,}", hint="export the model again"
            )
        return pieces


def places(inlet: Inlet, folder: str, file: File) -> dict[str, ProvedPlace]:
    """Return the positions of the chunks of a file by id."""
    path = f"{folder}/files/{file.path}"
    rope, offset, found = inlet.source(path, file.size), 0, {}
    for chunk in file.chunks:
        found[chunk.id] = ProvedPlace(rope, offset, chunk.size, chunk.id, inlet.shown(path))
        offset += chunk.size
    return found
