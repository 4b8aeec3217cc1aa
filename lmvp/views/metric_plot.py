"""Static plot of a metric over versions, as SVG and HTML.

A saved notebook shows it in place of the live plot, which `metrics.js` draws from the same data.
"""

from __future__ import annotations

import math
from html import escape
from typing import Any

from lmvp.core import number_format
from lmvp.core.schemas import decode_float
from lmvp.views import layer_strip

WIDTH, HEIGHT = 720, 220
"""Size of the plot in pixels."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 20, 28
_GREY, _LINE = "#7a7a7a", "#888"
_FONT = 'font-family="system-ui, sans-serif" font-size="11"'
ROWS = 50
"""Maximum number of rows of the table of numbers."""


def plot_svg(data: dict[str, Any]) -> str:
    """Return the data of `lmvp.views.history_json.plot_data` as SVG that is readable on light and on dark pages."""
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
    from lmvp.core.html_tables import table

    if data["empty"]:
        return f"<p>{escape(data['empty']['words'])}</p><pre>{escape(data['empty']['code'])}</pre>"
    shown = data["points"][-ROWS:][::-1]
    rows = [(p["label"], p["written"], escape(p["message"])) for p in shown]
    more = len(data["points"]) - len(shown)
    older = f"<p>… {more:,} older</p>" if more else ""
    numbers_table = table(["Version", escape(data["metric"]), "Message"], rows, right=[1], names=[2])
    picture = layer_strip.picture(plot_svg(data), data["summary"], WIDTH, HEIGHT)
    return (
        f"<p><b>{escape(data['title'])}</b> {escape(data['summary'])}</p>\n<p>{picture}</p>\n"
        f"<details><summary>the numbers as a table</summary>{numbers_table}{older}</details>"
    )
