"""The journal of a space: checked records, appended and synced, so that a commit costs what it changes.

A record is its length (uint32), a CRC-32 over that length and the payload (uint32), and the payload; numbers are
little-endian. The CRC covers the length because a crash may leave a tail of zeros, which would else read as an empty,
valid record. The payload is the JSON of a `Commit`.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import msgspec

from lmvp import private
from lmvp.durable import sync_folder, write_all
from lmvp.errors import IntegrityError
from lmvp.log_recovery import Buffer, Framing, LogReader
from lmvp_server.stores.base import Document

_LENGTH = struct.Struct("<I")
_HEAD = struct.Struct("<II")
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)


class Envelope(msgspec.Struct):
    """A record as it lies in the files; its seq is its `doc_id`."""

    id: str
    rev: int
    data: Document


class Operation(msgspec.Struct, array_like=True):
    """What happens to one row: it gets this content, or it goes (None)."""

    table: str
    seq: int
    content: Envelope | None = None


class Commit(msgspec.Struct):
    """One journal record: the number of the commit in its space, operations, and events as they stand in their file."""

    n: int
    ops: list[Operation]
    events: list[msgspec.Raw] = []


decode_commit = msgspec.json.Decoder(Commit).decode


def framed(payload: bytes) -> bytes:
    r"""Return a payload with its length and its CRC before it.

    Examples
    --------
    >>> framed(b"{}")[:4], len(framed(b"{}"))
    (b'\x02\x00\x00\x00', 10)
    """
    return _HEAD.pack(len(payload), _check(payload)) + payload


def _check(payload: Buffer) -> int:
    return record_check(_LENGTH.pack(len(payload)), payload)


def record_check(length: bytes, payload: Buffer) -> int:
    """Return the CRC-32 in the head of a record: over the four bytes of the length, and the payload."""
    return crc32(payload, crc32(length))


COMMITS = Framing(record_check, re.compile(rb"(?=.{8}\{\"n\":)", re.DOTALL), text=True)
"""The framing of a journal: its payloads are the JSON of a `Commit`."""


def read_journal(path: Path) -> LogReader:
    """Return a reader of a journal."""
    return LogReader(private.read_bytes(path), COMMITS)


def whole_records(data: bytes) -> Iterator[tuple[memoryview, int]]:
    """Yield each payload and the offset behind it, up to the first record that is cut short or damaged."""
    view, at = memoryview(data), 0
    while at + _HEAD.size <= len(view):
        length, check = _HEAD.unpack_from(view, at)
        payload = view[at + _HEAD.size : at + _HEAD.size + length]
        if len(payload) != length or _check(payload) != check:
            return
        at += _HEAD.size + length
        yield payload, at


def verify_journal(path: Path, size: int) -> None:
    """Check that the first `size` bytes of a journal are sound records; raise IntegrityError otherwise."""
    log = LogReader(private.read_bytes(path)[:size] if size else b"", COMMITS).read()
    if log.gaps or log.end != size:
        place = str(log.gaps[0]) if log.gaps else f"damaged at byte {log.end:,}"
        raise IntegrityError(f"{path} is {place}", hint="`lmvp fsck --repair` writes the records again from memory")


def sync_data(descriptor: int) -> None:
    """Bring the content of a file to the disk; its times may lag behind."""
    if hasattr(os, "fdatasync"):
        os.fdatasync(descriptor)
    else:
        os.fsync(descriptor)


def sync_path(path: Path) -> None:
    """Bring to the disk what a file holds, whoever wrote it."""
    descriptor = private.open_file(path)
    try:
        sync_data(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, and make their names survive a power cut."""
    if not folder.is_dir():
        make_folder(folder.parent)
        private.make_folder(folder)
        sync_folder(folder.parent)


class AppendFile:
    """A file that only grows, and loses what a failed write leaves at its end.

    Attributes
    ----------
    size : int
        Bytes that are good; the next write begins there.
    broken : bool
        Nobody knows what the file holds behind the last sync: it must not be written to again.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        self.broken = False
        self._descriptor = private.create(path, _FLAGS)
        try:
            self._trim()
        except BaseException:
            self.close()
            raise

    def append(self, data: bytes) -> None:
        """Write `data` at the end, or leave the file as it was and raise OSError."""
        try:
            write_all(self._descriptor, data)
        except BaseException:
            self.cut(self.size)
            raise
        self.size += len(data)

    def cut(self, size: int) -> None:
        """Forget what stands behind `size`; the file is broken if even that fails."""
        self.size = size
        try:
            self._trim()
        except OSError:
            self.broken = True

    def _trim(self) -> None:
        if os.fstat(self._descriptor).st_size > self.size:
            os.ftruncate(self._descriptor, self.size)

    def sync(self) -> None:
        """Return when everything that was appended before the call is on the disk."""
        sync_data(self._descriptor)

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
