"""Compaction: encode chunks that were pushed raw with a smaller codec, when the server is idle.

The newest version of a model and the versions with an alias stay quick to read: their chunks are encoded standalone.
Chunks of superseded versions become deltas, each from the chunk in the same slot of the parent. Versions are encoded
oldest first, so a delta base has its final encoding before another chunk depends on it. A chunk that is already a
delta base does not become a delta. Therefore chains of deltas have no cycles, and at most `DEPTH_LIMIT` deltas depend
on one another.

A frame that a fork shares with its origin is encoded once: the new frame replaces the old one in each project that
shares it, if all of them can read it. Otherwise each project would store a copy.

Each new frame is decoded and compared with the id of the chunk before it replaces the old one in a single rename. The
frames themselves record the progress, so compaction can be killed at any time and continues later.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock

from lmvp.core import chunk_frames, codecs
from lmvp.core import manifest as manifests
from lmvp.core.chunk_alignment import Slots
from lmvp.core.chunk_frames import DELTA, RAW, Frame
from lmvp.core.codecs import Encoded, Link
from lmvp.errors import IntegrityError
from lmvp_server.services.chunk_reader import (
    ChunkReader,
    check_id,
    check_manifest_digest,
    false_size,
)
from lmvp_server.services.delta_graph import DeltaGraph
from lmvp_server.services.tensors import TensorChanges
from lmvp_server.services.versions import Versions, version_id
from lmvp_server.stores.base import ChunkStore, Document, Record, RecordStore

_logger = logging.getLogger("lmvp_server")

QUICK, SUPERSEDED = 1, 2
"""The values of the field `packed` of a version's record. `QUICK`: all its chunks are encoded standalone. `SUPERSEDED`:
its chunks are deltas where possible. The record of a version that is not compacted lacks the field."""


@dataclass(slots=True)
class Compacted:
    """The result of a compaction: compacted versions, re-encoded chunks, and the bytes of these before and after."""

    versions: int = 0
    chunks: int = 0
    before: int = 0
    after: int = 0


@dataclass(frozen=True, slots=True)
class Task:
    """A version to be encoded.

    Attributes
    ----------
    space : str
        The project.
    version : Record
        The record of the version.
    target : int
        `QUICK` or `SUPERSEDED`.
    slots : Slots
        The slots of the version's chunks.
    parent : Slots or None
        The slots of the first parent; None if the version has no parent, or the parent is deleted.
    keep : frozenset of str
        Chunks that must not become deltas, because a version that stays quick to read shares them.
    """

    space: str
    version: Record
    target: int
    slots: Slots
    parent: Slots | None
    keep: frozenset[str]

    @property
    def own_chunks(self) -> list[str]:
        """The chunks that the parent does not have. Those of the parent are encoded with the parent."""
        return [chunk for chunk in self.slots.chunks if self.parent is None or chunk not in self.parent.chunks]


@dataclass(slots=True)
class _Sharer:
    """Another project that shares frames with the compacted one.

    Attributes
    ----------
    space : str
        The other project.
    graph : DeltaGraph
        Its deltas.
    keep : frozenset of str
        Chunks that must not become deltas there.
    less : dict of str to int
        The bytes that each re-encoded chunk saved. `_settle_sharer` subtracts them from the stored sizes there.
    """

    space: str
    graph: DeltaGraph
    keep: frozenset[str]
    less: dict[str, int] = field(default_factory=dict)

    def can_lean(self, chunks: ChunkStore, chunk: str, link: Link) -> bool:
        """Return whether this delta is valid in the other project too."""
        # The depth in the frame must exceed that of the base in each project; `fsck` checks this.
        if chunk in self.keep or self.graph.carries(chunk) or self.graph.depth(link.base) >= link.depth:
            return False
        return not chunks.missing(self.space, [link.base])


@dataclass(slots=True)
class _Work:
    """The state of one compaction of a project. Several threads encode chunks, and `lock` guards the other fields."""

    graph: DeltaGraph
    others: Mapping[str, Callable[[], DeltaGraph]]
    done: Compacted = field(default_factory=Compacted)
    lock: Lock = field(default_factory=Lock)
    sharers: dict[str, _Sharer] = field(default_factory=dict)

    def give_back(self, chunk: str, sharers: Iterable[_Sharer]) -> None:
        """Release the delta base that `_reserve` has reserved for a chunk."""
        with self.lock:
            for graph in (self.graph, *(sharer.graph for sharer in sharers)):
                graph.note(chunk, None)


class Compaction:
    """Re-encodes the chunks of a store."""

    def __init__(
        self,
        records: RecordStore,
        chunks: ChunkStore,
        versions: Versions,
        chunk_reader: ChunkReader,
        tensor_changes: TensorChanges,
    ) -> None:
        self._records, self._chunks, self._versions = records, chunks, versions
        self._chunk_reader, self._tensor_changes = chunk_reader, tensor_changes

    def run(
        self,
        space: str,
        graph: DeltaGraph,
        go_on: Callable[[], bool] = lambda: True,
        threads: int | None = None,
        others: Mapping[str, Callable[[], DeltaGraph]] | None = None,
    ) -> Compacted:
        """Encode the chunks of a project that can be smaller.

        Parameters
        ----------
        space : str
            The project.
        graph : DeltaGraph
            The deltas of the project. This method updates them.
        go_on : callable, optional
            Called between chunks. If it returns False, the rest waits for the next compaction.
        threads : int, optional
            The number of chunks that are encoded at once; by default one per processor, at most 4.
        others : dict of str to callable, optional
            Projects that can share frames with this one, each with a function that returns its graph. This method
            updates these graphs too.

        Returns
        -------
        Compacted
            The counts of versions, chunks and bytes.
        """
        work = _Work(graph, others or {})
        with ThreadPoolExecutor(threads or min(4, os.cpu_count() or 1)) as pool:
            for task in self._tasks(space):
                try:
                    finished = self._pack(task, work, pool, go_on)
                except IntegrityError:  # damage in one version must not stop the compaction of the others
                    _logger.exception("version %s of project %s is not compacted", task.version.id, space)
                    continue
                if not finished:
                    break
        return work.done

    # -- selection of versions

    def _tasks(self, space: str) -> Iterator[Task]:
        """Yield a task for each version below its target: first the versions that stay quick, then oldest first."""
        versions = self._records.find(space, "versions")
        quick = self._quick(space)
        waiting = [one for one in versions if one.data.get("packed", 0) < (QUICK if one.id in quick else SUPERSEDED)]
        if not waiting:  # the usual case when the server is idle: do not read manifests
            return
        keep = self._keep(space, quick)
        for version in sorted(waiting, key=lambda one: (one.id not in quick, one.seq)):
            target = QUICK if version.id in quick else SUPERSEDED
            try:
                yield self._task(space, version, target, keep)
            except IntegrityError:  # skip only the version whose manifest is damaged
                _logger.exception("version %s of project %s is not compacted", version.id, space)

    def _keep(self, space: str, quick: Mapping[str, str]) -> frozenset[str]:
        """Return the chunks of all versions that stay quick to read."""
        return frozenset[str]().union(*(self._quick_chunks(space, quick[one]) for one in sorted(quick)))

    def _task(self, space: str, version: Record, target: int, keep: frozenset[str]) -> Task:
        digest, parents = version.data["digest"], version.data["parents"]
        parent = self._known_slots(space, parents[0]["digest"]) if parents else None
        return Task(space, version, target, self._slots(space, digest), parent, keep)

    def _quick_chunks(self, space: str, digest: str) -> Collection[str]:
        """Return the chunks of a version that stays quick to read; no chunks if its manifest is damaged."""
        try:
            return self._slots(space, digest).chunks
        except IntegrityError:  # its chunks can then become deltas, which are slower to read but lose nothing
            return ()

    def _quick(self, space: str) -> dict[str, str]:
        """Return the digests of the versions that stay quick to read, by the ids of their records."""
        stands = [(alias.data["model"], alias.data["number"]) for alias in self._records.find(space, "aliases")]
        stands += [(model.id, model.data["latest"]) for model in self._records.find(space, "models")]
        found = [self._records.get(space, "versions", version_id(*stand)) for stand in stands]
        return {version.id: version.data["digest"] for version in found if version is not None}

    def _slots(self, space: str, digest: str) -> Slots:
        return Slots(manifests.decode(self._versions.manifest_bytes(space, digest)))

    def _known_slots(self, space: str, digest: str) -> Slots | None:
        """Return the slots of a version; None if it is deleted."""
        try:
            data = self._chunks.manifest(space, digest)
        except KeyError:
            return None
        check_manifest_digest(digest, data)
        return Slots(manifests.decode(data))

    # -- encoding

    def _pack(self, task: Task, work: _Work, pool: ThreadPoolExecutor, go_on: Callable[[], bool]) -> bool:
        """Encode the chunks of a version and measure its changes; return False if `go_on` stopped it."""
        owners = self._owners(task)
        before = {owner: self._taken(task.space, chunks) for owner, chunks in owners.items()}
        for _ in pool.map(lambda chunk: self._pack_chunk(task, work, chunk, go_on), task.own_chunks):
            pass
        finished = go_on() and self._measure(task, go_on) and go_on()
        # Also after a stop: the chunks that are encoded already have changed the stored sizes.
        for owner, chunks in owners.items():
            less = before[owner] - self._taken(task.space, chunks)
            self._settle(task.space, owner, less, task.target if finished and owner == task.version.id else None)
        for sharer in work.sharers.values():
            self._settle_sharer(sharer)
        work.done.versions += finished
        return finished

    def _owners(self, task: Task) -> dict[str, set[str]]:
        """Return the chunks of a task by the id of the version whose stored size contains them.

        The stored size of a chunk counts for the oldest version that has it. This can be another version than the one
        of the task: a version can return to weights of an older one, and models of a project share chunks.
        """
        own, owners = set(task.own_chunks), {}
        # A shortcut: if the chunks take exactly the bytes that the push added, they all count for this version. Then
        # the manifests of the older versions need not be read.
        if self._taken(task.space, own) != task.version.data["stored"]:
            for older in self._records.find(task.space, "versions"):
                if older.seq >= task.version.seq or not own:
                    break
                found = self._known_slots(task.space, older.data["digest"])
                if found is not None and (theirs := own & found.chunks.keys()):
                    owners[older.id] = theirs
                    own -= theirs
        return {**owners, task.version.id: own}

    def _taken(self, space: str, chunks: Iterable[str]) -> int:
        """Return the bytes that some chunks take on disk; 0 for each missing chunk."""
        taken = 0
        for chunk in chunks:
            with suppress(KeyError):
                taken += self._chunks.size(space, chunk)
        return taken

    def _measure(self, task: Task, go_on: Callable[[], bool]) -> bool:
        """Measure the changes since the first parent, unless they are stored; return False if `go_on` stopped it."""
        digest, parents = task.version.data["digest"], task.version.data["parents"]
        if task.parent is None or self._tensor_changes.kept(task.space, digest, parents[0]["digest"]):
            return True
        changes = self._tensor_changes.measure(task.space, digest, parents[0]["digest"], go_on)
        if changes is not None:
            self._tensor_changes.keep(task.space, digest, changes)
        return changes is not None

    def _settle_sharer(self, sharer: _Sharer) -> None:
        """Update the stored sizes of the versions of another project. Each chunk counts for the oldest that has it."""
        for version in self._records.find(sharer.space, "versions") if sharer.less else ():
            found = self._known_slots(sharer.space, version.data["digest"])
            theirs = sharer.less.keys() & found.chunks.keys() if found is not None else set[str]()
            if theirs:
                self._settle(sharer.space, version.id, sum(sharer.less.pop(chunk) for chunk in theirs), None)
        sharer.less.clear()

    def _settle(self, space: str, owner: str, less: int, packed: int | None) -> None:
        """Update the stored size of a version, and with `packed` its state of compaction."""

        def settled(version: Document) -> Document | None:
            news: Document = {"stored": max(0, version["stored"] - less)}
            if packed is not None:
                news["packed"] = packed
            # None avoids a write to disk if nothing changes.
            return None if news.items() <= version.items() else version | news

        self._records.update(space, "versions", owner, settled)

    def _pack_chunk(self, task: Task, work: _Work, chunk: str, go_on: Callable[[], bool]) -> None:
        """Encode a chunk if that makes it smaller."""
        if not go_on() or (head := self._chunk_reader.head(task.space, chunk)).codec == DELTA:
            return
        if head.size != task.slots.chunks[chunk]:  # manifest or header is damaged: do not replace the frame
            raise false_size(task.version.id, chunk, task.slots.chunks[chunk], head.size)
        sharers = self._sharers(task, work, chunk)
        link = self._reserve(task, work, chunk, sharers)
        encoded = None
        try:
            encoded = self._encoded(task, head, link)
        finally:
            # The base was reserved before the result was known: a delta can turn out larger than another encoding.
            if link is not None and (encoded is None or encoded.codec != DELTA):
                work.give_back(chunk, sharers)
        if encoded is None:
            return
        after = replace_frame(self._chunks, self._chunk_reader, task.space, head, encoded)
        before = chunk_frames.HEADER_SIZE + head.payload
        for sharer in sharers:
            self._chunks.share(sharer.space, task.space, chunk)
        with work.lock:
            for sharer in sharers:
                sharer.less[chunk] = before - after
            work.done.chunks += 1
            work.done.before += before
            work.done.after += after

    def _sharers(self, task: Task, work: _Work, chunk: str) -> list[_Sharer]:
        """Return the other projects that share this frame on disk."""
        found = self._chunks.sharers(task.space, chunk, work.others)
        with work.lock:
            for space in found:
                if space not in work.sharers:
                    keep = self._keep(space, self._quick(space))
                    work.sharers[space] = _Sharer(space, work.others[space](), keep)
            return [work.sharers[space] for space in found]

    def _encoded(self, task: Task, head: Frame, link: Link | None) -> Encoded | None:
        """Return a smaller encoding of a chunk, or None."""
        if link is None and head.codec != RAW:  # already encoded standalone
            return None
        data, dtype = self._chunk_reader.data(task.space, head.chunk), task.slots.dtype(head.chunk)
        found: Encoded | None = None
        if link is not None and dtype is not None:
            found = codecs.encode_delta(data, dtype, self._chunk_reader.data(task.space, link.base), link)
        if found is None and head.codec == RAW:
            found = codecs.encode(data, dtype)
        return found if found is not None and len(found.payload) < head.payload else None

    def _reserve(self, task: Task, work: _Work, chunk: str, sharers: Sequence[_Sharer]) -> Link | None:
        """Pick and reserve a delta base; None if the chunk must stay standalone in a project that has it."""
        if task.target != SUPERSEDED or task.parent is None or chunk in task.keep:
            return None
        base = task.slots.counterpart(chunk, task.parent)
        if base is None or base == chunk or self._chunks.missing(task.space, [base]):
            return None
        # Check and reserve under one lock: another thread could make this chunk a base in between, or its base a delta.
        with work.lock:
            if work.graph.carries(chunk) or work.graph.depth(base) >= codecs.DEPTH_LIMIT:
                return None
            link = Link(base, work.graph.depth(base) + 1)
            if not all(sharer.can_lean(self._chunks, chunk, link) for sharer in sharers):
                return None
            for graph in (work.graph, *(sharer.graph for sharer in sharers)):
                graph.note(chunk, link)
        return link


def replace_frame(chunks: ChunkStore, chunk_reader: ChunkReader, space: str, old: Frame, encoded: Encoded) -> int:
    """Verify a new encoding of a chunk, and replace the stored frame with it; return its length in bytes.

    Raises
    ------
    IntegrityError
        If it does not decode to the bytes of the chunk. The stored frame then stays.
    """
    head = Frame(old.chunk, old.size, len(encoded.payload), encoded.codec)
    check_id(old.chunk, codecs.decode(head, encoded.payload, lambda base: chunk_reader.data(space, base)))
    return chunks.replace(space, old.chunk, [chunk_frames.header(head), encoded.payload])


def total(parts: Iterable[Compacted]) -> Compacted:
    """Return the sum of several results.

    Examples
    --------
    >>> total([Compacted(1, 2, 30, 4), Compacted(1, 1, 10, 10)])
    Compacted(versions=2, chunks=3, before=40, after=14)
    """
    runs: Sequence[Compacted] = tuple(parts)
    return Compacted(*(sum(getattr(one, name) for one in runs) for name in ("versions", "chunks", "before", "after")))
