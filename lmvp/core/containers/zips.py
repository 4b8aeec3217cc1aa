"""Zip archives: positions of their members. Nothing is decompressed, so zip bombs are harmless.

Uncompressed members can contain tensors: `.npz`, torch's files and `.keras` are zip archives.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator, Sequence

from lmvp.core.containers.base import (
    Broken,
    Layout,
    Member,
    Read,
    moved,
    within,
)
from lmvp.core.safetensors import Span

MAGIC = b"PK\x03\x04"
BREAK_SIZE = 1 << 16
"""Minimum bytes of a member that gets cuts at its start and end."""

# Limit of a single read by `zipfile`: it reads the whole central directory at once.
_DIRECTORY = 4 << 20
_LOCAL = struct.Struct("<4s22xHH")
_ENCRYPTED = 1


def layout(read: Read, size: int) -> Layout:
    """Return the tensors in uncompressed members, and the offsets at which longer members begin and end."""
    from lmvp.core.containers import torchzip

    found = list(members(read, size))
    tensors = torchzip.tensors(read, found) if torchzip.recognises(found) else _tensors(read, found)
    return Layout(tuple(tensors), tuple(_breaks(found)))


def _tensors(read: Read, found: Sequence[Member]) -> Iterator[Span]:
    from lmvp.core.containers import hdf5, npy

    for member in found:
        inner = within(read, member.start)
        try:
            if member.plain and member.name.endswith(".npy"):
                name = member.name.removesuffix(".npy")
                yield from moved(npy.tensors(inner, member.size, name), member.start)
            elif member.plain and member.name.endswith(".h5"):
                yield from moved(hdf5.tensors(inner, member.size), member.start)
        except Broken:  # the other members can still contain tensors
            continue


def _breaks(found: Sequence[Member]) -> Iterator[int]:
    for member in found:
        if member.size >= BREAK_SIZE:
            yield from (member.offset, member.start, member.start + member.size)


def members(read: Read, size: int) -> Iterator[Member]:
    """Yield the members in the order of the central directory.

    Raises
    ------
    Broken
        If the archive is damaged or incomplete.
    """
    try:
        entries = zipfile.ZipFile(_File(read, size)).infolist()
    except (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError, OverflowError) as error:
        raise Broken(str(error)) from error
    for entry in entries:
        start = _start(read, size, entry.header_offset)
        if start + entry.compress_size > size:
            raise Broken(f"{entry.filename} reaches beyond the end")
        plain = entry.compress_type == zipfile.ZIP_STORED and not entry.flag_bits & _ENCRYPTED
        plain = plain and entry.file_size == entry.compress_size
        yield Member(entry.filename, entry.header_offset, start, entry.compress_size, plain)


def _start(read: Read, size: int, offset: int) -> int:
    """Return the offset of a member's data. The local header can be longer than the directory states."""
    if not 0 <= offset <= size - _LOCAL.size:
        raise Broken("a member begins beyond the end")
    magic, name, extra = _LOCAL.unpack(read(offset, _LOCAL.size))
    if magic != MAGIC:
        raise Broken("there is no member where the directory says")
    return offset + _LOCAL.size + int(name) + int(extra)


class _File:
    """The part of the file interface that `zipfile` needs."""

    def __init__(self, read: Read, size: int) -> None:
        self._read, self._size, self._at = read, size, 0

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        if self._at < 0:
            raise ValueError("before the beginning")
        return self._at

    def read(self, count: int = -1) -> bytes:
        left = max(self._size - self._at, 0)
        count = left if count < 0 else min(count, left)
        if count > _DIRECTORY:
            raise ValueError("a directory as long as that")
        data = bytes(self._read(self._at, count)) if count else b""
        self._at += count
        return data
