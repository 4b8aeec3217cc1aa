"""Runs: start, changes, end, removal. docs/runs.md defines the terms.

A run belongs to the account that began it. Only this account and the maintainers of the project can log to it, amend it
or end it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from lmvp.core.references import suggest
from lmvp.core.schemas import encode_float
from lmvp.core.schemas.runs import (
    STALE_AFTER,
    NewRun,
    RunEnd,
    RunUpdate,
)
from lmvp.errors import AccessDenied, Conflict, IntegrityError, InvalidArgument, NotFound, RunRemoved
from lmvp_server.process import cancellation
from lmvp_server.services import (
    access,
    filters,
    grants,
    metadata,
    paging,
    run_records,
)
from lmvp_server.services.access import Caller
from lmvp_server.services.catalog import Catalog
from lmvp_server.services.clock import now, stamp
from lmvp_server.services.paging import Page
from lmvp_server.stores.base import Change, ConcurrentChange, Delete, Document, Put, Record, RecordStore, SeriesStore

REMOVED_RUNS = "removed_runs"
"""The table of removed runs: the whole record while it can be restored, later only the time of the removal."""
_SHOWN_METRICS = 1000  # last values in an answer
_TOLD = 10
"""The number of unreadable runs that an answer names. It counts the others."""
_logger = logging.getLogger("lmvp_server")


class Runs:
    """Use cases of runs.

    Parameters
    ----------
    shared : bool
        Whether several people use the server. A run then creates a new project only if it requests that.
    keep : timedelta
        How long a removed run can be restored. Zero: not at all.
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
        self._reported: set[str] = set()  # runs whose damage is logged: once each, because lists are read repeatedly

    # -- finding

    def of_project(
        self, caller: Caller, project: str, page: Page, where: str = "", order: str = ""
    ) -> tuple[Document, str]:
        """List the runs of a project that match a filter, newest first or in another order.

        With another order, the cursor is the number of runs before the page.

        Returns
        -------
        dict, str
            The page, and a warning if a filter or an order may miss runs whose metrics cannot be read.
        """
        if order:
            unreadable: list[str] = []
            every, first = self.sorted(caller, project, where, order, unreadable), page.cursor or 0
            # Sorting needs all runs, so the cursor is a count and not a `seq`.
            more = str(first + page.limit) if first + page.limit < len(every) else None
            listed = {"items": every[first : first + page.limit], "next": more, "total": len(every)}
            return listed, _told_unreadable(unreadable)
        home = self._catalog.find_project(caller, project)
        if where:
            return self._matching(home, page, filters.parse(where))
        runs = self._records.find(home.id, "runs", newest_first=True, after=page.cursor, limit=page.limit + 1)
        return paging.listing(page, runs, self._records.count(home.id, "runs"), lambda run: self.present(home, run)), ""

    def name_of(self, caller: Caller, project: str, run: str) -> str:
        """Return the name of a run, or an empty text if it does not exist."""
        record = self._records.get(self._catalog.find_project(caller, project).id, "runs", run)
        return str(record.data["name"]) if record else ""

    def count(self, caller: Caller, project: str) -> int:
        """Return the number of runs of a project."""
        return self._records.count(self._catalog.find_project(caller, project).id, "runs")

    def sorted(
        self, caller: Caller, project: str, where: str = "", order: str = "", unreadable: list[str] | None = None
    ) -> list[Document]:
        """Return all runs of a project that match a filter, in an order; by default newest first.

        Parameters
        ----------
        unreadable : list of str, optional
            Receives the ids of runs whose metrics cannot be read.

        Raises
        ------
        InvalidArgument
            If the filter or the order is invalid.
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
        """Return one run by id, prefix of the id, or name.

        Raises
        ------
        NotFound
            If the run does not exist. The hint has a similar name, or another project with the same name.
        """
        home = None
        try:
            home = self._catalog.find_project(caller, project)
            record = self.find(home, run)
        except NotFound as error:
            near = error.hint if home is not None and (error.hint or "").startswith("did you mean") else None
            other = near or self._catalog.elsewhere(caller, run, ("runs", "models"))
            raise NotFound(error.message, hint=other or error.hint) from None
        epoch = max(record.data["epoch"], self._epoch(home.id, record.id))
        return {**self.present(home, record), "epoch": epoch, "incomplete": self.incomplete(home.id, record.id)}

    def _epoch(self, space: str, run: str) -> int:
        """Return the highest attempt of any frame. Older servers did not store it in the record."""
        try:
            state = self._series.state(space, run)
        except IntegrityError:
            return 0
        return state.epoch if state else 0

    def incomplete(self, space: str, run: str) -> str:
        """Return why points of a run are missing, or an empty text if none are missing."""
        try:
            problems = self._series.damage(space, run)
            state = self._series.state(space, run)
        except IntegrityError:
            return "the files of its points are damaged: no point can be read"
        record = self._records.get(space, "runs", run)
        ended_with = int(record.data.get("points", 0)) if record is not None else 0
        points = state.points if state is not None else 0
        if points < ended_with:  # a file of the series is lost
            problems = [*problems, f"{points:,} of the {ended_with:,} points that it ended with are here"]
        return f"points are missing: {', '.join(problems)}" if problems else ""

    def status(self, space: str, run: str) -> str:
        """Return the status of a run by its id, as `present` does. The caller must have checked the right to read.

        Raises
        ------
        NotFound
            If the run is deleted.
        """
        record = self._records.get(space, "runs", run)
        if record is None:
            raise NotFound(f"no run {run[:32]!r}", hint="it was deleted")
        return "stale" if self._is_stale(space, record) else str(record.data["status"])

    def _is_stale(self, space: str, run: Record) -> bool:
        return run.data["phase"] == run_records.OPEN and time.time() - self._series.touched(space, run.id) > STALE_AFTER

    def find(self, home: Record, run: str) -> Record:
        """Return the record of a run by id, by 6 or more digits of it, or by name (the newest run of that name).

        Raises
        ------
        NotFound
            If the run does not exist. The hint has a similar name.
        """
        record = self._records.get(home.id, "runs", run) if run_records.ID.fullmatch(run) else None
        if record is None and run_records.PREFIX.fullmatch(run):
            alike = [each for each in self._records.find(home.id, "runs") if each.id.startswith(run)]
            if len(alike) > 1:
                raise InvalidArgument(f"{len(alike)} runs begin with {run!r}", hint="write more of its digits")
            record = alike[0] if alike else None
        if record is None:
            named = self._records.find(home.id, "runs", {"key": run.lower()}, newest_first=True, limit=1)
            record = named[0] if named else None
        if record is None:
            near = suggest(run, [each.data["name"] for each in self._records.find(home.id, "runs", limit=1000)])
            raise NotFound(
                f"no run {run[:80]!r} in project {home.data['name']!r}",
                hint=f"did you mean {near!r}?" if near else f"`lmvp runs {home.data['name']}` lists them",
            )
        return record

    def present(self, home: Record, run: Record) -> Document:
        """Return a run in the form of answers."""
        cancellation.check()
        shown = {key: value for key, value in run.data.items() if key not in run_records.PRIVATE}
        shown |= {"id": run.id, "project": home.data["name"], "revised": run.rev - 1}
        shown["versions"] = self._versions(home, run.id)
        seen = self._series.touched(home.id, run.id)
        if run.data["phase"] == run_records.OPEN:
            if self._is_stale(home.id, run):
                shown["status"] = "stale"
            shown |= self._known(home.id, run.id)
            shown["incomplete"] = self.incomplete(home.id, run.id)
        shown["duration"] = run.data["spent"] + run_records.lasted(run.data, seen)
        shown["seen_at"] = stamp(datetime.fromtimestamp(seen, timezone.utc)) if seen else None
        return shown

    def _versions(self, home: Record, run: str) -> list[str]:
        versions = self._records.find(home.id, "versions", {"run": run})
        names = {each.id: each.data["name"] for each in self._records.find(home.id, "models")} if versions else {}
        standing = [
            one.data for one in versions if one.data["model"] in names
        ]  # excludes proposed and removed versions
        return [f"{home.data['name']}/{names[one['model']]}@v{one['number']}" for one in standing]

    def _known(self, space: str, run: str) -> Document:
        """Return last values, number of points and number of keys from the series."""
        try:
            state = self._series.state(space, run)
        except IntegrityError as error:  # a list of runs must not fail; it states the damage, and `fsck` names the file
            if run not in self._reported:
                self._reported.add(run)
                _logger.error("the points of run %s cannot be read: %s", run, error.message)  # noqa: TRY400 - no bug
            state = None
        if state is None:
            return {"metrics": {}, "points": 0, "keys": 0}
        keys = [each for each in self._series.keys(space, run) if not each.name.startswith("system/")]
        metrics = {each.name: encode_float(each.value) for each in keys[:_SHOWN_METRICS]}
        return {"metrics": metrics, "points": state.points, "keys": state.keys}

    # -- start, change, end

    def start(self, caller: Caller, project: str, new: NewRun) -> tuple[Document, bool]:
        """Start or resume a run. Return it, and whether it is new."""
        home = self.home(caller, project, new)
        made = self.begin(caller, home, new)
        # A new run has no points yet; without a sign of life it would count as stale.
        self._series.touch(home.id, new.run)
        return self.present(home, self.find(home, new.run)), made

    def home(self, caller: Caller, project: str, new: NewRun) -> Record:
        """Return the project of a starting run. Create it if that is allowed."""
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
        """Write the record of a run that starts or resumes. Return whether it is new."""
        run_records.check_new(new)
        record = self._records.get(home.id, "runs", new.run)
        if record is not None:
            self.require_author(caller, home, record)
        if record is None and self._records.get(home.id, REMOVED_RUNS, new.run):
            raise self.missing(home, new.run)
        if record is not None or new.joins:
            if record is not None and run_records.is_newer_resume(record.data, new):
                self.change(caller, home, new.run, lambda run: run_records.resumed(run, new), "run.resume")
            return False
        data = run_records.fresh(new, caller.on_behalf(new.author), caller.user)
        event = self.event(caller, home, "run.start", new.run, None, {"name": data["name"], "params": data["params"]})
        try:
            check = grants.still(self._records, caller, access.LOG, home)
            self._records.commit(home.id, [Put("runs", new.run, data, expect=0)], [event], check=check)
        except ConcurrentChange:  # the same request was sent twice at the same time
            self._records.commit(home.id, [])
            self.require_author(caller, home, self.find(home, new.run))
            return False
        return True

    def amend(self, caller: Caller, project: str, run: str, given: RunUpdate) -> Document:
        """Change the record of a run. The previous values are stored in the event."""
        home = self._catalog.find_project(caller, project)
        access.require(caller, access.LOG, project)
        found = self.find(home, run)
        self.require_author(caller, home, found)
        self.change(caller, home, found.id, lambda record: run_records.merged(record, given), "run.amend")
        return self.run(caller, project, found.id)

    def end(self, caller: Caller, project: str, run: str, given: RunEnd) -> Document:
        """End a run whose process cannot end it."""
        home = self._catalog.find_project(caller, project)
        access.require(caller, access.LOG, project)
        found = self.find(home, run)
        self.require_author(caller, home, found)
        self.change(caller, home, found.id, lambda record: run_records.ended(record, given), "run.end")
        self.keep_known(home.id, found.id, run_records.ENDED)
        return self.run(caller, project, found.id)

    def remove(self, caller: Caller, project: str, run: str, *, for_good: bool = False) -> None:
        """Remove a run and its points to the trash. Versions that it produced stay.

        Parameters
        ----------
        for_good : bool, default False
            Delete the run permanently.

        Raises
        ------
        Conflict
            If the run is running.
        """
        home = self._catalog.find_project(caller, project)
        access.require(caller, access.MAINTAIN, project)
        record = self.find(home, run)
        if self.present(home, record)["status"] == "running":
            raise Conflict(f"the run {record.data['name']!r} is running", hint="end it first: run.finish()")
        event = self.event(caller, home, "run.remove", record.id, record.data, None)
        keep = bool(self._keep) and not for_good
        kept = {**record.data, "removed": {"at": now(), "by": caller.name, "user": caller.user}} if keep else {}
        changes: list[Change] = [
            Delete("runs", record.id, expect=record.rev),
            Put(REMOVED_RUNS, record.id, {**kept, "at": now()}),  # so that a late journal does not start the run again
        ]
        check = grants.still(self._records, caller, access.MAINTAIN, home)
        self._records.commit(home.id, changes, [event], check=check)
        if not keep:
            self._series.drop(home.id, record.id)

    def restore(self, caller: Caller, project: str, run: str) -> Document:
        """Restore a removed run by id or name. Of several runs of one name, restore the one removed last.

        Raises
        ------
        NotFound
            If there is no such run in the trash.
        """
        home = self._catalog.find_project(caller, project)
        access.require(caller, access.MAINTAIN, project)

        def attempt() -> Document:
            kept = [one for one in self._records.find(home.id, REMOVED_RUNS) if "removed" in one.data]
            named = [one for one in kept if run in (one.id, one.data["name"]) or run.lower() == one.data["key"]]
            if not named and self._records.get(home.id, "runs", run):  # a repeated request
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
            check = grants.still(self._records, caller, access.MAINTAIN, home)
            self._records.commit(home.id, changes, [event], check=check)
            return self.run(caller, project, found.id)

        return self._records.retry(attempt)

    def missing(self, home: Record, run: str) -> NotFound:
        """Return the error for points of an unknown run. Its code states whether the run was removed."""
        removed = self._records.get(home.id, REMOVED_RUNS, run)
        if removed is None:
            return NotFound(
                f"no run {run} in project {home.data['name']!r}", hint="its own process has not sent it yet"
            )
        back = "`lmvp undelete` restores it" if "removed" in removed.data else "it was deleted permanently"
        return RunRemoved(f"the run {run} was removed", hint=f"{back}; or begin a new run")

    def may_change(self, caller: Caller, home: Record, run: Record) -> bool:
        """Whether the caller can log to a run, amend and end it. Its author and maintainers can."""
        name = home.data["name"]
        own = access.made_by(caller, run.data.get("by"), run.data["author"])
        return caller.may(access.MAINTAIN, name) or (own and caller.may(access.LOG, name))

    def is_mine(self, caller: Caller, project: str, run: str) -> bool:
        """Whether the caller can change a run, given by id, prefix or name: see `may_change`."""
        home = self._catalog.find_project(caller, project)
        return self.may_change(caller, home, self.find(home, run))

    def require_author(self, caller: Caller, home: Record, run: Record) -> None:
        """Check that the caller can log to a run, amend and end it.

        Raises
        ------
        AccessDenied
            If the run belongs to another account and the caller is not a maintainer.
        """
        access.require(caller, access.LOG, home.data["name"])
        if not self.may_change(caller, home, run):
            raise AccessDenied(
                f"the run {run.data['name']!r} belongs to {run.data['author']}",
                hint="its author or a maintainer of the project can change it",
            )

    def change(self, caller: Caller, home: Record, run: str, change: Callable[[Record], Document], action: str) -> None:
        """Change the record of a run and write an event. Do nothing if the record stays equal."""

        def attempt() -> None:
            record = self._records.get(home.id, "runs", run)
            if record is None:
                raise self.missing(home, run)
            data = change(record)
            if data == record.data:
                return
            metadata.check_size(data)
            before, after = _differing(record.data, data), _differing(data, record.data)
            events = [self.event(caller, home, action, run, before, after)] if before or after else []
            check = grants.still(self._records, caller, access.LOG, home)
            self._records.commit(home.id, [Put("runs", run, data, expect=record.rev)], events, check=check)

        self._records.retry(attempt)

    @staticmethod
    def event(caller: Caller, home: Record, action: str, run: str, before: Any, after: Any) -> Document:
        """Return an event about a run."""
        what = f"{home.data['name']}/runs/{run}"
        return {"at": now(), "who": caller.name, "action": action, "what": what, "before": before, "after": after}

    def raise_epoch(self, space: str, run: str, epoch: int) -> None:
        """Store the attempt in the record if it is higher than all before."""
        self._records.update(
            space, "runs", run, lambda data: {**data, "epoch": epoch} if data["epoch"] < epoch else None
        )

    def attempt(self, space: str, run: str) -> int:
        """Return the attempt of the start or of the last resume of a run."""
        record = self._records.get(space, "runs", run)
        return run_records.resumed_at(record.data) if record is not None else 0

    def is_current(self, space: str, run: str, attempt: int) -> bool:
        """Whether no resume of the run has a higher attempt."""
        return attempt >= self.attempt(space, run)

    def is_open(self, space: str, run: str) -> bool:
        """Whether a run is open: it has not ended."""
        record = self._records.get(space, "runs", run)
        return record is not None and record.data["phase"] == run_records.OPEN

    def keep_known(self, space: str, run: str, phase: str) -> None:
        """Copy state of the series to the record, so that lists need not open the series of ended runs."""

        def change(data: Document) -> Document | None:
            if data["phase"] == run_records.OPEN:
                return None
            news = {**data, **self._known(space, run), "phase": phase}
            return None if news == data else news

        self._records.update(space, "runs", run, change)

    # -- maintenance

    def settle(self, go_on: Callable[[], bool]) -> None:
        """Seal the series of runs that have ended."""
        for space, run in list(self._in_phase(run_records.ENDED)):
            if not go_on():
                return
            try:
                self._series.settle(space, run)
            except IntegrityError:
                _logger.exception("the points of run %s stay as they are", run)
                continue
            self.keep_known(space, run, run_records.SETTLED)
        self._series.tidy(go_on)

    def _in_phase(self, phase: str) -> Iterator[tuple[str, str]]:
        for space in self._series.projects():
            for run in self._records.find(space, "runs", {"phase": phase}):
                yield space, run.id


def _differing(data: Document, other: Document) -> Document:
    """Return the fields that differ, for an event. Of the environment, only the names of its fields are included."""
    found = {key: value for key, value in data.items() if key != "attempts" and other.get(key) != value}
    return found | {"environment": sorted(found["environment"])} if "environment" in found else found


def _unreadable(shown: Iterable[Document]) -> list[str]:
    return [run["id"] for run in shown if run.get("incomplete")]


def _told_unreadable(runs: Sequence[str]) -> str:
    """Return a warning about runs whose metrics cannot be read in full, or an empty text."""
    if not runs:
        return ""
    more = f" and {len(runs) - _TOLD} more" if len(runs) > _TOLD else ""
    named = ", ".join(run[:8] for run in runs[:_TOLD])
    return f"the metrics of these runs cannot be read in full, so a filter or order may miss them: {named}{more}"
