"""The file of a space in a backup: lines of JSON, a head, the records, the events, and a digest of all of it.

See docs/format.md, "Backups". Both sides have this in common: the server writes it, restoring reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any

import msgspec
from blake3 import blake3

from lmvp.archive import disk
from lmvp.errors import DamagedFile, ServerMismatch

KIND, FORMAT = "lmvp records", 1
LINE_LIMIT = 64 << 20
"""Bytes of a line that are held in memory at most; a record of a few MiB is the longest that a server takes."""

_encode = msgspec.json.Encoder().encode


class Head(msgspec.Struct, frozen=True):
    """The first line."""

    kind: str
    format: int
    space: str
    next_seq: dict[str, int]
    records: int
    events: int


class RecordLine(msgspec.Struct, frozen=True):
    """A record: its table, its position and revision there, and what it says."""

    table: str
    id: str
    seq: int
    rev: int
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RecordFile:
    """A file whose digest was proved.

    Attributes
    ----------
    digest : str
        BLAKE3 of the whole file.
    """

    path: Path
    head: Head
    digest: str
    size: int

    def records(self) -> Iterator[RecordLine]:
        """Yield the records, table by table, in the order of their `seq`."""
        decode = msgspec.json.Decoder(RecordLine).decode
        for line in self._lines(1, self.head.records):
            yield _read(decode, line, self.path)

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield the events, in order."""
        decode = msgspec.json.Decoder(dict[str, Any]).decode
        for line in self._lines(1 + self.head.records, self.head.events):
            yield _read(decode, line, self.path)

    def _lines(self, first: int, count: int) -> Iterator[bytes]:
        with disk.open_read(self.path) as file:
            for number, line in enumerate(_lines_of(file)):
                if number >= first + count:
                    return
                if number >= first:
                    yield line


def lines(
    space: str,
    tables: Mapping[str, Sequence[Any]],
    next_seq: Mapping[str, int],
    count: int,
    events: Iterator[dict[str, Any]],
) -> Iterator[bytes]:
    """Yield the lines of the file of a space; a row has `id`, `seq`, `rev` and `data`, whichever store it is of."""
    records = sum(len(rows) for rows in tables.values())
    content = chain(
        [Head(KIND, FORMAT, space, dict(next_seq), records, count)],
        (RecordLine(table, row.id, row.seq, row.rev, row.data) for table, rows in tables.items() for row in rows),
        events,
    )
    hasher = blake3()
    for one in content:
        line = _encode(one) + b"\n"
        hasher.update(line)
        yield line
    yield _encode({"digest": hasher.hexdigest()}) + b"\n"


def open_file(path: Path, space: str) -> RecordFile:
    """Prove a file from its first byte to its last.

    Raises
    ------
    DamagedFile
        Naming the file.
    ServerMismatch
        If its format is another one.
    """
    try:
        head, digest, size = _prove(path)
    except OSError as error:
        raise DamagedFile(f"{path} cannot be read: {error.strerror}") from error
    if head.kind != KIND or head.space != space:
        raise DamagedFile(f"{path} does not hold the records of {space}")
    if head.format != FORMAT:
        raise ServerMismatch(f"{path} has format {head.format}; this side reads {FORMAT}", hint="update lmvp")
    return RecordFile(path, head, digest, size)


def _lines_of(file: IO[bytes]) -> Iterator[bytes]:
    """Give the lines of a file; one that is too long comes in pieces, which no digest fits."""
    return iter(lambda: file.readline(LINE_LIMIT), b"")


def _prove(path: Path) -> tuple[Head, str, int]:
    content, whole = blake3(), blake3()
    head, count, size, said = None, 0, 0, b""
    with disk.open_read(path) as file:
        for count, line in enumerate(_lines_of(file)):  # noqa: B007 - the last one is the result
            if head is None:
                head = _read(msgspec.json.Decoder(Head).decode, line, path)
            content.update(said)
            said = line
            whole.update(line)
            size += len(line)
    if head is None or count != 1 + head.records + head.events:
        raise DamagedFile(f"{path} is damaged: it is not whole")
    if _encode({"digest": content.hexdigest()}) + b"\n" != said:
        raise DamagedFile(f"{path} is damaged: it does not match its digest")
    return head, whole.hexdigest(), size


def _read(decode: Any, line: bytes, path: Path) -> Any:
    try:
        return decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedFile(f"{path} is damaged: {error}") from None
