"""Bringing back what was removed, while its time lasts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial

from lmvp.errors import Conflict, InvalidReference, NotFound
from lmvp.records import RemovedItem
from lmvp.references import Revision, check_name
from lmvp_server.services import access, grants
from lmvp_server.services.access import Caller
from lmvp_server.services.catalog import REMOVED, SERVER, Catalog, Place
from lmvp_server.services.events import event
from lmvp_server.services.runs import REMOVED_RUNS
from lmvp_server.services.versions import Versions, gone
from lmvp_server.stores.base import Change, ConcurrentChange, Delete, Document, Put, Record, RecordStore


class Undelete:
    """The use cases of `undelete`.

    Parameters
    ----------
    keep : timedelta
        How long what is removed can be brought back.
    """

    def __init__(self, records: RecordStore, catalog: Catalog, versions: Versions, keep: timedelta) -> None:
        self._records, self._catalog, self._versions, self._keep = records, catalog, versions, keep

    # -- what there is

    def everything(self, caller: Caller) -> Document:
        """List what the caller can bring back, what was removed last first."""
        access.require(caller, access.ENTER)
        found = [self._item("project", f"{one.data['name']}/", one) for one in self._projects(caller)]
        for project in self._records.find(SERVER, "projects"):
            if caller.may(access.MAINTAIN, project.data["name"]):
                found += self._inside(project)
        return _listing(found)

    def of_project(self, caller: Caller, project: str) -> Document:
        """List what can be brought back in a project, what was removed last first."""
        home = self._catalog.find_project(caller, project)
        access.require(caller, access.MAINTAIN, project)
        return _listing(list(self._inside(home)))

    def _projects(self, caller: Caller) -> list[Record]:
        return [one for one in self._records.find(SERVER, REMOVED) if self._may_bring_back(caller, one)]

    def _may_bring_back(self, caller: Caller, project: Record) -> bool:
        """Tell whether the caller may bring a project back: an admin, or the account that removed and still owns it."""
        if access.OWN not in access.SCOPES[caller.scope] or caller.only not in {"", project.id}:
            return False
        if caller.everything:
            return True
        removed_it = bool(caller.user) and caller.user == project.data["removed"]["user"]
        return removed_it and grants.owns(self._records, caller.user, project)

    def _check(self, caller: Caller, project: Record) -> None:
        """Check at the moment of the commit that the caller may bring a project back."""
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

    # -- bringing back

    def version(self, caller: Caller, project: str, model: str, revision: str) -> Document:
        """Bring back a version, by its number.

        Raises
        ------
        NotFound
            If there is no such version that can be brought back.
        """
        number = _number(revision)
        while True:
            place = self._catalog.find_model(caller, project, model)
            access.require(caller, access.MAINTAIN, project)
            found = self._versions.removed(place, number)
            if found is None and self._versions.by_number(place, number):  # the same request, sent again
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
        """Bring back a model with all that was in it; of several of one name, the one that was removed last.

        Raises
        ------
        NotFound
            If there is no such model that can be brought back.
        Conflict
            If there is one of that name again.
        """
        check_name(model, "model name")
        while True:
            home = self._catalog.find_project(caller, project)
            access.require(caller, access.MAINTAIN, project)
            reference = f"{home.data['name']}/{model}"
            found = _last(self._records.find(home.id, REMOVED), model)
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
        """Bring back a project with all that was in it, for an admin, or the account that removed it and still owns it.

        Raises
        ------
        NotFound
            If there is no such project that the caller can bring back.
        Conflict
            If there is one of that name again.
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
            grants.end_lost(self._records, caller.name)  # an earlier release kept grants of removed projects
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
    """Return what moves a record from the removed ones to where it was, and takes its name again."""
    data = {key: value for key, value in found.data.items() if key not in {"removed", "versions"}}
    return [
        Delete(REMOVED, found.id, expect=found.rev),
        Put(table, found.id, data, expect=0),
        Put("names", f"{table}:{data['key']}", {"id": found.id}, expect=0),
    ]


def _put_back(place: Place, found: Record) -> list[Change]:
    """Return what takes a version from the shelf of the removed ones; it stands where it stood."""
    data = {key: value for key, value in found.data.items() if key != "removed"} | {"model": place.model.id}
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
