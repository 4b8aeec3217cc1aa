"""Where the files lie in a `.tar`, which may come from anybody: nothing is ever extracted, files are read in place.

Only folders and regular files are let pass, under names that stay inside; a header may be as long as a path needs, and
no more; and every file must lie inside the archive.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lmvp.errors import DamagedFile, InvalidArgument, NotFound
from lmvp.storage.check import PATH_LIMIT, path_problem

HEADERS_LIMIT = 64 << 10
"""Bytes of headers that one member may have."""

MEMBERS_LIMIT = 1 << 20
NAME_LIMIT = PATH_LIMIT + 512
"""Bytes of a name: a path of a version, and the folders above it."""

_KINDS = {
    tarfile.SYMTYPE: "a link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a named pipe",
}


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive: bytes `offset` to `offset + size` of it."""

    offset: int
    size: int


def scan(path: Path) -> dict[str, Member]:
    """Return the regular files of an archive by their names.

    Raises
    ------
    NotFound
        If there is no such file.
    DamagedFile
        If it is not a plain `.tar`, or a member breaks a rule; the message names it.
    """
    found: dict[str, Member] = {}
    try:
        size = path.stat().st_size
        with path.open("rb", buffering=0) as raw, tarfile.open(fileobj=_Headers(raw), mode="r:") as tar:
            for info in _members(tar):
                info.name = info.name.removeprefix("./") or "."  # as `tar cf x.tar .` names them
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
    except (ValueError, OverflowError, IndexError, UnicodeError) as error:  # headers that tarfile did not expect
        if isinstance(error, DamagedFile):
            raise
        raise DamagedFile(f"{path} is damaged: {str(error)[:100]}") from None
    except OSError as error:
        raise InvalidArgument(f"cannot read {path}: {error.strerror or error}") from error
    return found


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Walk over the members, forward only and without keeping them."""
    behind = -1
    while (info := tar.next()) is not None:
        if info.size < 0 or info.offset_data <= behind:
            raise tarfile.ReadError("a header leads back")
        behind = info.offset_data
        yield info
        tar.members = []  # type: ignore[attr-defined]
        headers = tar.fileobj
        assert isinstance(headers, _Headers)
        headers.taken = 0


def _check(info: tarfile.TarInfo, size: int, path: Path) -> None:
    shown = f"{path}: {info.name[:80]!r}"
    if info.issparse() or not (info.isdir() or info.type in (tarfile.REGTYPE, tarfile.AREGTYPE)):
        raise DamagedFile(f"{shown} is {_KINDS.get(info.type, 'neither a file nor a folder')}; only files may be there")
    top = info.isdir() and info.name == "."
    problem = path_problem(info.name.removesuffix("/"), NAME_LIMIT) if len(info.name) <= NAME_LIMIT else "is too long"
    if problem and not top:
        raise DamagedFile(f"{shown} {problem}")
    if info.offset_data + info.size > size:
        raise DamagedFile(f"{shown} of {info.size:,} bytes reaches beyond the end of the archive")


class _Headers(io.RawIOBase):
    """The archive as `tarfile` sees it: it may read headers, not whatever length a header claims.

    Attributes
    ----------
    taken : int
        Bytes that were read for the present member.
    """

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw
        self.taken = 0

    def read(self, size: int = -1) -> bytes:
        """Read some bytes of a header."""
        self.taken += max(size, 0)
        if size < 0 or self.taken > HEADERS_LIMIT:
            raise tarfile.ReadError(f"a header of more than {HEADERS_LIMIT:,} bytes")
        return self._raw.read(size) or b""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move."""
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        """Return where it stands."""
        return self._raw.tell()

    def seekable(self) -> bool:
        """Tell that it can be moved in."""
        return True
