"""Restoring of removed objects from the trash."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial

from lmvp.core.references import Revision, check_name
from lmvp.core.schemas import RemovedItem
from lmvp.errors import Conflict, InvalidReference, NotFound
from lmvp_server.services import access, grants
from lmvp_server.services.access import Caller
from lmvp_server.services.catalog import REMOVED, SERVER, Catalog, Place
from lmvp_server.services.events import event
from lmvp_server.services.runs import REMOVED_RUNS
from lmvp_server.services.versions import Versions, gone
from lmvp_server.stores.base import Change, ConcurrentChange, Delete, Document, Put, Record, RecordStore


class Undelete:
    """Use cases of `lmvp undelete`.

    Parameters
    ----------
    keep : timedelta
        How long removed objects can be restored.
    """

    def __init__(self, records: RecordStore, catalog: Catalog, versions: Versions, keep: timedelta) -> None:
        self._records, self._catalog, self._versions, self._keep = records, catalog, versions, keep

    # -- listing

    def everything(self, caller: Caller) -> Document:
        """List the objects that the caller can restore, last removed first."""
        access.require(caller, access.ENTER)
        found = [self._item("project", f"{one.data['name']}/", one) for one in self._projects(caller)]
        for project in self._records.find(SERVER, "projects"):
            if caller.may(access.MAINTAIN, project.data["name"]):
                found += self._inside(project)
        return _listing(found)

    def of_project(self, caller: Caller, project: str) -> Document:
        """List the objects of a project that can be restored, last removed first."""
        home = self._catalog.find_project(caller, project)
        access.require(caller, access.MAINTAIN, project)
        return _listing(list(self._inside(home)))

    def _projects(self, caller: Caller) -> list[Record]:
        return [one for one in self._records.find(SERVER, REMOVED) if self._may_bring_back(caller, one)]

    def _may_bring_back(self, caller: Caller, project: Record) -> bool:
        """Whether the caller can restore a project: an admin, or the account that removed it and still owns it."""
        if access.OWN not in access.SCOPES[caller.scope] or caller.only not in {"", project.id}:
            return False
        if caller.everything:
            return True
        # The roles of a removed project still exist; see `grants.owns`.
        removed_it = bool(caller.user) and caller.user == project.data["removed"]["user"]
        return removed_it and grants.owns(self._records, caller.user, project)

    def _check(self, caller: Caller, project: Record) -> None:
        """Check at the commit that the caller can restore a project."""
        if not self._may_bring_back(access.current(caller), project):
            raise NotFound(f"{project.data['name']!r} cannot be brought back by {caller.name}", hint=_HINT)

    def _inside(self, home: Record) -> Iterator[RemovedItem]:
        name = home.data["name"]
        for model in self._records.find(home.id, REMOVED):
            yield self._item("model", f"{name}/{model.data['name']}", model)
        for run in self._records.find(home.id, REMOVED_RUNS):
            if "removed" in run.data:
                yield self._item("run", f"{name}/runs/{run.id}", run, run.data["name"])
        for model in self._records.find(home.id, "models"):
            for one in self._records.find(home.id, "versions", {"model": gone(model.id)}):
                yield self._item("version", f"{name}/{model.data['name']}@v{one.data['number']}", one)

    def _item(self, kind: str, name: str, record: Record, title: str = "") -> RemovedItem:
        mark = record.data["removed"]
        at = datetime.fromisoformat(mark["at"].replace("Z", "+00:00"))
        return RemovedItem(
            kind=kind,
            name=name,
            title=title,
            versions=0 if kind == "run" else record.data.get("versions", 1),
            removed_at=at,
            removed_by=mark["by"],
            until=at + self._keep,
        )

    # -- restoring

    def version(self, caller: Caller, project: str, model: str, revision: str) -> Document:
        """Restore a version by its number.

        Raises
        ------
        NotFound
            If there is no such version in the trash.
        """
        number = _number(revision)
        while True:
            place = self._catalog.find_model(caller, project, model)
            access.require(caller, access.MAINTAIN, project)
            found = self._versions.removed(place, number)
            if found is None and self._versions.by_number(place, number):  # a repeated request
                return self._versions.version(caller, project, model, f"v{number}")
            if found is None:
                raise NotFound(f"no version v{number} of {place.reference} can be brought back", hint=_HINT)
            told = event(caller.name, "version.undelete", f"{place.reference}@v{number}", None, {"number": number})
            try:
                check = grants.still(self._records, caller, access.MAINTAIN, place.project)
                self._records.commit(place.space, _put_back(place, found), [told], check=check)
            except ConcurrentChange:
                continue
            return self._versions.version(caller, project, model, f"v{number}")

    def model(self, caller: Caller, project: str, model: str) -> Document:
        """Restore a model with its contents. Of several models of one name, restore the one removed last.

        Raises
        ------
        NotFound
            If there is no such model in the trash.
        Conflict
            If a new model has the same name.
        """
        check_name(model, "model name")
        while True:
            home = self._catalog.find_project(caller, project)
            access.require(caller, access.MAINTAIN, project)
            reference = f"{home.data['name']}/{model}"
            found = _last(self._records.find(home.id, REMOVED), model)
            # A repeated request finds the model restored.
            if found is None and self._records.get(home.id, "names", f"models:{model.lower()}"):
                return self._catalog.model(caller, project, model)
            if found is None:
                raise NotFound(f"no model {reference!r} can be brought back", hint=_HINT)
            self._see_that_it_is_free(home.id, "models", found, reference)
            told = event(caller.name, "model.undelete", reference, None, {"versions": found.data["versions"]})
            try:
                check = grants.still(self._records, caller, access.MAINTAIN, home)
                self._records.commit(home.id, _back("models", found), [told], check=check)
            except ConcurrentChange:
                continue
            return self._catalog.model(caller, project, found.data["name"])

    def project(self, caller: Caller, project: str) -> Document:
        """Restore a project with its contents. Admins can do this, and the account that removed it and still owns it.

        Raises
        ------
        NotFound
            If there is no such project in the trash that the caller can restore.
        Conflict
            If a new project has the same name.
        """
        check_name(project, "project name")
        access.require(caller, access.ENTER)
        while True:
            found = _last(self._projects(caller), project)
            if found is None and caller.may(access.READ, project):
                return self._catalog.project(caller, project)
            if found is None:
                raise NotFound(f"there is nothing called {f'{project}/'!r} that you can bring back", hint=_HINT)
            self._see_that_it_is_free(SERVER, "projects", found, f"{project}/")
            grants.end_lost(self._records, caller.name)  # an earlier release kept the grants of removed projects
            told = event(caller.name, "project.undelete", found.data["name"], None, {"id": found.id})
            try:
                self._records.commit(
                    SERVER, _back("projects", found), [told], check=partial(self._check, caller, found)
                )
            except ConcurrentChange:
                continue
            return self._catalog.project(caller, found.data["name"])

    def _see_that_it_is_free(self, space: str, table: str, found: Record, name: str) -> None:
        if self._records.get(space, "names", f"{table}:{found.data['key']}"):
            raise Conflict(
                f"there is a new {name!r} by now",
                hint=f"`lmvp export {name} FOLDER` saves it, `lmvp rm {name} --yes` makes room for the old one",
            )


_HINT = "`lmvp undelete` lists what can be"


def _last(records: list[Record], name: str) -> Record | None:
    named = [one for one in records if one.data["key"] == name.lower()]
    return max(named, key=lambda one: one.data["removed"]["at"], default=None)


def _back(table: str, found: Record) -> list[Change]:
    """Return the changes that move a record back from the trash and reserve its name again."""
    data = {key: value for key, value in found.data.items() if key not in {"removed", "versions"}}
    return [
        Delete(REMOVED, found.id, expect=found.rev),
        Put(table, found.id, data, expect=0),
        Put("names", f"{table}:{data['key']}", {"id": found.id}, expect=0),
    ]


def _put_back(place: Place, found: Record) -> list[Change]:
    """Return the changes that move a version back from the trash, with its previous number."""
    data = {key: value for key, value in found.data.items() if key != "removed"} | {"model": place.model.id}
    # The restored version can be newer than all others.
    latest = max(place.model.data["latest"], data["number"])
    return [
        Put("versions", found.id, data, expect=found.rev),
        Put("models", place.model.id, place.model.data | {"latest": latest}, expect=place.model.rev),
    ]


def _number(revision: str) -> int:
    parsed = Revision.parse(revision)
    if parsed.kind != "number" or parsed.back:
        raise InvalidReference(f"{revision[:40]!r} is no number of a version", hint="as digits/mlp@v3")
    return int(parsed.value)


def _listing(found: list[RemovedItem]) -> Document:
    items = sorted(found, key=lambda one: one.removed_at, reverse=True)
    return {"items": items, "next": None, "total": len(items)}
