"""Taking away versions, models and projects: the records first, the bytes after, and how many came back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lmvp.errors import Conflict
from lmvp_server.services import access
from lmvp_server.services.access import Caller
from lmvp_server.services.audit import head_of
from lmvp_server.services.catalog import SERVER, Catalog, Place
from lmvp_server.services.clock import now
from lmvp_server.services.upkeep import Upkeep
from lmvp_server.services.versions import Versions, next_number, shelf
from lmvp_server.stores.base import (
    Change,
    ChunkStore,
    ConcurrentChange,
    Delete,
    Document,
    Put,
    Record,
    RecordStore,
    SeriesStore,
)


class Removal:
    """The use cases of `rm`. Numbers and names of what is gone: a number is never used again, a name may be."""

    def __init__(
        self,
        records: RecordStore,
        chunks: ChunkStore,
        series: SeriesStore,
        catalog: Catalog,
        versions: Versions,
        upkeep: Upkeep,
    ) -> None:
        self._records, self._chunks, self._series = records, chunks, series
        self._catalog, self._versions, self._upkeep = catalog, versions, upkeep

    def version(self, caller: Caller, project: str, model: str, revision: str) -> Document:
        """Take away one version.

        Raises
        ------
        Conflict
            If an alias stands at it.
        """
        place = self._catalog.find_model(caller, project, model)
        access.require(caller, access.MAINTAIN, project)
        self.drop(caller.name, place, lambda: [self._free(place, revision)], "version.remove")
        return self._freed(place.space, versions=1)

    def _free(self, place: Place, revision: str) -> Record:
        """Return the version that a revision names, if no alias stands at it."""
        version = self._versions.find(place, revision)
        if "contribution" in version.data:
            raise Conflict("a contribution is declined or withdrawn, not removed", hint="its record stays")
        aliases = self._versions.present(place, version)["aliases"]
        if aliases:
            raise Conflict(
                f"the alias {aliases[0]!r} stands at v{version.data['number']} of {place.reference}",
                hint=f"move it, or take it away: lmvp alias {place.reference} {aliases[0]} --remove",
            )
        return version

    def drop(self, who: str, place: Place, choose: Callable[[], Sequence[Record]], action: str) -> list[Record]:
        """Delete the records of versions of one model, in one commit; their bytes are the next sweep's.

        Parameters
        ----------
        choose : callable
            Returns the versions; asked again when something changed in between, an alias that moved to one, say.
        """
        while True:
            model = self._records.get(place.space, "models", place.model.id)
            going = list(choose()) if model else []
            if model is None or not going:
                return going
            try:
                self._records.commit(place.space, self._changes(place, model, going), _told(who, action, place, going))
            except ConcurrentChange:
                continue
            return going

    def _changes(self, place: Place, model: Record, going: Sequence[Record]) -> list[Change]:
        ids = {version.id for version in going}
        left = [one.data["number"] for one in self._of_model(place, "versions") if one.id not in ids]
        news = {"latest": left[-1] if left else 0, "last": next_number(model) - 1}
        return [
            *(Delete("versions", version.id, expect=version.rev) for version in going),
            Put("models", model.id, model.data | news, expect=model.rev),
        ]

    def model(self, caller: Caller, project: str, model: str) -> Document:
        """Take away a model with all its versions and aliases."""
        while True:  # a push that commits between the look and the deletion would leave a version without its model
            place = self._catalog.find_model(caller, project, model)
            access.require(caller, access.MAINTAIN, project)
            versions = self._of_model(place, "versions")
            event = _event(
                caller.name, "model.remove", place.reference, {**place.model.data, "versions": len(versions)}
            )
            changes: list[Change] = [
                *(Delete("versions", version.id, expect=version.rev) for version in versions),
                *(Delete("versions", version.id, expect=version.rev) for version in self._proposed(place)),
                *(Delete("aliases", alias.id, expect=alias.rev) for alias in self._of_model(place, "aliases")),
                Delete("models", place.model.id, expect=place.model.rev),
                Delete("names", f"models:{place.model.data['key']}"),
            ]
            try:
                self._records.commit(place.space, changes, [event])
            except ConcurrentChange:
                continue
            return self._freed(place.space, versions=len(versions))

    def project(self, caller: Caller, project: str) -> Document:
        """Take away a project with all that is in it, its events too."""
        while True:
            home = self._catalog.find_project(caller, project)
            access.require(caller, access.OWN, project)
            versions = self._records.count(home.id, "versions")
            head = head_of(self._records, home.id, home.data["name"])  # for whoever kept the head of its log
            told = {**home.data, "id": home.id, "versions": versions, "events": head.seq, "chain": head.chain}
            event = _event(caller.name, "project.remove", home.data["name"], told)
            changes = [
                Delete("projects", home.id, expect=home.rev),  # else the name of one that was made since would go
                Delete("names", f"projects:{home.data['key']}"),
                *(Delete("members", one.id) for one in self._records.find(SERVER, "members", {"project": home.id})),
            ]
            try:
                self._records.commit(SERVER, changes, [event])
            except ConcurrentChange:
                continue
            freed = self._series.drop(home.id)
            return {"versions": versions, "bytes": freed + self._upkeep.forget(home.id)}

    def _freed(self, space: str, *, versions: int) -> Document:
        return {"versions": versions, "bytes": self._upkeep.reclaim(space)}

    def _of_model(self, place: Place, table: str) -> list[Record]:
        return self._records.find(place.space, table, {"model": place.model.id})

    def _proposed(self, place: Place) -> list[Record]:
        return self._records.find(place.space, "versions", {"model": shelf(place.model.id)})


def _told(who: str, action: str, place: Place, going: Sequence[Record]) -> list[Document]:
    return [_event(who, action, f"{place.reference}@v{one.data['number']}", one.data) for one in going]


def _event(who: str, action: str, what: str, before: Document) -> Document:
    return {"at": now(), "who": who, "action": action, "what": what, "before": before, "after": None}
