"""Verification of the frames of a backup.

Each frame must decode, together with its delta bases in the folder, to bytes with the digest in its id. Depths must
decrease along a chain of deltas. So every chain is finite, even if its frames were copied at different times. See
docs/format.md, "Files of records".
"""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass

from blake3 import blake3

from lmvp.archive.backup_folder import CHUNKS, BackupFolder
from lmvp.core import chunk_frames, codecs, files
from lmvp.core.chunk_frames import HEADER_SIZE, LINK_SIZE, Frame
from lmvp.core.codecs import DEPTH_LIMIT, Buffer, Link
from lmvp.errors import DamagedFile, IntegrityError, InvalidRequest, NotFound

_REMEMBERED = 2
"""Number of decoded chunks in memory: the frames verified next often depend on them. A chunk has up to 4 MiB."""


@dataclass(frozen=True, slots=True)
class Known:
    """A verified chunk: the depth of its frame, and its decoded bytes."""

    depth: int
    data: Buffer


def parse(chunk: str, data: Buffer) -> tuple[Frame, memoryview, Link | None]:
    """Parse a frame into header, payload and link to its delta base.

    Raises
    ------
    IntegrityError
        If the data is not exactly one frame of that chunk.
    """
    try:
        head = chunk_frames.read_header(data[:HEADER_SIZE])
    except InvalidRequest as error:
        raise IntegrityError(error.message) from None
    if head.chunk != chunk or len(data) != HEADER_SIZE + head.payload:
        raise IntegrityError("it is not one whole frame of that chunk")
    payload = memoryview(data)[HEADER_SIZE:]
    return head, payload, codecs.link(head, payload[:LINK_SIZE])


class FrameVerifier:
    """Verifies the frames of one space of a backup.

    Attributes
    ----------
    proved : set of str
        Ids of the verified chunks, including delta bases.
    """

    def __init__(self, folder: BackupFolder, space: str) -> None:
        self._folder, self._space = folder, space
        self._known: OrderedDict[str, Known] = OrderedDict()
        self.verified: set[str] = set()

    def verify(self, chunk: str) -> bytes:
        """Verify the frame of a chunk with its delta bases; return the encoded frame.

        Raises
        ------
        NotFound, DamagedFile
            If a frame is missing or damaged; the message names the file.
        """
        data = self._folder.frame(self._space, chunk)
        if chunk not in self.verified:
            # No frame is deeper than DEPTH_LIMIT, so this bound allows any first frame.
            self._learn(chunk, data, DEPTH_LIMIT + 1)
        return data

    def look(self, chunk: str) -> None:
        """Check that a frame and its delta bases exist with the right lengths, without decoding them.

        Raises
        ------
        NotFound, DamagedFile
            If a frame is missing or damaged; the message names the file.
        """
        link, below = self._header(chunk), DEPTH_LIMIT + 1
        chain = [chunk]
        while link is not None:
            # Without this check, two frames that depend on each other would be an endless loop.
            if link.depth >= below:
                raise self._damaged(chain[-1], "it depends on one that is deeper")
            below = link.depth
            chain.append(link.base)
            link = self._header(link.base)
        self.verified.update(chain)

    def check(self, chunk: str, data: Buffer) -> Known:
        """Verify a received frame against the delta bases in the folder.

        Raises
        ------
        IntegrityError, DamagedFile, NotFound
            If the frame cannot be verified, so that it must not be stored.
        """
        return self._decode(chunk, data, DEPTH_LIMIT + 1)

    def remember(self, chunk: str, frame: Known) -> None:
        """Mark a chunk in the folder as verified, and cache its bytes."""
        self.verified.add(chunk)
        self._known[chunk] = frame
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    def _header(self, chunk: str) -> Link | None:
        path = self._folder.piece(CHUNKS, self._space, chunk)
        try:
            # Unbuffered: a buffered file would read 8 KiB for a header of less than 100 bytes.
            with files.open_copy(path, buffering=0) as file:
                start, size = file.read(HEADER_SIZE + LINK_SIZE), os.fstat(file.fileno()).st_size
        except DamagedFile:
            raise
        except OSError:
            raise NotFound(f"there is no file {path}") from None
        try:
            head = chunk_frames.read_header(start[:HEADER_SIZE])
            link = codecs.link(head, start[HEADER_SIZE:])
        except (InvalidRequest, IntegrityError) as error:
            raise self._damaged(chunk, error.message) from None
        if head.chunk != chunk or size != HEADER_SIZE + head.payload:
            raise self._damaged(chunk, "it is not whole")
        return link

    def _get(self, chunk: str, below: int) -> Known:
        frame = self._known.get(chunk)
        # A cached base whose depth does not fit is decoded again, so that the error names it.
        if frame is not None and frame.depth < below:
            self._known.move_to_end(chunk)
            return frame
        return self._learn(chunk, self._folder.frame(self._space, chunk), below)

    def _learn(self, chunk: str, data: bytes, below: int) -> Known:
        try:
            frame = self._decode(chunk, data, below)
        except DamagedFile:
            raise
        except IntegrityError as error:
            raise self._damaged(chunk, error.message) from None
        self.remember(chunk, frame)
        return frame

    def _decode(self, chunk: str, data: Buffer, below: int) -> Known:
        """Decode a frame whose depth must be less than `below`; this bounds the recursion."""
        head, payload, link = parse(chunk, data)
        depth = link.depth if link else 0
        if depth >= below:
            raise IntegrityError(f"it stands at depth {depth} below one at {below}")
        content = codecs.decode(head, payload, lambda base: self._get(base, depth).data)
        if blake3(content).hexdigest() != chunk:
            raise IntegrityError("its bytes do not match its id")
        return Known(depth, content)

    def _damaged(self, chunk: str, why: str) -> DamagedFile:
        return DamagedFile(f"{self._folder.piece(CHUNKS, self._space, chunk)} is damaged: {why}")
