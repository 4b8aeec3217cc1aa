"""Append-only event log of a space: a file of JSON lines, each with a digest that covers the previous one.

A line is written after its commit is durable in the journal. It needs no sync of its file, because the journal has the
line until the next snapshot, and the file is synced before the snapshot. So after a crash the file can have fewer
events than the journal, but not more. The events are not kept in memory: the lines are sorted by `seq`, so a cursor is
found by bisection of the file.

Each line is verified against its digest when it is read. A damaged line stays in the file. Lists of events contain an
`event.damaged` in its place; a backup fails with an error.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple

import msgspec

from lmvp.core import files
from lmvp.core.digest import of_bytes
from lmvp.core.files import write_all
from lmvp.errors import IntegrityError
from lmvp_server.stores.base import Document
from lmvp_server.stores.local.journal import AppendFile

_logger = logging.getLogger("lmvp_server")
_BLOCK = 64 << 10  # bytes read at a time when the file is read backwards
_PAGE = 1000  # events decoded at a time, so that a long log needs little memory
# Sorted keys: the digest of an event must not depend on the order of its fields.
_canonical = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder(Document).decode


class Head(NamedTuple):
    """The newest event: its number and its digest in the chain."""

    seq: int = 0
    chain: str = ""


_NOWHERE = Head(-1)  # equal to the head of no log
# Positions of `seq` and `chain` in a line that can be damaged elsewhere: the first and the last field.
_SEQ = re.compile(rb'^\{"seq":(\d{1,18}),')
_CHAIN = re.compile(rb'"chain":"([0-9a-f]{64})"\}\n?$')
_NO_TIME = "1970-01-01T00:00:00.000000Z"
"""The time of damaged events if the log has no sound event."""
DAMAGED = "event.damaged"
"""The action of a placeholder for a damaged event in a list."""
RESTORE = "restore the data folder from a backup; what is damaged was not touched"
"""The hint of errors about damaged files."""


class _Position(msgspec.Struct):
    seq: int
    chain: str


_position = msgspec.json.Decoder(_Position).decode


def head_of(line: bytes | msgspec.Raw) -> Head:
    """Return the number and the digest of a line."""
    found = _position(line)
    return Head(found.seq, found.chain)


def chained(head: Head, event: Document) -> tuple[Head, bytes]:
    """Append an event to a chain: return the new head and the line for the file.

    The digest is BLAKE3 over the previous digest (its hex digits) and the canonical JSON of the event with `seq`,
    without `chain`.

    Examples
    --------
    >>> head, line = chained(Head(), {"who": "ada", "action": "model.create"})
    >>> head.seq, _decode(line)["who"]
    (1, 'ada')
    """
    entry = {"seq": 0, **event}  # `seq` is the first field of a line: `_SEQ` finds it in a damaged line
    after = _link(head, entry)
    entry["seq"], entry["chain"] = after.seq, after.chain
    return after, msgspec.json.encode(entry) + b"\n"


def _link(head: Head, event: Document) -> Head:
    """Return the head that an event becomes when it is appended to `head`."""
    entry = {key: value for key, value in event.items() if key != "chain"}
    entry["seq"] = head.seq + 1
    return Head(head.seq + 1, of_bytes(head.chain.encode(), _canonical(entry)))


class EventFile:
    """The event log of one space. The caller holds the lock of the space, except during `Lines.read`.

    Attributes
    ----------
    size : int
        The bytes of the file that are written completely.
    """

    def __init__(self, path: Path, size: int = 0) -> None:
        self.path = path
        self.size = size
        self._file: AppendFile | None = None
        self._waiting: list[bytes] = []
        self._sure, self._doubted = size, False  # bytes that are synced; whether a sync failed after them
        self._head = Head()

    def recover(self, head: Head, lines: list[bytes]) -> None:
        """Make the file match the snapshot (`size`, `head`) and the journal (`lines`).

        Raises
        ------
        IntegrityError
            If events that the snapshot covers are missing, or if the file has more events than the journal. Events are
            written only after their commit is durable, so in the second case acknowledged commits are lost.
        """
        if self._last_head() != head:
            raise IntegrityError(f"{self.path} lacks event {head.seq}, or what comes before it", hint=RESTORE)
        self._head = head_of(lines[-1]) if lines else head
        # A crash can leave zeros at the end of the file, because the file system extends it before it writes the data.
        tail, told = self._tail().rstrip(b"\0"), b"".join(lines)
        if len(tail) > len(told):
            raise IntegrityError(f"the records that belong to {self.path.name} end before its events do", hint=RESTORE)
        if tail == told:
            self.size += len(told)
            return
        if not told.startswith(tail):
            _logger.warning("%s was damaged behind byte %d: written again from the journal", self.path, self.size)
        self.extend(lines)

    def _last_head(self) -> Head:
        """Return the head of the part that the snapshot covers, read from the file."""
        if not self.size:
            return Head()
        with suppress(OSError, msgspec.MsgspecError), files.open_read(self.path) as file:
            line = next(_lines_backwards(file, self.size), b"")
            return head_of(line) if os.fstat(file.fileno()).st_size >= self.size else _NOWHERE
        return _NOWHERE

    def _tail(self) -> bytes:
        """Return the bytes of the file after the part that the snapshot covers."""
        with suppress(FileNotFoundError), files.open_read(self.path) as file:
            file.seek(self.size)
            return file.read()
        return b""

    def extend(self, lines: list[bytes]) -> None:
        """Append lines. If the write fails, they wait in memory for the next attempt; the journal has them too."""
        self._waiting += lines
        self._head = head_of(lines[-1]) if lines else self._head
        with suppress(OSError, IntegrityError):
            self.flush()

    def flush(self) -> None:
        """Write the lines that wait in memory, or raise OSError."""
        if self._waiting:
            if self._file is None or self._file.broken:
                self._reopen()
            assert self._file is not None
            self._file.append(b"".join(self._waiting))
            self.size = self._file.size
            self._waiting = []

    def _reopen(self) -> None:
        self.close()
        self._file = AppendFile(self.path, self.size)

    def sync(self) -> None:
        """Sync all written lines to the disk."""
        if self._file is None and self.size:
            self._reopen()
        if self._file is None:
            return
        # After a failed sync, the system may drop the pages and still count them as written. Write them again.
        if self._doubted:
            self._write_again()
        try:
            self._file.sync()
        except OSError:
            self._doubted = True
            raise
        self._sure, self._doubted = self.size, False

    def _write_again(self) -> None:
        """Rewrite the bytes that a failed sync may have lost.

        A second sync alone would succeed without writing them.
        """
        with os.fdopen(files.open_file(self.path, os.O_RDWR), "r+b", buffering=0) as file:
            file.seek(self._sure)
            data = file.read(self.size - self._sure)
            file.seek(self._sure)
            write_all(file.fileno(), data)

    def lines(self) -> Lines:
        """Return a snapshot of the log that can be read without the lock."""
        return Lines(self.path, self.size, tuple(self._waiting), self._head)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


class Lines(NamedTuple):
    """A snapshot of an `EventFile`: `size` bytes of the file, the lines that wait in memory, and the newest event."""

    path: Path
    size: int
    waiting: tuple[bytes, ...]
    head: Head

    def read(self, *, newest_first: bool, after: int | None, limit: int | None) -> list[Document]:
        """Return decoded events as `RecordStore.events` specifies; `event.damaged` replaces each damaged one."""
        first, last = 1, self.head.seq
        if newest_first:
            last = last if after is None else min(last, after - 1)
            first = first if limit is None else max(first, last - limit + 1)
        else:
            first = first if after is None else max(first, after + 1)
            last = last if limit is None else min(last, first + limit - 1)
        if first > last:
            return []
        try:
            found = self._between(first, last)
        except IntegrityError as error:
            _report(error.message)
            found = self._around_damage(first, last)
        return found[::-1] if newest_first else found

    def walk(self) -> Iterator[Document]:
        """Yield all events, oldest first, with at most 1,000 of them in memory.

        Raises
        ------
        IntegrityError
            If an event is damaged.
        """
        for first in range(1, self.head.seq + 1, _PAGE):
            yield from self._between(first, min(self.head.seq, first + _PAGE - 1))

    def _between(self, first: int, last: int) -> list[Document]:
        """Return the events `first` to `last`, each verified; raise IntegrityError if one is damaged."""
        context = max(first - 1, 1)  # the event before the first one: its digest is the start of the chain
        try:
            found = [_decode(line) for line in islice(self._lines_from(context), last - context + 1)]
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise self._damaged(first, last) from None
        if len(found) != last - context + 1:
            raise self._damaged(first, last)
        head = Head()
        if context < first:
            head = Head(context, str(found.pop(0).get("chain")))
        for event in found:
            after = _link(head, event)
            if Head(event.get("seq", 0), event.get("chain", "")) != after:
                raise self._damaged(after.seq, after.seq)
            head = after
        return found

    def _damaged(self, first: int, last: int) -> IntegrityError:
        which = f"event {first:,}" if first == last else f"one of the events from {first:,} to {last:,}"
        return IntegrityError(f"{self.path} is damaged: {which}", hint=RESTORE)

    def _lines_from(self, seq: int) -> Iterator[bytes]:
        """Yield the lines from event `seq`, including those that wait in memory."""
        if self.size:
            with files.open_read(self.path) as file:
                at = _offset_of(file, seq, self.size)
                file.seek(at)
                while at < self.size and (line := file.readline()):
                    yield line
                    at += len(line)
        yield from (line for line in self.waiting if head_of(line).seq >= seq)

    def _around_damage(self, first: int, last: int) -> list[Document]:
        """Read the whole log and return the events `first` to `last`, with `event.damaged` in place of damaged ones."""
        sound: dict[int, Document] = {}
        head: Head | None = Head()
        for line in self._lines_from(0):
            event, head = _checked(line, head)
            if event is not None:
                sound[event["seq"]] = event
        # A placeholder gets the time of the event before it, or else of the first sound event.
        found, at = [], next((sound[seq]["at"] for seq in sorted(sound) if "at" in sound[seq]), _NO_TIME)
        for seq in range(first, last + 1):
            event = sound.get(seq) or self._placeholder(seq, at)
            at = event.get("at", at)
            found.append(event)
        return found

    def _placeholder(self, seq: int, at: str) -> Document:
        what = f"event {seq} of this log is damaged; `lmvp fsck` names the file"
        return {
            "seq": seq,
            "at": at,
            "who": "",
            "action": DAMAGED,
            "what": what,
            "before": None,
            "after": None,
            "chain": "",
        }


@lru_cache(maxsize=1000)
def _report(message: str) -> None:
    """Log damage once: pages that show events read them again and again."""
    _logger.error("%s", message)


def _checked(line: bytes, head: Head | None) -> tuple[Document | None, Head | None]:
    """Return the event of a line if it is sound, and the head that the next line continues, as far as it is known.

    Parameters
    ----------
    head : Head or None
        The head of the line before; None if it cannot be read.
    """
    try:
        event = _decode(line)
        own = Head(event.get("seq", 0), event.get("chain", ""))
        if head is not None and own == _link(Head(own.seq - 1, head.chain), event):  # the digest covers `seq`
            return event, own
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError):
        pass
    # Number and digest of a damaged line are often readable, and enough to verify the next line.
    seq, chain = _SEQ.search(line), _CHAIN.search(line)
    return None, Head(int(seq[1]), chain[1].decode()) if seq and chain else None


def _offset_of(file: IO[bytes], seq: int, size: int) -> int:
    """Return the offset of the first event with number `seq` or higher, by bisection; `size` if not found."""
    low, high = 0, size
    while low < high:
        middle = (low + high) // 2
        begin = _next_line(file, middle)
        line = file.readline() if begin < high else b""
        if line and seq and head_of(line).seq < seq:
            low = begin + len(line)
        else:
            high = middle
    return low


def _next_line(file: IO[bytes], at: int) -> int:
    """Return the offset of the first line that begins at or after `at`, and move the file position there."""
    file.seek(max(0, at - 1))
    if at:
        file.readline()
    return file.tell()


def _lines_backwards(file: IO[bytes], end: int) -> Iterator[bytes]:
    rest = b""
    while end > 0:
        begin = max(0, end - _BLOCK)
        file.seek(begin)
        rest, *lines = (file.read(end - begin) + rest).split(b"\n")
        yield from (line for line in reversed(lines) if line)
        end = begin
    if rest:
        yield rest
