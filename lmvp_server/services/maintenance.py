"""Maintenance of the stored chunks: compaction and gc of all projects, one at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Lock

from lmvp.errors import IntegrityError
from lmvp_server.services import access
from lmvp_server.services.access import Caller
from lmvp_server.services.audit import recorded
from lmvp_server.services.catalog import SERVER, every_project
from lmvp_server.services.compaction import Compacted, Compaction, total
from lmvp_server.services.delta_graph import DeltaGraph
from lmvp_server.services.gc import Leases, Sweeping, Swept
from lmvp_server.stores.base import ChunkStore, Document, RecordStore

_logger = logging.getLogger("lmvp_server")


@contextmanager
def passed_over(space: str) -> Iterator[None]:
    """Skip the rest of the block if data of a project is damaged, and log the error. `fsck` reports the damage."""
    try:
        yield
    except IntegrityError:  # any other error, such as a full disk, affects more than this project and is raised
        _logger.exception("project %s is left alone", space)


def _always() -> bool:
    return True


class Upkeep:
    """Compaction, gc and deletion of projects. One lock covers all of them, so that they never run at the same time."""

    def __init__(
        self, records: RecordStore, chunks: ChunkStore, compaction: Compaction, sweeping: Sweeping, leases: Leases
    ) -> None:
        self._records, self._chunks = records, chunks
        self._compaction, self._sweeping, self._leases = compaction, sweeping, leases
        self._links: dict[str, DeltaGraph] = {}
        self._lock = Lock()

    # -- requested by admins

    def compact(self, caller: Caller) -> Document:
        """Encode all chunks that can be encoded smaller, now."""
        access.require(caller, access.ADMIN)
        with recorded(self._records, caller.name, "server.compact", "all projects") as result:
            done = self.tidy(_always, threads=None)
            counts = {"versions": done.versions, "chunks": done.chunks, "before": done.before, "after": done.after}
            result |= counts
        return counts

    def collect(self, caller: Caller) -> Document:
        """Delete unreferenced data in all projects, and the data of projects without a record."""
        access.require(caller, access.ADMIN)
        spaces = self._spaces()  # before the records: a new project has its record before its data
        known = self._known()
        freed = sum(self.forget(space) for space in sorted(spaces - known))
        done = sum((self.sweep(space) for space in sorted(known)), Swept())
        return {"chunks": done.chunks, "bytes": done.bytes + freed}

    # -- used by other services

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Prevent gc, compaction and deletion in all projects while this is held."""
        with self._lock:
            yield

    def links(self, space: str) -> DeltaGraph:
        """Return the delta dependencies of a project. Use and update them only while `undisturbed` is held."""
        return self._links_of(space)

    def tidy(self, go_on: Callable[[], bool], threads: int | None = 1) -> Compacted:
        """Encode chunks in all projects, as long as `go_on` returns True."""
        parts = []
        for space in sorted(self._known()):
            if go_on():
                others = {other: partial(self._links_of, other) for other in sorted(self._known() - {space})}
                with self._lock, passed_over(space):
                    parts.append(self._compaction.run(space, self._links_of(space), go_on, threads, others))
        return total(parts)

    def sweep(self, space: str, go_on: Callable[[], bool] = _always) -> Swept:
        """Delete unreferenced data of one project."""
        with self._lock:
            return self._sweeping.sweep(space, self._links_of(space), go_on)

    def reclaim(self, space: str) -> int:
        """Delete data that a removal made unreferenced, and return the bytes freed; 0 if damage prevents gc."""
        swept = Swept()
        with passed_over(space):
            swept = self.sweep(space)
        return swept.bytes

    def would_free(self, space: str, without: set[str]) -> Swept:
        """Return the gc result of a deletion of versions, given by the ids of their records. Delete nothing."""
        with self._lock:
            return self._sweeping.would_free(space, self._links_of(space), without)

    def forget(self, space: str) -> int:
        """Delete the data of a project without a record, and return the bytes freed; 0 if a backup still needs it."""
        with self._lock, self._chunks.exclusive_lock(space):
            if self._leases.holds(space):
                return 0
            others = self._spaces() - {space}
            freed = sum(self._chunks.usage(space, others).values()) + self._records.size(space)
            self._chunks.drop(space)
            self._records.drop(space)
            self._links.pop(space, None)
        return freed

    def end_old_pushes(self, go_on: Callable[[], bool]) -> None:
        """Run gc in projects that have an expired push."""
        for space in sorted(self._known()):
            with passed_over(space):
                if go_on() and self._sweeping.has_old_pushes(space):
                    self.sweep(space, go_on)

    def settle_up(self, go_on: Callable[[], bool] = _always) -> None:
        """Delete data whose deletion was postponed because of a backup."""
        known = self._known()
        for space in sorted(self._leases.due()):
            with passed_over(space):
                if space in known:
                    self.sweep(space, go_on)
                else:
                    self.forget(space)

    def _known(self) -> set[str]:
        return {record.id for record in every_project(self._records)}

    def _spaces(self) -> set[str]:
        """Return the ids of all projects that have data on disk."""
        return ({*self._records.spaces(), *self._chunks.projects()}) - {SERVER}

    def _links_of(self, space: str) -> DeltaGraph:
        if space not in self._links:
            # Reading the dependencies reads the header of every chunk, so they are cached.
            self._links[space] = DeltaGraph.read(self._chunks, space)
        return self._links[space]
