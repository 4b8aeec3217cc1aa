"""Read chunks and manifests, verified: each chunk is compared with its id and each manifest with its digest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from threading import BoundedSemaphore

from blake3 import blake3

from lmvp.core import chunk_frames, codecs
from lmvp.core import manifest as manifests
from lmvp.core.chunk_frames import HEADER_SIZE, LINK_SIZE, Frame
from lmvp.core.codecs import Buffer, Link
from lmvp.core.manifest import File, Manifest
from lmvp.errors import IntegrityError, InvalidRequest
from lmvp_server.process import cancellation
from lmvp_server.stores.base import ChunkStore

codec_turn = BoundedSemaphore(2)
"""Limits how many chunks are encoded or decoded for requests at once. Each takes several times its size in memory."""

_LOOKS = 3
"""Attempts to read a delta whose base is deleted at the same time. A base is deleted only after the deltas that depend
on it are re-encoded, so the next attempt reads the new frame."""


@dataclass(frozen=True, slots=True)
class StoredFrame:
    """A frame as it is stored: its header, its payload, and the bytes of both."""

    head: Frame
    payload: memoryview
    whole: bytes

    @property
    def link(self) -> Link | None:
        """The delta base and the depth; None if the frame is not a delta."""
        return codecs.link(self.head, self.payload[:LINK_SIZE])


class ChunkReader:
    """Reads, decodes and verifies the chunks of a store.

    Parameters
    ----------
    chunks : ChunkStore
        The store of the frames.
    """

    def __init__(self, chunks: ChunkStore) -> None:
        self._chunks = chunks

    def frame(self, space: str, chunk: str) -> StoredFrame:
        """Return a frame as it is stored. Its header is checked; its payload is not.

        Raises
        ------
        IntegrityError
            If the frame is missing, or its header is damaged.
        """
        try:
            data = self._chunks.get(space, chunk)
        except KeyError:
            raise missing_chunk(chunk) from None
        return parse_frame(chunk, data)

    def head(self, space: str, chunk: str) -> Frame:
        """Return the header of a frame without reading the payload.

        Raises
        ------
        IntegrityError
            If the frame is missing, or its header is damaged.
        """
        try:
            head = chunk_frames.read_header(self._chunks.start(space, chunk, HEADER_SIZE))
        except KeyError:
            raise missing_chunk(chunk) from None
        except InvalidRequest:
            raise damaged(chunk) from None
        if head.chunk != chunk:
            raise damaged(chunk)
        return head

    def data(self, space: str, chunk: str) -> Buffer:
        """Return the bytes of a chunk, verified.

        Raises
        ------
        IntegrityError
            If the chunk, or one that it depends on, is missing or damaged.
        """
        return self._data(space, chunk, 0)

    def verify(self, space: str, stored: StoredFrame) -> None:
        """Decode a frame, to verify it before it is sent as it is stored.

        Raises
        ------
        IntegrityError
            If it does not decode to the bytes of its chunk.
        """
        self._decoded(space, stored, 0)

    def length(self, space: str, chunk: str, stated: int) -> int:
        """Return the decoded size of a chunk.

        The header of the frame is trusted if it agrees with the manifest. If not, the chunk is decoded, which
        distinguishes a wrong size in the manifest from a damaged header.

        Parameters
        ----------
        stated : int
            The size in the manifest, in bytes.

        Raises
        ------
        IntegrityError
            If the chunk is missing, or if the sizes differ and the chunk is damaged.
        """
        found = self.head(space, chunk).size
        return found if found == stated else len(self.data(space, chunk))

    def check_sizes(self, space: str, files: Iterable[File]) -> None:
        """Compare the sizes in a stored manifest with the stored chunks. Missing and damaged chunks are skipped.

        Raises
        ------
        IntegrityError
            If a size is wrong; names the first such file and chunk. Pushes with wrong sizes are refused today, but
            older servers accepted them.
        """
        seen: set[str] = set()
        for file in files:
            for chunk in file.chunks:
                if chunk.id in seen:
                    continue
                seen.add(chunk.id)
                try:
                    found = self.length(space, chunk.id, chunk.size)
                except IntegrityError:  # reading the chunk reports this
                    continue
                if found != chunk.size:
                    raise false_size(file.path, chunk.id, chunk.size, found)

    def _data(self, space: str, chunk: str, above: int) -> Buffer:
        """Return the bytes of a chunk; `above` counts the deltas of this chain that depend on it.

        If decoding fails, the frame is read again: it can have been re-encoded from another base in between. Without
        such a change, the error is raised.
        """
        cancellation.check()
        for _ in range(_LOOKS - 1):
            stored = self.frame(space, chunk)
            try:
                return self._decoded(space, stored, above)
            except IntegrityError:
                found = self.frame(space, chunk)
                if (found.head, found.link) == (stored.head, stored.link):  # not re-encoded, so it is damaged
                    raise
        return self._decoded(space, self.frame(space, chunk), above)

    def _decoded(self, space: str, stored: StoredFrame, above: int) -> Buffer:
        # Damaged frames can form a cycle, which would recurse without end.
        if above > codecs.DEPTH_LIMIT:
            raise IntegrityError(f"the chunk {stored.head.chunk[:12]} depends on more than {codecs.DEPTH_LIMIT} others")
        data = codecs.decode(stored.head, stored.payload, lambda base: self._data(space, base, above + 1))
        if len(data) != stored.head.size:  # the digest covers the bytes, but not the size that the header states
            raise damaged(stored.head.chunk)
        check_id(stored.head.chunk, data)
        return data


def parse_frame(chunk: str, data: bytes) -> StoredFrame:
    """Parse the stored bytes of a chunk.

    Raises
    ------
    IntegrityError
        If they are not exactly one whole frame of this chunk.
    """
    try:
        head = chunk_frames.read_header(data[:HEADER_SIZE])
    except InvalidRequest:
        raise damaged(chunk) from None
    if head.chunk != chunk or len(data) != HEADER_SIZE + head.payload:
        raise damaged(chunk)
    return StoredFrame(head, memoryview(data)[HEADER_SIZE:], data)


def check_id(chunk: str, data: Buffer) -> None:
    """Compare the digest of bytes with the id of their chunk.

    Raises
    ------
    IntegrityError
        If they differ.
    """
    if blake3(data).hexdigest() != chunk:
        raise damaged(chunk)


def manifest_bytes(chunks: ChunkStore, space: str, digest: str) -> bytes:
    """Return the bytes of a version's manifest, verified.

    Raises
    ------
    IntegrityError
        If the manifest is missing, or its bytes do not match its digest.
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
        If the manifest is missing or damaged.
    """
    return manifests.decode(manifest_bytes(chunks, space, digest))


def check_manifest_digest(digest: str, data: bytes) -> None:
    """Compare a manifest with its digest. This is done at each read: hashing a usual manifest takes microseconds.

    Raises
    ------
    IntegrityError
        If they differ.
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


def missing_chunk(chunk: str) -> IntegrityError:
    """Return the error for a missing chunk."""
    return IntegrityError(f"the chunk {chunk[:12]} is gone from the disk", hint="`lmvp fsck` tells what else is")


def damaged(chunk: str) -> IntegrityError:
    """Return the error for a damaged frame."""
    return IntegrityError(
        f"the frame of the chunk {chunk[:12]} is damaged on the disk", hint="`lmvp fsck` tells what else is"
    )
