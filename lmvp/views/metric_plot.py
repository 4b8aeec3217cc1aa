"""Static plot of a metric over versions, as SVG and HTML.

A saved notebook shows it in place of the live plot, which `metrics.js` draws from the same data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from lmvp import hints
from lmvp.core import html_tables, number_format
from lmvp.core.sanitize import clean
from lmvp.core.schemas import Version, decode_float, encode_float
from lmvp.views import layer_strip
from lmvp.views._text import value_of
from lmvp.views.history import History

WIDTH, HEIGHT = 720, 220
"""Size of the plot in pixels."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 20, 28
_GREY, _LINE = "#7a7a7a", "#888"
_FONT = 'font-family="system-ui, sans-serif" font-size="11"'
ROWS = 50
"""Maximum number of rows of the table of numbers."""
POINTS = 1000
"""Maximum number of versions in a plot, the newest ones."""


def plot_data(history: History, metric: str | None = None) -> dict[str, Any]:
    """Return the data of `widgets/metrics.js`: a metric over version numbers, oldest first.

    A line connects each version with its nearest ancestor that has the metric. NaN and infinities interrupt lines.

    Parameters
    ----------
    history : History
    metric : str, optional
        The key of the metric. The metric of the history by default.
    """
    key = metric or history.metric
    measured = [v for v in reversed(history) if value_of(v, key) is not None]
    versions = measured[-POINTS:] if len(history.models) == 1 else []
    values = [float(value_of(v, key) or 0.0) for v in versions]
    main = _main_line(history)
    low, high = number_format.bounds(values)
    return {
        "title": clean(history.title),
        "metric": key and clean(key),
        "points": [
            {
                "number": v.number,
                "label": v.name,
                "value": encode_float(value),
                "written": written,
                "main": v.number in main,
                "best": "best" in v.aliases,
                "message": clean(v.message),
            }
            for v, value, written in zip(versions, values, number_format.column(values), strict=True)
        ],
        "wires": _wires(history, versions, values, main),
        "low": low,
        "high": high,
        "summary": plot_summary(key, versions, values),
        "fact": f"{clean(key or '')} by version{_newest(len(versions), len(measured))}",
        "empty": None if versions else _no_points(history, key),
    }


def _main_line(history: Sequence[Version]) -> set[int]:
    """Return the version numbers along the first parents of the newest version."""
    by_number = {v.number: v for v in history}
    found: set[int] = set()
    version = history[0] if history else None
    while version and version.number not in found:  # a faulty server can report parents in a cycle
        found.add(version.number)
        version = by_number.get(version.parents[0].number) if version.parents else None
    return found or {v.number for v in history}


def _wires(
    history: Sequence[Version], versions: Sequence[Version], values: Sequence[float], main: set[int]
) -> list[list[int]]:
    """Return the lines of the plot: two indexes of points, and 1 if both are on the main line, otherwise 0."""
    by_number = {v.number: v for v in history}
    at = {v.number: i for i, v in enumerate(versions)}
    nearest: dict[int, int] = {}
    wires = []
    for i, version in enumerate(versions):
        for parent in version.parents:
            j = at.get(_with_metric(parent.number, by_number, at, nearest))
            if j is not None and math.isfinite(values[i]) and math.isfinite(values[j]):
                wires.append([j, i, int(version.number in main and versions[j].number in main)])
    return wires


def _with_metric(number: int, by_number: dict[int, Version], at: dict[int, int], nearest: dict[int, int]) -> int:
    """Return the nearest version along the first parents that has the metric, or the last version that is known.

    `nearest` caches the results, so that each version is visited once, even if a server reports parents in a cycle.
    """
    passed = []
    while number not in at and number not in nearest and number in by_number and by_number[number].parents:
        passed.append(number)
        nearest[number] = number
        number = by_number[number].parents[0].number
    found = nearest.get(number, number)
    nearest.update(dict.fromkeys(passed, found))
    return found


def plot_summary(metric: str | None, versions: Sequence[Version], values: Sequence[float]) -> str:
    """Return the alternative text of a plot: first, last, least and greatest value."""
    finite = [(value, v.name) for value, v in zip(values, versions, strict=True) if math.isfinite(value)]
    if not finite:
        return f"{clean(metric or 'metric')} by version: no finite value"
    written = dict(zip([v.name for v in versions], number_format.column(values), strict=True))
    (_, first), (_, last) = finite[0], finite[-1]
    least, most = min(finite)[1], max(finite)[1]
    ends = (
        f"{written[first]} at {first}" if first == last else f"{written[first]} at {first} to {written[last]} at {last}"
    )
    span = "" if len(finite) < 3 else f"; lowest {written[least]} at {least}, highest {written[most]} at {most}"
    odd = len(values) - len(finite)
    return f"{clean(metric or 'metric')} by version: {ends}{span}{f'; {odd} not finite' if odd else ''}"


def _newest(shown: int, measured: int) -> str:
    return f", the newest {shown:,} of {measured:,}" if shown < measured else ""


def _no_points(history: History, metric: str | None) -> dict[str, str]:
    """Return the message and the code that an empty plot shows."""
    if len(history.models) > 1:
        first = f"{clean(history[0].project)}/{clean(history[0].model)}"
        return {
            "words": f"{clean(history.title)} has several models. A plot is of one of them:",
            "code": hints.code(f"`lmvp history {first}`"),
        }
    what = f"the metric {clean(metric)}" if metric else "a metric"
    return {
        "words": f"No version of {clean(history.title)} has {what} yet. A version gets one when it is published:",
        "code": hints.code(f"`lmvp push {clean(history.title)} FILE --metric val/acc=0.97`"),
    }


def plot_svg(data: dict[str, Any]) -> str:
    """Return the data of `plot_data` as SVG that is readable on light and on dark pages."""
    points = data["points"]
    values = [decode_float(p["value"]) for p in points]
    low, high = data["low"], data["high"]
    first, count = points[0]["number"], points[-1]["number"] - points[0]["number"] + 1
    across = WIDTH - _LEFT - _RIGHT
    places = [
        (_LEFT + across * (p["number"] - first + 0.5) / count, _height(v, low, high))
        for p, v in zip(points, values, strict=True)
    ]
    parts = [
        *_grid(data["metric"], low, high),
        *_names(points, places),
        *(_wire(places[a], places[b], main) for a, b, main in data["wires"]),
        *(_dot(place, p, v) for place, p, v in zip(places, points, values, strict=True)),
        *(_call(place, p["written"]) for place, p, v in zip(places, points, values, strict=True) if _called(p, v)),
        f'<text x="{_LEFT}" y="12" fill="{_GREY}" {_FONT}>{escape(data["metric"])}</text>',
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'role="img" aria-label="{escape(data["summary"])}">{"".join(parts)}</svg>'
    )


def _height(value: float, low: float, high: float) -> float:
    """Return the y coordinate of a value. NaN is drawn at the bottom, an infinity at the edge."""
    shown = low if math.isnan(value) else min(max(value, low), high)
    return _TOP + (HEIGHT - _TOP - _BOTTOM) * (1 - (shown - low) / (high - low))


def _grid(metric: str, low: float, high: float) -> list[str]:
    ticks = number_format.ticks(low, high)
    out = []
    for tick, written in zip(ticks, number_format.metric_labels(metric, ticks), strict=True):
        y = _height(tick, low, high)
        out.append(f'<path d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}" stroke="{_LINE}" stroke-opacity=".3"/>')
        out.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" fill="{_GREY}" {_FONT}>{written}</text>')
    return out


def _names(points: list[dict[str, Any]], places: list[tuple[float, float]]) -> list[str]:
    """Return the labels of versions below the plot, at most 14, and always the newest."""
    every = max(math.ceil(len(points) / 14), 1)
    shown = list(zip(points, places, strict=True))[::-every]
    return [
        f'<text x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="middle" fill="{_GREY}" {_FONT}>{p["label"]}</text>'
        for p, (x, _) in shown
    ]


def _wire(a: tuple[float, float], b: tuple[float, float], main: int) -> str:
    weight = "1.5" if main else "1"
    return f'<path d="M{a[0]:.1f} {a[1]:.1f}L{b[0]:.1f} {b[1]:.1f}" stroke="{_LINE}" stroke-width="{weight}"/>'


def _dot(place: tuple[float, float], point: dict[str, Any], value: float) -> str:
    """Return the point of a version; it is hollow if the value is not finite."""
    paint = (
        f'fill="{layer_strip.COLOUR if point["best"] else _GREY}"'
        if math.isfinite(value)
        else f'fill="none" stroke="{_GREY}"'
    )
    return f'<circle cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="3.5" {paint}/>'


def _called(point: dict[str, Any], value: float) -> bool:
    return bool(point["best"]) and math.isfinite(value)


def _call(place: tuple[float, float], written: str) -> str:
    """Return the label "best" at a point, because the color alone must not carry the meaning."""
    x = min(max(place[0], _LEFT + 30), WIDTH - _RIGHT - 30)
    return f'<text x="{x:.1f}" y="{place[1] - 8:.1f}" text-anchor="middle" fill="{_GREY}" {_FONT}>best {written}</text>'


def plot_html(data: dict[str, Any]) -> str:
    """Return the plot as a picture with a collapsed table of its numbers; a message if it has no points."""
    if data["empty"]:
        return f"<p>{escape(data['empty']['words'])}</p><pre>{escape(data['empty']['code'])}</pre>"
    shown = data["points"][-ROWS:][::-1]
    rows = [(p["label"], p["written"], escape(p["message"])) for p in shown]
    more = len(data["points"]) - len(shown)
    older = f"<p>… {more:,} older</p>" if more else ""
    numbers_table = html_tables.table(["Version", escape(data["metric"]), "Message"], rows, right=[1], names=[2])
    picture = layer_strip.picture(plot_svg(data), data["summary"], WIDTH, HEIGHT)
    return (
        f"<p><b>{escape(data['title'])}</b> {escape(data['summary'])}</p>\n<p>{picture}</p>\n"
        f"<details><summary>the numbers as a table</summary>{numbers_table}{older}</details>"
    )
