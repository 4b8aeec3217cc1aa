"""State file of a series: its segments, writers, keys, statistics and cuts, written at each seal."""

from __future__ import annotations

from pathlib import Path

import msgspec

from lmvp.core import files
from lmvp.core.files import atomic_write
from lmvp.core.framing import framed, whole_records
from lmvp.errors import IntegrityError

NAME = "series"


class Writer(msgspec.Struct, array_like=True):
    """A writer: applied bytes of its journal, its attempt, and the number in the series of each of its key numbers."""

    applied: int = 0
    epoch: int = 0
    keys: dict[int, int] = {}


class Saved(msgspec.Struct):
    """The state of a series before its logs from `generation` on.

    Attributes
    ----------
    segments : list of int
        The numbers of the segments, in the order in which their points arrived.
    keys : list of str
        The names of the keys. The index is the number of the key.
    stats : bytes
        Rows of `stats.ROW`, one for each key.
    cuts : list of (int, int)
        Attempt and step of each cut.
    epoch : int
        The newest attempt.
    points : int
        The number of points received.
    cut_at : int
        The number of points at the last cut, plus 1. Older cursors are no longer valid.
    """

    format: int = 1
    generation: int = 0
    segments: list[int] = []
    writers: dict[str, Writer] = {}
    keys: list[str] = []
    stats: bytes = b""
    cuts: list[tuple[int, int]] = []
    epoch: int = 0
    points: int = 0
    cut_at: int = 0


def save(folder: Path, saved: Saved) -> None:
    """Replace the state file durably and atomically."""
    from lmvp.core.files import sync_folder

    # The record has a checksum, so that damage is detected.
    atomic_write(folder / NAME, framed(msgspec.msgpack.encode(saved)))
    sync_folder(folder)


def load(folder: Path) -> Saved:
    """Read the state file. Without a file, return the state of an empty series.

    Raises
    ------
    IntegrityError
        If the file is damaged, or missing although there are segments.
    """
    path = folder / NAME
    try:
        data = files.read_bytes(path)
    except FileNotFoundError:
        # A series that was never sealed has no state file, but then it has its first log.
        if folder.is_dir() and any(folder.glob("*.segment")) and not (folder / "0.wal").exists():
            raise IntegrityError(f"{path} is missing: segments are there", hint="a backup has it") from None
        return Saved()
    for payload, end in whole_records(data):
        if end == len(data):
            try:
                return msgspec.msgpack.decode(payload, type=Saved)
            except msgspec.DecodeError:
                break
    raise IntegrityError(f"{path} is damaged", hint="a backup has it; other runs are as they were")
