"""Reading chunks decoded, whatever they lean on. Every chunk that is given out here was held against its id."""

from __future__ import annotations

from dataclasses import dataclass
from threading import BoundedSemaphore

from blake3 import blake3

from lmvp.errors import IntegrityError, InvalidRequest
from lmvp.storage import codecs, frames
from lmvp.storage.codecs import Buffer, Link
from lmvp.storage.frames import HEADER_SIZE, Frame
from lmvp_server.stores.base import ChunkStore

codec_turn = BoundedSemaphore(2)
"""Chunks that are encoded or decoded for requests at once: each takes several times its size while that lasts."""

_LOOKS = 3
"""How often a chunk is read anew whose base was taken away in between: it was encoded otherwise first."""


@dataclass(frozen=True, slots=True)
class StoredFrame:
    """A frame as it is kept: its header, its payload, and both in one."""

    head: Frame
    payload: memoryview
    whole: bytes

    @property
    def link(self) -> Link | None:
        """What it leans on."""
        return codecs.link(self.head, self.payload[: codecs.LINK_SIZE])


class Decoder:
    """Reads the chunks of a store.

    Parameters
    ----------
    chunks : ChunkStore
        Where the frames are.
    """

    def __init__(self, chunks: ChunkStore) -> None:
        self._chunks = chunks

    def frame(self, space: str, chunk: str) -> StoredFrame:
        """Return a frame as it is kept; its header is checked, its payload is not.

        Raises
        ------
        IntegrityError
            If it is gone, or its header is damaged.
        """
        try:
            data = self._chunks.get(space, chunk)
        except KeyError:
            raise gone(chunk) from None
        return parse_frame(chunk, data)

    def head(self, space: str, chunk: str) -> Frame:
        """Return the header of a frame without reading the rest.

        Raises
        ------
        IntegrityError
            If it is gone, or damaged.
        """
        try:
            head = frames.read_header(self._chunks.start(space, chunk, HEADER_SIZE))
        except KeyError:
            raise gone(chunk) from None
        except InvalidRequest:
            raise damaged(chunk) from None
        if head.chunk != chunk:
            raise damaged(chunk)
        return head

    def data(self, space: str, chunk: str) -> Buffer:
        """Return the bytes of a chunk.

        Raises
        ------
        IntegrityError
            If the chunk, or one that it leans on, is gone or damaged.
        """
        return self._data(space, chunk, 0)

    def _data(self, space: str, chunk: str, above: int) -> Buffer:
        """Return the bytes of a chunk that so many others lean on here; each looks anew at what it leans on itself."""
        for _ in range(_LOOKS - 1):
            stored = self.frame(space, chunk)
            try:
                return self._decoded(space, stored, above)
            except IntegrityError:
                found = self.frame(space, chunk)
                if (found.head, found.link) == (stored.head, stored.link):
                    raise
        return self._decoded(space, self.frame(space, chunk), above)

    def _decoded(self, space: str, stored: StoredFrame, above: int) -> Buffer:
        if above > codecs.DEPTH_LIMIT:
            raise IntegrityError(f"the chunk {stored.head.chunk[:12]} leans on more than {codecs.DEPTH_LIMIT} others")
        data = codecs.decode(stored.head, stored.payload, lambda base: self._data(space, base, above + 1))
        check_id(stored.head.chunk, data)
        return data


def parse_frame(chunk: str, data: bytes) -> StoredFrame:
    """Take apart what is kept under the id of a chunk.

    Raises
    ------
    IntegrityError
        If it is not one whole frame of that chunk.
    """
    try:
        head = frames.read_header(data[:HEADER_SIZE])
    except InvalidRequest:
        raise damaged(chunk) from None
    if head.chunk != chunk or len(data) != HEADER_SIZE + head.payload:
        raise damaged(chunk)
    return StoredFrame(head, memoryview(data)[HEADER_SIZE:], data)


def check_id(chunk: str, data: Buffer) -> None:
    """Hold bytes against the id of their chunk.

    Raises
    ------
    IntegrityError
        If they are other ones.
    """
    if blake3(data).hexdigest() != chunk:
        raise damaged(chunk)


def gone(chunk: str) -> IntegrityError:
    """Return the error that says that a chunk is not there."""
    return IntegrityError(f"the chunk {chunk[:12]} is gone from the disk", hint="`lmvp fsck` tells what else is")


def damaged(chunk: str) -> IntegrityError:
    """Return the error that says so."""
    return IntegrityError(
        f"the frame of the chunk {chunk[:12]} is damaged on the disk", hint="`lmvp fsck` tells what else is"
    )
