"""Metrics of runs: their keys, curves of several runs, all points for export, and new points for live views."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from lmvp.core.metric_values import step_of, time_of
from lmvp.core.references import suggest
from lmvp.core.run_frames import (
    check_key,
    key_frame,
    note,
    points_frame,
)
from lmvp.core.schemas import encode_float
from lmvp.core.schemas.runs import (
    Applied,
    Curve,
    Curves,
    KeyRecord,
    NewPoints,
)
from lmvp.errors import IntegrityError, InvalidArgument, NotFound, TooLarge
from lmvp_server.process import cancellation
from lmvp_server.services import access
from lmvp_server.services.access import Caller
from lmvp_server.services.catalog import Catalog
from lmvp_server.services.paging import Page
from lmvp_server.services.runs import Runs
from lmvp_server.stores.base import CursorLost, Document, Gap, KeyState, Record, SeriesStore

if TYPE_CHECKING:
    from lmvp.core.columns import Columns

CURVES_LIMIT = 200
"""Curves of one request."""

POINTS_DEFAULT, POINTS_LIMIT = 1000, 100_000
"""Points of one curve: the default and the limit."""

ANSWER_LIMIT = 1_000_000
"""Points of all curves of an answer. Encoding them as JSON takes about 170 MB of memory."""

BATCH = 50_000
"""Points that are encoded at once. The next batch is encoded after the client has read this one."""

LIVE_LIMIT = 20_000
"""Points of a run in one live event. If there are more new points, the client reads the curves again."""


@dataclass(frozen=True, slots=True)
class CurveQuery:
    """A query for curves; see docs/api.md.

    Attributes
    ----------
    runs : tuple of str
        Runs, by id, the beginning of an id, or name.
    keys : tuple of str
        Metrics; empty for all.
    points : int
        The most points of a curve; a longer curve is downsampled.
    first, last : float or None
        The range of the axis, both inclusive; None for no limit.
    axis : str
        `step`, `time`, or the key of a metric.
    """

    runs: tuple[str, ...]
    keys: tuple[str, ...]
    points: int = POINTS_DEFAULT
    first: float | None = None
    last: float | None = None
    axis: str = "step"


@dataclass(frozen=True, slots=True)
class Drawn:
    """A curve in columns.

    Attributes
    ----------
    run, key : str
        The id of the run, and the metric.
    count : int
        The number of points before downsampling.
    columns : Columns
        Steps, values and times.
    axis : array or None
        The values of the axis, if another metric is the axis.
    """

    run: str
    key: str
    count: int
    columns: Columns
    axis: Any = None


def as_curves(drawn: Iterable[Drawn]) -> Curves:
    """Return curves as the struct of the answer."""
    return Curves(
        curves=tuple(
            Curve(
                run=curve.run,
                key=curve.key,
                count=curve.count,
                steps=tuple(curve.columns.steps.tolist()),
                values=floats(curve.columns.values),
                times=tuple(curve.columns.times.tolist()),
                axis=() if curve.axis is None else floats(curve.axis),
            )
            for curve in drawn
        )
    )


def floats(values: Any) -> tuple[Any, ...]:
    """Return an array of floats for JSON, with NaN and infinity as texts."""
    return tuple(map(encode_float, values.tolist()))


class Metrics:
    """Use cases of metrics."""

    def __init__(self, series: SeriesStore, catalog: Catalog, runs: Runs) -> None:
        self._series, self._catalog, self._runs = series, catalog, runs

    def keys(self, caller: Caller, project: str, run: str, prefix: str, page: Page) -> Document:
        """List the metrics of a run, in the order of their first points."""
        home = self._catalog.find_project(caller, project)
        known = self._series.keys(home.id, self._runs.find(home, run).id)
        found = [state for state in known if state.name.startswith(prefix)]
        begin = page.cursor or 0
        more = begin + page.limit < len(found)
        items = [_key_record(state) for state in found[begin : begin + page.limit]]
        return {"items": items, "next": str(begin + page.limit) if more else None, "total": len(found)}

    def curves(self, caller: Caller, project: str, query: CurveQuery) -> list[Drawn]:
        """Return the requested curves. A run without a key has no curve of it.

        Raises
        ------
        NotFound
            If a key is in none of the runs.
        TooLarge
            If there are too many curves, or they have too many points together.
        """
        home, wanted = self._home_and_wanted(caller, project, query)
        curves, points = [], 0
        for run, key in wanted:
            curves.append(self._curve(home, run, key, query))
            points += len(curves[-1].columns)
            if points > ANSWER_LIMIT:  # in the loop, so that the curves beyond the limit are not read
                raise TooLarge(
                    f"these curves have more than {ANSWER_LIMIT:,} points",
                    hint="name fewer runs or keys, or ask for fewer points",
                )
        return curves

    def batches(self, caller: Caller, project: str, query: CurveQuery) -> list[Callable[[], list[Drawn]]]:
        """Split the curves of an answer into batches. Each is a function that reads its curves when it is called.

        The answer is one batch if it is short. It is also one batch if its points can exceed `ANSWER_LIMIT`, which
        only reading all curves shows: after the first batch is sent, the answer cannot fail any more.

        Raises
        ------
        NotFound, TooLarge
            As `curves`.
        """
        home, wanted = self._home_and_wanted(caller, project, query)
        sizes = [self._most(home, run, key, query) for run, key in wanted]
        if sum(sizes) <= BATCH or sum(sizes) > ANSWER_LIMIT:
            return [lambda: self.curves(caller, project, query)]
        parts: list[list[tuple[Record, str]]] = [[]]
        points = 0
        for size, one in zip(sizes, wanted, strict=True):
            if parts[-1] and points + size > BATCH:
                parts.append([])
                points = 0
            parts[-1].append(one)
            points += size
        return [partial(self._batch, home, part, query) for part in parts]

    def _batch(self, home: Record, part: Sequence[tuple[Record, str]], query: CurveQuery) -> list[Drawn]:
        return [self._curve(home, run, key, query) for run, key in part]

    def _most(self, home: Record, run: Record, key: str, query: CurveQuery) -> int:
        """Return an upper bound of the points of a curve, without reading them."""
        cancellation.check()
        return min(query.points, self._series.count(home.id, run.id, key, None, None))

    def _home_and_wanted(
        self, caller: Caller, project: str, query: CurveQuery
    ) -> tuple[Record, list[tuple[Record, str]]]:
        home = self._catalog.find_project(caller, project)
        if not 1 <= query.points <= POINTS_LIMIT:
            raise InvalidArgument(f"points={query.points}: from 1 to {POINTS_LIMIT:,}")
        # A run that is named twice, for example by its id and its name, has its curves once.
        runs = list({(record := self._runs.find(home, run)).id: record for run in query.runs}.values())
        return home, self._wanted(home, runs, query)

    def incomplete(self, caller: Caller, project: str, runs: Sequence[str]) -> str:
        """Return a message that names the runs whose points are missing because of damage; empty without damage."""
        home = self._catalog.find_project(caller, project)
        found = {run.id: self._runs.incomplete(home.id, run.id) for run in (self._runs.find(home, run) for run in runs)}
        return "; ".join(f"run {run[:8]}: {missing}" for run, missing in found.items() if missing)

    def _wanted(self, home: Record, runs: Sequence[Record], query: CurveQuery) -> list[tuple[Record, str]]:
        """Return the runs and keys of the requested curves."""
        known = {run.id: [state.name for state in self._series.keys(home.id, run.id)] for run in runs}
        every = {name for names in known.values() for name in names}
        keys = tuple(dict.fromkeys(query.keys))
        for key in keys:
            if key not in every:
                near = suggest(key, sorted(every)[:1000])
                raise NotFound(f"no metric {key[:80]!r} in these runs", hint=near and f"did you mean {near!r}?")
        wanted = [(run, key) for run in runs for key in keys or known[run.id] if key in set(known[run.id])]
        if len(wanted) > CURVES_LIMIT:
            raise TooLarge(
                f"{len(wanted):,} curves; the limit of a request is {CURVES_LIMIT}", hint="name keys: key=train/loss"
            )
        return wanted

    def _curve(self, home: Record, run: Record, key: str, query: CurveQuery) -> Drawn:
        cancellation.check()
        first, last = _steps(query) if query.axis == "step" else (None, None)
        sample = self._series.sample(home.id, run.id, key, query.points, first, last)
        count = self._series.count(home.id, run.id, key, first, last)
        if query.axis == "step":
            return Drawn(run.id, key, count, sample)
        if query.axis == "time":
            return Drawn(run.id, key, count, _by_time(sample, query))
        # As many points as possible of the axis, because each point of the curve needs a value near its step.
        other = self._series.sample(home.id, run.id, query.axis, POINTS_LIMIT)
        return Drawn(run.id, key, count, *_by_key(sample, other, query))

    # -- all points

    def every_point(
        self, caller: Caller, project: str, runs: Sequence[str], keys: Sequence[str]
    ) -> Iterator[tuple[Document, str, Iterator[Columns]]]:
        """Yield run, key, and all points of the key in pages.

        Parameters
        ----------
        runs : sequence of str
            Runs, by id, the beginning of an id, or name; empty for all runs of the project.
        keys : sequence of str
            Metrics; empty for all.

        Raises
        ------
        IntegrityError
            If points of one of the runs are missing because of damage.
        """
        home = self._catalog.find_project(caller, project)
        named = {found.id: found for found in (self._runs.find(home, run) for run in dict.fromkeys(runs))}
        found = list(named.values()) if runs else list(self._runs.all_of(home))
        for run in found:  # an exported file would not show that points are missing
            if missing := self._runs.incomplete(home.id, run.id):
                raise IntegrityError(
                    f"run {run.data['name']} ({run.id[:8]}): {missing}",
                    hint="its curves show the points that are sound; name the other runs to export them",
                )
            cancellation.check()
            try:
                # Before the answer starts: after its status 200 is sent, a damaged segment could only break it off.
                self._series.verify(home.id, run.id)
            except IntegrityError:
                raise IntegrityError(
                    f"run {run.data['name']} ({run.id[:8]}): a file of its points is damaged",
                    hint="`lmvp fsck` names the file; name the other runs to export them",
                ) from None
        return self._walk(home, found, list(dict.fromkeys(keys)))

    def _walk(
        self, home: Record, runs: Sequence[Record], keys: Sequence[str]
    ) -> Iterator[tuple[Document, str, Iterator[Columns]]]:
        for run in runs:
            shown = {"id": run.id, "name": run.data["name"]}
            for key in [state.name for state in self._series.keys(home.id, run.id)]:
                cancellation.check()
                if not keys or key in keys:
                    yield shown, key, self._series.read(home.id, run.id, key)

    # -- new points

    def watched(self, caller: Caller, project: str, runs: Sequence[str]) -> tuple[str, list[str]]:
        """Return the space of a project and the ids of some of its runs, without duplicates."""
        home = self._catalog.find_project(caller, project)
        return home.id, list(dict.fromkeys(self._runs.find(home, run).id for run in runs))

    def now(self, space: str, run: str) -> int:
        """Return the cursor after all current points of a run."""
        state = self._series.state(space, run)
        return state.points if state else 0

    def since(
        self, space: str, run: str, cursor: int, keys: Sequence[str] | None
    ) -> tuple[int, dict[str, Columns]] | None:
        """Return the next cursor and the points after a cursor.

        None if there are at least `LIVE_LIMIT` points, or the store can no longer return them. The client then reads
        the curves again.
        """
        try:
            behind, found = self._series.since(space, run, cursor, keys, LIVE_LIMIT)
        except CursorLost:
            return None
        return None if behind == cursor + LIVE_LIMIT else (behind, found)

    def wait(self, space: str, run: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` when new points of a run arrive; see `SeriesStore.wait`."""
        return self._series.wait(space, run, wake)

    # -- points as JSON

    def add(self, caller: Caller, project: str, run: str, given: NewPoints) -> Applied:
        """Add points that are sent as JSON, without a journal."""
        home = self._catalog.find_project(caller, project)
        access.require(caller, access.LOG, project)
        record = self._runs.find(home, run)
        self._runs.require_author(caller, home, record)
        if not given.values:
            raise InvalidArgument("no values", hint='{"values": {"loss": 0.5}, "step": 1}')
        while True:
            writer = self._rest_writer(home.id, record.id)
            applied = self._series.applied(home.id, record.id, writer)
            try:
                return Applied(applied=self._append(home, record, given, writer, applied))
            except Gap:  # another request has appended to the same journal: retry at its new end
                continue

    def _rest_writer(self, space: str, run: str) -> str:
        """Return the id of the writer of points that are sent as JSON. After each damaged log, it is another one.

        The journal of this writer exists only on the server. New points must not get the offsets of lost ones:
        otherwise they would be lost when the log is restored.
        """
        return f"{len(self._series.damage(space, run)):032x}"

    def _append(self, home: Record, run: Record, given: NewPoints, writer: str, applied: int) -> int:
        import time

        from lmvp.core.frame_parsing import parse

        names = {check_key(name): number for number, name in enumerate(given.values)}
        step = step_of(given.step)
        points = [(names[name], step, float(value)) for name, value in given.floats().items()]
        data = b"".join(key_frame(number, name) for name, number in names.items())
        data += points_frame(time.time() if given.time is None else time_of(given.time), points)
        if applied == 0:  # a journal begins with a `start` frame
            data = note(1, b"{}") + data
        return self._series.append(home.id, run.id, writer, applied, data, parse(data))


def _key_record(state: KeyState) -> KeyRecord:
    # Without a finite value, the minimum is infinity and the maximum minus infinity.
    finite = state.low <= state.high
    return KeyRecord(
        key=state.name,
        count=state.count,
        first=state.first,
        step=state.step,
        value=encode_float(state.value),
        time=state.time,
        low=state.low if finite else None,
        high=state.high if finite else None,
    )


def _steps(query: CurveQuery) -> tuple[int | None, int | None]:
    return _within_int64(query.first), _within_int64(query.last)


def _within_int64(step: float | None) -> int | None:
    """Return a bound of steps within int64. Values beyond ±9.2e18 are cut off there."""
    return None if step is None else int(min(max(step, -9.2e18), 9.2e18))


def _by_time(points: Columns, query: CurveQuery) -> Columns:
    """Return the points of a range of times, in the order of their times."""
    order = points.times.argsort(kind="stable")
    inside = _inside(points.times[order], query)
    return _rows(points, order[inside])


def _by_key(points: Columns, other: Columns, query: CurveQuery) -> tuple[Columns, Any]:
    """Return points and, for each, the value of another key at its step or the last step before it.

    The points are in the order of this value. Points before the first step of the other key are left out.
    """
    at = other.steps.searchsorted(points.steps, "right") - 1
    points, axis = _rows(points, at >= 0), other.values[at[at >= 0]]
    order = axis.argsort(kind="stable")
    order = order[_inside(axis[order], query)]
    return _rows(points, order), axis[order]


def _inside(values: Any, query: CurveQuery) -> Any:
    low = float("-inf") if query.first is None else query.first
    high = float("inf") if query.last is None else query.last
    return (values >= low) & (values <= high)


def _rows(points: Columns, rows: Any) -> Columns:
    return type(points)(points.steps[rows], points.values[rows], points.times[rows])
