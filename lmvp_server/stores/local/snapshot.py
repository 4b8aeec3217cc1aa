"""Snapshot file of a space: a plain TinyDB file with metadata for recovery.

TinyDB sees tables of documents by id, and a table `_lmvp` with one document. It contains the version of the format, the
generation (the number of the journal that follows), the number of the last commit, the next seq of each table, the
newest event and the size of the event log. Its first field is the BLAKE3 digest of the rest of the file, so that damage
is detected.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from lmvp.core import files
from lmvp.core.digest import of_bytes
from lmvp.core.files import sync_folder, write_all
from lmvp.errors import IntegrityError
from lmvp_server.stores.base import Record
from lmvp_server.stores.local.event_log import RESTORE, Head
from lmvp_server.stores.local.journal import Envelope

META = "_lmvp"
"""The table with the metadata. Records must not use this name."""

_FORMAT = 1
_START = b'{"_lmvp":{"1":{"digest":"'
_DIGEST = 64
_SLICE = 1000
"""Rows that are encoded and written at a time, so that other threads can run in between."""

_encode = msgspec.json.Encoder().encode


class Meta(msgspec.Struct):
    """Metadata of a snapshot."""

    format: int = _FORMAT
    generation: int = 0
    commits: int = 0
    events: Head = Head()
    events_size: int = 0
    next_seq: dict[str, int] = {}


class Image(NamedTuple):
    """The content of a space at one moment. It shares the records, so taking one only copies lists of references."""

    meta: Meta
    tables: dict[str, list[Record]]


def write_snapshot(path: Path, image: Image) -> int:
    """Replace the snapshot atomically and return its size in bytes."""
    # A file of this name can exist: left by a crash, or a link that someone put there.
    with files.atomic_file(path, temporary=temporary_of(path)) as descriptor:
        size = _write(descriptor, image)
    sync_folder(path.parent)
    return size


def temporary_of(path: Path) -> Path:
    """Return the name of the temporary file of a snapshot."""
    return path.with_name(path.name + ".tmp")


def _write(descriptor: int, image: Image) -> int:
    from blake3 import blake3

    hasher = blake3()
    # Placeholder for the digest, which is known only at the end.
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
        # msgspec holds the GIL while it encodes.
        for start in range(0, len(records), _SLICE):
            rows = b",\n".join(map(_row, records[start : start + _SLICE]))
            yield (b",\n" if start else b"\n") + rows
        yield b"}"
    yield b"}\n"


def _row(record: Record) -> bytes:
    return b'"%d":%b' % (record.seq, _encode(Envelope(record.id, record.rev, record.data)))


def read_snapshot(path: Path) -> Image:
    """Read a snapshot. Without a file, return an empty image.

    Raises
    ------
    IntegrityError
        If the file is damaged.
    """
    try:
        data = files.read_bytes(path)
    except FileNotFoundError:
        return Image(Meta(), {})
    _verify(path, memoryview(data))
    return _parse(path, data)


def verify_snapshot(path: Path) -> None:
    """Verify a snapshot if it exists; raise IntegrityError if it is damaged."""
    if os.path.lexists(path):
        _verify(path, memoryview(files.read_bytes(path)))


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
