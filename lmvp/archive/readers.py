"""Readers of an export: from a folder, or from a `.tar` without unpacking it."""

from __future__ import annotations

import io
import stat
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lmvp.archive.export_format import MODEL
from lmvp.core import digest, files
from lmvp.core.manifest import File
from lmvp.core.manifest_validation import PATH_LIMIT, path_problem
from lmvp.errors import DamagedFile, FileChanged, InvalidArgument, NotFound
from lmvp.formats.files import DiskFile
from lmvp.transfer.manifest_builder import JoinedSources, Place


class Inlet(Protocol):
    """The interface of a reader of an export."""

    def shown(self, path: str) -> str:
        """Return the name of a file for an error message."""
        ...

    def read(self, path: str, limit: int) -> bytes:
        """Return a small file; raises `NotFound` if it does not exist."""
        ...

    def source(self, path: str, size: int) -> JoinedSources:
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

    def source(self, path: str, size: int) -> JoinedSources:
        """Open a file that can be read by ranges."""
        target = self._inside(path)
        try:
            regular = stat.S_ISREG(target.lstat().st_mode)
        except OSError:
            raise DamagedFile(f"{target} is missing", hint="export the model again") from None
        if not regular:
            raise DamagedFile(f"{target} is not a regular file")
        file = DiskFile.open(target)
        if file.size != size:
            raise DamagedFile(f"{target} has {file.size:,} bytes instead of {size:,}", hint="export the model again")
        return JoinedSources([file])

    def _inside(self, path: str) -> Path:
        target = self._folder / path
        if not target.parent.resolve().is_relative_to(self._folder.resolve()):
            raise DamagedFile(f"{target} leads out of {self._folder}, by a link")
        return target


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
        self._path, self._members = path, scan(path)
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

    def source(self, path: str, size: int) -> JoinedSources:
        """Open a member that can be read by ranges."""
        member = self._members.get(self._top + path)
        if member is None:
            raise DamagedFile(f"{self.shown(path)} is missing", hint="export the model again")
        if member.size != size:
            raise DamagedFile(f"{self.shown(path)} has {member.size:,} bytes instead of {size:,}")
        return JoinedSources([_Slice(self._archive, member)])


def _top(members: Iterable[str]) -> str:
    """Return the folder of the model in the archive: the root, or the only top folder that has a `model.json`."""
    folders = [name.removesuffix(MODEL) for name in members if name in (MODEL, f"{name.partition('/')[0]}/{MODEL}")]
    return folders[0] if len(folders) == 1 else ""


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
    rope, offset, chunks = inlet.source(path, file.size), 0, {}
    for chunk in file.chunks:
        chunks[chunk.id] = ProvedPlace(rope, offset, chunk.size, chunk.id, inlet.shown(path))
        offset += chunk.size
    return chunks


HEADERS_LIMIT = 64 << 10
"""Maximum bytes of the headers of one member. `tarfile` would read a header of any length into memory."""

MEMBERS_LIMIT = 1 << 20
NAME_LIMIT = PATH_LIMIT + 512
"""Maximum characters of a name: a path in a version, and the folders above it."""

_KINDS = {
    tarfile.SYMTYPE: "a link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a named pipe",
}


@dataclass(frozen=True, slots=True)
class Member:
    """The position of a file in an archive: bytes `offset` to `offset + size`."""

    offset: int
    size: int


def scan(path: Path) -> dict[str, Member]:
    """Return the regular files of an archive by name.

    Raises
    ------
    NotFound
        If the archive does not exist.
    DamagedFile
        If it is not a plain `.tar`, or a member breaks a rule; the message names the member.
    InvalidArgument
        If it cannot be read.
    """
    members: dict[str, Member] = {}
    try:
        size = path.stat().st_size
        with path.open("rb", buffering=0) as raw, tarfile.open(fileobj=_Headers(raw), mode="r:") as tar:
            for info in _members(tar):
                info.name = info.name.removeprefix("./") or "."  # `tar cf x.tar .` writes such names
                _check(info, size, path)
                if info.isdir():
                    continue
                if info.name in members:
                    raise DamagedFile(f"{path}: {info.name!r} stands twice")
                members[info.name] = Member(info.offset_data, info.size)
                if len(members) > MEMBERS_LIMIT:
                    raise DamagedFile(f"{path}: more than {MEMBERS_LIMIT:,} files")
    except FileNotFoundError:
        raise NotFound(f"there is no file or folder {path}") from None
    except tarfile.TarError as error:
        hint = "`lmvp export MODEL model.tar` makes one; unpack a compressed one first"
        raise DamagedFile(f"{path} is not a whole .tar: {error}", hint=hint) from None
    except (ValueError, OverflowError, IndexError, UnicodeError) as error:  # `tarfile` lets these escape
        if isinstance(error, DamagedFile):  # it is a subclass of ValueError
            raise
        raise DamagedFile(f"{path} is damaged: {str(error)[:100]}") from None
    except OSError as error:
        raise InvalidArgument(f"cannot read {path}: {error.strerror or error}") from error
    return members


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the members in order, with constant memory."""
    behind = -1
    while (info := tar.next()) is not None:
        # A base-256 size field can be negative, which would lead back to an earlier header forever.
        if info.size < 0 or info.offset_data <= behind:
            raise tarfile.ReadError("a header leads back")
        behind = info.offset_data
        yield info
        tar.members = []  # type: ignore[attr-defined]  # `tarfile` would store all members
        headers = tar.fileobj
        assert isinstance(headers, _Headers)
        headers.taken = 0


def _check(info: tarfile.TarInfo, size: int, path: Path) -> None:
    shown = f"{path}: {info.name[:80]!r}"
    if info.issparse() or not (info.isdir() or info.type in (tarfile.REGTYPE, tarfile.AREGTYPE)):
        raise DamagedFile(f"{shown} is {_KINDS.get(info.type, 'neither a file nor a folder')}; only files may be there")
    # Only the root folder can be named ".", which `path_problem` refuses.
    top = info.isdir() and info.name == "."
    problem = path_problem(info.name.removesuffix("/"), NAME_LIMIT) if len(info.name) <= NAME_LIMIT else "is too long"
    if problem and not top:
        raise DamagedFile(f"{shown} {problem}")
    if info.offset_data + info.size > size:
        raise DamagedFile(f"{shown} of {info.size:,} bytes reaches beyond the end of the archive")


class _Headers(io.RawIOBase):
    """The archive as a file object for `tarfile` that limits the bytes read for headers.

    Attributes
    ----------
    taken : int
        Bytes read for the current member.
    """

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw
        self.taken = 0

    def read(self, size: int = -1) -> bytes:
        """Read bytes of a header."""
        # All headers of a member count together: a chain of pax headers has no limit of its own.
        self.taken += max(size, 0)
        if size < 0 or self.taken > HEADERS_LIMIT:
            raise tarfile.ReadError(f"a header of more than {HEADERS_LIMIT:,} bytes")
        return self._raw.read(size) or b""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Change the position."""
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._raw.tell()

    def seekable(self) -> bool:
        """Return True."""
        return True
