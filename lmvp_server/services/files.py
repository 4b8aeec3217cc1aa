"""Reads the content of versions: frames of chunks for clients, byte ranges of files for browsers and other tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lmvp.core import chunk_frames, codecs
from lmvp.core.chunk_alignment import Slots
from lmvp.core.chunk_frames import DELTA, RAW, Frame
from lmvp.core.codecs import Buffer, Encoded, Link
from lmvp.core.manifest import Chunk, File
from lmvp.core.references import suggest
from lmvp.core.schemas import WantedChunks
from lmvp.errors import IntegrityError, InvalidRequest, NotFound
from lmvp_server.services.access import Caller
from lmvp_server.services.chunk_reader import (
    ChunkReader,
    StoredFrame,
    check_id,
    codec_turn,
)
from lmvp_server.services.versions import Versions
from lmvp_server.stores.base import ChunkStore


@dataclass(frozen=True, slots=True)
class Part:
    """A range of a decoded chunk: `size` bytes from `offset`; `length` is the size of the whole chunk."""

    chunk: str
    offset: int
    size: int
    length: int


@dataclass(frozen=True, slots=True)
class Order:
    """A request for chunks of a version, with the encodings that the client accepts.

    Attributes
    ----------
    space : str
        The project of the chunks.
    sizes : mapping of str to int
        The size of each chunk of the version in bytes, from the manifest.
    accept : frozenset of int
        The codecs that the client reads besides raw.
    have : frozenset of str
        The chunks of the base version that the client has. Deltas can depend on these.
    slots, base : Slots or None
        The slots of the chunks in the version and in the base version; None if the client accepts only raw frames.
    """

    space: str
    sizes: Mapping[str, int]
    accept: frozenset[int] = frozenset()
    have: frozenset[str] = frozenset()
    slots: Slots | None = None
    base: Slots | None = None

    def counterpart(self, chunk: str) -> str | None:
        """Return the chunk that a delta for the client can depend on; None without one."""
        if self.slots is None or self.base is None or DELTA not in self.accept:
            return None
        found = self.slots.counterpart(chunk, self.base)
        return found if found in self.have and found != chunk else None


class Files:
    """Use cases of the bytes of a version."""

    def __init__(self, chunks: ChunkStore, versions: Versions, chunk_reader: ChunkReader) -> None:
        self._chunks, self._versions, self._chunk_reader = chunks, versions, chunk_reader

    def wanted(self, caller: Caller, project: str, model: str, revision: str, body: WantedChunks) -> Order:
        """Check that a version has the requested chunks, and which chunks of the client deltas can depend on.

        Raises
        ------
        InvalidRequest
            If a chunk is not part of this version.
        """
        space, digest = self._versions.place_of(caller, project, model, revision)
        slots = self._versions.slots(space, digest)
        foreign = next((chunk for chunk in body.want if chunk not in slots.chunks), None)
        if foreign is not None:
            raise InvalidRequest(f"the chunk {foreign[:12]!r} is not in the manifest of {project}/{model}@{revision}")
        accept = frozenset(codec for codec, name in chunk_frames.CODECS.items() if name in body.accept)
        if not accept:
            return Order(space, slots.chunks)
        base = self._base(space, body)
        # The client can name any chunk. Deltas depend only on chunks of the base version.
        have = frozenset(chunk for chunk in body.have if base is not None and chunk in base.chunks)
        return Order(space, slots.chunks, accept, have, slots, base)

    def _base(self, space: str, body: WantedChunks) -> Slots | None:
        """Return the slots of the version that the client has; None if it is not in this project or is damaged.

        This is not an error. The client can have a version of another project or server.
        """
        if body.base is None or not self._versions.in_project(space, body.base):
            return None
        try:
            return self._versions.slots(space, body.base)
        except IntegrityError:
            return None

    def frame(self, order: Order, chunk: str) -> bytes:
        """Return one chunk as a frame that the client can read.

        The stored frame is sent unchanged if it is a delta from a chunk that the client has. Otherwise the chunk is
        encoded as a delta from such a chunk, if one is in the same slot of the base version and a delta is smaller.
        Otherwise the stored frame is sent if the client reads its codec; if not, the chunk is encoded standalone.
        Every frame is decoded and verified before it is sent, because other clients than LMVP's might not verify it.

        Raises
        ------
        IntegrityError
            If the chunk, or one that it depends on, is missing or damaged, or has another size than in the manifest.
        """
        stored = self._chunk_reader.frame(order.space, chunk)
        if stored.head.size != order.sizes[chunk]:
            found = self._chunk_reader.length(order.space, chunk, order.sizes[chunk])
            raise _false_size(chunk, order.sizes[chunk], found)
        if not order.accept and stored.head.codec == RAW:
            check_id(chunk, stored.payload)
            return stored.whole
        if not order.accept:
            return _raw(chunk, self._chunk_reader.data(order.space, chunk))
        link = stored.link
        with codec_turn:  # limits the memory; raw frames above do not need it
            if link is not None and link.base in order.have and DELTA in order.accept:
                return self._as_stored(order, stored)
            return self._encoded(order, stored)

    def _as_stored(self, order: Order, stored: StoredFrame) -> bytes:
        self._chunk_reader.verify(order.space, stored)
        return stored.whole

    def _encoded(self, order: Order, stored: StoredFrame) -> bytes:
        chunk = stored.head.chunk
        base = order.counterpart(chunk)
        if base is None and stored.head.codec in order.accept - {DELTA}:
            return self._as_stored(order, stored)
        data = self._chunk_reader.data(order.space, chunk)
        dtype = order.slots.dtype(chunk) if order.slots else None
        encoded = self._delta(order, data, dtype, base) if base and dtype else None
        if encoded is None and stored.head.codec in order.accept - {DELTA}:
            return self._as_stored(order, stored)
        encoded = encoded or codecs.encode(data, dtype)
        if encoded.codec not in order.accept:
            return _raw(chunk, data)
        return chunk_frames.header(Frame(chunk, len(data), len(encoded.payload), encoded.codec)) + bytes(
            encoded.payload
        )

    def _delta(self, order: Order, data: Buffer, dtype: str, base: str) -> Encoded | None:
        try:
            old = self._chunk_reader.data(order.space, base)
        except IntegrityError:  # the chunk of the client can be missing or damaged on the server: send without it
            return None
        return codecs.encode_delta(data, dtype, old, Link(base, 1))  # depth 1: the client has its base decoded

    def file(self, caller: Caller, project: str, model: str, revision: str, path: str) -> tuple[str, File]:
        """Return the project's id and a file of a version. The cost grows with the number of chunks of the file.

        Raises
        ------
        NotFound
            If the version has no file of this path. The hint is the nearest path.
        IntegrityError
            If the manifest is damaged, or states a wrong size for a chunk of the file. The length and the ETag of the
            file are sent before its bytes are read, and would be wrong. This includes requests of clients that have
            the file already, because an older server can have sent wrong bytes.
        """
        space, manifest = self._versions.content(caller, project, model, revision)
        found = manifest.file(path)
        if found is None:
            near = suggest(path, [file.path for file in manifest.files])
            raise NotFound(f"no file {path!r} in {project}/{model}@{revision}", hint=near and f"did you mean {near!r}?")
        self._chunk_reader.check_sizes(space, [found])
        return space, found

    def read(self, space: str, part: Part) -> bytes:
        """Return the bytes of a part.

        Raises
        ------
        IntegrityError
            If the chunk is missing or damaged, or has another size than the manifest states.
        """
        data = self._chunk_reader.data(space, part.chunk)
        if len(data) != part.length:
            raise _false_size(part.chunk, part.length, len(data))
        return bytes(memoryview(data)[part.offset : part.offset + part.size])


def _false_size(chunk: str, stated: int, found: int) -> IntegrityError:
    return IntegrityError(
        f"the manifest states {stated:,} bytes for the chunk {chunk[:12]}, which has {found:,}",
        hint="`lmvp fsck` names every such version",
    )


def _raw(chunk: str, data: Buffer) -> bytes:
    return chunk_frames.header(Frame(chunk, len(data), len(data))) + data


def parts(chunks: Sequence[Chunk], start: int, end: int) -> list[Part]:
    """Return the parts of a file's chunks that make up its bytes `start` to `end`, without `end`.

    Examples
    --------
    >>> parts([Chunk("a", 10), Chunk("b", 10)], 5, 12)
    [Part(chunk='a', offset=5, size=5, length=10), Part(chunk='b', offset=0, size=2, length=10)]
    """
    found, position = [], 0
    for chunk in chunks:
        first, last = max(start, position), min(end, position + chunk.size)
        if first < last:
            found.append(Part(chunk.id, first - position, last - first, chunk.size))
        position += chunk.size
    return found
