"""The log of events of a space: a file of JSON lines that only grows, each line chained to the one before.

A line is written after its commit is durable in the journal, and not synced: the journal has it until the next
snapshot, before which this file is synced. So the file may lag behind the journal after a crash, never lead. Nothing of
it is kept in memory: lines are as good as sorted, and a cursor is found by bisecting the file.

Each line that is read is checked against its link. A damaged line stays in the file. A list of events has an event
`event.damaged` in its place; a backup refuses the log.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple

import msgspec

from lmvp import private
from lmvp.durable import write_all
from lmvp.errors import IntegrityError
from lmvp.storage.digest import of_bytes
from lmvp_server.stores.base import Document
from lmvp_server.stores.journal import AppendFile

_logger = logging.getLogger("lmvp_server")
_BLOCK = 64 << 10
_PAGE = 1000
_canonical = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder(Document).decode


class Head(NamedTuple):
    """The newest event: its number, and its link in the chain."""

    seq: int = 0
    chain: str = ""


_NOWHERE = Head(-1)
_SEQ = re.compile(rb'^\{"seq":(\d{1,18}),')
_CHAIN = re.compile(rb'"chain":"([0-9a-f]{64})"\}\n?$')
_NO_TIME = "1970-01-01T00:00:00.000000Z"
"""The time of a damaged event if no sound event is near."""
DAMAGED = "event.damaged"
"""The action of an event that stands for a damaged one in a list."""
RESTORE = "restore the data folder from a backup; what is damaged was not touched"
"""The way out of damaged files."""


class _Position(msgspec.Struct):
    seq: int
    chain: str


_position = msgspec.json.Decoder(_Position).decode


def head_of(line: bytes | msgspec.Raw) -> Head:
    """Return number and link of a line."""
    found = _position(line)
    return Head(found.seq, found.chain)


def chained(head: Head, event: Document) -> tuple[Head, bytes]:
    """Give an event its number and its link to the one before; return the new head, and the line for the file.

    The link is BLAKE3 over the link before (its hex digits) and the canonical JSON of the event with `seq`, without
    `chain`.

    Examples
    --------
    >>> head, line = chained(Head(), {"who": "ada", "action": "model.create"})
    >>> head.seq, _decode(line)["who"]
    (1, 'ada')
    """
    entry = {"seq": 0, **event}  # the number comes first in the line
    after = _link(head, entry)
    entry["seq"], entry["chain"] = after.seq, after.chain
    return after, msgspec.json.encode(entry) + b"\n"


def _link(head: Head, event: Document) -> Head:
    """Return the number and the link that an event has behind `head`."""
    entry = {key: value for key, value in event.items() if key != "chain"}
    entry["seq"] = head.seq + 1
    return Head(head.seq + 1, of_bytes(head.chain.encode(), _canonical(entry)))


def verify_chain(events: Iterable[Document], head: Head = Head()) -> Head:  # noqa: B008 - a constant
    """Return the head of a whole chain, in order from the one behind `head`.

    Raises
    ------
    IntegrityError
        If an event was removed or altered; the message has its number.
    """
    for event in events:
        after, _ = chained(head, event)
        if event.get("seq") != after.seq or event.get("chain") != after.chain:
            raise IntegrityError(f"event {after.seq} does not follow from the one before: the log was altered")
        head = after
    return head


class EventFile:
    """The lines of one space; the caller holds the lock of the space, except around `Lines.read`.

    Attributes
    ----------
    size : int
        Bytes of the file that are written and whole.
    """

    def __init__(self, path: Path, size: int = 0) -> None:
        self.path = path
        self.size = size
        self._file: AppendFile | None = None
        self._waiting: list[bytes] = []
        self._sure, self._doubted = size, False
        self._head = Head()

    def recover(self, head: Head, lines: list[bytes]) -> None:
        """Make the file what snapshot (`size`, `head`) and journal (`lines`) say.

        Raises
        ------
        IntegrityError
            If the part that the snapshot vouches for is not there; or if the events go on where the journal ends: they
            are written once a commit is on the disk, so commits that were acknowledged are lost.
        """
        if self._last_head() != head:
            raise IntegrityError(f"{self.path} lacks event {head.seq}, or what comes before it", hint=RESTORE)
        self._head = head_of(lines[-1]) if lines else head
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
        """Return the head of the part that the snapshot vouches for."""
        if not self.size:
            return Head()
        with suppress(OSError, msgspec.MsgspecError), private.open_read(self.path) as file:
            line = next(_lines_backwards(file, self.size), b"")
            return head_of(line) if os.fstat(file.fileno()).st_size >= self.size else _NOWHERE
        return _NOWHERE

    def _tail(self) -> bytes:
        """Return what the file holds behind that part."""
        with suppress(FileNotFoundError), private.open_read(self.path) as file:
            file.seek(self.size)
            return file.read()
        return b""

    def extend(self, lines: list[bytes]) -> None:
        """Append lines; what the disk refuses waits in memory (the journal has it) and is tried again later."""
        self._waiting += lines
        self._head = head_of(lines[-1]) if lines else self._head
        with suppress(OSError, IntegrityError):
            self.flush()

    def flush(self) -> None:
        """Write the lines that still wait, or raise OSError."""
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
        """Bring all written lines to the disk."""
        if self._file is None and self.size:
            self._reopen()
        if self._file is None:
            return
        if self._doubted:
            self._write_again()
        try:
            self._file.sync()
        except OSError:
            self._doubted = True
            raise
        self._sure, self._doubted = self.size, False

    def _write_again(self) -> None:
        """Write what a failed sync may have left off the disk: the system counts it as written, and a sync as done."""
        with os.fdopen(private.open_file(self.path, os.O_RDWR), "r+b", buffering=0) as file:
            file.seek(self._sure)
            data = file.read(self.size - self._sure)
            file.seek(self._sure)
            write_all(file.fileno(), data)

    def lines(self) -> Lines:
        """Return what there is to read now, to be read without the lock."""
        return Lines(self.path, self.size, tuple(self._waiting), self._head)

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


class Lines(NamedTuple):
    """A moment of an `EventFile`: so many bytes of the file, the lines that wait behind them, and the newest event."""

    path: Path
    size: int
    waiting: tuple[bytes, ...]
    head: Head

    def read(self, *, newest_first: bool, after: int | None, limit: int | None) -> list[Document]:
        """Return decoded events, as `RecordStore.events` promises; `event.damaged` in the place of a damaged one."""
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
        """Yield all events, oldest first, without holding more than some of them.

        Raises
        ------
        IntegrityError
            At a damaged event.
        """
        for first in range(1, self.head.seq + 1, _PAGE):
            yield from self._between(first, min(self.head.seq, first + _PAGE - 1))

    def _between(self, first: int, last: int) -> list[Document]:
        """Return the events of these numbers, each checked against its link; IntegrityError if one is damaged."""
        context = max(first - 1, 1)  # the event whose link the first one continues
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
        """Yield the lines from an event on, those that wait included."""
        if self.size:
            with private.open_read(self.path) as file:
                at = _offset_of(file, seq, self.size)
                file.seek(at)
                while at < self.size and (line := file.readline()):
                    yield line
                    at += len(line)
        yield from (line for line in self.waiting if head_of(line).seq >= seq)

    def _around_damage(self, first: int, last: int) -> list[Document]:
        """Read all lines, and put `event.damaged` in the place of each event of these numbers that is not sound."""
        sound: dict[int, Document] = {}
        head: Head | None = Head()
        for line in self._lines_from(0):
            event, head = _checked(line, head)
            if event is not None:
                sound[event["seq"]] = event
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
    """Log damage, once: pages that show events ask again and again."""
    _logger.error("%s", message)


def _checked(line: bytes, head: Head | None) -> tuple[Document | None, Head | None]:
    """Return the event of a line if it is sound, and the head that the next line continues, as far as it is known.

    Parameters
    ----------
    head : Head or None
        That of the line before; None where it cannot be read.
    """
    try:
        event = _decode(line)
        own = Head(event.get("seq", 0), event.get("chain", ""))
        if head is not None and own == _link(Head(own.seq - 1, head.chain), event):  # the link covers the number
            return event, own
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError):
        pass
    seq, chain = _SEQ.search(line), _CHAIN.search(line)
    return None, Head(int(seq[1]), chain[1].decode()) if seq and chain else None


def _offset_of(file: IO[bytes], seq: int, size: int) -> int:
    """Return where the first event numbered `seq` or higher begins, by bisection; `size` if there is none."""
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
    """Move to the first line that begins at `at` or behind it."""
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
