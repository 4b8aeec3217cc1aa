"""What a series writes down at each seal: which segments there are, and what it knew when they were cut off."""

from __future__ import annotations

from pathlib import Path

import msgspec

from lmvp import private
from lmvp.errors import IntegrityError
from lmvp_server.stores.disk import write_whole
from lmvp_server.stores.journal import framed, whole_records

NAME = "series"


class Writer(msgspec.Struct, array_like=True):
    """A writer: how far its journal is applied, its epoch, and the series' numbers of its keys, by the writer's own."""

    applied: int = 0
    epoch: int = 0
    keys: dict[int, int] = {}


class Saved(msgspec.Struct):
    """The state of a series before the logs from `generation` on.

    Attributes
    ----------
    segments : list of int
        Their numbers, in the order in which their points arrived.
    keys : list of str
        Names, by number.
    stats : bytes
        Rows of `stats.ROW`, one for each key.
    cuts : list of (int, int)
        Epoch and step.
    points : int
        How many were taken in.
    cut_at : int
        How many there were at the last cut.
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
    """Write the state, durably, in place of the one before."""
    from lmvp.durable import sync_folder

    write_whole(folder / NAME, [framed(msgspec.msgpack.encode(saved))], folder)
    sync_folder(folder)


def load(folder: Path) -> Saved:
    """Read the state; that of an empty series where none was written.

    Raises
    ------
    IntegrityError
        If it is not as it was written.
    """
    path = folder / NAME
    try:
        data = private.read_bytes(path)
    except FileNotFoundError:
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
