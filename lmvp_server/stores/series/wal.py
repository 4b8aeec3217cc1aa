"""The write-ahead log of a series: what writers sent, as it came, each with its place in its journal.

A record is framed as in `lmvp_server.stores.journal`; its payload is the writer (16 bytes), the offset in the writer's
journal (uint64), and the frames. `lmvp.log_recovery` decides what is damage and what is a torn end. A damaged log stays
as it is: a new generation begins beside it, and once its sound points are sealed it is renamed to
`<generation>.wal.damaged`.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Final, NamedTuple

from lmvp import private
from lmvp.log_recovery import Framing, LogReader
from lmvp.tracking.frames import Buffer
from lmvp_server.stores.journal import AppendFile, framed, record_check

_HEAD = struct.Struct("<16sQ")
_NAME = re.compile(r"(\d+)\.wal(\.damaged)?")
_BEGUN = re.compile(r"(\d+)\.wal\.begun")
_LIMIT = 64 << 20
"""Bytes of a payload at most: more than one request carries."""

WAL: Final = Framing(
    record_check,  # a length below 64 MiB, an offset below 2^48, and the head of the first frame
    re.compile(rb"(?=.{3}[\0-\3].{4}.{16}.{6}\0\0.{3}\0.{4}[\1-\7])", re.DOTALL),
    limit=_LIMIT,
)


class Entry(NamedTuple):
    """What a writer sent: its id, the offset in its journal, and the frames."""

    writer: str
    start: int
    frames: memoryview


def wal_path(folder: Path, generation: int) -> Path:
    """Return the path of a log."""
    return folder / f"{generation}.wal"


def damaged_path(folder: Path, generation: int) -> Path:
    """Return the path of a damaged log whose sound points are sealed."""
    return folder / f"{generation}.wal.damaged"


def generations(folder: Path, *, damaged: bool = False) -> list[int]:
    """Return the numbers of the logs in a folder, in order; with `damaged`, of those that were set aside."""
    found = (match for path in folder.iterdir() if (match := _NAME.fullmatch(path.name)))
    return sorted(int(match[1]) for match in found if bool(match[2]) == damaged)


def begun_path(folder: Path, generation: int) -> Path:
    """Return the path of an empty file that exists as long as its log must: a deleted log leaves it behind."""
    return folder / f"{generation}.wal.begun"


def missing(folder: Path) -> list[int]:
    """Return the numbers of logs that were begun, were not retired, and are not in their folder."""
    found = (match for path in folder.iterdir() if (match := _BEGUN.fullmatch(path.name)))
    there = {*generations(folder), *generations(folder, damaged=True)}
    return sorted({int(match[1]) for match in found} - there)


def packed(writer: str, start: int, data: Buffer) -> bytes:
    """Return the record of what a writer sent."""
    return framed(_HEAD.pack(bytes.fromhex(writer), start) + bytes(data))


def unpacked(payload: memoryview) -> Entry:
    """Return what the payload of a record says."""
    writer, start = _HEAD.unpack_from(payload)
    return Entry(writer.hex(), start, payload[_HEAD.size :])


def read_log(path: Path) -> LogReader:
    """Return a reader of a log."""
    return LogReader(private.read_bytes(path), WAL)


def open_wal(folder: Path, generation: int, size: int) -> AppendFile:
    """Open a log behind its last sound record."""
    return AppendFile(wal_path(folder, generation), size)
