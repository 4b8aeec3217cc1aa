"""Verification of the points of runs in a backup, and the structure of segments.

The server writes and reads segments with these structures, and verifies a series before it sends it. The client
verifies each copy that it receives, and `lmvp restore` each copy that it reads. CRC-32 covers all bytes of a state and
of a segment, so the check decodes no points. See docs/format.md, "Series" and "Points of runs".
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Final, NamedTuple
from zlib import crc32

import msgspec

from lmvp.core import files
from lmvp.core.framing import HEAD, is_sound
from lmvp.errors import IntegrityError, NotFound

MAGIC: Final = b"LMVPSEG1"
FOOTER: Final = struct.Struct("<QII8s")
"""Footer of a segment: offset of the directory, its length, its CRC-32, and the magic bytes."""
STATE: Final = "series"
"""Name of the file with the state."""

_LIMIT = 64 << 20
"""Maximum bytes of a payload. The longest payload is the state of a series with very many keys."""

Read = Callable[[int, int], bytes]
"""Takes an offset and a number of bytes. It returns fewer bytes only at the end of the file."""


class Piece(msgspec.Struct, array_like=True):
    """Adjacent columns of a segment: offset, length of each column, number of rows, and the CRC-32 of all of them."""

    at: int
    sizes: list[int]
    rows: int
    check: int


class Directory(msgspec.Struct):
    """The directory of a segment: its parts and their offsets.

    `keys`, `counts`, `first` and `last` are columns in the format of pcodec, with a row for each key.
    """

    format: int
    rows: int
    keys: bytes
    counts: bytes
    first: bytes
    last: bytes
    pages: list[Piece]
    levels: list[Piece]


class _State(msgspec.Struct):
    """The fields of a state that the check needs. The decoder ignores other fields."""

    segments: list[int] = []
    points: int = 0


class File(NamedTuple):
    """A file of a series: its size in bytes and a function that reads it."""

    size: int
    read: Read


class Copy(NamedTuple):
    """The result of a check of a series.

    Attributes
    ----------
    points : int
        Number of accepted points, according to the state.
    set_aside : tuple of str
        Names of damaged logs. The points in them are missing.
    """

    points: int = 0
    set_aside: tuple[str, ...] = ()


def check_file(path: Path) -> Copy:
    """Verify a series that is stored as one file.

    Raises
    ------
    NotFound
        If the file does not exist.
    DamagedFile
        If it is not a regular file.
    IntegrityError
        If the stream or a file in it is damaged or incomplete.
    """
    with _opened(path) as file:
        return check_files(_files_of(file))


def peek_file(path: Path) -> Copy:
    """Return the numbers of a series after a check of its framing and state only. Raises as `check_file`."""
    with _opened(path) as file:
        return _copy_of(_files_of(file))[1]


def check_files(files: Mapping[str, File]) -> Copy:
    """Verify the files of a series; see `check_file`."""
    segments, copy = _copy_of(files)
    for name in segments:
        _check_segment(name, files[name])
    return copy


def _opened(path: Path) -> IO[bytes]:
    try:
        return files.open_copy(path)
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}") from None


def _copy_of(files: Mapping[str, File]) -> tuple[list[str], Copy]:
    """Return the names of the segments, and the numbers in the state."""
    # A series without a sealed state has no points yet.
    state = _State()
    if STATE in files:
        try:
            state = msgspec.msgpack.decode(_only_record(files[STATE]), type=_State)
        except msgspec.DecodeError:
            raise _damaged("the state") from None
    names = [f"{number}.segment" for number in state.segments]
    for name in names:
        if name not in files:
            raise IntegrityError(f"{name} of the series is missing")
    # Sealing leaves only the state, segments and damaged logs.
    others = sorted(set(files) - {STATE, *names})
    if extra := [name for name in others if name.endswith(".segment")]:
        raise IntegrityError(f"the state of the series does not name {extra[0]}")
    return names, Copy(state.points, tuple(others))


def _damaged(what: str) -> IntegrityError:
    return IntegrityError(f"{what} of the series is damaged")


def _only_record(file: File) -> bytes:
    data = file.read(0, file.size)
    if len(data) < HEAD.size or not is_sound(data[: HEAD.size], data[HEAD.size :]):
        raise _damaged("the state")
    return data[HEAD.size :]


def _check_segment(name: str, file: File) -> None:
    footer = file.read(max(0, file.size - FOOTER.size), FOOTER.size)
    if len(footer) != FOOTER.size or file.read(0, len(MAGIC)) != MAGIC:
        raise _damaged(f"{name}: the head or the footer")
    at, length, check, magic = FOOTER.unpack(footer)
    if magic != MAGIC or at + length + FOOTER.size != file.size:
        raise _damaged(f"{name}: the footer")
    data = file.read(at, length)
    try:
        directory = msgspec.msgpack.decode(data, type=Directory)
    except msgspec.DecodeError:
        raise _damaged(f"{name}: the directory") from None
    if crc32(data) != check or sum(page.rows for page in directory.pages) != directory.rows:
        raise _damaged(f"{name}: the directory")
    for number, piece in enumerate([*directory.pages, *directory.levels]):
        size = sum(piece.sizes)
        if not 0 <= size <= at or crc32(data := file.read(piece.at, size)) != piece.check or len(data) != size:
            raise _damaged(f"{name}: piece {number}")


def _files_of(stream: IO[bytes]) -> dict[str, File]:
    """Verify the framing of a stream; return its files, which are read from the stream on demand."""
    files: dict[str, list[tuple[int, int]]] = {}
    parts: list[tuple[int, int]] | None = None
    while True:
        head = stream.read(HEAD.size)
        length = HEAD.unpack(head)[0] if len(head) == HEAD.size else 0
        payload = stream.read(length) if 0 < length <= _LIMIT else b""
        if not payload or not is_sound(head, payload):
            raise IntegrityError("the stream of the series is damaged or ends before its end")
        kind, rest = payload[:4], payload[4:]
        if payload == b"end":
            break
        if kind == b"name":
            parts = files.setdefault(rest.decode("ascii", "replace"), [])
        elif kind == b"data" and parts is not None:
            parts.append((stream.tell() - len(rest), len(rest)))
        else:
            raise IntegrityError("the stream of the series holds an unknown record")
    if stream.read(1):
        raise IntegrityError("bytes follow the end of the stream of the series")
    return {name: File(sum(size for _, size in parts), _reader(stream, parts)) for name, parts in files.items()}


def _reader(stream: IO[bytes], parts: Sequence[tuple[int, int]]) -> Read:
    """Return a function that reads a file from its parts in a stream."""

    def read(at: int, size: int) -> bytes:
        pieces, start = list[bytes](), 0
        for offset, length in parts:
            begin, end = max(at, start), min(at + size, start + length)
            if begin < end:
                stream.seek(offset + begin - start)
                pieces.append(stream.read(end - begin))
            start += length
        return b"".join(pieces)

    return read
