"""Which chunks lean on which: the deltas of a project, told from the first bytes of its frames.

Only what upkeep does makes and unmakes deltas, so the answer is kept in memory; the truth stays in the frames.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from lmvp.errors import InvalidRequest
from lmvp.storage import codecs, frames
from lmvp.storage.codecs import Link
from lmvp.storage.frames import HEADER_SIZE
from lmvp_server.stores.base import ChunkStore


class Links:
    """The links of one project.

    Parameters
    ----------
    deltas : dict of str to Link
        By the chunk that leans.
    """

    def __init__(self, deltas: dict[str, Link]) -> None:
        self._deltas = deltas
        self._leaning: dict[str, set[str]] = defaultdict(set)
        for chunk, link in deltas.items():
            self._leaning[link.base].add(chunk)

    @classmethod
    def read(cls, chunks: ChunkStore, space: str) -> Links:
        """Look at every frame of a project."""
        found = ((chunk, link_of(chunks, space, chunk)) for chunk in chunks.chunks(space))
        return cls({chunk: link for chunk, link in found if link is not None})

    def __contains__(self, chunk: str) -> bool:
        return chunk in self._deltas

    def depth(self, chunk: str) -> int:
        """Return how many deltas must be undone to read a chunk; 0 if it stands by itself."""
        link = self._deltas.get(chunk)
        return link.depth if link else 0

    def base(self, chunk: str) -> str | None:
        """Return what a chunk leans on."""
        link = self._deltas.get(chunk)
        return link.base if link else None

    def carries(self, chunk: str) -> bool:
        """Tell whether others lean on a chunk."""
        return bool(self._leaning.get(chunk))

    def leaning_on(self, chunk: str) -> list[str]:
        """Return the chunks that lean on one, in a fixed order."""
        return sorted(self._leaning.get(chunk, ()))

    def with_bases(self, chunks: Iterable[str]) -> set[str]:
        """Return these chunks and all that they need to be read."""
        found: set[str] = set()
        for chunk in chunks:
            needed: str | None = chunk
            while needed is not None and needed not in found:
                found.add(needed)
                needed = self.base(needed)
        return found

    def note(self, chunk: str, link: Link | None) -> None:
        """Take in how a chunk is encoded now."""
        old = self._deltas.pop(chunk, None)
        if old is not None:
            self._leaning[old.base].discard(chunk)
        if link is not None:
            self._deltas[chunk] = link
            self._leaning[link.base].add(chunk)


def link_of(chunks: ChunkStore, space: str, chunk: str) -> Link | None:
    """Return what a frame leans on; None for one that stands by itself, is gone, or cannot be read."""
    try:
        start = chunks.start(space, chunk, HEADER_SIZE + codecs.LINK_SIZE)
        return codecs.link(frames.read_header(start[:HEADER_SIZE]), start[HEADER_SIZE:])
    except (KeyError, InvalidRequest, ValueError):
        return None
