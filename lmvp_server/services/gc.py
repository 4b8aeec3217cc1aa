"""Garbage collection (gc): deletion of chunks and manifests that no version and no open push references.

First, gc marks the data that versions and open pushes reference. Referenced chunks that depend on unreferenced ones are
encoded again with another delta base. Then, under a lock that prevents pushes from starting or committing, gc also
marks data that came into use meanwhile, and deletes the rest. So an open push keeps its chunks. After a crash, the next
gc deletes what this one left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from threading import Lock

import msgspec

from lmvp.core import codecs
from lmvp.core import manifest as manifests
from lmvp.core.chunk_alignment import Slots
from lmvp.core.chunk_frames import HEADER_SIZE
from lmvp.core.codecs import Encoded, Link
from lmvp.errors import IntegrityError, StorageFull
from lmvp_server.services.chunk_reader import ChunkReader, read_manifest
from lmvp_server.services.compaction import replace_frame
from lmvp_server.services.delta_graph import DeltaGraph
from lmvp_server.services.push_quota import LIFETIME
from lmvp_server.services.pushes import StagedPush
from lmvp_server.stores.base import ChunkStore, Document, Record, RecordStore

LEASE_LIFETIME = 300.0
"""Seconds from the last request of a backup until its lease expires."""


class Leases:
    """Leases of projects for open backups. Nothing in a leased project is deleted until the lease ends or expires.

    A deletion that a lease prevents is deferred. `due` returns the projects of these deletions after the
    lease has ended. The leases are in memory, because a backup does not survive a restart of the server.

    Parameters
    ----------
    lifetime : float, default 300
        Seconds from the last request of a backup until its lease expires.

    Examples
    --------
    >>> leases = Leases()
    >>> leases.begin("b1"), leases.add("b1", "p1"), leases.holds("p1"), leases.due()
    (None, None, True, set())
    >>> leases.end("b1"), leases.holds("p1"), leases.due()
    (None, False, {'p1'})
    """

    def __init__(self, lifetime: float = LEASE_LIFETIME) -> None:
        self.lifetime = lifetime
        self._held: dict[str, set[str]] = {}
        self._seen: dict[str, float] = {}  # monotonic times, which changes of the system clock do not affect
        self._owed: set[str] = set()  # projects with a deferred deletion
        self._lock = Lock()

    def begin(self, lease: str) -> None:
        """Start a lease without projects."""
        with self._lock:
            self._held[lease], self._seen[lease] = set(), time.monotonic()

    def add(self, lease: str, space: str) -> None:
        """Add a project to a lease. The caller must hold its `shared_lock`, so that no deletion is in progress there.

        Raises
        ------
        KeyError
            If the lease has ended or expired.
        """
        with self._lock:
            self._held[lease].add(space)
            self._seen[lease] = time.monotonic()

    def touch(self, lease: str) -> bool:
        """Extend a lease; return whether it has neither ended nor expired."""
        with self._lock:
            self._expire()
            if lease in self._held:
                self._seen[lease] = time.monotonic()
            return lease in self._held

    def end(self, lease: str) -> None:
        """End a lease."""
        with self._lock:
            self._held.pop(lease, None)
            self._seen.pop(lease, None)

    def holds(self, space: str) -> bool:
        """Return whether a project is leased. If so, defer the deletion of the caller; see `due`."""
        with self._lock:
            held = self._is_held(space)
            if held:
                self._owed.add(space)
            return held

    def due(self) -> set[str]:
        """Return the projects whose deferred deletion can run now. Each deferred deletion is returned once."""
        with self._lock:
            free = {space for space in self._owed if not self._is_held(space)}
            self._owed -= free
            return free

    def alive(self) -> list[str]:
        """Return the active leases, the one with the oldest last request first."""
        with self._lock:
            self._expire()
            return sorted(self._seen, key=self._seen.__getitem__)

    def _is_held(self, space: str) -> bool:
        self._expire()  # a client that has disappeared must not prevent deletions
        return any(space in spaces for spaces in self._held.values())

    def _expire(self) -> None:
        oldest = time.monotonic() - self.lifetime
        for lease in [lease for lease, seen in self._seen.items() if seen < oldest]:
            del self._held[lease], self._seen[lease]


@dataclass(frozen=True, slots=True)
class Swept:
    """The result of a gc: deleted chunks, and freed bytes minus the growth of chunks that were encoded again."""

    chunks: int = 0
    bytes: int = 0

    def __add__(self, other: Swept) -> Swept:
        return Swept(self.chunks + other.chunks, self.bytes + other.bytes)


@dataclass(slots=True)
class Marked:
    """Referenced data: manifests, chunks and the dtypes of the chunks.

    Attributes
    ----------
    versions : dict of str to set of str
        For each id of a version's record, its chunks that no older version has. They count as its stored size.
    manifests : set of str
        Digests of manifests.
    chunks : set of str
        Ids of chunks.
    dtypes : dict of str to str
        The dtype of the numbers in a chunk, by the id of the chunk.
    """

    versions: dict[str, set[str]]
    manifests: set[str]
    chunks: set[str]
    dtypes: dict[str, str]


class Sweeping:
    """Use case: gc of one project."""

    def __init__(self, records: RecordStore, chunks: ChunkStore, chunk_reader: ChunkReader, leases: Leases) -> None:
        self._records, self._chunks, self._chunk_reader, self._leases = records, chunks, chunk_reader, leases

    def sweep(self, space: str, graph: DeltaGraph, go_on: Callable[[], bool] = lambda: True) -> Swept:
        """Delete unreferenced data of a project. Do nothing while a backup holds a lease of the project.

        Parameters
        ----------
        space : str
            The id of the project.
        graph : DeltaGraph
            The delta dependencies of the project. They are updated.
        go_on : callable
            Called before each chunk that is encoded again. If it returns False, nothing is deleted.

        Raises
        ------
        IntegrityError
            If a manifest, or a chunk that must be encoded again, is damaged. Nothing is deleted.
        """
        if self._leases.holds(space):
            return Swept()
        marked = self._mark(space)
        needed = marked.chunks | self._pinned(space)
        dead = set(self._chunks.chunks(space)) - needed
        grown = 0
        for chunk in _dependents(graph, dead, needed):
            if not go_on():
                return Swept()
            with suppress(StorageFull):  # then its delta base stays, and deleting the others frees space
                grown += self._move(space, graph, dead, chunk, marked.dtypes.get(chunk))
        swept = self._delete(space, graph, marked, dead, grown)
        self._count(space, marked)
        return swept

    def would_free(self, space: str, graph: DeltaGraph, without: Collection[str]) -> Swept:
        """Return the result of a gc as if versions, given by the ids of their records, did not exist.

        Delete nothing.
        """
        marked = self._mark(space, without)
        needed = marked.chunks | self._pinned(space)
        dead = set(self._chunks.chunks(space)) - needed
        grown = sum(
            self._moved(space, graph, dead, chunk, marked.dtypes.get(chunk))[1]
            for chunk in _dependents(graph, dead, needed)
        )
        others = [other for other in self._chunks.projects() if other != space]
        freed = sum(self._size(space, chunk) for chunk in dead if not self._chunks.sharers(space, chunk, others))
        return Swept(len(dead), freed - grown)

    # -- marking

    def _mark(self, space: str, without: Collection[str] = ()) -> Marked:
        marked = Marked({}, set(), set(), {})
        self._mark_more(space, marked, without)
        return marked

    def _mark_more(self, space: str, marked: Marked, without: Collection[str] = ()) -> None:
        """Mark the data of versions that are not marked yet."""
        for version in self._records.find(space, "versions"):
            if version.id not in marked.versions and version.id not in without:
                self._mark_version(space, marked, version)

    def _mark_version(self, space: str, marked: Marked, version: Record) -> None:
        digest = version.data["digest"]
        marked.versions[version.id] = set()
        # Versions can share a manifest; its chunks count for the oldest one.
        if digest in marked.manifests:
            return
        try:
            slots = Slots(read_manifest(self._chunks, space, digest))
        except ValueError:
            said = f"the manifest {digest[:12]} is gone or damaged, so nothing can be told to be of no use"
            raise IntegrityError(
                said, hint="`lmvp fsck` tells which versions are hit, `lmvp rm NAME --now` removes one"
            ) from None
        marked.manifests.add(digest)
        marked.versions[version.id] = slots.chunks.keys() - marked.chunks
        marked.chunks.update(slots.chunks)
        marked.dtypes.update({chunk: dtype for chunk in slots.chunks if (dtype := slots.dtype(chunk)) is not None})

    def _pinned(self, space: str) -> set[str]:
        """Return the chunks that open pushes reference."""
        found = self._open_manifests(space)
        return {chunk.id for manifest in found for file in manifest.files for chunk in file.chunks}

    def _open_manifests(self, space: str) -> Iterator[manifests.Manifest]:
        for push in self._chunks.pushes(space):
            try:
                body, touched = self._chunks.staged(space, push)
            except KeyError:  # committed meanwhile
                continue
            if time.time() - touched <= LIFETIME:
                yield manifests.decode(bytes(msgspec.json.decode(body, type=StagedPush).manifest))

    # -- encoding chunks again whose delta base is deleted

    def _move(self, space: str, graph: DeltaGraph, dead: set[str], chunk: str, dtype: str | None) -> int:
        """Encode a chunk with another delta base, or standalone. Return the bytes that it grows."""
        encoded, grown, link = self._moved(space, graph, dead, chunk, dtype)
        replace_frame(self._chunks, self._chunk_reader, space, self._chunk_reader.head(space, chunk), encoded)
        graph.note(chunk, link)
        return grown

    def _moved(
        self, space: str, graph: DeltaGraph, dead: set[str], chunk: str, dtype: str | None
    ) -> tuple[Encoded, int, Link | None]:
        """Return the new encoding of a chunk, the bytes that it grows, and its new dependency."""
        data, base = self._chunk_reader.data(space, chunk), _first_alive(graph, dead, chunk)
        delta, link = None, None
        if base is not None and dtype is not None:
            link = Link(base, graph.depth(base) + 1)
            # None if a sample shows that a delta saves too little; the chunk is then standalone.
            delta = codecs.encode_delta(data, dtype, self._chunk_reader.data(space, base), link)
        encoded = delta or codecs.encode(data, dtype)
        grown = HEADER_SIZE + len(encoded.payload) - self._size(space, chunk)
        return encoded, grown, link if delta else None

    def _size(self, space: str, chunk: str) -> int:
        try:
            return self._chunks.size(space, chunk)
        except KeyError:
            return 0

    # -- deleting

    def _delete(self, space: str, graph: DeltaGraph, marked: Marked, dead: set[str], grown: int) -> Swept:
        with self._chunks.exclusive_lock(space):
            if self._leases.holds(space):  # a backup started meanwhile
                return Swept(0, -grown)
            self._mark_more(space, marked)
            # Bases of referenced chunks stay too, also those of chunks that could not be encoded again.
            going = dead - graph.with_bases(marked.chunks | self._pinned(space))
            # Deltas before their bases, so that all remaining chunks can be decoded if the process is killed.
            freed = self._chunks.remove(space, sorted(going, key=graph.depth, reverse=True))
            unnamed = [one for one in self._chunks.manifests(space) if one not in marked.manifests]
            freed += self._chunks.remove_manifests(space, unnamed)
            self._end_old_pushes(space)
        for chunk in going:
            graph.note(chunk, None)
        return Swept(len(going), freed - grown)

    def _count(self, space: str, marked: Marked) -> None:
        """Correct the stored size of each version: chunks can grow, or belong to another version after a deletion."""
        for id_, chunks in marked.versions.items():
            stored = sum(self._size(space, chunk) for chunk in chunks)
            try:
                self._records.update(space, "versions", id_, partial(_with_stored, stored))
            except StorageFull:  # the next gc corrects it
                return

    def has_old_pushes(self, space: str) -> bool:
        """Whether a project has expired pushes."""
        return any(self._is_old(space, push) for push in self._chunks.pushes(space))

    def _end_old_pushes(self, space: str) -> None:
        for push in self._chunks.pushes(space):
            if self._is_old(space, push):
                self._chunks.unstage(space, push)

    def _is_old(self, space: str, push: str) -> bool:
        try:
            return time.time() - self._chunks.staged(space, push)[1] > LIFETIME
        except KeyError:  # committed meanwhile
            return False


def _dependents(graph: DeltaGraph, dead: Iterable[str], needed: Collection[str]) -> list[str]:
    """Return the referenced chunks that depend on an unreferenced one."""
    return [chunk for base in sorted(dead) for chunk in graph.dependents(base) if chunk in needed]


def _first_alive(graph: DeltaGraph, dead: set[str], chunk: str) -> str | None:
    """Return the first delta base in the chain of a chunk that is not deleted; None if there is no such base."""
    base = graph.base(chunk)
    for _ in range(codecs.DEPTH_LIMIT):
        if base is None or base not in dead:
            return base
        base = graph.base(base)
    return None


def _with_stored(stored: int, version: Document) -> Document | None:
    """Return the record of a version with another stored size; None if it has this size."""
    return None if version["stored"] == stored else version | {"stored": stored}
