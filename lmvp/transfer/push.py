"""Sending a version: tell what it is, send what the server lacks, commit.

A small push is one request. A large one sends batches of frames over several connections, straight from the memory of
the tensors; whatever is interrupted is sent again, and a push that was given up costs the next one nothing for the
chunks that came.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import msgspec

from lmvp.connection import Connection
from lmvp.errors import FileChanged, IntegrityError, MissingChunks
from lmvp.formats.base import Package
from lmvp.records import NewPush, Push, Received, Version
from lmvp.storage import frames
from lmvp.storage.frames import BATCH_LIMIT, HEADER_SIZE, Frame
from lmvp.transfer.describe import Description, Place, describe
from lmvp.transfer.progress import Advance, Progress, showing

SMALL = 1 << 20
"""Bytes up to which a push goes in one request."""

CONNECTIONS = 3
_LENGTH = struct.Struct("<I")


class Batch:
    """Frames of one request: as long as it says, and read from their places at each iteration."""

    def __init__(
        self, chunks: Sequence[tuple[str, Place]], head: bytes = b"", advance: Advance = lambda _: None
    ) -> None:
        self._chunks, self._head, self._advance = chunks, head, advance
        self._length = len(head) + sum(HEADER_SIZE + place.size for _, place in chunks)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Any]:
        if self._head:
            yield self._head
        for chunk, place in self._chunks:
            yield frames.header(Frame(chunk, place.size, place.size))
            yield from place.read()
            self._advance(place.size)


def push(connection: Connection, model: str, package: Package, body: NewPush, progress: Progress = None) -> Version:
    """Publish a package as a version.

    Parameters
    ----------
    model : str
        The path of the model in the API.
    body : NewPush
        Without the manifest, which is put in here.

    Raises
    ------
    FileChanged
        If the bytes changed while they were read.
    """
    total = sum(file.size for file in package.files)
    with showing(progress, 2 * total, "push") as advance:  # each byte is hashed, and sent or known
        described = describe(package, advance)
        full = msgspec.structs.replace(
            body, manifest=msgspec.Raw(msgspec.json.encode(described.manifest, order="sorted"))
        )
        try:
            if described.bytes <= SMALL:
                with suppress(MissingChunks):  # the server lost some that it had: the long way mends that
                    version = _push_small(connection, model, package, described, full)
                    advance(total)
                    return version
            return _push_large(connection, model, package, described, full, advance)
        except IntegrityError as error:
            raise FileChanged(
                f"the bytes changed while they were pushed ({error.message})",
                hint="push a model while nothing trains it or writes to its files",
            ) from error


def _push_small(connection: Connection, model: str, package: Package, described: Description, body: NewPush) -> Version:
    encoded = msgspec.json.encode(body)
    package.finish()
    batch = Batch(list(described.places.items()), _LENGTH.pack(len(encoded)) + encoded)
    return connection.send_frames("POST", f"{model}/versions", batch, Version)


def _push_large(
    connection: Connection, model: str, package: Package, described: Description, body: NewPush, advance: Advance
) -> Version:
    missing = connection.send_json("POST", f"{model}/pushes", body, Push).missing
    advance(described.manifest.size - sum(described.places[chunk].size for chunk in missing))
    for _ in range(2):
        _send(connection, f"{model}/pushes/{body.push}/chunks", described, missing, advance)
        package.finish()
        try:
            return connection.send_json("POST", f"{model}/pushes/{body.push}/commit", {}, Version)
        except MissingChunks as error:  # the server lost some, say to a disk that was full for a moment
            missing = tuple(error.missing)
    return connection.send_json("POST", f"{model}/pushes/{body.push}/commit", {}, Version)


def _send(connection: Connection, path: str, described: Description, missing: Sequence[str], advance: Advance) -> None:
    batches = [Batch(chunks, advance=advance) for chunks in _batches(described, missing)]

    def one(batch: Batch) -> None:
        connection.send_frames("PUT", path, batch, Received)

    with ThreadPoolExecutor(CONNECTIONS) as threads:
        for _ in threads.map(one, batches):
            pass


def _batches(described: Description, missing: Sequence[str]) -> Iterator[list[tuple[str, Place]]]:
    batch: list[tuple[str, Place]] = []
    size = 0
    for chunk in missing:
        place = described.places[chunk]
        if batch and size + place.size > BATCH_LIMIT:
            yield batch
            batch, size = [], 0
        batch.append((chunk, place))
        size += place.size
    if batch:
        yield batch
