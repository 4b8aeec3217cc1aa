"""Metrics of runs: which there are, curves of several at once, every point of them, and what is new."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from lmvp.errors import IntegrityError, InvalidArgument, NotFound, TooLarge
from lmvp.records import encode_float
from lmvp.references import suggest
from lmvp.tracking.frames import check_key, key_frame, note, points_frame
from lmvp.tracking.numbers import step_of, time_of
from lmvp.tracking.records import Applied, Curve, Curves, KeyRecord, NewPoints
from lmvp_server import cancellation
from lmvp_server.services import access
from lmvp_server.services.access import Caller
from lmvp_server.services.catalog import Catalog
from lmvp_server.services.paging import Page
from lmvp_server.services.runs import Runs
from lmvp_server.stores.base import CursorLost, Document, Gap, KeyState, Record, SeriesStore

if TYPE_CHECKING:
    from lmvp.tracking.columns import Columns

CURVES_LIMIT = 200
POINTS_DEFAULT, POINTS_LIMIT = 1000, 100_000
ANSWER_LIMIT = 1_000_000
"""Points of all curves of an answer: as JSON they take some 170 MB while it is made."""
BATCH = 50_000
"""Points of the curves of an answer that are made at once; the next ones are made when the client has read these."""
LIVE_LIMIT = 20_000
"""Points of a run that one event tells; where more are new, the curves are read anew instead."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Which curves are wanted: see docs/api.md."""

    runs: tuple[str, ...]
    keys: tuple[str, ...]
    points: int = POINTS_DEFAULT
    first: float | None = None
    last: float | None = None
    axis: str = "step"


@dataclass(frozen=True, slots=True)
class Drawn:
    """A curve in columns; `axis` where another key is the axis."""

    run: str
    key: str
    count: int
    columns: Columns
    axis: Any = None


def as_curves(drawn: Iterable[Drawn]) -> Curves:
    """Return curves as a struct."""
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
    """Return an array of floats as JSON has them."""
    return tuple(map(encode_float, values.tolist()))


class Metrics:
    """The use cases around metrics."""

    def __init__(self, series: SeriesStore, catalog: Catalog, runs: Runs) -> None:
        self._series, self._catalog, self._runs = series, catalog, runs

    def keys(self, caller: Caller, project: str, run: str, prefix: str, page: Page) -> Document:
        """List the metrics of a run, in the order in which they came."""
        home = self._catalog.find_project(caller, project)
        known = self._series.keys(home.id, self._runs.find(home, run).id)
        found = [state for state in known if state.name.startswith(prefix)]
        begin = page.cursor or 0
        more = begin + page.limit < len(found)
        items = [_key_record(state) for state in found[begin : begin + page.limit]]
        return {"items": items, "next": str(begin + page.limit) if more else None, "total": len(found)}

    def curves(self, caller: Caller, project: str, asked: Asked) -> list[Drawn]:
        """Return the curves that are asked for; a run that lacks a key has none of it.

        Raises
        ------
        NotFound
            If none of the runs has one of the keys.
        TooLarge
            If they have too many points together.
        """
        home, wanted = self._home_and_wanted(caller, project, asked)
        curves, points = [], 0
        for run, key in wanted:
            curves.append(self._curve(home, run, key, asked))
            points += len(curves[-1].columns)
            if points > ANSWER_LIMIT:
                raise TooLarge(
                    f"these curves have more than {ANSWER_LIMIT:,} points",
                    hint="name fewer runs or keys, or ask for fewer points",
                )
        return curves

    def batches(self, caller: Caller, project: str, asked: Asked) -> list[Callable[[], list[Drawn]]]:
        """Split the curves of an answer into batches, each of which is made when it is called.

        The answer is one batch if it is short, or if only all its curves tell whether they have too many points.

        Raises
        ------
        NotFound, TooLarge
            As `curves`.
        """
        home, wanted = self._home_and_wanted(caller, project, asked)
        sizes = [self._most(home, run, key, asked) for run, key in wanted]
        if sum(sizes) <= BATCH or sum(sizes) > ANSWER_LIMIT:
            return [lambda: self.curves(caller, project, asked)]
        parts: list[list[tuple[Record, str]]] = [[]]
        points = 0
        for size, one in zip(sizes, wanted, strict=True):
            if parts[-1] and points + size > BATCH:
                parts.append([])
                points = 0
            parts[-1].append(one)
            points += size
        return [partial(self._batch, home, part, asked) for part in parts]

    def _batch(self, home: Record, part: Sequence[tuple[Record, str]], asked: Asked) -> list[Drawn]:
        return [self._curve(home, run, key, asked) for run, key in part]

    def _most(self, home: Record, run: Record, key: str, asked: Asked) -> int:
        """Return how many points a curve has at most."""
        cancellation.check()
        return min(asked.points, self._series.count(home.id, run.id, key, None, None))

    def _home_and_wanted(self, caller: Caller, project: str, asked: Asked) -> tuple[Record, list[tuple[Record, str]]]:
        home = self._catalog.find_project(caller, project)
        if not 1 <= asked.points <= POINTS_LIMIT:
            raise InvalidArgument(f"points={asked.points}: from 1 to {POINTS_LIMIT:,}")
        runs = list({(found := self._runs.find(home, run)).id: found for run in asked.runs}.values())
        return home, self._wanted(home, runs, asked)

    def incomplete(self, caller: Caller, project: str, runs: Sequence[str]) -> str:
        """State of which runs points are missing because of damage, and why; empty if all are there."""
        home = self._catalog.find_project(caller, project)
        found = {run.id: self._runs.incomplete(home.id, run.id) for run in (self._runs.find(home, run) for run in runs)}
        return "; ".join(f"run {run[:8]}: {missing}" for run, missing in found.items() if missing)

    def _wanted(self, home: Record, runs: Sequence[Record], asked: Asked) -> list[tuple[Record, str]]:
        known = {run.id: [state.name for state in self._series.keys(home.id, run.id)] for run in runs}
        every = {name for names in known.values() for name in names}
        keys = tuple(dict.fromkeys(asked.keys))
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

    def _curve(self, home: Record, run: Record, key: str, asked: Asked) -> Drawn:
        cancellation.check()
        first, last = _steps(asked) if asked.axis == "step" else (None, None)
        sample = self._series.sample(home.id, run.id, key, asked.points, first, last)
        count = self._series.count(home.id, run.id, key, first, last)
        if asked.axis == "step":
            return Drawn(run.id, key, count, sample)
        if asked.axis == "time":
            return Drawn(run.id, key, count, _by_time(sample, asked))
        other = self._series.sample(home.id, run.id, asked.axis, POINTS_LIMIT)
        return Drawn(run.id, key, count, *_by_key(sample, other, asked))

    # -- every point

    def every_point(
        self, caller: Caller, project: str, runs: Sequence[str], keys: Sequence[str]
    ) -> Iterator[tuple[Document, str, Iterator[Columns]]]:
        """Yield run, key, and all points in pages; all runs of the project, all keys, where none are named.

        Raises
        ------
        IntegrityError
            If points of one of the runs are missing because of damage.
        """
        home = self._catalog.find_project(caller, project)
        named = {found.id: found for found in (self._runs.find(home, run) for run in dict.fromkeys(runs))}
        found = list(named.values()) if runs else list(self._runs.all_of(home))
        for run in found:  # a file of "every point" does not show that some are missing
            if missing := self._runs.incomplete(home.id, run.id):
                raise IntegrityError(
                    f"run {run.data['name']} ({run.id[:8]}): {missing}",
                    hint="its curves show the points that are sound; name the other runs to export them",
                )
            cancellation.check()
            try:
                self._series.verify(home.id, run.id)  # a damaged segment would break off the answer, after its 200
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

    # -- what is new

    def watched(self, caller: Caller, project: str, runs: Sequence[str]) -> tuple[str, list[str]]:
        """Return the space of a project, and the ids of runs in it, each once."""
        home = self._catalog.find_project(caller, project)
        return home.id, list(dict.fromkeys(self._runs.find(home, run).id for run in runs))

    def now(self, space: str, run: str) -> int:
        """Return the cursor behind all points of a run."""
        state = self._series.state(space, run)
        return state.points if state else 0

    def since(
        self, space: str, run: str, cursor: int, keys: Sequence[str] | None
    ) -> tuple[int, dict[str, Columns]] | None:
        """Return the points behind a cursor, and the next cursor; None where they are too many, or not at hand."""
        try:
            behind, found = self._series.since(space, run, cursor, keys, LIVE_LIMIT)
        except CursorLost:
            return None
        return None if behind == cursor + LIVE_LIMIT else (behind, found)

    def wait(self, space: str, run: str, wake: Callable[[], None]) -> Callable[[], None]:
        """See `SeriesStore.wait`."""
        return self._series.wait(space, run, wake)

    # -- by hand

    def add(self, caller: Caller, project: str, run: str, given: NewPoints) -> Applied:
        """Take in some points that come as JSON."""
        home = self._catalog.find_project(caller, project)
        access.require(caller, access.LOG, project)
        found = self._runs.find(home, run)
        self._runs.require_author(caller, home, found)
        if not given.values:
            raise InvalidArgument("no values", hint='{"values": {"loss": 0.5}, "step": 1}')
        while True:
            writer = self._rest_writer(home.id, found.id)
            applied = self._series.applied(home.id, found.id, writer)
            try:
                return Applied(applied=self._append(home, found, given, writer, applied))
            except Gap:  # another request was quicker
                continue

    def _rest_writer(self, space: str, run: str) -> str:
        """Return the writer of points that come as JSON; another one after each damaged log.

        The journal of such a writer exists only on the server. What follows a lost record must not take its place, or
        it would be lost itself when the log is restored.
        """
        return f"{len(self._series.damage(space, run)):032x}"

    def _append(self, home: Record, run: Record, given: NewPoints, writer: str, applied: int) -> int:
        import time

        from lmvp.tracking.parsing import parse

        names = {check_key(name): number for number, name in enumerate(given.values)}
        step = step_of(given.step)
        points = [(names[name], step, float(value)) for name, value in given.floats().items()]
        data = b"".join(key_frame(number, name) for name, number in names.items())
        data += points_frame(time.time() if given.time is None else time_of(given.time), points)
        if applied == 0:
            data = note(1, b"{}") + data
        return self._series.append(home.id, run.id, writer, applied, data, parse(data))


def _key_record(state: KeyState) -> KeyRecord:
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


def _steps(asked: Asked) -> tuple[int | None, int | None]:
    return _within_int64(asked.first), _within_int64(asked.last)


def _within_int64(step: float | None) -> int | None:
    """Return a bound of steps as an int64: no step lies beyond 9.2e18 that a bound there would leave out."""
    return None if step is None else int(min(max(step, -9.2e18), 9.2e18))


def _by_time(points: Columns, asked: Asked) -> Columns:
    """Return points in the order of their times, those of a range."""
    order = points.times.argsort(kind="stable")
    inside = _inside(points.times[order], asked)
    return _rows(points, order[inside])


def _by_key(points: Columns, other: Columns, asked: Asked) -> tuple[Columns, Any]:
    """Return points at whose steps another key has a value, or had one last, and that value; in the order of it."""
    at = other.steps.searchsorted(points.steps, "right") - 1
    points, axis = _rows(points, at >= 0), other.values[at[at >= 0]]
    order = axis.argsort(kind="stable")
    order = order[_inside(axis[order], asked)]
    return _rows(points, order), axis[order]


def _inside(values: Any, asked: Asked) -> Any:
    low = float("-inf") if asked.first is None else asked.first
    high = float("inf") if asked.last is None else asked.last
    return (values >= low) & (values <= high)


def _rows(points: Columns, rows: Any) -> Columns:
    return type(points)(points.steps[rows], points.values[rows], points.times[rows])
