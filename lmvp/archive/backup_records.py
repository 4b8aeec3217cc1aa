"""Files of records in a backup: lines of JSON with a head, records, events and a digest.

The server writes these files; backup and restore read them. See docs/format.md, "Files of records".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any

import msgspec
from blake3 import blake3

from lmvp.core import files
from lmvp.errors import DamagedFile, ServerMismatch

KIND, FORMAT = "lmvp records", 1
LINE_LIMIT = 64 << 20
"""Maximum bytes of a line in memory. The server accepts records of a few MiB at most."""

_encode = msgspec.json.Encoder().encode


class Head(msgspec.Struct, frozen=True):
    """The first line of the file."""

    kind: str
    format: int
    space: str
    next_seq: dict[str, int]
    records: int
    events: int


class RecordLine(msgspec.Struct, frozen=True):
    """A record with its table, its position and revision in it, and its data."""

    table: str
    id: str
    seq: int
    rev: int
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RecordFile:
    """A file of records whose digest was verified.

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
        with files.open_copy(self.path) as file:
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
    """Yield the lines of the file of a space.

    Rows can be those of any record store: they need the attributes `id`, `seq`, `rev` and `data`.
    """
    records = sum(len(rows) for rows in tables.values())
    content = chain(
        [Head(KIND, FORMAT, space, dict(next_seq), records, count)],
        (RecordLine(table, row.id, row.seq, row.rev, row.data) for table, rows in tables.items() for row in rows),
        events,
    )
    hasher = blake3()
    for part in content:
        line = _encode(part) + b"\n"
        hasher.update(line)
        yield line
    yield _encode({"digest": hasher.hexdigest()}) + b"\n"


def open_file(path: Path, space: str) -> RecordFile:
    """Verify a whole file and return it.

    Raises
    ------
    DamagedFile
        If it cannot be read or does not match its digest; the message names the file.
    ServerMismatch
        If its format has another version.
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
    """Yield the lines of a file. A line above the limit is split, so the check of the file fails."""
    return iter(lambda: file.readline(LINE_LIMIT), b"")


def _prove(path: Path) -> tuple[Head, str, int]:
    """Verify the digest of a file; return its head, the BLAKE3 of the whole file, and its size."""
    content, whole = blake3(), blake3()
    head, count, size, last = None, 0, 0, b""
    with files.open_copy(path) as file:
        for count, line in enumerate(_lines_of(file)):  # noqa: B007 - the last one is the result
            if head is None:
                head = _read(msgspec.json.Decoder(Head).decode, line, path)
            # The last line is the digest of all lines before it, so hash each line one step late.
            content.update(last)
            last = line
            whole.update(line)
            size += len(line)
    # The count of lines includes the head; `count` is the index of the last line.
    if head is None or count != 1 + head.records + head.events:
        raise DamagedFile(f"{path} is damaged: it is not whole")
    if _encode({"digest": content.hexdigest()}) + b"\n" != last:
        raise DamagedFile(f"{path} is damaged: it does not match its digest")
    return head, whole.hexdigest(), size


def _read(decode: Any, line: bytes, path: Path) -> Any:
    try:
        return decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedFile(f"{path} is damaged: {error}") from None
