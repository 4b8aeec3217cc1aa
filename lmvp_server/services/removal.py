"""Removal of versions, models and projects: to the trash, or permanently.

A removed version keeps its record under another key (`versions.gone`). A removed model or project moves to another
table, but its contents stay in place. So gc, compaction, `fsck` and backups still include all of it.
`lmvp_server.services.undelete` restores removed objects.
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
from lmvp_server.services.maintenance import Upkeep
from lmvp_server.services.purging import Purging, of_model
from lmvp_server.services.versions import Versions, gone, next_number
from lmvp_server.stores.base import Change, ConcurrentChange, Delete, Document, Put, Record, RecordStore


class Removal:
    """Use cases of `lmvp rm`. The number of a removed version is never used again; the name of a removed model can be.

    Parameters
    ----------
    keep : timedelta
        How long removed objects can be restored. Zero: not at all.
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
        """Remove one version.

        Parameters
        ----------
        caller : Caller
            The caller, a maintainer.
        project, model, revision : str
            The version.
        for_good : bool, default False
            Delete the version permanently and free its bytes now.

        Raises
        ------
        Conflict
            If an alias points at the version, or it is a contribution.
        """
        place = self._catalog.find_model(caller, project, model)
        access.require(caller, access.MAINTAIN, project)
        keep = self._keeps(for_good)
        self.drop(caller, place, lambda: [self._free(place, revision)], "version.remove", keep=keep)
        return self._answer(place.project, versions=1, keep=keep)

    def _keeps(self, for_good: bool) -> bool:
        return bool(self._keep) and not for_good

    def _free(self, place: Place, revision: str) -> Record:
        """Return the version of a revision if no alias points at it."""
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
        """Remove versions of one model in one commit. The next gc frees the bytes of versions that are not restorable.

        Parameters
        ----------
        choose : callable
            Returns the versions. It is called again if a concurrent change requires a retry, such as a moved alias.
        action : str
            The action of the events.
        keep : bool
            Whether the versions can be restored.
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
        # The latest number can fall when versions are removed; `last` cannot, so that no number is used again.
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
        """Remove a model with all its versions and aliases."""
        keep = self._keeps(for_good)
        while True:  # retry if a push commits meanwhile: it would leave a version without its model
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
        """Remove a project with all its contents, including its audit log."""
        keep = self._keeps(for_good)
        while True:
            home = self._catalog.find_project(caller, project)
            access.require(caller, access.OWN, project)
            models = self._records.find(home.id, "models")
            versions = sum(self._records.count(home.id, "versions", {"model": model.id}) for model in models)
            head = head_of(self._records, home.id, home.data["name"])  # for the server's event
            told = {**home.data, "id": home.id, "versions": versions, "events": head.seq, "chain": head.chain}
            away = {**home.data, "versions": versions, "removed": _mark(caller)}
            changes: list[Change] = [
                Delete("projects", home.id, expect=home.rev),  # the revision protects a project that reuses the name
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
        """Delete data that removals made unreferenced, and return the bytes freed."""
        self._purging.release(project)
        return self._upkeep.reclaim(project.id)

    def _until(self) -> Document:
        return {"until": stamp(datetime.now(timezone.utc) + self._keep)}


def _mark(caller: Caller) -> Document:
    """Return the fields that record a removal: the time, and the name and id of the account."""
    return {"at": now(), "by": caller.name, "user": caller.user}
