"""Ingestion of the journals of runs. Each frame is applied once and in order, and is durable before the answer."""

from __future__ import annotations

from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from lmvp.core.run_frames import (
    ATTEMPTS_LIMIT,
    AUTO,
    END,
    START,
    UPDATE,
)
from lmvp.core.schemas.runs import (
    Applied,
    NewRun,
    RunEnd,
    RunUpdate,
)
from lmvp.errors import Conflict, InvalidRequest
from lmvp_server.services import access, run_records
from lmvp_server.services.access import Caller
from lmvp_server.services.catalog import Catalog
from lmvp_server.services.runs import Runs
from lmvp_server.stores.base import Gap, Record, RecordStore, SeriesStore

if TYPE_CHECKING:
    from lmvp.core.columns import ParsedFrames

T = TypeVar("T")
_CUTS = 16
"""Events for the rewinds of one request. If there are more rewinds, the last event has the number of the others."""


class Intake:
    """Use cases of the writers of runs."""

    def __init__(self, records: RecordStore, series: SeriesStore, catalog: Catalog, runs: Runs) -> None:
        self._records, self._series, self._catalog, self._runs = records, series, catalog, runs

    def applied(self, caller: Caller, project: str, run: str, writer: str) -> Applied:
        """Return how many bytes of a writer's journal are applied."""
        home = self._catalog.find_project(caller, project)
        return Applied(
            applied=self._series.applied(
                home.id, run_records.checked_id("run", run), run_records.checked_id("writer", writer)
            )
        )

    def ingest(self, caller: Caller, project: str, run: str, writer: str, start: int, data: bytes) -> Applied:
        """Apply frames of a writer's journal. A request without frames is a heartbeat.

        A repeated request applies only the bytes that are new, so a client can retry after a lost answer.

        Parameters
        ----------
        start : int
            The offset of the first byte of `data` in the journal.
        data : bytes
            Whole frames.

        Returns
        -------
        Applied
            How many bytes of the journal are applied.

        Raises
        ------
        Conflict
            If bytes of the journal before `start` are missing.
        InvalidRequest
            If a frame is not valid.
        """
        # `_take_start` checks the right to log: it depends on whether the frames start the run and create its project.
        access.require(caller, access.ENTER)
        run_records.checked_id("run", run), run_records.checked_id("writer", writer)
        if not data:
            return self._live(caller, project, run, writer)
        from lmvp.core.frame_parsing import parse  # imports numpy, which an idle server does not load

        shipment = parse(data)
        _check_epochs(shipment.parts)
        home, late = self._take_start(caller, project, run, start, shipment.notes)
        if start > (applied := self._series.applied(home.id, run, writer)):
            raise _gap(start, applied)
        if start + len(data) <= applied:
            return Applied(applied=applied)
        # The notes of repeated bytes are applied already: an older update must not overwrite a newer one.
        new = parse(data[applied - start :]) if start < applied else shipment
        attempt = self._series.attempt(home.id, run, writer)
        if applied == 0:
            attempt = self._take_late_start(caller, home, run, late)
        # Notes before points: if the server stops in between, the client repeats the frames, and the notes apply again.
        # In the other order, they would count as applied and be lost.
        ended = self._take_notes(caller, home, run, new, attempt)
        attempt = attempt if new.attempt is None else new.attempt
        alive = self._runs.is_current(home.id, run, attempt)  # late points of an older attempt are not a heartbeat
        try:
            applied = self._series.append(home.id, run, writer, start, data, shipment, alive=alive)
        except Gap as gap:
            raise _gap(start, gap.applied) from None
        self._raise_epoch(home, run, shipment.parts)
        self._audit_cuts(caller, home, run, shipment.parts)
        # Points can arrive after the end of a run, from another writer; its record must have the new counts too.
        if ended or not self._runs.is_open(home.id, run):
            self._runs.keep_known(home.id, run, run_records.ENDED)
        if ended:
            self._series.settle_soon(home.id, run)
        return Applied(applied=applied)

    def _live(self, caller: Caller, project: str, run: str, writer: str) -> Applied:
        """Handle a heartbeat."""
        home = self._catalog.find_project(caller, project)
        access.require(caller, access.LOG, project)
        record = self._records.get(home.id, "runs", run)
        if record is None:
            raise self._runs.missing(home, run)
        self._runs.require_author(caller, home, record)
        if self._runs.is_current(home.id, run, self._series.attempt(home.id, run, writer)):
            self._series.touch(home.id, run)
        return Applied(applied=self._series.applied(home.id, run, writer))

    def _take_start(
        self, caller: Caller, project: str, run: str, start: int, notes: list[tuple[int, bytes]]
    ) -> tuple[Record, NewRun | None]:
        """Start the run if its first frame is here; return its project, and this frame or None."""
        first = notes[0] if notes and notes[0][0] == START else None
        if start == 0 and first is None:
            raise InvalidRequest("a journal begins with a `start` frame", hint="docs/runs.md, The journal")
        new = None
        if first is None:
            home = self._catalog.find_project(caller, project)
            access.require(caller, access.LOG, project)
        else:
            new = run_records.with_server_start(_read(first[1], NewRun))
            if new.run != run:
                raise InvalidRequest(f"the journal is of run {new.run[:40]}, the request of {run}")
            home = self._runs.home(caller, project, new)
            self._runs.begin(caller, home, new)
        record = self._records.get(home.id, "runs", run)
        if record is None:
            raise self._runs.missing(home, run)
        self._runs.require_author(caller, home, record)
        return home, new

    def _take_late_start(self, caller: Caller, home: Record, run: str, new: NewRun | None) -> int:
        """Return the attempt of a journal whose first frames arrive, and apply the values of its start frame.

        A run can be resumed before the journal of its first attempt arrives. The values of such a late start are merged
        into the record.
        """
        if new is None:
            return 0
        if not new.joins and not self._runs.is_current(home.id, run, new.epoch):
            given = RunUpdate(params=new.params, tags=dict(new.tags), environment=new.environment)
            merged = partial(run_records.merged, given=given, attempt=new.epoch)
            self._runs.change(caller, home, run, merged, "run.amend")
        return new.epoch

    def _take_notes(self, caller: Caller, home: Record, run: str, shipment: ParsedFrames, attempt: int) -> bool:
        """Apply the updates and the end of a run; return whether the run has ended.

        All updates of an attempt are one change of the record, and the last end is another one. Each change writes the
        whole record, and a request can contain hundreds of thousands of updates, of at most 1,001 attempts.

        Parameters
        ----------
        attempt : int
            The attempt of the frames before the first `epoch` frame.
        """
        notes = [
            (attempt if of is None else of, kind, body)
            for (kind, body), of in zip(shipment.notes, shipment.attempts, strict=True)
        ]
        current = self._runs.attempt(home.id, run)
        updates = [(min(of, current), _read(body, RunUpdate)) for of, kind, body in notes if kind == UPDATE]
        ends = [(of, _read(body, RunEnd)) for of, kind, body in notes if kind == END]
        for of, group in groupby(updates, key=itemgetter(0)):
            given = run_records.together(update for _, update in group)
            merged = partial(run_records.merged, given=given, attempt=of)
            self._runs.change(caller, home, run, merged, "run.amend")
        if ends:
            of, end = ends[-1]
            ended = partial(run_records.ended_by_journal, given=end, attempt=of)
            self._runs.change(caller, home, run, ended, "run.end")
        return bool(notes) and notes[-1][1] == END and notes[-1][0] >= current

    def _raise_epoch(self, home: Record, run: str, parts: list[Any]) -> None:
        """Store the highest attempt of the frames in the record of the run, because a resume takes the next one."""
        epochs = [part.epoch for part in parts if hasattr(part, "epoch")]
        if epochs:
            self._runs.raise_epoch(home.id, run, max(epochs))

    def _audit_cuts(self, caller: Caller, home: Record, run: str, parts: list[Any]) -> None:
        """Record rewinds as events."""
        cuts = [{"step": part.cut, "epoch": part.epoch} for part in parts if getattr(part, "cut", AUTO) != AUTO]
        if len(cuts) > _CUTS:  # an event is ten times as long as its frame, so many of them would fill the audit log
            cuts = [*cuts[: _CUTS - 1], {**cuts[-1], "not_told": len(cuts) - _CUTS}]
        events = [self._runs.event(caller, home, "run.rewind", run, None, cut) for cut in cuts]
        if events:
            self._records.commit(home.id, [], events)


def _read(body: bytes, type_: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"a frame of {type_.__name__} is not what it must be: {error}") from None


def _check_epochs(parts: list[Any]) -> None:
    """Refuse a request with too many attempts. Points are applied attempt by attempt, so each attempt costs time."""
    epochs = sum(hasattr(part, "epoch") for part in parts)
    if epochs > ATTEMPTS_LIMIT:
        raise InvalidRequest(
            f"{epochs:,} `epoch` frames in one request; the limit is {ATTEMPTS_LIMIT:,}",
            hint="send fewer frames at once",
        )


def _gap(start: int, applied: int) -> Conflict:
    return Conflict(
        f"bytes are missing: these begin at {start:,}, and {applied:,} are here", hint=f"send from {applied}"
    )
