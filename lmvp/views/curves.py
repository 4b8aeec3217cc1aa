"""Text, static HTML and widget data of the curves of runs.

Static charts are SVG inside of `<img>`, which a saved notebook shows without a kernel. `curves.js` draws the live form
from the same data, with the same axes.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from html import escape
from itertools import groupby
from typing import Any, Final

from lmvp.core import html_tables, number_format
from lmvp.core.marimo import MarimoDisplay
from lmvp.core.optional import pandas_module
from lmvp.core.sanitize import clean, clip, pad, printable, width
from lmvp.core.schemas import decode_float, encode_float
from lmvp.errors import LmvpError
from lmvp.views import layer_strip, metric_plot
from lmvp.views.history import History
from lmvp.views.runs import RunView, duration, status

WIDTH, HEIGHT = 520, 210
"""Size of a chart in pixels."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 118, 12, 26
"""Margins of a chart in pixels. The right one has space for the names of lines."""
_PLAIN = 16
"""The right margin of a chart without names at the ends of its lines, in pixels."""
_NAME, _SAMPLE = 40, 44
"""Maximum number of letters of a name in the legend, and width of its line sample with the gap, in pixels."""
# These greys have enough contrast on a light and on a dark page.
_GREY, _LINE = "#7a7a7a", "#888"
_MOST = sys.float_info.max
_FONT = 'font-family="system-ui, sans-serif" font-size="11"'
HUES: Final = ("#2f7fd0", "#cf5a17", "#179a70", "#b07d1c", "#b35aa3", "#7d838b")
"""Colors of the lines, readable on white and on black, in the order of `--s1` to `--s6` in the style sheet."""
DASHES: Final = ("", "7 3", "2 3", "9 3 2 3", "4 2", "1 2")
"""Dash patterns of the lines, so that readers who do not see colors can distinguish them."""
_SPARKS = "▁▂▃▄▅▆▇█"
_SPARK_WIDTH = 32
ROWS = 50
"""Maximum number of rows of the table of numbers."""
CHARTS = 8
"""Maximum number of static charts. A live view draws the others on demand."""
TOGETHER = 6
"""Maximum number of metrics in one chart."""
EPOCH = "epoch"
"""Name of the metric in which training libraries log the epoch. It is offered as an X axis beside step and time."""


@dataclass(frozen=True)
class Line:
    """The points of one metric of one run.

    Attributes
    ----------
    run : int
        The index of the run in `Curves.runs`.
    key : str
        The name of the metric.
    steps, values, times : sequence
        The points, in sequences of equal length. Times are in seconds since 1970.
    axis : sequence of float
        The X values if the X axis is a metric. If the X axis is the step, the epoch of each point, or empty if the run
        has no epochs.
    count : int
        The number of points before downsampling.
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
    """Curves of one or several runs. Notebooks draw them; `str` draws them as text.

    Attributes
    ----------
    runs : list of RunView
        The runs, in the order of their colours.
    lines : list of Line
        The curves: one for each run and metric.
    hidden : int
        The number of metrics that are left out because the caller did not name metrics and there are more than 24.
    smooth : int
        The number of points to smooth over; 0 disables smoothing.
    log : bool
        Whether the Y axis is logarithmic.
    axis : str
        The X axis: `step`, `time`, or the name of a metric.
    asked : tuple of str
        The metrics that the caller named.
    """

    runs: list[RunView]
    lines: list[Line]
    hidden: int = 0
    smooth: int = 0
    log: bool = False
    axis: str = "step"
    asked: tuple[str, ...] = field(default=(), repr=False)
    machine: Callable[[], Curves | None] | None = field(default=None, repr=False, compare=False)
    """Fetches `system` on first access. Most callers never need it."""

    @property
    def system(self) -> Curves | None:
        """The system metrics of the same runs (processor, memory, GPU), over time; None if none were recorded."""
        if self.machine is not None:
            fetch, self.machine = self.machine, None
            with suppress(LmvpError):  # a failure here must not hide the charts of the training
                self.__dict__["system"] = fetch()
        found: Curves | None = self.__dict__.get("system")
        return found

    def __repr__(self) -> str:
        return printable(curves_text(self))

    def _repr_html_(self) -> str:
        return curves_html(self)

    def groups(self) -> dict[str, list[Line]]:
        """Return the lines of each chart.

        If there is one run, metrics with the same last part, for example `train/loss` and `val/loss`, share a chart.
        """
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
        """Return the entries of the legend, which all charts share.

        The entries are the names of the runs. If there is one run, they are the prefixes of the metrics that share a
        chart, for example `train` and `val`.
        """
        if len(self.runs) > 1:
            return [run.name for run in self.runs]
        shared = [line for lines in self.groups().values() if len(lines) > 1 for line in lines]
        return list(dict.fromkeys(_prefix(line) for line in shared))

    def order(self, line: Line) -> int:
        """Return the index of the colour of a line, equal in all charts. `curves.js` has the same rule."""
        names = self.legend()
        if len(self.runs) > 1:
            return line.run
        if len(names) > TOGETHER:  # more prefixes than colours, so each chart numbers its lines separately
            return next(lines.index(line) for lines in self.groups().values() if line in lines)
        return names.index(_prefix(line)) if _prefix(line) in names else 0

    def label(self, line: Line) -> str:
        """Return the label of a line in its chart: the metric; with several runs, the name of the run."""
        if len(self.runs) == 1:
            return line.key
        return self.runs[line.run].name

    def to_pandas(self) -> Any:
        """Return the drawn points as a DataFrame with the columns run, key, step, value and time.

        The points are downsampled. `Run.to_pandas` returns all points of a run.

        Returns
        -------
        pandas.DataFrame

        Raises
        ------
        MissingDependency
            If pandas is not installed.
        """
        rows = [
            (self.runs[line.run].name, line.key, *point)
            for line in self.lines
            for point in zip(line.steps, line.values, line.times, strict=True)
        ]
        return pandas_module().DataFrame(rows, columns=["run", "key", "step", "value", "time"])


@dataclass(repr=False)
class ModelCurves(Curves):
    """Metrics over the versions of a model, and the curves of the runs that produced them.

    Attributes
    ----------
    charts : tuple of (History, str or None)
        A chart for each metric: the versions of the model and the name of the metric; None if they have no metrics.
    runs, lines
        The runs and their curves; empty if the versions were pushed outside of runs.
    """

    charts: tuple[tuple[History, str | None], ...] = ()

    def __repr__(self) -> str:
        return printable(model_text(self))

    def _repr_html_(self) -> str:
        return model_html(self)

    def of_runs(self) -> Curves:
        """Return only the curves of the runs."""
        return Curves(self.runs, self.lines, self.hidden, self.smooth, self.log, self.axis, self.asked, self.machine)


def _prefix(line: Line) -> str:
    return line.key.rpartition("/")[0]


def curves_text(curves: Curves) -> str:
    """Return a line of text for each metric: a sparkline, and the first, last, least and greatest value."""
    if not curves.lines:
        return f"{title(curves)}  {nothing(curves)}"
    names = [clean(full_name(curves, line)) for line in curves.lines]
    wide = min(max(map(width, names)), 40)
    lines = [f"{title(curves)}  {fact(curves)}"]
    for name, line in zip(names, curves.lines, strict=True):
        lines.append(f"{pad(name, wide)}  {sparkline(line.values, _SPARK_WIDTH)}  {_told(line)}")
    return "\n".join([*lines, *_hidden(curves)])


def model_text(curves: ModelCurves) -> str:
    """Return a line of text for each metric over versions, then the curves of the runs."""
    lines: list[str] = []
    wide = min(max((width(clean(key or "")) for _, key in curves.charts), default=0), 40)
    for title, charts in groupby(curves.charts, key=lambda chart: chart[0].title):
        lines.append(f"{clean(title)}  by version")
        for history, key in charts:
            drawn = metric_plot.plot_data(history, key)
            values = [decode_float(point["value"]) for point in drawn["points"]]
            if drawn["empty"]:
                lines += [drawn["empty"]["words"], f"    {drawn['empty']['code']}"]
                continue
            told = drawn["summary"].partition(": ")[2]
            lines.append(f"{pad(clean(key or ''), wide)}  {sparkline(values, _SPARK_WIDTH)}  {told}".strip())
    return "\n".join([*lines, *([curves_text(curves.of_runs())] if curves.lines else [])])


def sparkline(values: Sequence[float], wide: int) -> str:
    """Return a curve as a row of block characters. Values that are not finite are gaps.

    Parameters
    ----------
    values : sequence of float
    wide : int
        Maximum number of characters. Each one shows the mean of a range of values.

    Examples
    --------
    >>> sparkline([3, 2, 1, float("nan"), 2], 5)
    '█▅▁ ▅'
    """
    parts = [_mean(values[at : at + size]) for at, size in _stretches(len(values), min(wide, len(values)))]
    finite = [value for value in parts if math.isfinite(value)]
    if not finite:
        return " " * len(parts)
    low, high = min(finite), max(finite)
    alike = low == high  # a constant curve is a line at the bottom
    heights = [0.0 if alike else number_format.share(v, low, high) if math.isfinite(v) else math.nan for v in parts]
    return "".join(
        _SPARKS[round(7 * height)] if math.isfinite(v) else " " for v, height in zip(parts, heights, strict=True)
    )


def _stretches(count: int, parts: int) -> Iterator[tuple[int, int]]:
    """Yield start and size of `parts` ranges of almost equal size that cover `count` values."""
    for number in range(parts):
        at = number * count // parts
        yield at, max(1, (number + 1) * count // parts - at)


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return number_format.mean(finite) if finite else math.nan


def _told(line: Line) -> str:
    """Describe a curve by its first, last, least and greatest value."""
    finite = [value for value in line.values if math.isfinite(value)]
    if not finite:
        return f"no number that is finite, {number_format.plural(line.count, 'point')}"
    first, last, low, high = number_format.column([line.values[0], line.values[-1], min(finite), max(finite)])
    odd = len(line.values) - len(finite)
    gaps = f", {odd} not finite" if odd else ""
    return f"{first} → {last}  least {low}, greatest {high}, {number_format.plural(line.count, 'point')}{gaps}"


def full_name(curves: Curves, line: Line) -> str:
    """Return the name of a line outside of its chart: the metric, after the run if there are several."""
    return line.key if len(curves.runs) == 1 else f"{curves.runs[line.run].name} {line.key}"


def title(curves: Curves) -> str:
    """Return the title: the name of the run, or the number of runs and their project."""
    if len(curves.runs) == 1:
        return clean(curves.runs[0].name)
    return f"{len(curves.runs)} runs of {clean(curves.runs[0].project)}" if curves.runs else "no run"


def fact(curves: Curves) -> str:
    """Return the status, last step and duration of a run; for several runs, their names."""
    if len(curves.runs) != 1:
        return ", ".join(clean(run.name) for run in curves.runs[:6]) + (", …" if len(curves.runs) > 6 else "")
    record = curves.runs[0].record
    return f"{status(record.status)}  {reach(curves)}"


def reach(curves: Curves) -> str:
    """Return the last step and the duration of the first run."""
    last = max((line.steps[-1] for line in curves.lines if len(line.steps)), default=None)
    took = duration(curves.runs[0].record.duration)
    return f"step {last:,}, {took}" if last is not None else took


def nothing(curves: Curves) -> str:
    """Return the message that replaces missing curves."""
    return "no metric has been logged yet" if curves.runs else "no runs"


def _hidden(curves: Curves) -> list[str]:
    return [f"and {number_format.plural(curves.hidden, 'metric')} more: name them"] if curves.hidden else []


def summary(curves: Curves, lines: Sequence[Line]) -> str:
    """Return the alternative text of a chart, for screen readers: the first and last value of up to 6 lines."""
    told = []
    for line in lines[:6]:
        finite = [value for value in line.values if math.isfinite(value)]
        ends = " to ".join(number_format.column([finite[0], finite[-1]])) if finite else "no finite number"
        told.append(f"{clean(curves.label(line))}: {ends}")
    return f"by {curves.axis}. {'; '.join(told)}"


def curves_html(curves: Curves) -> str:
    """Return static charts with one legend above and a table of the numbers below."""
    words = f"<p><b>{escape(title(curves))}</b> {escape(fact(curves) if len(curves.runs) == 1 else '')}</p>"
    if not curves.lines:
        return f"<p><b>{escape(title(curves))}</b> {escape(nothing(curves))}</p>{_system(curves)}"
    return f"{words}{_legend(curves)}\n{_figures(curves)}\n{_table(curves)}{_system(curves)}"


def _figures(curves: Curves) -> str:
    charts = list(curves.groups().items())
    figures = "".join(_figure(curves, name, lines) for name, lines in charts[:CHARTS])
    more = [f"and {number_format.plural(len(charts) - CHARTS, 'chart')} more"] if len(charts) > CHARTS else []
    notes = "".join(f"<p>{escape(note)}</p>" for note in [*more, *_hidden(curves)])
    return f'<div style="display:flex;flex-wrap:wrap;gap:8px 24px">{figures}</div>{notes}'


def _system(curves: Curves) -> str:
    """Return the charts of system metrics, collapsed below a heading."""
    if curves.system is None:
        return ""
    return f"\n<details><summary>System metrics</summary>{_legend(curves.system)}{_figures(curves.system)}</details>"


def model_html(curves: ModelCurves) -> str:
    """Return charts of metrics over versions, then the curves of the runs."""
    parts = [metric_plot.plot_html(metric_plot.plot_data(history, key)) for history, key in curves.charts]
    return "\n".join([*parts, *([curves_html(curves.of_runs())] if curves.lines else [])])


def _legend(curves: Curves) -> str:
    """Return the legend of several runs as a picture; empty for one run, whose lines have names at their ends.

    It is a picture because a notebook that is not trusted removes the colors of text and keeps images.
    """
    if len(curves.runs) < 2:
        return ""
    names = [clip(clean(name), _NAME) for name in curves.legend()]
    across = max(1, (2 * WIDTH) // (_SAMPLE + 8 * max(map(width, names))))  # about 8 pixels per letter
    wide, parts = 2 * WIDTH // across, []
    for number, name in enumerate(names):
        x, y = wide * (number % across), 16 * (number // across) + 12
        stroke = f'stroke="{_hue(number)}" stroke-width="1.6"{_dashed(number)}'
        parts.append(f'<path d="M{x} {y - 4}h20" {stroke}/>')
        parts.append(f'<text x="{x + 26}" y="{y}" fill="{_GREY}" {_FONT}>{escape(name)}</text>')
    high = 16 * math.ceil(len(names) / across) + 4
    drawing = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * WIDTH}" height="{high}" viewBox="0 0 {2 * WIDTH} {high}">'
        f"{''.join(parts)}</svg>"
    )
    return f"<p>{layer_strip.picture(drawing, 'Runs: ' + ', '.join(names), 2 * WIDTH, high)}</p>"


def _hue(number: int) -> str:
    """Return the color of a line; grey after the last color, because repeated colors would be ambiguous."""
    return HUES[number] if number < len(HUES) else _LINE


def _dashed(number: int) -> str:
    dash = DASHES[number % len(DASHES)]
    return f' stroke-dasharray="{dash}"' if dash else ""


def _figure(curves: Curves, name: str, lines: Sequence[Line]) -> str:
    picture = layer_strip.picture(chart_svg(curves, lines), f"{clean(name)} {summary(curves, lines)}", WIDTH, HEIGHT)
    caption = f"<figcaption><b>{escape(clean(name))}</b></figcaption>"
    return f'<figure style="margin:0;flex:0 1 {WIDTH}px;min-width:min(280px,100%)">{caption}{picture}</figure>'


def chart_svg(curves: Curves, lines: Sequence[Line]) -> str:
    """Return one chart as SVG.

    Several lines of one run have their names at their ends. A smoothed line has the raw one, faint, behind it.
    """
    places = [places_of(curves, line) for line in lines]
    frame = Frame.over(places, log=curves.log)
    frame.margin = _RIGHT if len(curves.runs) == 1 and len(lines) > 1 else _PLAIN
    # The grid goes first: it sets `frame.gutter`, which the position of everything else depends on.
    parts = [*_grid(frame, lines[0].key if lines else ""), *_axis(frame, curves.axis)]
    orders = [curves.order(line) for line in lines]
    for number, points in zip(orders, places, strict=True):
        parts += _drawn(curves, points, frame, number)
    if len(curves.runs) == 1 and len(lines) > 1:
        named = [(curves.label(line), points) for line, points in zip(lines, places, strict=True)]
        parts += _labels(list(zip(named, orders, strict=True)), frame)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}">'
        f"{''.join(parts)}</svg>"
    )


class Frame:
    """The axes of a chart: their ranges, and the pixel position of a value. `curves.js` computes the same ranges."""

    def __init__(self, left: float, right: float, low: float, high: float, *, log: bool = False) -> None:
        self.left, self.right, self.low, self.high, self.log = left, right, low, high, log
        self.gutter, self.margin = _LEFT, _RIGHT

    @classmethod
    def over(cls, places: Sequence[list[tuple[float, float]]], *, log: bool) -> Frame:
        """Return axes whose ranges contain every point."""
        values = [y for points in places for _, y in points if math.isfinite(y)]
        across = [x for points in places for x, _ in points]
        left, right = (min(across), max(across)) if across else (0.0, 1.0)
        if left == right:
            room = max(0.5, abs(left) * 1e-9)  # 2**62 and 2**62 + 0.5 are the same float64
            left, right = max(left - room, -_MOST), min(right + room, _MOST)
        return cls(left, right, *(number_format.log_bounds if log else number_format.bounds)(values), log=log)

    def x(self, value: float) -> float:
        """Return the x coordinate of a value of the X axis."""
        wide = WIDTH - self.gutter - self.margin
        return self.gutter + wide * number_format.share(value, self.left, self.right)

    def y(self, value: float) -> float:
        """Return the y coordinate of a value. Values beyond `numbers.LIMIT` are drawn at the end of the axis."""
        inside, low, high = min(max(value, self.low), self.high), self.low, self.high
        if self.log:
            inside, low, high = math.log10(inside), math.log10(low), math.log10(high)
        return _TOP + (HEIGHT - _TOP - _BOTTOM) * (1 - (inside - low) / (high - low))


def places_of(curves: Curves, line: Line) -> list[tuple[float, float]]:
    """Return the points of a line, sorted by the X axis; of points at one position, the last one counts.

    On a logarithmic axis, values that are not positive become NaN, which is drawn as a gap.
    """
    values = [v if v > 0 else math.nan for v in line.values] if curves.log else line.values
    found = {float(x): float(y) for x, y in zip(along(curves, line), values, strict=True) if math.isfinite(x)}
    return sorted(found.items())


def along(curves: Curves, line: Line) -> list[float]:
    """Return the X values of a line: steps, seconds since the start of the run, or the values of another metric."""
    if curves.axis == "time":
        began = curves.runs[line.run].record.created_at.timestamp()
        return [time - began for time in line.times]
    return list(line.axis) if len(line.axis) and curves.axis != "step" else [float(step) for step in line.steps]


def smoothed(values: Sequence[float], over: int) -> list[float]:
    """Return the exponential moving average of values, with bias correction; values that are not finite are skipped.

    Parameters
    ----------
    values : sequence of float
    over : int
        The span in points. A curve with fewer than 12 times as many points gets a shorter span, because the average
        would lag behind the curve.

    Examples
    --------
    >>> [round(value, 3) for value in smoothed([1, 0, 0], 2)]
    [1.0, 0.25, 0.077]
    """
    # The usual relation of span and decay, as in pandas `ewm(span=…)`: alpha = 2 / (span + 1).
    keep, mean, weight, found = 1 - 2 / (min(over, max(2.0, len(values) / 12)) + 1), 0.0, 0.0, []
    for value in values:
        if math.isfinite(value):
            mean, weight = keep * mean + (1 - keep) * value, keep * weight + (1 - keep)
        found.append(mean / weight if weight else math.nan)
    return found


def _drawn(curves: Curves, points: list[tuple[float, float]], frame: Frame, number: int) -> Iterator[str]:
    """Yield the SVG elements of a line; a single point is a circle, since a path of one point is invisible."""
    hue = _hue(number)
    finite = [(x, y) for x, y in points if math.isfinite(y)]
    if len(finite) == 1:
        yield from (f'<circle cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="3" fill="{hue}"/>' for x, y in finite)
        return
    if curves.smooth > 1:
        yield f'<path d="{_path(points, frame)}" fill="none" stroke="{hue}" stroke-opacity=".28" stroke-width="1"/>'
        points = [(x, y) for (x, _), y in zip(points, smoothed([y for _, y in points], curves.smooth), strict=True)]
    yield f'<path d="{_path(points, frame)}" fill="none" stroke="{hue}" stroke-width="1.6"{_dashed(number)}/>'


def _path(points: Sequence[tuple[float, float]], frame: Frame) -> str:
    """Return the SVG path of a line, with gaps at values that are not finite."""
    parts, pen = [], False
    for x, y in points:
        if math.isfinite(y):
            parts.append(f"{'L' if pen else 'M'}{frame.x(x):.1f} {frame.y(y):.1f}")
        pen = math.isfinite(y)
    return "".join(parts)


def _grid(frame: Frame, key: str) -> Iterator[str]:
    """Yield the horizontal grid lines with their labels, and widen `frame.gutter` to fit the labels."""
    ticks = (number_format.log_ticks if frame.log else number_format.ticks)(frame.low, frame.high)
    written = tick_words(key, ticks, log=frame.log)
    frame.gutter = max(_LEFT, 12 + round(6.5 * max(map(len, written), default=0)))
    for tick, words in zip(ticks, written, strict=True):
        y = frame.y(tick)
        yield f'<path d="M{frame.gutter} {y:.1f}H{WIDTH - frame.margin}" stroke="{_LINE}" stroke-opacity=".25"/>'
        yield f'<text x="{frame.gutter - 6}" y="{y + 4:.1f}" text-anchor="end" fill="{_GREY}" {_FONT}>{words}</text>'


def tick_words(key: str, ticks: Sequence[float], *, log: bool) -> list[str]:
    """Return the labels of the Y axis. Labels of a logarithmic axis have the digits that each needs.

    Examples
    --------
    >>> tick_words("loss", [1e-05, 0.001, 1.0], log=True), tick_words("lr", [0.0, 0.00025], log=False)
    (['1e−05', '0.001', '1'], ['0.00000', '0.00025'])
    """
    return (
        [words for tick in ticks for words in number_format.ends(tick)]
        if log
        else number_format.metric_labels(key, ticks)
    )


def _axis(frame: Frame, axis: str) -> Iterator[str]:
    """Yield the labels of the X axis, at most about six."""
    every = (number_format.time_ticks if axis == "time" else number_format.ticks)(frame.left, frame.right)
    ticks = [tick for tick in every if frame.left <= tick <= frame.right]
    ticks = ticks[:: max(1, len(ticks) // 6)]
    for tick, words in zip(
        ticks, (number_format.time_labels if axis == "time" else number_format.step_labels)(ticks), strict=True
    ):
        place = f'x="{frame.x(tick):.1f}" y="{HEIGHT - 8}" text-anchor="middle"'
        yield f'<text {place} fill="{_GREY}" {_FONT}>{words}</text>'


def _labels(named: Sequence[tuple[tuple[str, list[tuple[float, float]]], int]], frame: Frame) -> Iterator[str]:
    """Yield the names at the ends of the lines, moved apart if they would overlap."""
    ends = sorted(
        (frame.y(last), number, clean(name))
        for (name, points), number in named
        if (last := next((y for _, y in reversed(points) if math.isfinite(y)), None)) is not None
    )
    heights: list[float] = []
    for y, _, _ in ends:
        heights.append(max(y, heights[-1] + 13) if heights else y)
    over = max(0.0, heights[-1] - (HEIGHT - _BOTTOM)) if heights else 0.0
    for y, (_, number, name) in zip(heights, ends, strict=True):
        words = escape(name if len(name) <= 17 else name[:16] + "…")
        place = f'x="{WIDTH - frame.margin + 8}" y="{y - over + 4:.1f}"'
        yield f'<text {place} fill="{_hue(number)}" {_FONT}>{words}</text>'


def _table(curves: Curves) -> str:
    """Return the collapsed table with the numbers of the charts."""
    rows = []
    for line in curves.lines[:ROWS]:
        finite = [value for value in line.values if math.isfinite(value)]
        ends = (line.values[0], line.values[-1], min(finite), max(finite)) if finite else ()
        rows.append(
            (
                html_tables.key(full_name(curves, line)),
                *(number_format.column(ends) if ends else [""] * 4),
                f"{line.count:,}",
            )
        )
    shown = html_tables.table(
        ["Metric", "First", "Last", "Least", "Greatest", "Points"], rows, right=[1, 2, 3, 4, 5], names=[0]
    )
    return f"<details><summary>the numbers as a table</summary>{shown}</details>"


def curves_data(curves: Curves, *, live: bool = False) -> dict[str, Any]:
    """Return the data of `curves.js`.

    Parameters
    ----------
    curves : Curves
    live : bool
        Whether more points will follow. False by default.

    Returns
    -------
    dict
        JSON. System metrics are under `system`; a page of the console fetches them on demand.
    """
    system = {} if curves.system is None else {"system": curves_data(curves.system, live=live)}
    return {
        **head(curves),
        "live": live,
        "several": len(curves.runs) > 1,
        "groups": [
            {"name": clean(name), "lines": [line_data(curves, line) for line in lines]}
            for name, lines in curves.groups().items()
        ],
        "axis": curves.axis,
        "joined": joined(curves),
        "log": curves.log,
        "smooth": curves.smooth,
        "hidden": curves.hidden,
        "empty": "" if curves.lines else nothing(curves),
        **system,
    }


def joined(curves: Curves) -> str:
    """Return the metric that can be the X axis besides step and time; empty if no metric can."""
    if curves.axis not in ("step", "time"):
        return curves.axis
    return EPOCH if any(len(line.axis) for line in curves.lines) else ""


def head(curves: Curves) -> dict[str, Any]:
    """Return the title line of the live view."""
    alone = len(curves.runs) == 1
    return {
        "title": title(curves),
        "status": curves.runs[0].record.status if alone else "",
        "fact": reach(curves) if alone else "",
    }


def line_data(curves: Curves, line: Line) -> dict[str, Any]:
    """Return a line as JSON: steps, seconds since the start of the run, and values."""
    began = curves.runs[line.run].record.created_at.timestamp()
    return {
        "id": f"{curves.runs[line.run].id}/{line.key}",
        "label": clean(curves.label(line)),
        "run": line.run,
        "key": clean(line.key),
        "steps": [int(step) for step in line.steps],
        "times": [float(time) - began for time in line.times],
        "values": [encode_float(float(value)) for value in line.values],
        "axis": [encode_float(float(value)) for value in line.axis],
        "count": line.count,
    }
