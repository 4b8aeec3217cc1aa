"""Small graphics of pages: layer strips, the graph of versions, the track of a metric, times.

They look like those of `static/widgets/strip.js` and `tracks.js`, but the server draws them, so that a page needs no
script. Every function returns HTML and escapes text of users.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from html import escape
from itertools import pairwise
from typing import Any

from lmvp.core import number_format
from lmvp.core.sanitize import clean
from lmvp.core.schemas import (
    ABSENT,
    CHANGED,
    IDENTICAL,
    NEW,
    Layer,
    Layers,
    decode_float,
)
from lmvp.views import layer_strip as strip

_KIND = {IDENTICAL: "c0", **{str(tint): f"c{tint}" for tint in range(1, 6)}, CHANGED: "c3", NEW: "new"}
_CHANGE = {
    IDENTICAL: "identical",
    "1": "changed by less than 0.1 %",
    "2": "changed by 0.1 % to 1 %",
    "3": "changed by 1 % to 5 %",
    "4": "changed by 5 % to 20 %",
    "5": "changed by more than 20 %",
    CHANGED: "changed",
    NEW: "new or reshaped",
}
_STRIP_WIDTH = 420
"""The width in pixels for which a strip is drawn: layers are joined until they fit."""
_LANE, _FIRST = 16, 12  # the distance of two lanes, and the centre of the first one
_DAY = 86400
MAIN = 'class="main" '
"""The class of the line of the main lane, which leads to the newest version."""


def moment(text: str) -> datetime:
    """Parse a time of a record."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def time(at: datetime, now: datetime | None = None) -> str:
    """Return a time as HTML: relative for less than 14 days, with the absolute time on hover.

    Examples
    --------
    >>> day = datetime(2026, 11, 20, 13, 41, tzinfo=timezone.utc)
    >>> time(day, datetime(2026, 11, 20, 16, 50, tzinfo=timezone.utc))
    '<time datetime="2026-11-20T13:41:00Z" title="2026-11-20 13:41 UTC">3 h ago</time>'
    """
    title = f"{at.astimezone(timezone.utc):%Y-%m-%d %H:%M} UTC"
    told = _ago(at, now or datetime.now(timezone.utc))
    return f'<time datetime="{number_format.iso(at)}" title="{title}">{told}</time>'


def _ago(at: datetime, now: datetime) -> str:
    seconds = max(0.0, (now - at).total_seconds())
    steps = ((60, "just now"), (3600, f"{int(seconds // 60)} min ago"), (_DAY, f"{int(seconds // 3600)} h ago"),
             (2 * _DAY, "yesterday"), (14 * _DAY, f"{int(seconds // _DAY)} d ago"))  # fmt: skip
    return next((told for limit, told in steps if seconds < limit), f"{at.astimezone(timezone.utc):%Y-%m-%d}")


# -- layers


def layer_strip(layers: Layers, number: int, *, tall: bool = False) -> str:
    """Return the layer strip of a version; an empty text if it has no layers."""
    codes = layers.strips.get(str(number))
    if not codes:
        return ""
    bars = "".join(_bar(layers.axis, segment, codes) for segment in strip.fold(layers.axis, _STRIP_WIDTH))
    said = escape(strip.summary(codes))
    return f'<div class="strip{" tall" if tall else ""}" role="img" aria-label="{said}">{bars}</div>'


def _bar(axis: Sequence[Layer], segment: strip.Segment, codes: str) -> str:
    part = codes[segment.first : segment.last]
    kind = _KIND.get(strip.shade(part), "none")
    begins = " g" if segment.gap > 1 else ""
    title = escape(_title(axis, segment, part))
    return f'<i class="{kind}{begins}" style="flex-grow:{segment.weight:.4g}" title="{title}"></i>'


def _title(axis: Sequence[Layer], segment: strip.Segment, part: str) -> str:
    seen = [code for code in part if code != ABSENT]
    first, last = clean(axis[segment.first].path), clean(axis[segment.last - 1].path)
    if not seen:
        return f"{first}: not there"
    if segment.last - segment.first == 1:
        return f"{first}: {_CHANGE.get(part, 'changed')}"
    changed = sum(code != IDENTICAL for code in seen)
    return f"{first} to {last}: {changed} of {len(seen)} changed"


def legend(layers: Layers) -> str:
    """Return the legend of layer strips; an empty text without strips."""
    if not layers.strips:
        return ""
    amounts = strip.has_amounts(layers.strips.values())
    ramp = "".join(f'<i class="c{tint}"></i>' for tint in range(1, 6))
    shades = f'0.1 %<span class="ramp">{ramp}</span>20 %' if amounts else '<i class="c3"></i>changed'
    words = f"Layers from input to output; width: parameters{'; shade: change' if amounts else ''}"
    keys = ('<i class="c0"></i>identical', shades, '<i class="new"></i>new or reshaped')
    told = "".join(f'<span class="key">{one}</span>' for one in keys)
    return f'<p class="legend"><span>{words}</span>{told}</p>'


# -- tracks


def lanes_width(graph: Sequence[Mapping[str, Any]]) -> int:
    """Return the width of the lanes of a graph, in units of its viewBox."""
    most = max((max([row["lane"], *row["in"], *row["out"], *row["pass"]]) for row in graph), default=0)
    return _centre(int(most)) + _FIRST


def graph(place: Mapping[str, Any], row: Mapping[str, Any], width: int) -> str:
    """Return a row of the graph of versions: passing, incoming and outgoing lines, and the version."""
    lane = _centre(place["lane"])
    wires = [
        *((at, f"M{_centre(at)} 0V100") for at in place["pass"]),
        *((at, f"M{_centre(at)} 0C{_centre(at)} 30 {lane} 20 {lane} 50") for at in place["in"]),
        *((at, f"M{lane} 50C{lane} 80 {_centre(at)} 70 {_centre(at)} 100") for at in place["out"]),
    ]
    paths = "".join(f'<path {"" if at else MAIN}d="{way}"/>' for at, way in wires)
    kind = _kind_of(row, place)
    drawing = f'<svg viewBox="0 0 {width} 100" preserveAspectRatio="none" aria-hidden="true">{paths}</svg>'
    return f'{drawing}<b class="{kind}" style="left:calc({lane} / {width} * 100%)"></b>'


def _kind_of(row: Mapping[str, Any], place: Mapping[str, Any]) -> str:
    if any(alias["protected"] for alias in row["aliases"]):
        return "best"
    return "two" if len(row["parents"]) > 1 else "side" if place["lane"] else ""


def _centre(lane: int) -> int:
    return _FIRST + _LANE * lane


def metric_track(data: Mapping[str, Any]) -> list[str]:
    """Return a cell for each row of a history: a line through the values of the main lane, and the value."""
    scale = data["scale"]
    values = [None if row["value"] is None else decode_float(row["value"]) for row in data["rows"]]
    main = [i for i, row in enumerate(data["graph"]) if row["lane"] == 0 and values[i] is not None]
    lines = [(a, b) for a, b in pairwise(main) if math.isfinite(values[a] or 0) and math.isfinite(values[b] or 0)]
    paths: list[list[str]] = [[] for _ in values]
    for a, b in lines:
        start, end = _along(values[a], scale), _along(values[b], scale)
        # A line spans several rows; each row draws its part, from half a row above to half a row below.
        for i in range(a, b + 1):
            ends = (max(a, i - 0.5), min(b, i + 0.5))
            spots = (f"{start + (end - start) * (at - a) / (b - a):.1f} {100 * (at - i) + 50:g}" for at in ends)
            paths[i].append(f'<path d="M{"L".join(spots)}"/>')
    faint = "".join(f'<path class="faint" d="M{x} 0V100"/>' for x in (0, 50, 100))
    return [
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">{faint}{"".join(paths[i])}</svg>'
        + _dot(data, i, value)
        for i, value in enumerate(values)
    ]


def _dot(data: Mapping[str, Any], i: int, value: float | None) -> str:
    if value is None or math.isnan(value):
        return ""
    scale, row = data["scale"], data["rows"][i]
    side = bool(data["graph"]) and data["graph"][i]["lane"] > 0
    best = any(alias["name"] == "best" for alias in row["aliases"])
    off = not scale["low"] <= value <= scale["high"]
    kind = "off" if off else "best" if best else "side" if side else ""
    return f'<b class="dot {kind}" style="left:{_along(value, scale):.1f}%"></b>'


def _along(value: float | None, scale: Mapping[str, Any]) -> float:
    low, high = float(scale["low"]), float(scale["high"])
    return 100 * number_format.share(min(max(value or 0.0, low), high), low, high)


def spark(values: Sequence[float], words: str) -> str:
    """Return a sparkline of values, oldest first, without axes; an empty text for fewer than two finite values."""
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2:
        return ""
    low, high = min(finite), max(finite)
    heights = [100 - 100 * number_format.share(value, low, high) for value in finite]
    spots = [f"{1000 * i / (len(finite) - 1):.0f} {height:.1f}" for i, height in enumerate(heights)]
    last = spots[-1]
    # A zero-length line is invisible, so the end point is a line of length 0.1 with round caps.
    end = f'<path d="M{last}h.1" stroke="var(--ink)" stroke-width="5" stroke-linecap="round"/>'
    return (
        f'<svg class="spark" viewBox="0 0 1000 100" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(words)}"><path d="M{"L".join(spots)}"/>{end}</svg>'
    )


def cut(text: str, most: int) -> str:
    """Shorten a text to a number of characters.

    Examples
    --------
    >>> cut("wider stem", 20), cut("wider stem", 7)
    ('wider stem', 'wider s…')
    """
    return text if len(text) <= most else f"{text[:most].rstrip()}…"
