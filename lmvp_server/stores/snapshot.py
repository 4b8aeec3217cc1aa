"""The snapshot of a space: a plain TinyDB file, which also says where the journal goes on.

TinyDB sees tables of documents by id, and one table more, `_lmvp`, whose one document holds the format's version, the
generation (the number of the journal that follows), the number of the last commit, the next seq of every table, the
newest event, and how much of the events file is accounted for. Its first field is the BLAKE3 of all that follows it in
the file, so damage never passes for data.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from lmvp import private
from lmvp.durable import sync_folder, write_all
from lmvp.errors import IntegrityError
from lmvp.storage.digest import of_bytes
from lmvp_server.stores.base import Record
from lmvp_server.stores.eventlog import RESTORE, Head
from lmvp_server.stores.journal import Envelope

META = "_lmvp"
"""The table that is ours."""

_FORMAT = 1
_START = b'{"_lmvp":{"1":{"digest":"'
_DIGEST = 64
_SLICE = 1000
"""Rows that are encoded and written at a time; other threads run in between."""

_encode = msgspec.json.Encoder().encode


class Meta(msgspec.Struct):
    """What a snapshot says beside its rows."""

    format: int = _FORMAT
    generation: int = 0
    commits: int = 0
    events: Head = Head()
    events_size: int = 0
    next_seq: dict[str, int] = {}


class Image(NamedTuple):
    """A moment of a space: as cheap to take as a list of references."""

    meta: Meta
    tables: dict[str, list[Record]]


def write_snapshot(path: Path, image: Image) -> int:
    """Put a snapshot in place of the last one, whole or not at all, and return its size in bytes."""
    temporary = temporary_of(path)
    temporary.unlink(missing_ok=True)  # a crash has left it, or somebody has put a link there
    descriptor = private.create(temporary)
    try:
        size = _write(descriptor, image)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(temporary, path)  # noqa: PTH105
    sync_folder(path.parent)
    return size


def temporary_of(path: Path) -> Path:
    """Return the name that a snapshot has while it is written."""
    return path.with_name(path.name + ".tmp")


def _write(descriptor: int, image: Image) -> int:
    from blake3 import blake3

    hasher = blake3()
    write_all(descriptor, _START + b"0" * _DIGEST)
    size = len(_START) + _DIGEST
    for piece in _pieces(image):
        hasher.update(piece)
        write_all(descriptor, piece)
        size += len(piece)
    os.lseek(descriptor, len(_START), os.SEEK_SET)
    write_all(descriptor, hasher.hexdigest().encode())
    return size


def _pieces(image: Image) -> Iterator[bytes]:
    yield b'",' + _encode(image.meta)[1:] + b"}"
    for table, records in image.tables.items():
        yield b",\n" + _encode(table) + b":{"
        for start in range(0, len(records), _SLICE):
            rows = b",\n".join(map(_row, records[start : start + _SLICE]))
            yield (b",\n" if start else b"\n") + rows
        yield b"}"
    yield b"}\n"


def _row(record: Record) -> bytes:
    return b'"%d":%b' % (record.seq, _encode(Envelope(record.id, record.rev, record.data)))


def read_snapshot(path: Path) -> Image:
    """Return the image in a snapshot; an empty one where there is no file.

    Raises
    ------
    IntegrityError
        If the file is not as it was written.
    """
    try:
        data = private.read_bytes(path)
    except FileNotFoundError:
        return Image(Meta(), {})
    _verify(path, memoryview(data))
    return _parse(path, data)


def verify_snapshot(path: Path) -> None:
    """Prove that a snapshot is as it was written, if there is one; IntegrityError otherwise."""
    if os.path.lexists(path):
        _verify(path, memoryview(private.read_bytes(path)))


def _verify(path: Path, view: memoryview) -> None:
    body = len(_START) + _DIGEST
    if view[: len(_START)] != _START or of_bytes(view[body:]) != bytes(view[len(_START) : body]).decode(
        "ascii", "replace"
    ):
        raise IntegrityError(f"{path} is damaged: its content does not match its digest", hint=RESTORE)


def _parse(path: Path, data: bytes) -> Image:
    tables = msgspec.json.decode(data, type=dict[str, dict[int, msgspec.Raw]])
    meta = msgspec.json.decode(tables.pop(META)[1], type=Meta)
    if meta.format != _FORMAT:
        raise IntegrityError(f"{path} has format {meta.format}, this server reads {_FORMAT}", hint="update LMVP")
    envelope = msgspec.json.Decoder(Envelope).decode
    return Image(
        meta, {name: [_record(seq, envelope(raw)) for seq, raw in rows.items()] for name, rows in tables.items()}
    )


def _record(seq: int, content: Envelope) -> Record:
    return Record(content.id, seq, content.rev, content.data)
