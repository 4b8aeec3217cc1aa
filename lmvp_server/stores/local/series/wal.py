"""Write-ahead log of a series: the frames that writers sent, with the offset in the writer's journal.

A record is framed as in `lmvp_server.stores.local.journal`. Its payload is the id of the writer (16 bytes), the offset
in the writer's journal (uint64), and the frames. `lmvp.core.framing` distinguishes damage from an incomplete last
record. A damaged log is not changed: a new generation begins, and when the valid points of the damaged log are sealed,
it is renamed to `<generation>.wal.damaged`.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Final, NamedTuple

from lmvp.core import files
from lmvp.core.framing import Framing, LogReader, framed, record_check
from lmvp.core.run_frames import Buffer
from lmvp_server.stores.local.journal import AppendFile

_HEAD = struct.Struct("<16sQ")
_NAME = re.compile(r"(\d+)\.wal(\.damaged)?")
_BEGUN = re.compile(r"(\d+)\.wal\.begun")
_LIMIT = 64 << 20
"""The maximum size of a payload in bytes. It is larger than the largest request."""

WAL: Final = Framing(
    record_check,  # the pattern: a length below 64 MiB, an offset below 2^48, and the head of the first frame
    re.compile(rb"(?=.{3}[\0-\3].{4}.{16}.{6}\0\0.{3}\0.{4}[\1-\7])", re.DOTALL),
    limit=_LIMIT,
)


class Entry(NamedTuple):
    """A payload: the id of the writer, the offset in its journal, and the frames."""

    writer: str
    start: int
    frames: memoryview


def wal_path(folder: Path, generation: int) -> Path:
    """Return the path of a log."""
    return folder / f"{generation}.wal"


def damaged_path(folder: Path, generation: int) -> Path:
    """Return the path to which a damaged log is renamed when its valid points are sealed."""
    return folder / f"{generation}.wal.damaged"


def generations(folder: Path, *, damaged: bool = False) -> list[int]:
    """Return the generations of the `.wal` files in a folder, sorted.

    With `damaged=True`, return those of the `.wal.damaged` files instead.
    """
    found = (match for path in folder.iterdir() if (match := _NAME.fullmatch(path.name)))
    return sorted(int(match[1]) for match in found if bool(match[2]) == damaged)


def begun_path(folder: Path, generation: int) -> Path:
    """Return the path of an empty marker file that exists as long as its log must exist, so a lost log is detected."""
    return folder / f"{generation}.wal.begun"


def missing(folder: Path) -> list[int]:
    """Return the generations of logs that are lost: their marker exists, but the log does not."""
    found = (match for path in folder.iterdir() if (match := _BEGUN.fullmatch(path.name)))
    there = {*generations(folder), *generations(folder, damaged=True)}
    return sorted({int(match[1]) for match in found} - there)


def packed(writer: str, start: int, data: Buffer) -> bytes:
    """Return a record with frames of a writer."""
    return framed(_HEAD.pack(bytes.fromhex(writer), start) + bytes(data))


def unpacked(payload: memoryview) -> Entry:
    """Parse the payload of a record."""
    writer, start = _HEAD.unpack_from(payload)
    return Entry(writer.hex(), start, payload[_HEAD.size :])


def read_log(path: Path) -> LogReader:
    """Return a reader for a log."""
    return LogReader(files.read_bytes(path), WAL)


def open_wal(folder: Path, generation: int, size: int) -> AppendFile:
    """Open a log for appending and truncate it to `size`, the end of its last valid record."""
    return AppendFile(wal_path(folder, generation), size)
