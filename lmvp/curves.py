"""Curves of runs, ready to be drawn: as text, as a picture, or live in a notebook."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from lmvp.errors import InvalidArgument, LmvpError, NotFound, ServerError
from lmvp.live import MarimoDisplay
from lmvp.tracking.records import Curve, KeyRecord
from lmvp.tracking.records import Curves as CurvesRecord

if TYPE_CHECKING:
    from lmvp.client import Client
    from lmvp.render.compare_runs import Comparison
    from lmvp.tracking.reading import Run
    from lmvp.views.history import History

POINTS = 1000
"""Points of a curve that are drawn at most."""
SYSTEM_POINTS = 240
"""Points of a system metric that are drawn at most: a saved notebook keeps a picture of each."""
KEYS = 24
"""Metrics that are drawn where none are named."""
RUNS = 50
NEWEST_RUNS = 12
"""Runs of a project or of a model that are drawn where none are named."""
MODEL_CHARTS = 8
"""Metrics over versions that are drawn where none are named."""
TOGETHER = 6
"""Metrics that share a chart at most."""
SYSTEM = "system/"
"""How the metrics of the machine begin: processor, memory, network, cards."""
EPOCH = "epoch"
"""The metric by which trainers count epochs: an axis beside step and time, wherever a run has it."""


class Source(Protocol):
    """What has curves: a client, or the server itself."""

    def curves(
        self, project: str, runs: Iterable[str], keys: Iterable[str] = (), *, points: int = 1000, axis: str = "step"
    ) -> CurvesRecord:
        """Return curves of several runs and metrics."""

    def metric_keys(self, project: str, run: str) -> list[KeyRecord]:
        """Return what is known of each metric of a run."""


@dataclass(frozen=True)
class Line:
    """A metric of a run.

    Attributes
    ----------
    steps, values, times : sequence
        As long as one another; times are seconds since 1970.
    axis : sequence of float
        Of the metric that is the axis; by steps, of the epoch, if the run has it.
    count : int
        How many points it stands for.
    """

    run: int
    key: str
    steps: Sequence[int]
    values: Sequence[float]
    times: Sequence[float]
    count: int
    axis: Sequence[float] = ()


@dataclass
class Curves(MarimoDisplay):
    """Metrics of one run or of several.

    Attributes
    ----------
    runs : list of Run
        In the order of their colours.
    lines : list of Line
    hidden : int
        How many metrics are not drawn, since none were named and there are many.
    smooth : int
        Points to smooth over; 0: none.
    log : bool
        Whether the axis of the values is logarithmic.
    axis : str
        `step`, `time`, or a metric.
    """

    runs: list[Run]
    lines: list[Line]
    hidden: int = 0
    smooth: int = 0
    log: bool = False
    axis: str = "step"
    asked: tuple[str, ...] = field(default=(), repr=False)
    machine: Callable[[], Curves | None] | None = field(default=None, repr=False, compare=False)
    """Fetches `system`, where somebody looks at it."""

    @property
    def system(self) -> Curves | None:
        """The system metrics of the same runs (processor, memory, GPU), over time; None if none were recorded."""
        if self.machine is not None:
            fetch, self.machine = self.machine, None
            with suppress(LmvpError):  # charts of the training are worth more than those of the machine
                self.__dict__["system"] = fetch()
        found: Curves | None = self.__dict__.get("system")
        return found

    def __repr__(self) -> str:
        from lmvp.render.curves import curves_text
        from lmvp.render.words import printable

        return printable(curves_text(self))

    def _repr_html_(self) -> str:
        from lmvp.render.curves import curves_html

        return curves_html(self)

    def groups(self) -> dict[str, list[Line]]:
        """Return the lines by chart: of one run, metrics that end alike, as `train/loss` and `val/loss`, share one."""
        ends: dict[str, set[str]] = {}
        for line in self.lines:
            ends.setdefault(line.key.rpartition("/")[2], set()).add(line.key)
        charts: dict[str, list[Line]] = {}
        for line in self.lines:
            end = line.key.rpartition("/")[2]
            together = len(self.runs) == 1 and 1 < len(ends[end]) <= TOGETHER
            charts.setdefault(end if together else line.key, []).append(line)
        return charts

    def legend(self) -> list[str]:
        """Return the names that one legend for all charts has.

        They are those of the runs; of one run, the prefixes of the metrics that share a chart, as `train` and `val`.
        """
        if len(self.runs) > 1:
            return [run.name for run in self.runs]
        shared = [line for lines in self.groups().values() if len(lines) > 1 for line in lines]
        return list(dict.fromkeys(_prefix(line) for line in shared))

    def order(self, line: Line) -> int:
        """Return the number of a line's colour, the same in every chart; `curves.js` has the twin."""
        names = self.legend()
        if len(self.runs) > 1:
            return line.run
        if len(names) > TOGETHER:
            return next(lines.index(line) for lines in self.groups().values() if line in lines)
        return names.index(_prefix(line)) if _prefix(line) in names else 0

    def label(self, line: Line) -> str:
        """Return what a line is called in its chart: its metric, or, of several runs, its run."""
        if len(self.runs) == 1:
            return line.key
        return self.runs[line.run].name

    def to_pandas(self) -> Any:
        """Return what is drawn as a DataFrame with the columns run, key, step, value, time; `Run.to_pandas` has all.

        Raises
        ------
        MissingDependency
            If pandas is not installed.
        """
        from lmvp.tracking.reading import pandas_module

        rows = [
            (self.runs[line.run].name, line.key, *point)
            for line in self.lines
            for point in zip(line.steps, line.values, line.times, strict=True)
        ]
        return pandas_module().DataFrame(rows, columns=["run", "key", "step", "value", "time"])


@dataclass(repr=False)
class ModelCurves(Curves):
    """Metrics over the versions of a model, and the curves of the runs that made them.

    Attributes
    ----------
    charts : tuple of (History, str or None)
        A model and one of its metrics; None where no version has a metric.
    runs, lines
        Of the runs; empty where the versions were made by no run.
    """

    charts: tuple[tuple[History, str | None], ...] = ()

    def __repr__(self) -> str:
        from lmvp.render.curves import model_text
        from lmvp.render.words import printable

        return printable(model_text(self))

    def _repr_html_(self) -> str:
        from lmvp.render.curves import model_html

        return model_html(self)

    def of_runs(self) -> Curves:
        """Return the curves of the runs alone."""
        return Curves(self.runs, self.lines, self.hidden, self.smooth, self.log, self.axis, self.asked, self.machine)


def _prefix(line: Line) -> str:
    return line.key.rpartition("/")[0]


def curves_of(
    client: Client,
    names: Sequence[str],
    keys: Iterable[str] = (),
    *,
    smooth: int = 0,
    log: bool = False,
    axis: str = "step",
) -> Curves:
    """Return the curves of runs that are named `[project/]run`.

    Raises
    ------
    NotFound
        If there is no such run, or none of them has such a metric.
    InvalidArgument
        If they are of several projects.
    """
    if smooth < 0 or smooth > 10_000:
        raise InvalidArgument(f"`--smooth {smooth}`: from 0 to 10,000")
    runs = named_runs(client, names)
    return with_system(client, runs, tuple(keys), smooth=smooth, log=log, axis=axis)


def with_system(client: Source, runs: Sequence[Run], keys: Sequence[str] = (), **how: Any) -> Curves:
    """Return the curves of runs; where no metrics are named, `Curves.system` has those of the machine."""
    found = of_runs(client, runs, keys, **how)
    if runs and not keys:
        found.machine = lambda: _of_machine(client, runs)
    return found


def _of_machine(client: Source, runs: Sequence[Run]) -> Curves | None:
    found = of_runs(client, runs, system=True, points=SYSTEM_POINTS, axis="time")
    return found if found.lines else None


def of_runs(
    client: Source,
    runs: Sequence[Run],
    keys: Sequence[str] = (),
    *,
    system: bool = False,
    points: int = POINTS,
    **how: Any,
) -> Curves:
    """Return the curves of runs of one project; with `system`, those of the machine where no metrics are named."""
    if len({run.project for run in runs}) > 1:
        raise InvalidArgument("these runs are of several projects", hint="compare those of one")
    if len(runs) > RUNS:
        raise InvalidArgument(f"{len(runs)} runs; at most {RUNS} are drawn at once", hint="name some of them")
    wanted, hidden = (tuple(keys), 0) if keys else _some_keys(client, runs, system=system)
    if not wanted:
        return Curves(list(runs), [], **how)
    axis = how.get("axis", "step")
    by_key = axis if axis not in ("step", "time") else "step"
    each = [key for key in wanted if key != by_key] or list(wanted)
    found: list[Curve] = _epochs(client, runs) if by_key == "step" and EPOCH not in each else []
    for at in range(0, len(each), max(1, 200 // len(runs))):
        part = each[at : at + max(1, 200 // len(runs))]
        found += client.curves(runs[0].project, [run.id for run in runs], part, points=points, axis=by_key).curves
    return Curves(list(runs), lines_of(found, runs, each), hidden, asked=tuple(keys), **how)


def _epochs(client: Source, runs: Sequence[Run]) -> list[Curve]:
    try:
        return [*client.curves(runs[0].project, [run.id for run in runs], [EPOCH], points=POINTS).curves]
    except NotFound:  # these do not count them
        return []


def lines_of(curves: Sequence[Curve], runs: Sequence[Run], keys: Sequence[str]) -> list[Line]:
    """Return curves of the wire as the lines of those keys; joined with the epoch where it is by steps."""
    numbers = {run.id: number for number, run in enumerate(runs)}
    epochs = {
        curve.run: _line(curve, numbers[curve.run])
        for curve in curves
        if curve.key == EPOCH and not curve.axis and curve.run in numbers
    }
    places = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    lines = [
        line if line.axis or curve.run not in epochs else with_epochs(line, epochs[curve.run])
        for curve in curves
        if curve.key in places and curve.run in numbers  # a server may send a curve that nobody asked for
        for line in [_line(curve, numbers[curve.run])]
    ]
    return sorted(lines, key=lambda line: (places[line.key], line.run))


def _line(curve: Curve, run: int) -> Line:
    from lmvp.records import decode_float

    try:
        values = [decode_float(value) for value in curve.values]
        axis = [decode_float(value) for value in curve.axis]
    except ValueError as error:
        hint = "check LMVP_URL; if it is right, update lmvp here and on the server"
        raise ServerError(f"the points that the server sent cannot be read: {error}", hint=hint) from None
    return Line(run, curve.key, curve.steps, values, curve.times, curve.count, axis)


def with_epochs(line: Line, epochs: Line) -> Line:
    """Return a line with the epoch at each of its steps, between those that were logged in proportion."""
    import numpy as np

    finite = np.isfinite(epochs.values)
    if not finite.any():
        return line
    axis = np.interp(line.steps, np.asarray(epochs.steps)[finite], np.asarray(epochs.values)[finite])
    return replace(line, axis=axis.tolist())


def _some_keys(client: Source, runs: Sequence[Run], *, system: bool) -> tuple[tuple[str, ...], int]:
    """Return the metrics to draw where none are named, of the training or of the machine, and how many more exist."""
    keys: dict[str, None] = {}
    for run in runs:
        keys |= dict.fromkeys(each.key for each in client.metric_keys(run.project, run.id))
    plain = [key for key in keys if key.startswith(SYSTEM) == system and key != EPOCH]
    return tuple(plain[:KEYS]), max(0, len(plain) - KEYS)


def named_runs(client: Client, names: Sequence[str]) -> list[Run]:
    """Return runs that are named `[project/]run`; a name without a project has that of the name before it."""
    found, project = [], None
    for name in names:
        stated, _, run = name.rpartition("/")
        project = stated or project
        found.append(client.run(project, run))
    return found


def metrics_of(client: Client, names: Sequence[str], keys: Sequence[str] = (), **how: Any) -> Curves:
    """Return the curves of what is named: runs, or a model, or a project; see `Client.metrics`.

    A name that a run and a model have is that of the run.
    """
    if len(names) == 1 and not _is_run(client, names[0]):
        try:
            history = client.show_history(names[0])
        except NotFound:
            pass  # what follows says that there is no such run, and which names are near
        else:
            of_versions = _of_model if "/" in history.title else _of_project
            return of_versions(client, history, keys, how)
    return curves_of(client, names, keys, **how)


def _is_run(client: Client, name: str) -> bool:
    project, _, last = name.rpartition("/")
    try:
        return bool(last) and bool(client.run(project or None, last))
    except NotFound:
        return False


def _of_project(client: Client, history: History, keys: Sequence[str], how: dict[str, Any]) -> Curves:
    """Return the curves of the newest runs of a project; of one without runs, the metrics of its models."""
    runs = client.runs(history.title, limit=NEWEST_RUNS)
    if runs:
        return with_system(client, list(runs), keys, **how)
    models = [client.show_history(f"{history.title}/{model}") for model in history.models[:MODEL_CHARTS]]
    wanted = [(one, key) for one in models for key in (keys or one.metrics[:1]) if key in one.metrics]
    return ModelCurves([], [], charts=tuple(wanted[:MODEL_CHARTS]) or ((history, next(iter(keys), None)),), **how)


def _of_model(client: Client, history: History, keys: Sequence[str], how: dict[str, Any]) -> Curves:
    """Return metrics over the versions of a model, and the curves of the newest runs that made them."""
    from lmvp.arguments import check_metric

    runs = list(client.runs(history.title, limit=NEWEST_RUNS))
    logged = {each.key for run in runs for each in client.metric_keys(run.project, run.id)} if runs and keys else set()
    for key in keys:
        if key not in logged:
            check_metric(history, key)
    wanted = [key for key in keys if key in logged]
    curves = with_system(client, runs, wanted, **how) if runs and (wanted or not keys) else Curves([], [], **how)
    known = [key for key in (keys or history.metrics) if key in history.metrics][:MODEL_CHARTS]
    charts: list[tuple[History, str | None]] = [(history, key) for key in known]
    if not charts and not curves.lines:
        charts = [(history, None)]
    return ModelCurves(
        curves.runs,
        curves.lines,
        curves.hidden,
        asked=curves.asked,
        machine=curves.machine,
        charts=tuple(charts),
        **how,
    )


def compare_runs(client: Client, names: Sequence[str], *, every: bool = False) -> Comparison:
    """Return runs side by side: params, tags, summary and last metrics; only what differs, if not `every`.

    Raises
    ------
    InvalidArgument
        If it is one run alone.
    """
    from lmvp.render.compare_runs import Comparison

    if len(names) < 2:
        raise InvalidArgument("one run alone differs from nothing", hint="name two or more: `lmvp compare RUN RUN`")
    return Comparison.of([run.record for run in named_runs(client, names)], every=every)
