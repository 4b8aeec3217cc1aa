"""Index of the files in an untrusted `.tar`. Nothing is extracted; files are read in place.

Only folders and regular files are accepted, under relative names without `..`. The length of headers is bounded, and
each file must be inside the archive.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lmvp.core.manifest_validation import PATH_LIMIT, path_problem
from lmvp.errors import DamagedFile, InvalidArgument, NotFound

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
    found: dict[str, Member] = {}
    try:
        size = path.stat().st_size
        with path.open("rb", buffering=0) as raw, tarfile.open(fileobj=_Headers(raw), mode="r:") as tar:
            for info in _members(tar):
                info.name = info.name.removeprefix("./") or "."  # `tar cf x.tar .` writes such names
                _check(info, size, path)
                if info.isdir():
                    continue
                if info.name in found:
                    raise DamagedFile(f"{path}: {info.name!r} stands twice")
                found[info.name] = Member(info.offset_data, info.size)
                if len(found) > MEMBERS_LIMIT:
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
    return found


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
