"""Where an import comes from: a folder or a `.tar`, read where it lies."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lmvp.archive import disk, tarscan
from lmvp.archive.tarscan import Member
from lmvp.errors import DamagedFile, FileChanged, InvalidArgument, NotFound
from lmvp.formats.files import DiskFile
from lmvp.storage import digest
from lmvp.storage.manifest import File
from lmvp.transfer.describe import Place
from lmvp.transfer.rope import Rope


class Inlet(Protocol):
    """Where the files of an import come from."""

    def shown(self, path: str) -> str:
        """Return what to call a file in an error."""
        ...

    def read(self, path: str, limit: int) -> bytes:
        """Return a small file; raises `NotFound` where there is none."""
        ...

    def source(self, path: str, size: int) -> Rope:
        """Return a file to be read by ranges; raises `DamagedFile` where it has another size."""
        ...


def open_inlet(path: Path) -> Inlet:
    """Return what reads a folder or an archive.

    Raises
    ------
    NotFound
        If nothing is there.
    DamagedFile
        If it is no archive, or a hostile one.
    """
    if path.is_dir():
        return FolderInlet(path)
    if path.exists() and not path.is_file():
        raise InvalidArgument(f"{path} is neither a folder nor a file")
    return TarInlet(path)


class FolderInlet:
    """A folder; no link in it is followed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def shown(self, path: str) -> str:
        """Return the path."""
        return str(self._folder / path)

    def read(self, path: str, limit: int) -> bytes:
        """Return a small file."""
        return disk.read_some(self._inside(path), limit)

    def source(self, path: str, size: int) -> Rope:
        """Return a file."""
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
    """A member of an archive as a source."""

    archive: DiskFile
    member: Member

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.member.size

    def read(self, offset: int, size: int) -> memoryview:
        """Read from the archive."""
        return self.archive.read(self.member.offset + offset, size)


class TarInlet:
    """A `.tar`."""

    def __init__(self, path: Path) -> None:
        self._path, self._members = path, tarscan.scan(path)
        self._archive = DiskFile.open(path)

    def shown(self, path: str) -> str:
        """Return archive and name."""
        return f"{self._path}: {path}"

    def read(self, path: str, limit: int) -> bytes:
        """Return a small file."""
        member = self._members.get(path)
        if member is None:
            raise NotFound(f"there is no file {self.shown(path)}")
        if member.size > limit:
            raise DamagedFile(f"{self.shown(path)} has {member.size:,} bytes; the limit is {limit:,}")
        return bytes(self._archive.read(member.offset, member.size))

    def source(self, path: str, size: int) -> Rope:
        """Return a file."""
        member = self._members.get(path)
        if member is None:
            raise DamagedFile(f"{self.shown(path)} is missing", hint="export the model again")
        if member.size != size:
            raise DamagedFile(f"{self.shown(path)} has {member.size:,} bytes instead of {size:,}")
        return Rope([_Slice(self._archive, member)])


@dataclass(frozen=True, slots=True)
class ProvedPlace(Place):
    """A chunk in a file that may be damaged: it is held against its id whenever it is read."""

    chunk: str
    shown: str

    def read(self) -> list[memoryview]:
        """Return the bytes.

        Raises
        ------
        DamagedFile
            If they are not those of the chunk.
        """
        try:
            pieces = self.rope.read(self.offset, self.size)
        except FileChanged as error:  # an OSError, which would pass for one of the connection
            raise DamagedFile(error.message, hint="import it again when nothing writes to it") from None
        if digest.of_bytes(*pieces) != self.chunk:
            end = self.offset + self.size
            raise DamagedFile(
                f"{self.shown} is damaged between the bytes {self.offset:,} and {end:,}", hint="export the model again"
            )
        return pieces


def places(inlet: Inlet, folder: str, file: File) -> dict[str, ProvedPlace]:
    """Return where the chunks of a file lie."""
    path = f"{folder}/files/{file.path}"
    rope, offset, found = inlet.source(path, file.size), 0, {}
    for chunk in file.chunks:
        found[chunk.id] = ProvedPlace(rope, offset, chunk.size, chunk.id, inlet.shown(path))
        offset += chunk.size
    return found
