"""Runs: their start, changes and end. docs/runs.md defines the terms.

A run belongs to the account that began it: only that account and the maintainers of the project log to it, amend it or
end it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from lmvp.errors import AccessDenied, Conflict, IntegrityError, InvalidArgument, NotFound, RunRemoved
from lmvp.records import encode_float
from lmvp.references import suggest
from lmvp.tracking.records import STALE_AFTER, NewRun, RunEnd, RunUpdate
from lmvp_server import cancellation
from lmvp_server.services import access, filters, grants, metadata, paging, runrecords
from lmvp_server.services.access import Caller
from lmvp_server.services.catalog import Catalog
from lmvp_server.services.clock import now, stamp
from lmvp_server.services.paging import Page
from lmvp_server.stores.base import Change, ConcurrentChange, Delete, Document, Put, Record, RecordStore, SeriesStore

REMOVED_RUNS = "removed_runs"
"""A record for each run that was removed: whole while it can be restored, later only the time of its removal."""
_SHOWN_METRICS = 1000
_TOLD = 10
"""Runs that an answer names as unreadable; it counts the others."""
_logger = logging.getLogger("lmvp_server")


class Runs:
    """The use cases around runs.

    Parameters
    ----------
    shared : bool
        Whether several people use the server: a run makes a new project there only when it says so.
    keep : timedelta
        How long a removed run can be restored; zero: not at all.
    """

    def __init__(
        self,
        records: RecordStore,
        series: SeriesStore,
        catalog: Catalog,
        *,
        shared: bool,
        keep: timedelta = timedelta(0),
    ) -> None:
        self._records, self._series, self._catalog, self._shared = records, series, catalog, shared
        self._keep = keep
        self._reported: set[str] = set()  # runs whose damage is logged, once each: lists are read again and again

    # -- finding

    def of_project(
        self, caller: Caller, project: str, page: Page, where: str = "", order: str = ""
    ) -> tuple[Document, str]:
        """List the runs of a project that match a filter, newest first or in another order.

        The cursor of another order is the number of runs before the page.

        Returns
        -------
        dict, str
            The page; and which runs a filter or an order may have missed, because their metrics cannot be read.
        """
        if order:
            unreadable: list[str] = []
            every, first = self.sorted(caller, project, where, order, unreadable), page.cursor or 0
            more = str(first + page.limit) if first + page.limit < len(every) else None
            listed = {"items": every[first : first + page.limit], "next": more, "total": len(every)}
            return listed, _told_unreadable(unreadable)
        home = self._catalog.find_project(caller, project)
        if where:
            return self._matching(home, page, filters.parse(where))
        found = self._records.find(home.id, "runs", newest_first=True, after=page.cursor, limit=page.limit + 1)
        return paging.listing(
            page, found, self._records.count(home.id, "runs"), lambda run: self.present(home, run)
        ), ""

    def name_of(self, caller: Caller, project: str, run: str) -> str:
        """Return the name of a run; empty where there is none any more."""
        found = self._records.get(self._catalog.find_project(caller, project).id, "runs", run)
        return str(found.data["name"]) if found else ""

    def count(self, caller: Caller, project: str) -> int:
        """Return how many runs a project has."""
        return self._records.count(self._catalog.find_project(caller, project).id, "runs")

    def sorted(
        self, caller: Caller, project: str, where: str = "", order: str = "", unreadable: list[str] | None = None
    ) -> list[Document]:
        """Return all runs of a project that match, by an order; newest first without one.

        Parameters
        ----------
        unreadable : list of str, optional
            Gets the ids of runs whose metrics cannot be read.

        Raises
        ------
        InvalidArgument
            If the filter or the order cannot be read.
        """
        home = self._catalog.find_project(caller, project)
        match, key = filters.parse(where) if where else None, filters.order(order) if order else None
        shown = [self.present(home, run) for run in self._records.find(home.id, "runs", newest_first=True)]
        if unreadable is not None:
            unreadable += _unreadable(shown)
        found = shown if match is None else [run for run in shown if match(run)]
        return found if key is None else sorted(found, key=key)

    def _matching(self, home: Record, page: Page, match: Callable[[Document], bool]) -> tuple[Document, str]:
        every = [(run, self.present(home, run)) for run in self._records.find(home.id, "runs", newest_first=True)]
        found = [(run, shown) for run, shown in every if match(shown)]
        unreadable = _unreadable(shown for _, shown in every)
        behind = [each for each in found if page.cursor is None or each[0].seq < page.cursor]
        shown = {run.id: document for run, document in behind}
        listed = paging.listing(page, [run for run, _ in behind], len(found), lambda run: shown[run.id])
        return listed, _told_unreadable(unreadable)

    def all_of(self, home: Record) -> list[Record]:
        """Return the records of all runs of a project, oldest first."""
        return self._records.find(home.id, "runs")

    def run(self, caller: Caller, project: str, run: str) -> Document:
        """Return one run, by id, prefix of one, or name.

        Raises
        ------
        NotFound
            With the nearest name as the hint, in this project or as the same name in another one.
        """
        home = None
        try:
            home = self._catalog.find_project(caller, project)
            found = self.find(home, run)
        except NotFound as error:
            near = error.hint if home is not None and (error.hint or "").startswith("did you mean") else None
            other = near or self._catalog.elsewhere(caller, run, ("runs", "models"))
            raise NotFound(error.message, hint=other or error.hint) from None
        epoch = max(found.data["epoch"], self._epoch(home.id, found.id))
        return {**self.present(home, found), "epoch": epoch, "incomplete": self.incomplete(home.id, found.id)}

    def _epoch(self, space: str, run: str) -> int:
        """Return the highest epoch of any frame, which an older server did not keep in the record."""
        try:
            state = self._series.state(space, run)
        except IntegrityError:
            return 0
        return state.epoch if state else 0

    def incomplete(self, space: str, run: str) -> str:
        """State why points of a run are missing; empty if all are there."""
        try:
            problems = self._series.damage(space, run)
            state = self._series.state(space, run)
        except IntegrityError:
            return "the files of its points are damaged: no point can be read"
        record = self._records.get(space, "runs", run)
        ended_with = int(record.data.get("points", 0)) if record is not None else 0
        points = state.points if state is not None else 0
        if points < ended_with:  # a file is lost
            problems = [*problems, f"{points:,} of the {ended_with:,} points that it ended with are here"]
        return f"points are missing: {', '.join(problems)}" if problems else ""

    def status(self, space: str, run: str) -> str:
        """Return the status of a run by its id, as `present` has it, for who may read the project.

        Raises
        ------
        NotFound
            If it is deleted.
        """
        found = self._records.get(space, "runs", run)
        if found is None:
            raise NotFound(f"no run {run[:32]!r}", hint="it was deleted")
        return "stale" if self._is_stale(space, found) else str(found.data["status"])

    def _is_stale(self, space: str, run: Record) -> bool:
        return run.data["phase"] == runrecords.OPEN and time.time() - self._series.touched(space, run.id) > STALE_AFTER

    def find(self, home: Record, run: str) -> Record:
        """Return the record of a run: by its id, six or more digits of one, or the newest of a name.

        Raises
        ------
        NotFound
            With the nearest name as the hint.
        """
        found = self._records.get(home.id, "runs", run) if runrecords.ID.fullmatch(run) else None
        if found is None and runrecords.PREFIX.fullmatch(run):
            alike = [each for each in self._records.find(home.id, "runs") if each.id.startswith(run)]
            if len(alike) > 1:
                raise InvalidArgument(f"{len(alike)} runs begin with {run!r}", hint="write more of its digits")
            found = alike[0] if alike else None
        if found is None:
            named = self._records.find(home.id, "runs", {"key": run.lower()}, newest_first=True, limit=1)
            found = named[0] if named else None
        if found is None:
            near = suggest(run, [each.data["name"] for each in self._records.find(home.id, "runs", limit=1000)])
            raise NotFound(
                f"no run {run[:80]!r} in project {home.data['name']!r}",
                hint=f"did you mean {near!r}?" if near else f"`lmvp runs {home.data['name']}` lists them",
            )
        return found

    def present(self, home: Record, run: Record) -> Document:
        """Return a run as callers see it."""
        cancellation.check()
        shown = {key: value for key, value in run.data.items() if key not in runrecords.PRIVATE}
        shown |= {"id": run.id, "project": home.data["name"], "revised": run.rev - 1}
        shown["versions"] = self._versions(home, run.id)
        seen = self._series.touched(home.id, run.id)
        if run.data["phase"] == runrecords.OPEN:
            if self._is_stale(home.id, run):
                shown["status"] = "stale"
            shown |= self._known(home.id, run.id)
            shown["incomplete"] = self.incomplete(home.id, run.id)
        shown["duration"] = run.data["spent"] + runrecords.lasted(run.data, seen)
        shown["seen_at"] = stamp(datetime.fromtimestamp(seen, timezone.utc)) if seen else None
        return shown

    def _versions(self, home: Record, run: str) -> list[str]:
        found = self._records.find(home.id, "versions", {"run": run})
        names = {each.id: each.data["name"] for each in self._records.find(home.id, "models")} if found else {}
        standing = [one.data for one in found if one.data["model"] in names]  # no shelf: neither proposed nor removed
        return [f"{home.data['name']}/{names[one['model']]}@v{one['number']}" for one in standing]

    def _known(self, space: str, run: str) -> Document:
        """Return what the series knows of a run: last values, and how many points and keys."""
        try:
            state = self._series.state(space, run)
        except IntegrityError as error:  # `fsck` names the file; a list of runs goes on, and states what is missing
            if run not in self._reported:
                self._reported.add(run)
                _logger.error("the points of run %s cannot be read: %s", run, error.message)  # noqa: TRY400 - no bug
            state = None
        if state is None:
            return {"metrics": {}, "points": 0, "keys": 0}
        keys = [each for each in self._series.keys(space, run) if not each.name.startswith("system/")]
        metrics = {each.name: encode_float(each.value) for each in keys[:_SHOWN_METRICS]}
        return {"metrics": metrics, "points": state.points, "keys": state.keys}

    # -- beginning, changing, ending

    def start(self, caller: Caller, project: str, new: NewRun) -> tuple[Document, bool]:
        """Begin a run, or go on with one; return it, and whether it is new."""
        home = self.home(caller, project, new)
        made = self.begin(caller, home, new)
        self._series.touch(home.id, new.run)
        return self.present(home, self.find(home, new.run)), made

    def home(self, caller: Caller, project: str, new: NewRun) -> Record:
        """Return the project of a run that begins, made now where that is allowed."""
        if not self._shared or new.create:
            home = self._catalog.find_or_create_project(caller, project)
        else:
            try:
                home = self._catalog.find_project(caller, project)
            except NotFound as error:
                raise NotFound(error.message, hint="`--create` makes it") from None
        access.require(caller, access.LOG, project)
        return home

    def begin(self, caller: Caller, home: Record, new: NewRun) -> bool:
        """Write the record of a run that begins or goes on; return whether it is new."""
        runrecords.check_new(new)
        found = self._records.get(home.id, "runs", new.run)
        if found is not None:
            self.require_author(caller, home, found)
        if found is None and self._records.get(home.id, REMOVED_RUNS, new.run):
            raise self.missing(home, new.run)
        if found is not None or new.joins:
            if found is not None and runrecords.is_newer_resume(found.data, new):
                self.change(caller, home, new.run, lambda run: runrecords.resumed(run, new), "run.resume")
            return False
        data = runrecords.fresh(new, caller.on_behalf(new.author), caller.user)
        event = self.event(caller, home, "run.start", new.run, None, {"name": data["name"], "params": data["params"]})
        try:
            check = grants.still(self._records, caller, access.LOG, home)
            self._records.commit(home.id, [Put("runs", new.run, data, expect=0)], [event], check=check)
        except ConcurrentChange:  # the same request, sent twice at once
            self._records.commit(home.id, [])
            self.require_author(caller, home, self.find(home, new.run))
            return False
        return True

    def amend(self, caller: Caller, project: str, run: str, given: RunUpdate) -> Document:
        """Change what is said of a run; the state before goes to the events."""
        home = self._catalog.find_project(caller, project)
        access.require(caller, access.LOG, project)
        found = self.find(home, run)
        self.require_author(caller, home, found)
        self.change(caller, home, found.id, lambda record: runrecords.merged(record, given), "run.amend")
        return self.run(caller, project, found.id)

    def end(self, caller: Caller, project: str, run: str, given: RunEnd) -> Document:
        """End a run that its process cannot end any more."""
        home = self._catalog.find_project(caller, project)
        access.require(caller, access.LOG, project)
        found = self.find(home, run)
        self.require_author(caller, home, found)
        self.change(caller, home, found.id, lambda record: runrecords.ended(record, given), "run.end")
        self.keep_known(home.id, found.id, runrecords.ENDED)
        return self.run(caller, project, found.id)

    def remove(self, caller: Caller, project: str, run: str, *, for_good: bool = False) -> None:
        """Remove a run and its points, which can be restored for a while. Versions that it made stay.

        Parameters
        ----------
        for_good : bool
            Delete it permanently.

        Raises
        ------
        Conflict
            If it is running.
        """
        home = self._catalog.find_project(caller, project)
        access.require(caller, access.MAINTAIN, project)
        found = self.find(home, run)
        if self.present(home, found)["status"] == "running":
            raise Conflict(f"the run {found.data['name']!r} is running", hint="end it first: run.finish()")
        event = self.event(caller, home, "run.remove", found.id, found.data, None)
        keep = bool(self._keep) and not for_good
        kept = {**found.data, "removed": {"at": now(), "by": caller.name, "user": caller.user}} if keep else {}
        changes: list[Change] = [
            Delete("runs", found.id, expect=found.rev),
            Put(REMOVED_RUNS, found.id, {**kept, "at": now()}),  # a late journal does not begin it again
        ]
        check = grants.still(self._records, caller, access.MAINTAIN, home)
        self._records.commit(home.id, changes, [event], check=check)
        if not keep:
            self._series.drop(home.id, found.id)

    def restore(self, caller: Caller, project: str, run: str) -> Document:
        """Restore a removed run, by its id or its name; of several of one name, the one that was removed last.

        Raises
        ------
        NotFound
            If no such run can be restored.
        """
        home = self._catalog.find_project(caller, project)
        access.require(caller, access.MAINTAIN, project)
        while True:
            kept = [one for one in self._records.find(home.id, REMOVED_RUNS) if "removed" in one.data]
            named = [one for one in kept if run in (one.id, one.data["name"]) or run.lower() == one.data["key"]]
            if not named and self._records.get(home.id, "runs", run):  # the same request, sent again
                return self.run(caller, project, run)
            if not named:
                raise NotFound(f"no run {run[:80]!r} can be restored", hint="`lmvp undelete` lists what can be")
            found = max(named, key=lambda one: one.data["removed"]["at"])
            data = {key: value for key, value in found.data.items() if key not in {"removed", "at"}}
            event = self.event(caller, home, "run.undelete", found.id, None, {"name": data["name"]})
            changes: list[Change] = [
                Delete(REMOVED_RUNS, found.id, expect=found.rev),
                Put("runs", found.id, data, expect=0),
            ]
            try:
                check = grants.still(self._records, caller, access.MAINTAIN, home)
                self._records.commit(home.id, changes, [event], check=check)
            except ConcurrentChange:
                continue
            return self.run(caller, project, found.id)

    def missing(self, home: Record, run: str) -> NotFound:
        """Return the error for a run that a writer sends points of; its code tells whether the run was removed."""
        removed = self._records.get(home.id, REMOVED_RUNS, run)
        if removed is None:
            return NotFound(
                f"no run {run} in project {home.data['name']!r}", hint="its own process has not sent it yet"
            )
        back = "`lmvp undelete` restores it" if "removed" in removed.data else "it was deleted permanently"
        return RunRemoved(f"the run {run} was removed", hint=f"{back}; or begin a new run")

    def may_change(self, caller: Caller, home: Record, run: Record) -> bool:
        """Tell whether the caller may log to a run, amend and end it: its author and maintainers may."""
        name = home.data["name"]
        own = access.made_by(caller, run.data.get("by"), run.data["author"])
        return caller.may(access.MAINTAIN, name) or (own and caller.may(access.LOG, name))

    def is_mine(self, caller: Caller, project: str, run: str) -> bool:
        """Tell the same of a run by its id, prefix or name."""
        home = self._catalog.find_project(caller, project)
        return self.may_change(caller, home, self.find(home, run))

    def require_author(self, caller: Caller, home: Record, run: Record) -> None:
        """Check that the caller may log to a run, amend and end it.

        Raises
        ------
        AccessDenied
            If it belongs to somebody else, and the caller is no maintainer.
        """
        access.require(caller, access.LOG, home.data["name"])
        if not self.may_change(caller, home, run):
            raise AccessDenied(
                f"the run {run.data['name']!r} belongs to {run.data['author']}",
                hint="its author or a maintainer of the project can change it",
            )

    def change(self, caller: Caller, home: Record, run: str, change: Callable[[Record], Document], action: str) -> None:
        """Change the record of a run, and log it; nothing where nothing changes."""
        while True:
            found = self._records.get(home.id, "runs", run)
            if found is None:
                raise self.missing(home, run)
            data = change(found)
            if data == found.data:
                return
            metadata.check_size(data)
            before, after = _differing(found.data, data), _differing(data, found.data)
            events = [self.event(caller, home, action, run, before, after)] if before or after else []
            try:
                check = grants.still(self._records, caller, access.LOG, home)
                self._records.commit(home.id, [Put("runs", run, data, expect=found.rev)], events, check=check)
            except ConcurrentChange:
                continue
            return

    @staticmethod
    def event(caller: Caller, home: Record, action: str, run: str, before: Any, after: Any) -> Document:
        """Return an event about a run."""
        what = f"{home.data['name']}/runs/{run}"
        return {"at": now(), "who": caller.name, "action": action, "what": what, "before": before, "after": after}

    def raise_epoch(self, space: str, run: str, epoch: int) -> None:
        """Keep an epoch in the record if it is higher than all before."""
        while (found := self._records.get(space, "runs", run)) is not None and found.data["epoch"] < epoch:
            try:
                self._records.commit(space, [Put("runs", run, {**found.data, "epoch": epoch}, expect=found.rev)])
            except ConcurrentChange:
                continue
            return

    def attempt(self, space: str, run: str) -> int:
        """Return the attempt of the start or of the last resume of a run."""
        found = self._records.get(space, "runs", run)
        return runrecords.resumed_at(found.data) if found is not None else 0

    def is_current(self, space: str, run: str, attempt: int) -> bool:
        """Whether no resume of a run is above an attempt."""
        return attempt >= self.attempt(space, run)

    def is_open(self, space: str, run: str) -> bool:
        """Whether a run goes on."""
        found = self._records.get(space, "runs", run)
        return found is not None and found.data["phase"] == runrecords.OPEN

    def keep_known(self, space: str, run: str, phase: str) -> None:
        """Write into the record what the series knows, so that lists need not ask it."""
        while (found := self._records.get(space, "runs", run)) is not None and found.data["phase"] != runrecords.OPEN:
            data = {**found.data, **self._known(space, run), "phase": phase}
            if data == found.data:
                return
            try:
                self._records.commit(space, [Put("runs", run, data, expect=found.rev)])
            except ConcurrentChange:
                continue
            return

    # -- upkeep

    def settle(self, go_on: Callable[[], bool]) -> None:
        """Put the points of runs that have ended in order."""
        for space, run in list(self._in_phase(runrecords.ENDED)):
            if not go_on():
                return
            try:
                self._series.settle(space, run)
            except IntegrityError:
                _logger.exception("the points of run %s stay as they are", run)
                continue
            self.keep_known(space, run, runrecords.SETTLED)
        self._series.tidy(go_on)

    def _in_phase(self, phase: str) -> Iterator[tuple[str, str]]:
        for space in self._series.projects():
            for run in self._records.find(space, "runs", {"phase": phase}):
                yield space, run.id


def _differing(data: Document, other: Document) -> Document:
    """Return the fields that differ, as an event tells them: of what made a run, only that it is told."""
    found = {key: value for key, value in data.items() if key != "attempts" and other.get(key) != value}
    return found | {"environment": sorted(found["environment"])} if "environment" in found else found


def _unreadable(shown: Iterable[Document]) -> list[str]:
    return [run["id"] for run in shown if run.get("incomplete")]


def _told_unreadable(runs: Sequence[str]) -> str:
    """State of which runs a filter or an order has not seen all metrics; empty for none."""
    if not runs:
        return ""
    more = f" and {len(runs) - _TOLD} more" if len(runs) > _TOLD else ""
    named = ", ".join(run[:8] for run in runs[:_TOLD])
    return f"the metrics of these runs cannot be read in full, so a filter or order may miss them: {named}{more}"
