"""Permanent deletion of objects in the trash, and of files of decided contributions, after the retention time.

A decided contribution keeps its record: message, metrics, reason and comments. Only its files are deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timedelta, timezone

from lmvp_server.services import access
from lmvp_server.services.access import Caller
from lmvp_server.services.audit import head_of
from lmvp_server.services.catalog import REMOVED, SERVER
from lmvp_server.services.clock import now, stamp
from lmvp_server.services.damage import passed_over
from lmvp_server.services.events import event, recorded
from lmvp_server.services.maintenance import Upkeep
from lmvp_server.services.runs import REMOVED_RUNS
from lmvp_server.services.versions import DELETED_CONTRIBUTIONS, gone, shelf, version_id
from lmvp_server.stores.base import Change, ConcurrentChange, Delete, Document, Put, Record, RecordStore, SeriesStore

WHO = "retention window"
"""The author in events about automatic deletion. Account names cannot contain a space."""


class Purging:
    """Use case: empty the trash.

    Parameters
    ----------
    keep : timedelta
        How long removed objects can be restored.
    """

    def __init__(self, records: RecordStore, series: SeriesStore, upkeep: Upkeep, keep: timedelta) -> None:
        self._records, self._series, self._upkeep, self._keep = records, series, upkeep, keep

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
            freed = self._end_projects(before, who, lambda: True)
            for project in self._records.find(SERVER, "projects"):
                self._end_inside(project, before, who)
            done = self._upkeep.collect(caller)
            done = {**done, "bytes": done["bytes"] + freed}
            result |= done
        removals, decided = list(self._removals()), list(self._decisions())
        kept = {"waiting": len(removals), "until": self._until(removals)}
        return {**done, **kept, "decided": len(decided), "decided_until": self._until(decided)}

    def _cutoff(self) -> str:
        """Return the time before which an object must have been removed or decided to be deleted now."""
        return stamp(datetime.now(timezone.utc) - self._keep)

    def _until(self, times: Collection[str]) -> str | None:
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
                kept += self._records.find(project.id, "versions", {"model": gone(model.id)})
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
                for one in self._records.find(space, "versions", {"model": shelf(model.id)}):
                    about = one.data["contribution"]
                    accepted = version_id(model.id, about["accepted"]) if about["accepted"] else ""
                    is_there = accepted not in without and bool(self._records.get(space, "versions", accepted))
                    if about["status"] != "proposed" and not (accepted and is_there):
                        yield model.data["name"], one

    def release(self, project: Record) -> int:
        """Delete the files of decided contributions whose retention time is over. Return their number.

        This only changes records; the next gc frees the bytes. So a crash in between loses nothing.
        """
        return self._end_contributions(project, self._cutoff(), WHO)

    def released_with(self, space: str, versions: Collection[str]) -> set[str]:
        """Return the ids of the contributions that `release` would delete too if these versions were deleted."""
        before = self._cutoff()
        decided = (one for _, one in self._decided(space, versions))
        return {one.id for one in decided if one.data["contribution"]["decided_at"] <= before}

    def purge(self, go_on: Callable[[], bool]) -> None:
        """Delete objects whose retention time is over, as long as `go_on` returns True."""
        before = self._cutoff()
        self._end_projects(before, WHO, go_on)
        for project in self._records.find(SERVER, "projects"):
            with passed_over(project.id):
                if go_on() and self._end_inside(project, before, WHO):
                    self._upkeep.reclaim(project.id)

    def _end_projects(self, before: str, who: str, go_on: Callable[[], bool]) -> int:
        over = [one for one in self._records.find(SERVER, REMOVED) if one.data["removed"]["at"] <= before]
        return sum(self._end_project(one, who) for one in over if go_on())

    def _end_inside(self, project: Record, before: str, who: str) -> bool:
        self._end_runs(project, before, who)
        count = self._end_models(project, before, who) + self._end_versions(project, before, who)
        return count + self._end_contributions(project, before, who) > 0  # last, because versions must be deleted first

    def _end_runs(self, project: Record, before: str, who: str) -> None:
        """Delete removed runs whose retention time is over. A mark rejects journals that arrive later."""
        for run in self._records.find(project.id, REMOVED_RUNS):
            if "removed" not in run.data or run.data["removed"]["at"] > before:
                continue
            # The record without `removed` is the mark: see `Runs.missing`.
            mark: Change = Put(REMOVED_RUNS, run.id, {"at": run.data["at"]}, expect=run.rev)
            told = event(who, "run.purge", f"{project.data['name']}/runs/{run.id}", {"name": run.data["name"]}, None)
            if self._commit(project, [mark], told):
                self._series.drop(project.id, run.id)

    def _end_project(self, project: Record, who: str) -> int:
        # The event of the server keeps the head of the deleted audit log, so that a copy of the log can be verified.
        head = head_of(self._records, project.id, project.data["name"])
        told = {"id": project.id, "events": head.seq, "chain": head.chain}
        changes: list[Change] = [Delete(REMOVED, project.id, expect=project.rev), *self.around(project.id)]
        try:
            self._records.commit(SERVER, changes, [event(who, "project.purge", project.data["name"], told, None)])
        except ConcurrentChange:  # restored at the same time
            return 0
        return self.forget(project.id)

    def _end_models(self, project: Record, before: str, who: str) -> int:
        count = 0
        for model in self._records.find(project.id, REMOVED):
            if model.data["removed"]["at"] <= before:
                end: Change = Delete(REMOVED, model.id, expect=model.rev)
                told = event(who, "model.purge", f"{project.data['name']}/{model.data['name']}")
                count += self._commit(project, [end, *of_model(self._records, project.id, model.id)], told)
        return count

    def _end_versions(self, project: Record, before: str, who: str) -> int:
        count = 0
        for model in self._records.find(project.id, "models"):
            over = [
                one
                for one in self._records.find(project.id, "versions", {"model": gone(model.id)})
                if one.data["removed"]["at"] <= before
            ]
            for one in over:
                what = f"{project.data['name']}/{model.data['name']}@v{one.data['number']}"
                changes: list[Change] = [Delete("versions", one.id, expect=one.rev)]
                count += self._commit(project, changes, event(who, "version.purge", what))
        return count

    def _end_contributions(self, project: Record, before: str, who: str) -> int:
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
            told = event(who, "contribution.purge", what, {"status": about["status"], "digest": one.data["digest"]})
            count += self._commit(project, changes, told)
        return count

    def _commit(self, project: Record, changes: list[Change], told: Document) -> bool:
        try:
            self._records.commit(project.id, changes, [told])
        except ConcurrentChange:  # restored at the same time
            return False
        return True

    # -- also used by removals with `--now`

    def around(self, project: str) -> list[Change]:
        """Return the changes that delete the roles and webhooks of a project. They are records of the server."""
        return [
            Delete(table, one.id)
            for table in ("members", "webhooks")
            for one in self._records.find(SERVER, table, {"project": project})
        ]

    def forget(self, project: str) -> int:
        """Delete the data of a project whose record is deleted. Return the bytes freed."""
        return self._series.drop(project) + self._upkeep.forget(project)


def of_model(records: RecordStore, space: str, model: str) -> list[Change]:
    """Return the changes that delete everything of a model: versions (also proposed or removed ones) and aliases."""
    deleted = records.find(space, DELETED_CONTRIBUTIONS, {"model": shelf(model)})
    versions = [
        one for of in (model, shelf(model), gone(model)) for one in records.find(space, "versions", {"model": of})
    ]
    return [
        *(Delete("versions", one.id, expect=one.rev) for one in versions),
        *(Delete(DELETED_CONTRIBUTIONS, one.id, expect=one.rev) for one in deleted),
        *(Delete("aliases", one.id, expect=one.rev) for one in records.find(space, "aliases", {"model": model})),
    ]
