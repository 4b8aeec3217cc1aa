"""Proving the frames of a backup: each decodes, with what lies beside it, to the bytes that its id stands for.

A frame that leans on another one must be deeper than that: so what leans on what has an end, also where the frames
were copied at different times.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass

from blake3 import blake3

from lmvp.archive import disk
from lmvp.archive.backupfolder import CHUNKS, BackupFolder
from lmvp.errors import DamagedFile, IntegrityError, InvalidRequest, NotFound
from lmvp.storage import codecs, frames
from lmvp.storage.codecs import DEPTH_LIMIT, Buffer, Link
from lmvp.storage.frames import HEADER_SIZE, Frame

_REMEMBERED = 2
"""Decoded chunks that are kept at hand, since the next ones lean on them."""


@dataclass(frozen=True, slots=True)
class Known:
    """A chunk that was proved: how deep its frame stands, and its bytes."""

    depth: int
    data: Buffer


def parse(chunk: str, data: Buffer) -> tuple[Frame, memoryview, Link | None]:
    """Take a frame apart.

    Raises
    ------
    IntegrityError
        If it is not one whole frame of that chunk.
    """
    try:
        head = frames.read_header(data[:HEADER_SIZE])
    except InvalidRequest as error:
        raise IntegrityError(error.message) from None
    if head.chunk != chunk or len(data) != HEADER_SIZE + head.payload:
        raise IntegrityError("it is not one whole frame of that chunk")
    payload = memoryview(data)[HEADER_SIZE:]
    return head, payload, codecs.link(head, payload[: codecs.LINK_SIZE])


class Proofs:
    """The frames of one space of a backup.

    Attributes
    ----------
    proved : set of str
        The chunks whose frames were found right, those that others lean on included.
    """

    def __init__(self, folder: BackupFolder, space: str) -> None:
        self._folder, self._space = folder, space
        self._known: OrderedDict[str, Known] = OrderedDict()
        self.proved: set[str] = set()

    def prove(self, chunk: str) -> bytes:
        """Prove the frame of a chunk down to what it leans on; return it as it lies there.

        Raises
        ------
        NotFound, DamagedFile
            Naming the file that is not there or not right.
        """
        data = self._folder.frame(self._space, chunk)
        if chunk not in self.proved:
            self._learn(chunk, data, DEPTH_LIMIT + 1)
        return data

    def look(self, chunk: str) -> None:
        """Look whether a frame and all that it leans on are there and whole, without decoding them; raises as above."""
        link, below = self._header(chunk), DEPTH_LIMIT + 1
        chain = [chunk]
        while link is not None:
            if link.depth >= below:
                raise self._damaged(chain[-1], "it leans on one that is deeper")
            below = link.depth
            chain.append(link.base)
            link = self._header(link.base)
        self.proved.update(chain)

    def check(self, chunk: str, data: Buffer) -> Known:
        """Prove a frame that is not in the folder, with what is.

        Raises
        ------
        IntegrityError, DamagedFile, NotFound
            If it cannot be kept as it is.
        """
        return self._decode(chunk, data, DEPTH_LIMIT + 1)

    def remember(self, chunk: str, known: Known) -> None:
        """Note that a chunk was proved, and lies in the folder."""
        self.proved.add(chunk)
        self._known[chunk] = known
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    def _header(self, chunk: str) -> Link | None:
        path = self._folder.piece(CHUNKS, self._space, chunk)
        try:
            with disk.open_read(path, buffering=0) as file:
                start, size = file.read(HEADER_SIZE + codecs.LINK_SIZE), os.fstat(file.fileno()).st_size
        except DamagedFile:
            raise
        except OSError:
            raise NotFound(f"there is no file {path}") from None
        try:
            head = frames.read_header(start[:HEADER_SIZE])
            link = codecs.link(head, start[HEADER_SIZE:])
        except (InvalidRequest, IntegrityError) as error:
            raise self._damaged(chunk, error.message) from None
        if head.chunk != chunk or size != HEADER_SIZE + head.payload:
            raise self._damaged(chunk, "it is not whole")
        return link

    def _get(self, chunk: str, below: int) -> Known:
        known = self._known.get(chunk)
        if known is not None and known.depth < below:
            self._known.move_to_end(chunk)
            return known
        return self._learn(chunk, self._folder.frame(self._space, chunk), below)

    def _learn(self, chunk: str, data: bytes, below: int) -> Known:
        try:
            known = self._decode(chunk, data, below)
        except DamagedFile:
            raise
        except IntegrityError as error:
            raise self._damaged(chunk, error.message) from None
        self.remember(chunk, known)
        return known

    def _decode(self, chunk: str, data: Buffer, below: int) -> Known:
        """Decode a frame that must stand less deep than `below`, so that this comes to an end."""
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
