"""Reading of the curves of runs, and of the metrics of models, from a source."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from lmvp.core.schemas.runs import Curve
from lmvp.errors import InvalidArgument, NotFound, ServerError
from lmvp.views._source import CurveSource

if TYPE_CHECKING:
    from lmvp.views.history import History
    from lmvp.views.run_comparison import Comparison
    from lmvp.views.runs import Run, Runs, RunView
from lmvp.views.curves import EPOCH, Curves, Line, ModelCurves

POINTS = 1000
"""Maximum number of drawn points of a curve."""
SYSTEM_POINTS = 240
"""Maximum number of drawn points of a system metric. Fewer, because a saved notebook contains a picture of each one."""
KEYS = 24
"""Number of drawn metrics if the caller does not name metrics."""
RUNS = 50
"""Maximum number of runs in one view."""
NEWEST_RUNS = 12
"""Number of drawn runs of a project or a model if the caller does not name runs."""
MODEL_CHARTS = 8
"""Number of drawn metrics over versions if the caller does not name metrics."""
SYSTEM = "system/"
"""Prefix of the system metrics: CPU, memory, network, GPU."""


class NamedSource(CurveSource, Protocol):
    """A source that finds runs and models by their names."""

    def run(self, project: str | None = None, run: str | None = None, /) -> Run:
        """Return a run."""

    def runs(self, project: str | None = None, /, *, limit: int | None = 200) -> Runs:
        """Return the runs of a project or a model."""

    def show_history(self, name: str, /) -> History:
        """Return the versions of a model or a project."""


def curves_of(
    client: NamedSource,
    names: Sequence[str],
    keys: Iterable[str] = (),
    *,
    smooth: int = 0,
    log: bool = False,
    axis: str = "step",
) -> Curves:
    """Return the curves of runs with the names `[project/]run`; see `Client.metrics`.

    Raises
    ------
    NotFound
        If a run does not exist, or none of the runs has the metrics.
    InvalidArgument
        If the runs belong to several projects, or `smooth` is out of range.
    """
    if smooth < 0 or smooth > 10_000:
        raise InvalidArgument(f"`--smooth {smooth}`: from 0 to 10,000")
    runs = named_runs(client, names)
    return with_system(client, runs, tuple(keys), smooth=smooth, log=log, axis=axis)


def with_system(client: CurveSource, runs: Sequence[RunView], keys: Sequence[str] = (), **how: Any) -> Curves:
    """Return the curves of runs; without `keys`, `Curves.system` has the system metrics too."""
    found = of_runs(client, runs, keys, **how)
    if runs and not keys:
        found.machine = lambda: _of_machine(client, runs)
    return found


def _of_machine(client: CurveSource, runs: Sequence[RunView]) -> Curves | None:
    found = of_runs(client, runs, system=True, points=SYSTEM_POINTS, axis="time")
    return found if found.lines else None


def of_runs(
    client: CurveSource,
    runs: Sequence[RunView],
    keys: Sequence[str] = (),
    *,
    system: bool = False,
    points: int = POINTS,
    **how: Any,
) -> Curves:
    """Return the curves of runs of one project.

    Parameters
    ----------
    keys : sequence of str
        The metrics. Empty: the first `KEYS` training metrics; with `system`, the system metrics instead.
    points : int
        The maximum number of points of a curve.
    **how
        `smooth`, `log` and `axis` of `Curves`.
    """
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
    # The server accepts at most 200 curves in one request (`lmvp_server.services.metrics.CURVES_LIMIT`).
    for at in range(0, len(each), max(1, 200 // len(runs))):
        part = each[at : at + max(1, 200 // len(runs))]
        found += client.curves(runs[0].project, [run.id for run in runs], part, points=points, axis=by_key).curves
    return Curves(list(runs), lines_of(found, runs, each), hidden, asked=tuple(keys), **how)


def _epochs(client: CurveSource, runs: Sequence[RunView]) -> list[Curve]:
    try:
        return [*client.curves(runs[0].project, [run.id for run in runs], [EPOCH], points=POINTS).curves]
    except NotFound:  # no run has a metric `epoch`
        return []


def lines_of(curves: Sequence[Curve], runs: Sequence[RunView], keys: Sequence[str]) -> list[Line]:
    """Convert the curves of a response to lines, in the order of the keys; add the epoch to curves by steps."""
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
        if curve.key in places and curve.run in numbers  # ignore curves that were not requested
        for line in [_line(curve, numbers[curve.run])]
    ]
    return sorted(lines, key=lambda line: (places[line.key], line.run))


def _line(curve: Curve, run: int) -> Line:
    from lmvp.core.schemas import decode_float

    try:
        values = [decode_float(value) for value in curve.values]
        axis = [decode_float(value) for value in curve.axis]
    except ValueError as error:
        hint = "check LMVP_URL; if it is right, update lmvp here and on the server"
        raise ServerError(f"the points that the server sent cannot be read: {error}", hint=hint) from None
    return Line(run, curve.key, curve.steps, values, curve.times, curve.count, axis)


def with_epochs(line: Line, epochs: Line) -> Line:
    """Return a line with the epoch at each of its steps, by linear interpolation of the logged epochs."""
    import numpy as np

    finite = np.isfinite(epochs.values)
    if not finite.any():
        return line
    axis = np.interp(line.steps, np.asarray(epochs.steps)[finite], np.asarray(epochs.values)[finite])
    return replace(line, axis=axis.tolist())


def _some_keys(client: CurveSource, runs: Sequence[RunView], *, system: bool) -> tuple[tuple[str, ...], int]:
    """Return the metrics to draw by default (training or system metrics), and the number of those left out."""
    keys: dict[str, None] = {}  # an ordered set
    for run in runs:
        keys |= dict.fromkeys(each.key for each in client.metric_keys(run.project, run.id))
    plain = [key for key in keys if key.startswith(SYSTEM) == system and key != EPOCH]
    return tuple(plain[:KEYS]), max(0, len(plain) - KEYS)


def named_runs(client: NamedSource, names: Sequence[str]) -> list[Run]:
    """Return the runs with the names `[project/]run`; a name without a project uses the project of the name before."""
    found, project = [], None
    for name in names:
        stated, _, run = name.rpartition("/")
        project = stated or project
        found.append(client.run(project, run))
    return found


def metrics_of(client: NamedSource, names: Sequence[str], keys: Sequence[str] = (), **how: Any) -> Curves:
    """Return the curves of runs, a model or a project; see `Client.metrics`.

    If a run and a model have the same name, the run is used.
    """
    if len(names) == 1 and not _is_run(client, names[0]):
        try:
            history = client.show_history(names[0])
        except NotFound:
            pass  # `curves_of` raises the error, with a hint that suggests similar names
        else:
            of_versions = _of_model if "/" in history.title else _of_project
            return of_versions(client, history, keys, how)
    return curves_of(client, names, keys, **how)


def _is_run(client: NamedSource, name: str) -> bool:
    project, _, last = name.rpartition("/")
    try:
        return bool(last) and bool(client.run(project or None, last))
    except NotFound:
        return False


def _of_project(client: NamedSource, history: History, keys: Sequence[str], how: dict[str, Any]) -> Curves:
    """Return the curves of the newest runs of a project; without runs, the metrics of its models."""
    runs = client.runs(history.title, limit=NEWEST_RUNS)
    if runs:
        return with_system(client, list(runs), keys, **how)
    models = [client.show_history(f"{history.title}/{model}") for model in history.models[:MODEL_CHARTS]]
    wanted = [(one, key) for one in models for key in (keys or one.metrics[:1]) if key in one.metrics]
    return ModelCurves([], [], charts=tuple(wanted[:MODEL_CHARTS]) or ((history, next(iter(keys), None)),), **how)


def _of_model(client: NamedSource, history: History, keys: Sequence[str], how: dict[str, Any]) -> Curves:
    """Return the metrics over the versions of a model, and the curves of the newest runs that produced them."""
    from lmvp.views.history import check_metric

    runs = list(client.runs(history.title, limit=NEWEST_RUNS))
    logged = {each.key for run in runs for each in client.metric_keys(run.project, run.id)} if runs and keys else set()
    for key in keys:  # each one must be a metric of the runs or of the versions
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


def compare_runs(client: NamedSource, names: Sequence[str], *, every: bool = False) -> Comparison:
    """Compare the params, tags, summary and last metrics of runs; see `Client.compare`.

    Raises
    ------
    InvalidArgument
        If fewer than two runs are given.
    """
    from lmvp.views.run_comparison import Comparison

    if len(names) < 2:
        raise InvalidArgument("one run alone differs from nothing", hint="name two or more: `lmvp compare RUN RUN`")
    return Comparison.of([run.record for run in named_runs(client, names)], every=every)
