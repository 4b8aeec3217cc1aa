"""Taking away versions, models and projects: out of sight at once, and for good when their time to come back is over.

A removed version keeps its record, on a shelf of its own (`versions.gone`); a removed model or project moves to another
table, and what is in it stays where it is. So sweeps, compaction, `fsck` and backups look after all of it as before.
`lmvp_server.services.undelete` brings it back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone

from lmvp.errors import Conflict
from lmvp_server.services import access, grants
from lmvp_server.services.access import Caller
from lmvp_server.services.audit import head_of
from lmvp_server.services.catalog import REMOVED, SERVER, Catalog, Place
from lmvp_server.services.clock import now, stamp
from lmvp_server.services.events import event
from lmvp_server.services.purging import Purging, of_model
from lmvp_server.services.upkeep import Upkeep
from lmvp_server.services.versions import Versions, gone, next_number
from lmvp_server.stores.base import Change, ConcurrentChange, Delete, Document, Put, Record, RecordStore


class Removal:
    """The use cases of `rm`. Numbers and names of what is gone: a number is never used again, a name may be.

    Parameters
    ----------
    keep : timedelta
        How long what is removed can be brought back; zero: not at all.
    """

    def __init__(
        self,
        records: RecordStore,
        catalog: Catalog,
        versions: Versions,
        upkeep: Upkeep,
        purging: Purging,
        keep: timedelta,
    ) -> None:
        self._records, self._catalog, self._versions = records, catalog, versions
        self._upkeep, self._purging, self._keep = upkeep, purging, keep

    def version(self, caller: Caller, project: str, model: str, revision: str, *, for_good: bool = False) -> Document:
        """Take away one version.

        Parameters
        ----------
        for_good : bool
            Give its bytes back now; it cannot be brought back then.

        Raises
        ------
        Conflict
            If an alias stands at it.
        """
        place = self._catalog.find_model(caller, project, model)
        access.require(caller, access.MAINTAIN, project)
        keep = self._keeps(for_good)
        self.drop(caller, place, lambda: [self._free(place, revision)], "version.remove", keep=keep)
        return self._answer(place.project, versions=1, keep=keep)

    def _keeps(self, for_good: bool) -> bool:
        return bool(self._keep) and not for_good

    def _free(self, place: Place, revision: str) -> Record:
        """Return the version that a revision names, if no alias stands at it."""
        version = self._versions.find(place, revision)
        if "contribution" in version.data:
            raise Conflict("a contribution is declined or withdrawn, not removed", hint="its record stays")
        aliases = self._versions.present(place, version)["aliases"]
        if aliases:
            raise Conflict(
                f"the alias {aliases[0]!r} stands at v{version.data['number']} of {place.reference}",
                hint=f"move it, or remove it: `lmvp alias {place.reference} {aliases[0]} --remove`",
            )
        return version

    def drop(
        self, caller: Caller, place: Place, choose: Callable[[], Sequence[Record]], action: str, *, keep: bool
    ) -> list[Record]:
        """Take versions of one model away, in one commit; the bytes of those that go for good are the next sweep's.

        Parameters
        ----------
        choose : callable
            Returns the versions; asked again when something changed in between, an alias that moved to one, say.
        keep : bool
            Whether they can be brought back.
        """
        while True:
            model = self._records.get(place.space, "models", place.model.id)
            going = list(choose()) if model else []
            if model is None or not going:
                return going
            told = [
                event(caller.name, action, f"{place.reference}@v{one.data['number']}", one.data, None) for one in going
            ]
            try:
                check = grants.still(self._records, caller, access.MAINTAIN, place.project)
                changes = self._changes(caller, place, model, going, keep=keep)
                self._records.commit(place.space, changes, told, check=check)
            except ConcurrentChange:
                continue
            return going

    def _changes(
        self, caller: Caller, place: Place, model: Record, going: Sequence[Record], *, keep: bool
    ) -> list[Change]:
        ids = {version.id for version in going}
        standing = self._records.find(place.space, "versions", {"model": model.id})
        left = [one.data["number"] for one in standing if one.id not in ids]
        news = {"latest": left[-1] if left else 0, "last": next_number(model) - 1}
        shelved = {"model": gone(model.id), "removed": _mark(caller)}
        return [
            *(
                Put("versions", one.id, one.data | shelved, expect=one.rev)
                if keep
                else Delete("versions", one.id, expect=one.rev)
                for one in going
            ),
            Put("models", model.id, model.data | news, expect=model.rev),
        ]

    def model(self, caller: Caller, project: str, model: str, *, for_good: bool = False) -> Document:
        """Take away a model with all its versions and aliases."""
        keep = self._keeps(for_good)
        while True:  # a push that commits between the look and the deletion would leave a version without its model
            place = self._catalog.find_model(caller, project, model)
            access.require(caller, access.MAINTAIN, project)
            versions = self._records.count(place.space, "versions", {"model": place.model.id})
            told = {**place.model.data, "versions": versions}
            away = {**told, "removed": _mark(caller)}
            changes: list[Change] = [
                Delete("models", place.model.id, expect=place.model.rev),
                Delete("names", f"models:{place.model.data['key']}"),
                *(
                    [Put(REMOVED, place.model.id, away, expect=0)]
                    if keep
                    else of_model(self._records, place.space, place.model.id)
                ),
            ]
            try:
                entry = event(caller.name, "model.remove", place.reference, told, None)
                check = grants.still(self._records, caller, access.MAINTAIN, place.project)
                self._records.commit(place.space, changes, [entry], check=check)
            except ConcurrentChange:
                continue
            return self._answer(place.project, versions=versions, keep=keep)

    def project(self, caller: Caller, project: str, *, for_good: bool = False) -> Document:
        """Take away a project with all that is in it, its events too."""
        keep = self._keeps(for_good)
        while True:
            home = self._catalog.find_project(caller, project)
            access.require(caller, access.OWN, project)
            models = self._records.find(home.id, "models")
            versions = sum(self._records.count(home.id, "versions", {"model": model.id}) for model in models)
            head = head_of(self._records, home.id, home.data["name"])  # for whoever kept the head of its log
            told = {**home.data, "id": home.id, "versions": versions, "events": head.seq, "chain": head.chain}
            away = {**home.data, "versions": versions, "removed": _mark(caller)}
            changes: list[Change] = [
                Delete("projects", home.id, expect=home.rev),  # else the name of one that was made since would go
                Delete("names", f"projects:{home.data['key']}"),
                *([Put(REMOVED, home.id, away, expect=0)] if keep else self._purging.around(home.id)),
            ]
            try:
                entry = event(caller.name, "project.remove", home.data["name"], told, None)
                check = grants.still(self._records, caller, access.OWN, home, expected=True)
                self._records.commit(SERVER, changes, [entry], check=check)
            except ConcurrentChange:
                continue
            freed = 0 if keep else self._purging.forget(home.id)
            return {"versions": versions, "bytes": freed} | (self._until() if keep else {})

    def _answer(self, project: Record, *, versions: int, keep: bool) -> Document:
        if keep:
            return {"versions": versions, "bytes": 0} | self._until()
        return {"versions": versions, "bytes": self.reclaim(project)}

    def reclaim(self, project: Record) -> int:
        """Delete what a removal in a project made needless, and return its bytes."""
        self._purging.release(project)
        return self._upkeep.reclaim(project.id)

    def _until(self) -> Document:
        return {"until": stamp(datetime.now(timezone.utc) + self._keep)}


def _mark(caller: Caller) -> Document:
    """Return what is remembered of a removal: when, and who, by name and by account."""
    return {"at": now(), "by": caller.name, "user": caller.user}
