"""Deleting for good what was removed long enough ago, and giving its bytes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone

from lmvp_server.services import access
from lmvp_server.services.access import Caller
from lmvp_server.services.audit import head_of
from lmvp_server.services.catalog import REMOVED, SERVER
from lmvp_server.services.clock import stamp
from lmvp_server.services.damage import passed_over
from lmvp_server.services.events import event, recorded
from lmvp_server.services.runs import REMOVED_RUNS
from lmvp_server.services.upkeep import Upkeep
from lmvp_server.services.versions import gone, shelf
from lmvp_server.stores.base import Change, ConcurrentChange, Delete, Document, Put, Record, RecordStore, SeriesStore

WHO = "retention window"
"""Whom the events name; no account can have a name of two words."""


class Purging:
    """The use case of emptying what can still be brought back.

    Parameters
    ----------
    keep : timedelta
        How long what is removed can be brought back.
    """

    def __init__(self, records: RecordStore, series: SeriesStore, upkeep: Upkeep, keep: timedelta) -> None:
        self._records, self._series, self._upkeep, self._keep = records, series, upkeep, keep

    def collect(self, caller: Caller, *, removed: bool = False) -> Document:
        """Delete what nothing needs on the whole server; with `removed`, also all that could be brought back."""
        access.require(caller, access.ADMIN)
        what = "all projects, and what was removed" if removed else "all projects"
        with recorded(self._records, caller.name, "server.gc", what) as result:
            freed = 0
            if removed:
                before = stamp(datetime.now(timezone.utc))
                freed = self._end_projects(before, caller.name, lambda: True)
                for project in self._records.find(SERVER, "projects"):
                    self._end_inside(project, before, caller.name)
            done = self._upkeep.collect(caller)
            done = {**done, "bytes": done["bytes"] + freed}
            result |= done
        removals = sorted(self._removals())
        until = datetime.fromisoformat(removals[-1].replace("Z", "+00:00")) + self._keep if removals else None
        return {**done, "waiting": len(removals), "until": stamp(until) if until else None}

    def _removals(self) -> Iterator[str]:
        """Yield the times at which all was removed that can be restored."""
        kept = self._records.find(SERVER, REMOVED)
        for project in self._records.find(SERVER, "projects"):
            kept += self._records.find(project.id, REMOVED)
            kept += self._records.find(project.id, REMOVED_RUNS)
            for model in self._records.find(project.id, "models"):
                kept += self._records.find(project.id, "versions", {"model": gone(model.id)})
        yield from (one.data["removed"]["at"] for one in kept if "removed" in one.data)

    def purge(self, go_on: Callable[[], bool]) -> None:
        """Delete what was removed longer ago than it is kept, as long as `go_on` says so."""
        before = stamp(datetime.now(timezone.utc) - self._keep)
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
        return self._end_models(project, before, who) + self._end_versions(project, before, who) > 0

    def _end_runs(self, project: Record, before: str, who: str) -> None:
        """Delete runs that were removed long enough ago; a mark keeps a late journal from beginning one again."""
        for run in self._records.find(project.id, REMOVED_RUNS):
            if "removed" not in run.data or run.data["removed"]["at"] > before:
                continue
            mark: Change = Put(REMOVED_RUNS, run.id, {"at": run.data["at"]}, expect=run.rev)
            told = event(who, "run.purge", f"{project.data['name']}/runs/{run.id}", {"name": run.data["name"]}, None)
            if self._commit(project, [mark], told):
                self._series.drop(project.id, run.id)

    def _end_project(self, project: Record, who: str) -> int:
        head = head_of(self._records, project.id, project.data["name"])
        told = {"id": project.id, "events": head.seq, "chain": head.chain}
        changes: list[Change] = [Delete(REMOVED, project.id, expect=project.rev), *self.around(project.id)]
        try:
            self._records.commit(SERVER, changes, [event(who, "project.purge", project.data["name"], told, None)])
        except ConcurrentChange:  # it was brought back in this moment
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

    def _commit(self, project: Record, changes: list[Change], told: Document) -> bool:
        try:
            self._records.commit(project.id, changes, [told])
        except ConcurrentChange:  # it was brought back in this moment
            return False
        return True

    # -- steps of a removal too

    def around(self, project: str) -> list[Change]:
        """Return what deletes all that the server itself keeps about a project: roles and webhooks."""
        return [
            Delete(table, one.id)
            for table in ("members", "webhooks")
            for one in self._records.find(SERVER, table, {"project": project})
        ]

    def forget(self, project: str) -> int:
        """Delete all that is kept of a project that has no record any more; return its bytes."""
        return self._series.drop(project) + self._upkeep.forget(project)


def of_model(records: RecordStore, space: str, model: str) -> list[Change]:
    """Return what deletes all that belongs to a model: versions, proposed and removed ones too, and aliases."""
    versions = [
        one for of in (model, shelf(model), gone(model)) for one in records.find(space, "versions", {"model": of})
    ]
    return [
        *(Delete("versions", one.id, expect=one.rev) for one in versions),
        *(Delete("aliases", one.id, expect=one.rev) for one in records.find(space, "aliases", {"model": model})),
    ]
