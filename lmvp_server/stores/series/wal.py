"""The write-ahead log of a series: what writers sent, as it came, each with its place in its journal.

A record is framed as in `lmvp_server.stores.journal`; its payload is the writer (16 bytes), the offset in the writer's
journal (uint64), and the frames.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path

from lmvp.tracking.frames import Buffer
from lmvp_server.stores.journal import AppendFile, framed, whole_records

_HEAD = struct.Struct("<16sQ")
_NAME = re.compile(r"(\d+)\.wal")


def wal_path(folder: Path, generation: int) -> Path:
    """Return the path of a log."""
    return folder / f"{generation}.wal"


def generations(folder: Path) -> list[int]:
    """Return the numbers of the logs in a folder, in order."""
    return sorted(int(match[1]) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name)))


def entry(writer: str, start: int, data: Buffer) -> bytes:
    """Return the record of what a writer sent."""
    return framed(_HEAD.pack(bytes.fromhex(writer), start) + bytes(data))


def entries(data: bytes) -> Iterator[tuple[str, int, memoryview, int]]:
    """Yield writer, offset, frames, and the offset behind the record, up to one that is cut short or damaged."""
    for payload, end in whole_records(data):
        writer, start = _HEAD.unpack_from(payload)
        yield writer.hex(), start, payload[_HEAD.size :], end


def open_wal(folder: Path, generation: int, size: int) -> AppendFile:
    """Open a log behind its last whole record."""
    return AppendFile(wal_path(folder, generation), size)
