"""Upkeep: compaction and sweeping over all projects, one at a time, whoever asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Lock

from lmvp_server.services import access
from lmvp_server.services.access import Caller
from lmvp_server.services.catalog import SERVER, every_project
from lmvp_server.services.compaction import Compacted, Compaction, total
from lmvp_server.services.damage import passed_over
from lmvp_server.services.events import recorded
from lmvp_server.services.leases import Leases
from lmvp_server.services.links import Links
from lmvp_server.services.sweeping import Sweeping, Swept
from lmvp_server.stores.base import ChunkStore, Document, RecordStore


def _always() -> bool:
    return True


class Upkeep:
    """What keeps a store small. All of it is done under one lock, so no two of its parts meet in a project."""

    def __init__(
        self, records: RecordStore, chunks: ChunkStore, compaction: Compaction, sweeping: Sweeping, leases: Leases
    ) -> None:
        self._records, self._chunks = records, chunks
        self._compaction, self._sweeping, self._leases = compaction, sweeping, leases
        self._links: dict[str, Links] = {}
        self._lock = Lock()

    # -- asked for

    def compact(self, caller: Caller) -> Document:
        """Encode all that is to be encoded, now."""
        access.require(caller, access.ADMIN)
        with recorded(self._records, caller.name, "server.compact", "all projects") as result:
            done = self.tidy(_always, threads=None)
            counts = {"versions": done.versions, "chunks": done.chunks, "before": done.before, "after": done.after}
            result |= counts
        return counts

    def collect(self, caller: Caller) -> Document:
        """Delete what nothing needs, in all projects, and whole projects that are no longer there."""
        access.require(caller, access.ADMIN)
        spaces = self._spaces()  # before the records: a project that is made now has its record first
        known = self._known()
        freed = sum(self.forget(space) for space in sorted(spaces - known))
        done = sum((self.sweep(space) for space in sorted(known)), Swept())
        return {"chunks": done.chunks, "bytes": done.bytes + freed}

    # -- steps of others

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """While this is held, nothing is swept, encoded anew or forgotten in any project."""
        with self._lock:
            yield

    def links(self, space: str) -> Links:
        """Return what leans on what in a project; to be used, and kept up to date, while it is `undisturbed`."""
        return self._links_of(space)

    def tidy(self, go_on: Callable[[], bool], threads: int | None = 1) -> Compacted:
        """Encode what is to be encoded in all projects, as long as `go_on` says so."""
        parts = []
        for space in sorted(self._known()):
            if go_on():
                others = {other: partial(self._links_of, other) for other in sorted(self._known() - {space})}
                with self._lock, passed_over(space):
                    parts.append(self._compaction.run(space, self._links_of(space), go_on, threads, others))
        return total(parts)

    def sweep(self, space: str, go_on: Callable[[], bool] = _always) -> Swept:
        """Delete what nothing needs in one project."""
        with self._lock:
            return self._sweeping.sweep(space, self._links_of(space), go_on)

    def reclaim(self, space: str) -> int:
        """Delete what a removal made needless; return its bytes: 0 where damage keeps the sweep from going on."""
        swept = Swept()
        with passed_over(space):
            swept = self.sweep(space)
        return swept.bytes

    def would_free(self, space: str, without: set[str]) -> Swept:
        """Tell what taking away some versions of a project, by the ids of their records, would give back."""
        with self._lock:
            return self._sweeping.would_free(space, self._links_of(space), without)

    def forget(self, space: str) -> int:
        """Delete all that is kept of a project whose record is gone; return its bytes: 0 if a backup still needs it."""
        with self._lock, self._chunks.sweeping(space):
            if self._leases.holds(space):
                return 0
            others = self._spaces() - {space}
            freed = sum(self._chunks.usage(space, others).values()) + self._records.size(space)
            self._chunks.drop(space)
            self._records.drop(space)
            self._links.pop(space, None)
        return freed

    def end_old_pushes(self, go_on: Callable[[], bool]) -> None:
        """Sweep the projects that hold a push whose time is over."""
        for space in sorted(self._known()):
            with passed_over(space):
                if go_on() and self._sweeping.has_old_pushes(space):
                    self.sweep(space, go_on)

    def settle_up(self, go_on: Callable[[], bool] = _always) -> None:
        """Delete what could not be deleted while a backup was under way."""
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
        """Return all projects of which something is on the disk."""
        return ({*self._records.spaces(), *self._chunks.projects()}) - {SERVER}

    def _links_of(self, space: str) -> Links:
        if space not in self._links:
            self._links[space] = Links.read(self._chunks, space)
        return self._links[space]
