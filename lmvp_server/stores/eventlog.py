"""The log of events of a space: a file of JSON lines that only grows, each line chained to the one before.

A line is written after its commit is durable in the journal, and not synced: the journal has it until the next
snapshot, before which this file is synced. So the file may lag behind the journal after a crash, never lead. Nothing of
it is kept in memory: lines are as good as sorted, and a cursor is found by bisecting the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple

import msgspec

from lmvp.durable import write_all
from lmvp.errors import IntegrityError
from lmvp.storage.digest import of_bytes
from lmvp_server.stores.base import Document
from lmvp_server.stores.journal import AppendFile

_BLOCK = 64 << 10
_PAGE = 1000
_canonical = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder(Document).decode


class Head(NamedTuple):
    """The newest event: its number, and its link in the chain."""

    seq: int = 0
    chain: str = ""


_NOWHERE = Head(-1)
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
    entry["seq"] = head.seq + 1
    entry.pop("chain", None)
    link = of_bytes(head.chain.encode(), _canonical(entry))
    entry["chain"] = link
    return Head(head.seq + 1, link), msgspec.json.encode(entry) + b"\n"


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
        tail, told = self._tail(), b"".join(lines)
        if tail.startswith(told) and b"\n" in tail[len(told) :]:
            raise IntegrityError(f"the records that belong to {self.path.name} end before its events do", hint=RESTORE)
        if tail == told:
            self.size += sum(map(len, lines))
        else:
            self.extend(lines)

    def _last_head(self) -> Head:
        """Return the head of the part that the snapshot vouches for."""
        if not self.size:
            return Head()
        with suppress(OSError, msgspec.MsgspecError), open(self.path, "rb") as file:
            line = next(_lines_backwards(file, self.size), b"")
            return head_of(line) if os.fstat(file.fileno()).st_size >= self.size else _NOWHERE
        return _NOWHERE

    def _tail(self) -> bytes:
        """Return what the file holds behind that part."""
        with suppress(FileNotFoundError), open(self.path, "rb") as file:
            file.seek(self.size)
            return file.read()
        return b""

    def extend(self, lines: list[bytes]) -> None:
        """Append lines; what the disk refuses waits in memory (the journal has it) and is tried again later."""
        self._waiting += lines
        with suppress(OSError):
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
        with open(self.path, "r+b", buffering=0) as file:
            file.seek(self._sure)
            data = file.read(self.size - self._sure)
            file.seek(self._sure)
            write_all(file.fileno(), data)

    def lines(self) -> Lines:
        """Return what there is to read now, to be read without the lock."""
        return Lines(self.path, self.size, tuple(self._waiting))

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


class Lines(NamedTuple):
    """A moment of an `EventFile`: so many bytes of the file, and the lines that wait behind them."""

    path: Path
    size: int
    waiting: tuple[bytes, ...]

    def read(self, *, newest_first: bool, after: int | None, limit: int | None) -> list[Document]:
        """Return decoded events, as `RecordStore.events` promises."""
        if not self.size:
            lines = self._window(iter(()), newest_first, after)
            return [_decode(line) for line in islice(lines, limit)]
        with open(self.path, "rb") as file:
            stored = self._backwards(file, after) if newest_first else self._forwards(file, after)
            return [_decode(line) for line in islice(self._window(stored, newest_first, after), limit)]

    def walk(self) -> Iterator[Document]:
        """Yield all events, oldest first, without holding more than some of them."""
        after = 0
        while page := self.read(newest_first=False, after=after, limit=_PAGE):
            yield from page
            after = page[-1]["seq"]

    def _window(self, stored: Iterator[bytes], newest_first: bool, after: int | None) -> Iterator[bytes]:
        if newest_first:
            yield from (line for line in reversed(self.waiting) if after is None or head_of(line).seq < after)
            yield from stored
        else:
            yield from stored
            yield from (line for line in self.waiting if after is None or head_of(line).seq > after)

    def _backwards(self, file: IO[bytes], after: int | None) -> Iterator[bytes]:
        return _lines_backwards(file, self.size if after is None else _offset_of(file, after, self.size))

    def _forwards(self, file: IO[bytes], after: int | None) -> Iterator[bytes]:
        at = 0 if after is None else _offset_of(file, after + 1, self.size)
        file.seek(at)
        while at < self.size and (line := file.readline()):
            yield line
            at += len(line)


def _offset_of(file: IO[bytes], seq: int, size: int) -> int:
    """Return where the first event numbered `seq` or higher begins, by bisection; `size` if there is none."""
    low, high = 0, size
    while low < high:
        middle = (low + high) // 2
        begin = _next_line(file, middle)
        line = file.readline() if begin < high else b""
        if line and head_of(line).seq < seq:
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
