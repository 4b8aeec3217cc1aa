"""The dependencies between the chunks of a project: each delta and its delta base.

They are read from the first bytes of the frames and cached in memory. Only maintenance and forks change which chunks
are deltas, and both update the cache.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from lmvp.core import chunk_frames, codecs
from lmvp.core.chunk_frames import HEADER_SIZE, LINK_SIZE
from lmvp.core.codecs import Link
from lmvp.errors import InvalidRequest
from lmvp_server.stores.base import ChunkStore


class DeltaGraph:
    """The deltas of one project.

    Parameters
    ----------
    deltas : dict of str to Link
        The delta base and the depth of each delta, by the chunk of the delta.
    """

    def __init__(self, deltas: dict[str, Link]) -> None:
        self._deltas = deltas
        self._dependents: dict[str, set[str]] = defaultdict(set)  # the reverse index: the deltas of each base
        for chunk, link in deltas.items():
            self._dependents[link.base].add(chunk)

    @classmethod
    def read(cls, chunks: ChunkStore, space: str) -> DeltaGraph:
        """Read the links of a project from the first bytes of all its frames."""
        found = ((chunk, link_of(chunks, space, chunk)) for chunk in chunks.chunks(space))
        return cls({chunk: link for chunk, link in found if link is not None})

    def __contains__(self, chunk: str) -> bool:
        return chunk in self._deltas

    def depth(self, chunk: str) -> int:
        """Return how many deltas must be decoded to read a chunk; 0 if it is standalone."""
        link = self._deltas.get(chunk)
        return link.depth if link else 0

    def base(self, chunk: str) -> str | None:
        """Return the delta base of a chunk; None if it is standalone."""
        link = self._deltas.get(chunk)
        return link.base if link else None

    def carries(self, chunk: str) -> bool:
        """Return whether deltas depend on a chunk."""
        return bool(self._dependents.get(chunk))

    def dependents(self, chunk: str) -> list[str]:
        """Return the deltas that depend directly on a chunk, in a fixed order."""
        return sorted(self._dependents.get(chunk, ()))

    def with_bases(self, chunks: Iterable[str]) -> set[str]:
        """Return these chunks and all chunks that they depend on, directly or indirectly."""
        found: set[str] = set()
        for chunk in chunks:
            needed: str | None = chunk
            # Stops at a chunk that is in the set already: its bases are there too, and damaged links can form a cycle.
            while needed is not None and needed not in found:
                found.add(needed)
                needed = self.base(needed)
        return found

    def note(self, chunk: str, link: Link | None) -> None:
        """Update the link of a chunk that was encoded again; None if it is standalone now."""
        old = self._deltas.pop(chunk, None)
        if old is not None:
            self._dependents[old.base].discard(chunk)
        if link is not None:
            self._deltas[chunk] = link
            self._dependents[link.base].add(chunk)


def link_of(chunks: ChunkStore, space: str, chunk: str) -> Link | None:
    """Return the link of a stored chunk; None if it is standalone, missing, or its header is damaged."""
    try:
        start = chunks.start(space, chunk, HEADER_SIZE + LINK_SIZE)
        return codecs.link(chunk_frames.read_header(start[:HEADER_SIZE]), start[HEADER_SIZE:])
    except (KeyError, InvalidRequest, ValueError):
        return None
