"""Write-ahead journal of a space: records with checksums, appended and synced, so a commit writes only its changes.

`lmvp.core.framing` describes a record. Its payload is the JSON of a `Commit`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec

from lmvp.core import files
from lmvp.core.files import sync_data, write_all
from lmvp.core.framing import Framing, LogReader, record_check
from lmvp.errors import IntegrityError
from lmvp_server.stores.base import Document

# O_BINARY exists on Windows only; without it, Windows would convert line ends.
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)


class Envelope(msgspec.Struct):
    """A record as stored in the files. Its `seq` is the `doc_id` of TinyDB."""

    id: str
    rev: int
    data: Document


class Operation(msgspec.Struct, array_like=True):
    """A change of one row: its new content, or None to remove it."""

    table: str
    seq: int
    content: Envelope | None = None


class Commit(msgspec.Struct):
    """Payload of a journal record: the number of the commit in its space, the operations, and the event lines."""

    n: int
    ops: list[Operation]
    events: list[msgspec.Raw] = []


decode_commit = msgspec.json.Decoder(Commit).decode


# The pattern finds the next record after damage: 8 bytes of head and the start of a `Commit`.
COMMITS = Framing(record_check, re.compile(rb"(?=.{8}\{\"n\":)", re.DOTALL), text=True)
"""The framing of a journal: its payloads are the JSON of a `Commit`."""


def read_journal(path: Path) -> LogReader:
    """Return a reader for a journal file."""
    return LogReader(files.read_bytes(path), COMMITS)


def verify_journal(path: Path, size: int) -> None:
    """Verify the records in the first `size` bytes of a journal; raise IntegrityError if one is damaged."""
    log = LogReader(files.read_bytes(path)[:size] if size else b"", COMMITS).read()
    if log.gaps or log.end != size:
        place = str(log.gaps[0]) if log.gaps else f"damaged at byte {log.end:,}"
        raise IntegrityError(f"{path} is {place}", hint="`lmvp fsck --repair` writes the records again from memory")


class AppendFile:
    """A file that only grows. A failed write leaves no partial data at its end.

    Attributes
    ----------
    size : int
        The valid bytes; the next write begins there.
    broken : bool
        Whether the content after the last sync is unknown. A broken file must not be written to.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        self.broken = False
        self._descriptor = files.create(path, _FLAGS)
        try:
            self._trim()
        except BaseException:
            self.close()
            raise

    def append(self, data: bytes) -> None:
        """Append data. On failure, truncate the file to its previous size and raise OSError."""
        try:
            write_all(self._descriptor, data)
        except BaseException:
            # A partial record in the middle of the file would look like damage.
            self.cut(self.size)
            raise
        self.size += len(data)

    def cut(self, size: int) -> None:
        """Truncate the file to `size`. If that fails, mark the file as broken."""
        self.size = size
        try:
            self._trim()
        except OSError:
            self.broken = True

    def _trim(self) -> None:
        # The size is compared first, because most calls need no truncation.
        if os.fstat(self._descriptor).st_size > self.size:
            os.ftruncate(self._descriptor, self.size)

    def sync(self) -> None:
        """Sync everything that was appended before the call."""
        sync_data(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
