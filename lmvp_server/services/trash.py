"""The trash: removal, restoring and permanent deletion of versions, models and projects.

A removed version keeps its record under another key (`versions.removed_key`). A removed model or project moves to
another table, but its contents stay in place. So gc, compaction, `fsck` and backups still include all of it.

After the retention time, removed objects are deleted permanently, and so are the files of decided contributions. A
decided contribution keeps its record: message, metrics, reason and comments.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from functools import partial

from lmvp.core.references import Revision, check_name
from lmvp.core.schemas import RemovedItem
from lmvp.errors import Conflict, InvalidReference, NotFound
from lmvp_server.services import access, grants
from lmvp_server.services.access import Caller
from lmvp_server.services.audit import event, head_of, recorded
from lmvp_server.services.catalog import REMOVED, SERVER, Catalog, Place
from lmvp_server.services.clock import now, stamp
from lmvp_server.services.maintenance import Upkeep, passed_over
from lmvp_server.services.runs import REMOVED_RUNS
from lmvp_server.services.versions import (
    DELETED_CONTRIBUTIONS,
    Versions,
    next_number,
    proposed_key,
    removed_key,
    version_id,
)
from lmvp_server.stores.base import Change, ConcurrentChange, Delete, Document, Put, Record, RecordStore, SeriesStore

_HINT = "`lmvp undelete` lists what can be"

WHO = "retention window"
"""The author in events about automatic deletion. Account names cannot contain a space."""


class Trash:
    """Use cases of `lmvp rm`, `lmvp undelete` and the permanent deletion of removed objects.

    The number of a removed version is never used again; the name of a removed model can be.

    Parameters
    ----------
    keep : timedelta
        How long removed objects can be restored. Zero: not at all, and removing deletes permanently.
    """

    def __init__(
        self,
        records: RecordStore,
        series: SeriesStore,
        catalog: Catalog,
        versions: Versions,
        upkeep: Upkeep,
        keep: timedelta,
    ) -> None:
        self._records, self._series, self._catalog, self._versions = records, series, catalog, versions
        self._upkeep, self._keep = upkeep, keep

    # -- removing

    def remove_version(
        self, caller: Caller, project: str, model: str, revision: str, *, for_good: bool = False
    ) -> Document:
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
        keep = self._is_kept(for_good)
        self.drop(caller, place, lambda: [self._unaliased(place, revision)], "version.remove", keep=keep)
        return self._removed(place.project, versions=1, keep=keep)

    def _is_kept(self, for_good: bool) -> bool:
        return bool(self._keep) and not for_good

    def _unaliased(self, place: Place, revision: str) -> Record:
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

        def attempt() -> list[Record]:
            model = self._records.get(place.space, "models", place.model.id)
            going = list(choose()) if model else []
            if model is None or not going:
                return going
            entries = [
                event(caller.name, action, f"{place.reference}@v{one.data['number']}", one.data, None) for one in going
            ]
            check = grants.still(self._records, caller, access.MAINTAIN, place.project)
            changes = self._drop_changes(caller, place, model, going, keep=keep)
            self._records.commit(place.space, changes, entries, check=check)
            return going

        return self._records.retry(attempt)

    def _drop_changes(
        self, caller: Caller, place: Place, model: Record, going: Sequence[Record], *, keep: bool
    ) -> list[Change]:
        ids = {version.id for version in going}
        # The latest number can fall when versions are removed; `last` cannot, so that no number is used again.
        standing = self._records.find(place.space, "versions", {"model": model.id})
        left = [one.data["number"] for one in standing if one.id not in ids]
        news = {"latest": left[-1] if left else 0, "last": next_number(model) - 1}
        removed = {"model": removed_key(model.id), "removed": _mark(caller)}
        return [
            *(
                Put("versions", one.id, one.data | removed, expect=one.rev)
                if keep
                else Delete("versions", one.id, expect=one.rev)
                for one in going
            ),
            Put("models", model.id, model.data | news, expect=model.rev),
        ]

    def remove_model(self, caller: Caller, project: str, model: str, *, for_good: bool = False) -> Document:
        """Remove a model with all its versions and aliases."""
        keep = self._is_kept(for_good)

        # Retried if a push commits meanwhile: it would leave a version without its model.
        def attempt() -> Document:
            place = self._catalog.find_model(caller, project, model)
            access.require(caller, access.MAINTAIN, project)
            versions = self._records.count(place.space, "versions", {"model": place.model.id})
            before = {**place.model.data, "versions": versions}
            away = {**before, "removed": _mark(caller)}
            changes: list[Change] = [
                Delete("models", place.model.id, expect=place.model.rev),
                Delete("names", f"models:{place.model.data['key']}"),
                *(
                    [Put(REMOVED, place.model.id, away, expect=0)]
                    if keep
                    else _model_changes(self._records, place.space, place.model.id)
                ),
            ]
            entry = event(caller.name, "model.remove", place.reference, before, None)
            check = grants.still(self._records, caller, access.MAINTAIN, place.project)
            self._records.commit(place.space, changes, [entry], check=check)
            return self._removed(place.project, versions=versions, keep=keep)

        return self._records.retry(attempt)

    def remove_project(self, caller: Caller, project: str, *, for_good: bool = False) -> Document:
        """Remove a project with all its contents, including its audit log."""
        keep = self._is_kept(for_good)

        def attempt() -> Document:
            home = self._catalog.find_project(caller, project)
            access.require(caller, access.OWN, project)
            models = self._records.find(home.id, "models")
            versions = sum(self._records.count(home.id, "versions", {"model": model.id}) for model in models)
            head = head_of(self._records, home.id, home.data["name"])  # for the server's event
            before = {**home.data, "id": home.id, "versions": versions, "events": head.seq, "chain": head.chain}
            away = {**home.data, "versions": versions, "removed": _mark(caller)}
            changes: list[Change] = [
                Delete("projects", home.id, expect=home.rev),  # the revision protects a project that reuses the name
                Delete("names", f"projects:{home.data['key']}"),
                *([Put(REMOVED, home.id, away, expect=0)] if keep else self._server_changes(home.id)),
            ]
            entry = event(caller.name, "project.remove", home.data["name"], before, None)
            check = grants.still(self._records, caller, access.OWN, home, expected=True)
            self._records.commit(SERVER, changes, [entry], check=check)
            freed = 0 if keep else self._delete_project_data(home.id)
            return {"versions": versions, "bytes": freed} | (self._restorable_until() if keep else {})

        return self._records.retry(attempt)

    def _removed(self, project: Record, *, versions: int, keep: bool) -> Document:
        if keep:
            return {"versions": versions, "bytes": 0} | self._restorable_until()
        return {"versions": versions, "bytes": self.reclaim(project)}

    def reclaim(self, project: Record) -> int:
        """Delete data that removals made unreferenced, and return the bytes freed."""
        self.release(project)
        return self._upkeep.reclaim(project.id)

    def _restorable_until(self) -> Document:
        return {"until": stamp(datetime.now(timezone.utc) + self._keep)}

    # -- listing

    def items(self, caller: Caller) -> Document:
        """List the objects that the caller can restore, last removed first."""
        access.require(caller, access.ENTER)
        found = [self._item("project", f"{one.data['name']}/", one) for one in self._restorable_projects(caller)]
        for project in self._records.find(SERVER, "projects"):
            if caller.may(access.MAINTAIN, project.data["name"]):
                found += self._project_items(project)
        return _listing(found)

    def items_of_project(self, caller: Caller, project: str) -> Document:
        """List the objects of a project that can be restored, last removed first."""
        home = self._catalog.find_project(caller, project)
        access.require(caller, access.MAINTAIN, project)
        return _listing(list(self._project_items(home)))

    def _restorable_projects(self, caller: Caller) -> list[Record]:
        return [one for one in self._records.find(SERVER, REMOVED) if self._may_restore(caller, one)]

    def _may_restore(self, caller: Caller, project: Record) -> bool:
        """Whether the caller can restore a project: an admin, or the account that removed it and still owns it."""
        if access.OWN not in access.SCOPES[caller.scope] or caller.only not in {"", project.id}:
            return False
        if caller.everything:
            return True
        # The roles of a removed project still exist; see `grants.owns`.
        removed_it = bool(caller.user) and caller.user == project.data["removed"]["user"]
        return removed_it and grants.owns(self._records, caller.user, project)

    def _check_restore(self, caller: Caller, project: Record) -> None:
        """Check at the commit that the caller can restore a project."""
        if not self._may_restore(access.current(caller), project):
            raise NotFound(f"{project.data['name']!r} cannot be brought back by {caller.name}", hint=_HINT)

    def _project_items(self, home: Record) -> Iterator[RemovedItem]:
        name = home.data["name"]
        for model in self._records.find(home.id, REMOVED):
            yield self._item("model", f"{name}/{model.data['name']}", model)
        for run in self._records.find(home.id, REMOVED_RUNS):
            if "removed" in run.data:
                yield self._item("run", f"{name}/runs/{run.id}", run, run.data["name"])
        for model in self._records.find(home.id, "models"):
            for one in self._records.find(home.id, "versions", {"model": removed_key(model.id)}):
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

    def restore_version(self, caller: Caller, project: str, model: str, revision: str) -> Document:
        """Restore a version by its number.

        Raises
        ------
        NotFound
            If there is no such version in the trash.
        """
        number = _number(revision)

        def attempt() -> Document:
            place = self._catalog.find_model(caller, project, model)
            access.require(caller, access.MAINTAIN, project)
            found = self._versions.removed(place, number)
            if found is None and self._versions.by_number(place, number):  # a repeated request
                return self._versions.version(caller, project, model, f"v{number}")
            if found is None:
                raise NotFound(f"no version v{number} of {place.reference} can be brought back", hint=_HINT)
            entry = event(caller.name, "version.undelete", f"{place.reference}@v{number}", None, {"number": number})
            check = grants.still(self._records, caller, access.MAINTAIN, place.project)
            self._records.commit(place.space, _restore_version_changes(place, found), [entry], check=check)
            return self._versions.version(caller, project, model, f"v{number}")

        return self._records.retry(attempt)

    def restore_model(self, caller: Caller, project: str, model: str) -> Document:
        """Restore a model with its contents. Of several models of one name, restore the one removed last.

        Raises
        ------
        NotFound
            If there is no such model in the trash.
        Conflict
            If a new model has the same name.
        """
        check_name(model, "model name")

        def attempt() -> Document:
            home = self._catalog.find_project(caller, project)
            access.require(caller, access.MAINTAIN, project)
            reference = f"{home.data['name']}/{model}"
            found = _last_removed(self._records.find(home.id, REMOVED), model)
            # A repeated request finds the model restored.
            if found is None and self._records.get(home.id, "names", f"models:{model.lower()}"):
                return self._catalog.model(caller, project, model)
            if found is None:
                raise NotFound(f"no model {reference!r} can be brought back", hint=_HINT)
            self._check_name_is_free(home.id, "models", found, reference)
            entry = event(caller.name, "model.undelete", reference, None, {"versions": found.data["versions"]})
            check = grants.still(self._records, caller, access.MAINTAIN, home)
            self._records.commit(home.id, _restore_changes("models", found), [entry], check=check)
            return self._catalog.model(caller, project, found.data["name"])

        return self._records.retry(attempt)

    def restore_project(self, caller: Caller, project: str) -> Document:
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

        def attempt() -> Document:
            found = _last_removed(self._restorable_projects(caller), project)
            if found is None and caller.may(access.READ, project):
                return self._catalog.project(caller, project)
            if found is None:
                raise NotFound(f"there is nothing called {f'{project}/'!r} that you can bring back", hint=_HINT)
            self._check_name_is_free(SERVER, "projects", found, f"{project}/")
            grants.end_lost(self._records, caller.name)  # an earlier release kept the grants of removed projects
            entry = event(caller.name, "project.undelete", found.data["name"], None, {"id": found.id})
            self._records.commit(
                SERVER,
                _restore_changes("projects", found),
                [entry],
                check=partial(self._check_restore, caller, found),
            )
            return self._catalog.project(caller, found.data["name"])

        return self._records.retry(attempt)

    def _check_name_is_free(self, space: str, table: str, found: Record, name: str) -> None:
        if self._records.get(space, "names", f"{table}:{found.data['key']}"):
            raise Conflict(
                f"there is a new {name!r} by now",
                hint=f"`lmvp export {name} FOLDER` saves it, `lmvp rm {name} --yes` makes room for the old one",
            )

    # -- permanent deletion after the retention time

    def collect(self, caller: Caller, *, removed: bool = False) -> Document:
        """Delete unreferenced data of the whole server, and objects whose retention time is over.

        Parameters
        ----------
        caller : Caller
            The caller, an admin.
        removed : bool, default False
            Also delete all objects in the trash, and the files of all declined and withdrawn contributions.
        """
        access.require(caller, access.ADMIN)
        what = "all projects, and what was removed" if removed else "all projects"
        with recorded(self._records, caller.name, "server.gc", what) as result:
            # With `removed`, everything that was removed until now is over its retention time.
            before, who = (now(), caller.name) if removed else (self._cutoff(), WHO)
            freed = self._purge_projects(before, who, lambda: True)
            for project in self._records.find(SERVER, "projects"):
                self._purge_inside(project, before, who)
            done = self._upkeep.collect(caller)
            done = {**done, "bytes": done["bytes"] + freed}
            result |= done
        removals, decided = list(self._removals()), list(self._decisions())
        kept = {"waiting": len(removals), "until": self._last_until(removals)}
        return {**done, **kept, "decided": len(decided), "decided_until": self._last_until(decided)}

    def _cutoff(self) -> str:
        """Return the time before which an object must have been removed or decided to be deleted now."""
        return stamp(datetime.now(timezone.utc) - self._keep)

    def _last_until(self, times: Collection[str]) -> str | None:
        """Return when the last of the objects will be deleted, given the times of their removal or decision."""
        if not times:
            return None
        return stamp(datetime.fromisoformat(max(times).replace("Z", "+00:00")) + self._keep)

    def _removals(self) -> Iterator[str]:
        """Yield the times of removal of all objects in the trash."""
        kept = self._records.find(SERVER, REMOVED)
        for project in self._records.find(SERVER, "projects"):
            kept += self._records.find(project.id, REMOVED)
            kept += self._records.find(project.id, REMOVED_RUNS)
            for model in self._records.find(project.id, "models"):
                kept += self._records.find(project.id, "versions", {"model": removed_key(model.id)})
        yield from (one.data["removed"]["at"] for one in kept if "removed" in one.data)

    def _decisions(self) -> Iterator[str]:
        """Yield the times of decision of all contributions that still have files."""
        for project in self._records.find(SERVER, "projects"):
            for _, one in self._decided(project.id):
                yield one.data["contribution"]["decided_at"]

    def _decided(self, space: str, without: Collection[str] = ()) -> Iterator[tuple[str, Record]]:
        """Yield decided contributions that still have files, with the names of their models.

        An accepted contribution shares its files with its version, so it is included only when that version is deleted.

        Parameters
        ----------
        space : str
            The id of the project.
        without : collection of str
            Ids of version records that count as deleted.
        """
        for table in ("models", REMOVED):
            for model in self._records.find(space, table):
                for one in self._records.find(space, "versions", {"model": proposed_key(model.id)}):
                    about = one.data["contribution"]
                    accepted = version_id(model.id, about["accepted"]) if about["accepted"] else ""
                    is_there = accepted not in without and bool(self._records.get(space, "versions", accepted))
                    if about["status"] != "proposed" and not (accepted and is_there):
                        yield model.data["name"], one

    def release(self, project: Record) -> int:
        """Delete the files of decided contributions whose retention time is over. Return their number.

        This only changes records; the next gc frees the bytes. So a crash in between loses nothing.
        """
        return self._purge_contributions(project, self._cutoff(), WHO)

    def released_with(self, space: str, versions: Collection[str]) -> set[str]:
        """Return the ids of the contributions that `release` would delete too if these versions were deleted."""
        before = self._cutoff()
        decided = (one for _, one in self._decided(space, versions))
        return {one.id for one in decided if one.data["contribution"]["decided_at"] <= before}

    def purge(self, go_on: Callable[[], bool]) -> None:
        """Delete objects whose retention time is over, as long as `go_on` returns True."""
        before = self._cutoff()
        self._purge_projects(before, WHO, go_on)
        for project in self._records.find(SERVER, "projects"):
            with passed_over(project.id):
                if go_on() and self._purge_inside(project, before, WHO):
                    self._upkeep.reclaim(project.id)

    def _purge_projects(self, before: str, who: str, go_on: Callable[[], bool]) -> int:
        over = [one for one in self._records.find(SERVER, REMOVED) if one.data["removed"]["at"] <= before]
        return sum(self._purge_project(one, who) for one in over if go_on())

    def _purge_inside(self, project: Record, before: str, who: str) -> bool:
        self._purge_runs(project, before, who)
        count = self._purge_models(project, before, who) + self._purge_versions(project, before, who)
        # Last, because versions must be deleted first.
        return count + self._purge_contributions(project, before, who) > 0

    def _purge_runs(self, project: Record, before: str, who: str) -> None:
        """Delete removed runs whose retention time is over. A mark rejects journals that arrive later."""
        for run in self._records.find(project.id, REMOVED_RUNS):
            if "removed" not in run.data or run.data["removed"]["at"] > before:
                continue
            # The record without `removed` is the mark: see `Runs.missing`.
            mark: Change = Put(REMOVED_RUNS, run.id, {"at": run.data["at"]}, expect=run.rev)
            entry = event(who, "run.purge", f"{project.data['name']}/runs/{run.id}", {"name": run.data["name"]}, None)
            if self._commit(project, [mark], entry):
                self._series.drop(project.id, run.id)

    def _purge_project(self, project: Record, who: str) -> int:
        # The event of the server keeps the head of the deleted audit log, so that a copy of the log can be verified.
        head = head_of(self._records, project.id, project.data["name"])
        before = {"id": project.id, "events": head.seq, "chain": head.chain}
        changes: list[Change] = [Delete(REMOVED, project.id, expect=project.rev), *self._server_changes(project.id)]
        try:
            self._records.commit(SERVER, changes, [event(who, "project.purge", project.data["name"], before, None)])
        except ConcurrentChange:  # restored at the same time
            return 0
        return self._delete_project_data(project.id)

    def _purge_models(self, project: Record, before: str, who: str) -> int:
        count = 0
        for model in self._records.find(project.id, REMOVED):
            if model.data["removed"]["at"] <= before:
                end: Change = Delete(REMOVED, model.id, expect=model.rev)
                entry = event(who, "model.purge", f"{project.data['name']}/{model.data['name']}")
                count += self._commit(project, [end, *_model_changes(self._records, project.id, model.id)], entry)
        return count

    def _purge_versions(self, project: Record, before: str, who: str) -> int:
        count = 0
        for model in self._records.find(project.id, "models"):
            over = [
                one
                for one in self._records.find(project.id, "versions", {"model": removed_key(model.id)})
                if one.data["removed"]["at"] <= before
            ]
            for one in over:
                what = f"{project.data['name']}/{model.data['name']}@v{one.data['number']}"
                changes: list[Change] = [Delete("versions", one.id, expect=one.rev)]
                count += self._commit(project, changes, event(who, "version.purge", what))
        return count

    def _purge_contributions(self, project: Record, before: str, who: str) -> int:
        """Move decided contributions to the table of contributions without files."""
        count = 0
        for model, one in self._decided(project.id):
            about = one.data["contribution"]
            if about["decided_at"] > before:
                continue
            data = {**one.data, "stored": 0, "contribution": {**about, "deleted_at": now()}}
            changes: list[Change] = [
                Delete("versions", one.id, expect=one.rev),
                Put(DELETED_CONTRIBUTIONS, one.id, data, expect=0),
            ]
            what = f"{project.data['name']}/{model}@c{one.data['number']}"
            entry = event(who, "contribution.purge", what, {"status": about["status"], "digest": one.data["digest"]})
            count += self._commit(project, changes, entry)
        return count

    def _commit(self, project: Record, changes: list[Change], entry: Document) -> bool:
        try:
            self._records.commit(project.id, changes, [entry])
        except ConcurrentChange:  # restored at the same time
            return False
        return True

    def _server_changes(self, project: str) -> list[Change]:
        """Return the changes that delete the roles and webhooks of a project. They are records of the server."""
        return [
            Delete(table, one.id)
            for table in ("members", "webhooks")
            for one in self._records.find(SERVER, table, {"project": project})
        ]

    def _delete_project_data(self, project: str) -> int:
        """Delete the data of a project whose record is deleted. Return the bytes freed."""
        return self._series.drop(project) + self._upkeep.forget(project)


def _mark(caller: Caller) -> Document:
    """Return the fields that record a removal: the time, and the name and id of the account."""
    return {"at": now(), "by": caller.name, "user": caller.user}


def _model_changes(records: RecordStore, space: str, model: str) -> list[Change]:
    """Return the changes that delete everything of a model: versions (also proposed or removed ones) and aliases."""
    deleted = records.find(space, DELETED_CONTRIBUTIONS, {"model": proposed_key(model)})
    versions = [
        one
        for of in (model, proposed_key(model), removed_key(model))
        for one in records.find(space, "versions", {"model": of})
    ]
    return [
        *(Delete("versions", one.id, expect=one.rev) for one in versions),
        *(Delete(DELETED_CONTRIBUTIONS, one.id, expect=one.rev) for one in deleted),
        *(Delete("aliases", one.id, expect=one.rev) for one in records.find(space, "aliases", {"model": model})),
    ]


def _last_removed(records: list[Record], name: str) -> Record | None:
    named = [one for one in records if one.data["key"] == name.lower()]
    return max(named, key=lambda one: one.data["removed"]["at"], default=None)


def _restore_changes(table: str, found: Record) -> list[Change]:
    """Return the changes that move a record back from the trash and reserve its name again."""
    data = {key: value for key, value in found.data.items() if key not in {"removed", "versions"}}
    return [
        Delete(REMOVED, found.id, expect=found.rev),
        Put(table, found.id, data, expect=0),
        Put("names", f"{table}:{data['key']}", {"id": found.id}, expect=0),
    ]


def _restore_version_changes(place: Place, found: Record) -> list[Change]:
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
