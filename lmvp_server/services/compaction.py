"""Compaction: what was pushed raw is encoded when nobody waits for it.

The newest version of a model, and each that an alias stands at, is quick to read: its chunks are encoded by themselves.
What is superseded leans on its parent: each chunk becomes a delta against the one in the same slot there. Versions are
taken oldest first, so a base has its last form before another chunk leans on it; a chunk that carries others stays as
it is. So no delta can lean on itself, and none stands on more than `DEPTH_LIMIT` others.

A frame that a fork shares with its origin is encoded once for both: the new frame replaces the old one in each project
that shares it, in a form that all of them can read. Otherwise each of them would store it again.

Each new frame is decoded and held against the chunk's id before it takes the place of the old one, in one rename. What
was done is told by the frames themselves, so this may be killed at any moment and taken up again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock

from lmvp.errors import IntegrityError
from lmvp.storage import codecs, frames
from lmvp.storage import manifest as manifests
from lmvp.storage.codecs import Encoded, Link
from lmvp.storage.frames import DELTA, RAW, Frame
from lmvp.storage.slots import Slots
from lmvp_server.services.changes import Measuring
from lmvp_server.services.decoding import Decoder, check_id, check_manifest_digest, false_size
from lmvp_server.services.links import Links
from lmvp_server.services.versions import Versions, version_id
from lmvp_server.stores.base import ChunkStore, ConcurrentChange, Document, Put, Record, RecordStore

_logger = logging.getLogger("lmvp_server")

QUICK, SUPERSEDED = 1, 2
"""How far the chunks of a version are encoded, in the field `packed` of its record; none if it is as it was pushed."""


@dataclass(slots=True)
class Compacted:
    """What compaction did: versions, chunks that were encoded anew, and their bytes before and after."""

    versions: int = 0
    chunks: int = 0
    before: int = 0
    after: int = 0


@dataclass(frozen=True, slots=True)
class Task:
    """A version that is to be encoded.

    Attributes
    ----------
    target : int
        `QUICK` or `SUPERSEDED`.
    keep : frozenset of str
        Chunks that must stay quick to read, since another version shares them.
    """

    space: str
    version: Record
    target: int
    slots: Slots
    parent: Slots | None
    keep: frozenset[str]

    @property
    def own_chunks(self) -> list[str]:
        """The chunks that its parent does not have, which encodes its own."""
        return [chunk for chunk in self.slots.chunks if self.parent is None or chunk not in self.parent.chunks]


@dataclass(slots=True)
class _Sharer:
    """Another project that shares frames with the one that is encoded.

    Attributes
    ----------
    keep : frozenset of str
        Chunks that must stay quick to read there.
    less : dict of str to int
        The bytes by which frames got smaller, by chunk; to be noted in the records of versions there.
    """

    space: str
    links: Links
    keep: frozenset[str]
    less: dict[str, int] = field(default_factory=dict)

    def can_lean(self, chunks: ChunkStore, chunk: str, link: Link) -> bool:
        """Whether the chunk may be this delta there too."""
        if chunk in self.keep or self.links.carries(chunk) or self.links.depth(link.base) >= link.depth:
            return False
        return not chunks.missing(self.space, [link.base])


@dataclass(slots=True)
class _Work:
    """The state of one run over a project; chunks are encoded by several threads."""

    links: Links
    others: Mapping[str, Callable[[], Links]]
    done: Compacted = field(default_factory=Compacted)
    lock: Lock = field(default_factory=Lock)
    sharers: dict[str, _Sharer] = field(default_factory=dict)

    def give_back(self, chunk: str, sharers: Iterable[_Sharer]) -> None:
        """Let a chunk lean on nothing after all."""
        with self.lock:
            for links in (self.links, *(sharer.links for sharer in sharers)):
                links.note(chunk, None)


class Compaction:
    """The use case of encoding anew what lies in a store."""

    def __init__(
        self, records: RecordStore, chunks: ChunkStore, versions: Versions, decoder: Decoder, measuring: Measuring
    ) -> None:
        self._records, self._chunks, self._versions = records, chunks, versions
        self._decoder, self._measuring = decoder, measuring

    def run(
        self,
        space: str,
        links: Links,
        go_on: Callable[[], bool] = lambda: True,
        threads: int | None = None,
        others: Mapping[str, Callable[[], Links]] | None = None,
    ) -> Compacted:
        """Encode what is to be encoded in a project.

        Parameters
        ----------
        links : Links
            Of the project; it is kept up to date.
        go_on : callable
            Asked between chunks; when it says no, the rest is left for the next time.
        threads : int, optional
            How many chunks are encoded at once; one per processor, four at most, without it.
        others : dict of str to callable, optional
            Projects that may share frames with this one; each gives its links, which are kept up to date.
        """
        work = _Work(links, others or {})
        with ThreadPoolExecutor(threads or min(4, os.cpu_count() or 1)) as pool:
            for task in self._tasks(space):
                try:
                    finished = self._pack(task, work, pool, go_on)
                except IntegrityError:  # the others are not to wait for somebody who mends this one
                    _logger.exception("version %s of project %s is not compacted", task.version.id, space)
                    continue
                if not finished:
                    break
        return work.done

    # -- what is to be done

    def _tasks(self, space: str) -> Iterator[Task]:
        """Give the versions that are not encoded as they should be: the quick ones first, then oldest first."""
        versions = self._records.find(space, "versions")
        quick = self._quick(space)
        waiting = [one for one in versions if one.data.get("packed", 0) < (QUICK if one.id in quick else SUPERSEDED)]
        if not waiting:
            return
        keep = self._keep(space, quick)
        for version in sorted(waiting, key=lambda one: (one.id not in quick, one.seq)):
            target = QUICK if version.id in quick else SUPERSEDED
            try:
                yield self._task(space, version, target, keep)
            except IntegrityError:  # a damaged manifest stops its own version only
                _logger.exception("version %s of project %s is not compacted", version.id, space)

    def _keep(self, space: str, quick: Mapping[str, str]) -> frozenset[str]:
        """Return the chunks that must stay quick to read."""
        return frozenset[str]().union(*(self._quick_chunks(space, quick[one]) for one in sorted(quick)))

    def _task(self, space: str, version: Record, target: int, keep: frozenset[str]) -> Task:
        digest, parents = version.data["digest"], version.data["parents"]
        parent = self._known_slots(space, parents[0]["digest"]) if parents else None
        return Task(space, version, target, self._slots(space, digest), parent, keep)

    def _quick_chunks(self, space: str, digest: str) -> Collection[str]:
        """Return the chunks of a version that stays quick to read; none where its manifest is damaged."""
        try:
            return self._slots(space, digest).chunks
        except IntegrityError:  # its chunks may become deltas then, which costs time and loses nothing
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
        """Return the slots of a version that may be deleted by now."""
        try:
            data = self._chunks.manifest(space, digest)
        except KeyError:
            return None
        check_manifest_digest(digest, data)
        return Slots(manifests.decode(data))

    # -- doing it

    def _pack(self, task: Task, work: _Work, pool: ThreadPoolExecutor, go_on: Callable[[], bool]) -> bool:
        """Encode the chunks of a version and measure its changes; False if it was stopped before the end."""
        owners = self._owners(task)
        before = {owner: self._taken(task.space, chunks) for owner, chunks in owners.items()}
        for _ in pool.map(lambda chunk: self._pack_chunk(task, work, chunk, go_on), task.own_chunks):
            pass
        finished = go_on() and self._measure(task, go_on) and go_on()
        for owner, chunks in owners.items():
            less = before[owner] - self._taken(task.space, chunks)
            self._settle(task.space, owner, less, task.target if finished and owner == task.version.id else None)
        for sharer in work.sharers.values():
            self._settle_sharer(sharer)
        work.done.versions += finished
        return finished

    def _owners(self, task: Task) -> dict[str, set[str]]:
        """Return which of its chunks count for what version, by the id of its record: for the oldest that has them.

        A version goes back to what an older one had, and models of a project share. But where all that its parent lacks
        takes just what the push added, nobody else has to be asked.
        """
        own, owners = set(task.own_chunks), {}
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
        """Return the bytes that some chunks take on the disk; one that is gone takes none."""
        taken = 0
        for chunk in chunks:
            with suppress(KeyError):
                taken += self._chunks.size(space, chunk)
        return taken

    def _measure(self, task: Task, go_on: Callable[[], bool]) -> bool:
        """Tell how much the tensors changed since the first parent, if that is not known yet."""
        digest, parents = task.version.data["digest"], task.version.data["parents"]
        if task.parent is None or self._measuring.kept(task.space, digest, parents[0]["digest"]):
            return True
        changes = self._measuring.measure(task.space, digest, parents[0]["digest"], go_on)
        if changes is not None:
            self._measuring.keep(task.space, digest, changes)
        return changes is not None

    def _settle_sharer(self, sharer: _Sharer) -> None:
        """Write down what the versions of another project take now: each chunk counts for the oldest that has it."""
        for version in self._records.find(sharer.space, "versions") if sharer.less else ():
            found = self._known_slots(sharer.space, version.data["digest"])
            theirs = sharer.less.keys() & found.chunks.keys() if found is not None else set[str]()
            if theirs:
                self._settle(sharer.space, version.id, sum(sharer.less.pop(chunk) for chunk in theirs), None)
        sharer.less.clear()

    def _settle(self, space: str, owner: str, less: int, packed: int | None) -> None:
        """Write down what a version takes now, and how far it is."""
        while (version := self._records.get(space, "versions", owner)) is not None:
            news: Document = {"stored": max(0, version.data["stored"] - less)}
            if packed is not None:
                news["packed"] = packed
            if news.items() <= version.data.items():
                return
            try:
                self._records.commit(space, [Put("versions", version.id, version.data | news, version.rev)])
            except ConcurrentChange:
                continue
            return

    def _pack_chunk(self, task: Task, work: _Work, chunk: str, go_on: Callable[[], bool]) -> None:
        """Encode a chunk if that makes it smaller."""
        if not go_on() or (head := self._decoder.head(task.space, chunk)).codec == DELTA:
            return
        if head.size != task.slots.chunks[chunk]:  # the manifest, or the header, is wrong: what is there stays as it is
            raise false_size(task.version.id, chunk, task.slots.chunks[chunk], head.size)
        sharers = self._sharers(task, work, chunk)
        link = self._reserve(task, work, chunk, sharers)
        encoded = None
        try:
            encoded = self._encoded(task, head, link)
        finally:
            if link is not None and (encoded is None or encoded.codec != DELTA):
                work.give_back(chunk, sharers)
        if encoded is None:
            return
        after = replace_frame(self._chunks, self._decoder, task.space, head, encoded)
        before = frames.HEADER_SIZE + head.payload
        for sharer in sharers:
            self._chunks.share(sharer.space, task.space, chunk)
        with work.lock:
            for sharer in sharers:
                sharer.less[chunk] = before - after
            work.done.chunks += 1
            work.done.before += before
            work.done.after += after

    def _sharers(self, task: Task, work: _Work, chunk: str) -> list[_Sharer]:
        """Return the other projects that have this very frame."""
        found = self._chunks.sharers(task.space, chunk, work.others)
        with work.lock:
            for space in found:
                if space not in work.sharers:
                    keep = self._keep(space, self._quick(space))
                    work.sharers[space] = _Sharer(space, work.others[space](), keep)
            return [work.sharers[space] for space in found]

    def _encoded(self, task: Task, head: Frame, link: Link | None) -> Encoded | None:
        """Return a smaller form of a chunk, or None if there is none."""
        if link is None and head.codec != RAW:
            return None
        data, dtype = self._decoder.data(task.space, head.chunk), task.slots.dtype(head.chunk)
        found: Encoded | None = None
        if link is not None and dtype is not None:
            found = codecs.encode_delta(data, dtype, self._decoder.data(task.space, link.base), link)
        if found is None and head.codec == RAW:
            found = codecs.encode(data, dtype)
        return found if found is not None and len(found.payload) < head.payload else None

    def _reserve(self, task: Task, work: _Work, chunk: str, sharers: Sequence[_Sharer]) -> Link | None:
        """Pick and reserve a delta base; None if a project that has the chunk needs it without one."""
        if task.target != SUPERSEDED or task.parent is None or chunk in task.keep:
            return None
        base = task.slots.counterpart(chunk, task.parent)
        if base is None or base == chunk or self._chunks.missing(task.space, [base]):
            return None
        with work.lock:
            if work.links.carries(chunk) or work.links.depth(base) >= codecs.DEPTH_LIMIT:
                return None
            link = Link(base, work.links.depth(base) + 1)
            if not all(sharer.can_lean(self._chunks, chunk, link) for sharer in sharers):
                return None
            for links in (work.links, *(sharer.links for sharer in sharers)):
                links.note(chunk, link)
        return link


def replace_frame(chunks: ChunkStore, decoder: Decoder, space: str, old: Frame, encoded: Encoded) -> int:
    """Put another form of a chunk in the place of the one that is there, once it is proved; return its length in bytes.

    Raises
    ------
    IntegrityError
        If it does not decode to the bytes of the chunk: what was there stays.
    """
    head = Frame(old.chunk, old.size, len(encoded.payload), encoded.codec)
    check_id(old.chunk, codecs.decode(head, encoded.payload, lambda base: decoder.data(space, base)))
    return chunks.replace(space, old.chunk, [frames.header(head), encoded.payload])


def total(parts: Iterable[Compacted]) -> Compacted:
    """Add up what several runs did.

    Examples
    --------
    >>> total([Compacted(1, 2, 30, 4), Compacted(1, 1, 10, 10)])
    Compacted(versions=2, chunks=3, before=40, after=14)
    """
    runs: Sequence[Compacted] = tuple(parts)
    return Compacted(*(sum(getattr(one, name) for one in runs) for name in ("versions", "chunks", "before", "after")))
