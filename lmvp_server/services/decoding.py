"""Read chunks and manifests, verified: each chunk is compared with its id and each manifest with its digest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from threading import BoundedSemaphore

from blake3 import blake3

from lmvp.errors import IntegrityError, InvalidRequest
from lmvp.storage import codecs, frames
from lmvp.storage import manifest as manifests
from lmvp.storage.codecs import Buffer, Link
from lmvp.storage.frames import HEADER_SIZE, Frame
from lmvp.storage.manifest import File, Manifest
from lmvp_server import cancellation
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

    def verify(self, space: str, stored: StoredFrame) -> None:
        """Decode a frame that is about to be sent as it is stored.

        Raises
        ------
        IntegrityError
            If it does not decode to the bytes of its chunk.
        """
        self._decoded(space, stored, 0)

    def length(self, space: str, chunk: str, stated: int) -> int:
        """Return the decoded size of a chunk.

        The frame's header is trusted where it agrees with a manifest. Where it does not, the chunk is decoded to tell
        a manifest that states a wrong size from a header that is damaged.

        Parameters
        ----------
        stated : int
            The size in the manifest.

        Raises
        ------
        IntegrityError
            If the chunk is gone, or does not agree and is damaged.
        """
        found = self.head(space, chunk).size
        return found if found == stated else len(self.data(space, chunk))

    def check_sizes(self, space: str, files: Iterable[File]) -> None:
        """Compare the sizes that a stored manifest states with the chunks that are there; missing chunks are skipped.

        Raises
        ------
        IntegrityError
            Naming the first file and chunk that do not agree. Pushes are refused for this; folders written before
            they were may hold such versions.
        """
        seen: set[str] = set()
        for file in files:
            for chunk in file.chunks:
                if chunk.id in seen:
                    continue
                seen.add(chunk.id)
                try:
                    found = self.length(space, chunk.id, chunk.size)
                except IntegrityError:  # gone or damaged, which whoever reads the chunk is told
                    continue
                if found != chunk.size:
                    raise false_size(file.path, chunk.id, chunk.size, found)

    def _data(self, space: str, chunk: str, above: int) -> Buffer:
        """Return the bytes of a chunk that so many others lean on here; each looks anew at what it leans on itself."""
        cancellation.check()
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
        if len(data) != stored.head.size:
            raise damaged(stored.head.chunk)
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


def manifest_bytes(chunks: ChunkStore, space: str, digest: str) -> bytes:
    """Return the manifest of a version, verified.

    Raises
    ------
    IntegrityError
        If it is gone from the disk, or its bytes do not hash to its digest.
    """
    cancellation.check()
    try:
        data = chunks.manifest(space, digest)
    except KeyError:
        raise IntegrityError(
            f"the manifest {digest[:12]} is gone from the disk", hint="`lmvp fsck` tells which versions are hit"
        ) from None
    check_manifest_digest(digest, data)
    return data


def read_manifest(chunks: ChunkStore, space: str, digest: str) -> Manifest:
    """Return the decoded manifest of a version, verified.

    Raises
    ------
    IntegrityError
        If it is gone from the disk or damaged.
    """
    return manifests.decode(manifest_bytes(chunks, space, digest))


def check_manifest_digest(digest: str, data: bytes) -> None:
    """Compare a manifest with its digest, at every read: BLAKE3 of a usual manifest takes microseconds.

    Raises
    ------
    IntegrityError
        If they do not agree.
    """
    if blake3(data).hexdigest() != digest:
        raise IntegrityError(
            f"the manifest {digest[:12]} is damaged on the disk", hint="`lmvp fsck` tells which versions are hit"
        )


def false_size(path: str, chunk: str, stated: int, found: int) -> IntegrityError:
    """Return the error for a manifest that states a wrong size for a chunk."""
    return IntegrityError(
        f"{path!r} states {stated:,} bytes for the chunk {chunk[:12]}, which has {found:,}",
        hint="`lmvp fsck` names every such version; remove it, and push its files again",
    )


def gone(chunk: str) -> IntegrityError:
    """Return the error that says that a chunk is not there."""
    return IntegrityError(f"the chunk {chunk[:12]} is gone from the disk", hint="`lmvp fsck` tells what else is")


def damaged(chunk: str) -> IntegrityError:
    """Return the error that says so."""
    return IntegrityError(
        f"the frame of the chunk {chunk[:12]} is damaged on the disk", hint="`lmvp fsck` tells what else is"
    )
