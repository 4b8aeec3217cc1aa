"""Charts of several runs: a scatter plot of two columns, and parallel coordinates of many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from lmvp.core import number_format
from lmvp.core.sanitize import clean
from lmvp.core.schemas.runs import RunRecord
from lmvp_server.web.axes import Axis
from lmvp_server.web.run_tables import Column

_WIDE, _HIGH = 560, 260  # units of the viewBox
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 20, 16, 36  # margins for the labels
_AXES = 8  # more axes of parallel coordinates are unreadable


def scatter(runs: Sequence[RunRecord], across: Column, up: Column) -> str:
    """Return a scatter plot of two columns; an empty text if fewer than two runs have both values."""
    points = [
        (x, y, run) for run in runs if (x := _finite(across, run)) is not None if (y := _finite(up, run)) is not None
    ]
    if len(points) < 2:
        return ""
    right, top = Axis.over(x for x, _, _ in points), Axis.over(y for _, y, _ in points)
    parts = []
    for tick, words in top.ticks():
        y = _up(top.place(tick))
        parts.append(f'<path class="faint" d="M{_LEFT} {y:.1f}H{_WIDE - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{words}</text>')
    for tick, words in right.ticks():
        parts.append(f'<text x="{_across(right.place(tick)):.1f}" y="{_HIGH - 18}" text-anchor="middle">{words}</text>')
    for x, y, run in points:
        told = f"{clean(run.name)}: {clean(across.key)} {number_format.one(x)}, {clean(up.key)} {number_format.one(y)}"
        place = f'cx="{_across(right.place(x)):.1f}" cy="{_up(top.place(y)):.1f}"'
        parts.append(f'<circle {place} r="4"><title>{escape(told)}</title></circle>')
    parts.append(f'<text x="{_WIDE - _RIGHT}" y="{_HIGH - 4}" text-anchor="end">{escape(clean(across.key))}</text>')
    parts.append(f'<text x="0" y="10">{escape(clean(up.key))}</text>')
    said = f"{clean(up.key)} by {clean(across.key)} of {number_format.plural(len(points), 'run')}"
    return _picture(parts, _WIDE, said)


def parallel(runs: Sequence[RunRecord], columns: Sequence[Column]) -> str:
    """Return parallel coordinates: a line for each run, an axis for each column in which the runs differ."""
    axes = [axis for column in columns if (axis := _axis(column, runs))][:_AXES]
    if len(axes) < 2 or len(runs) < 2:
        return ""
    wide = max(_WIDE, 150 * len(axes))
    gap = (wide - 140) / (len(axes) - 1)
    parts = []
    for at, (column, _, ends) in enumerate(axes):
        x = 70 + at * gap
        parts.append(f'<path class="axis" d="M{x:.1f} 44V{_HIGH - 24}"/>')
        parts.append(f'<text x="{x:.1f}" y="14" text-anchor="middle">{escape(clean(column.key)[:22])}</text>')
        for y, words in zip((34, _HIGH - 8), reversed(ends), strict=True):
            parts.append(f'<text x="{x:.1f}" y="{y}" text-anchor="middle">{escape(words)}</text>')
    for number, run in enumerate(runs):
        spots = [(70 + at * gap, places[number]) for at, (_, places, _) in enumerate(axes)]
        known = [f"{x:.1f} {44 + (_HIGH - 68) * (1 - y):.1f}" for x, y in spots if y is not None]
        # There are six colours; further runs are grey.
        if len(known) > 1:
            css = f"s s{number + 1}" if number < 6 else "s rest"
            parts.append(f'<path class="{css}" d="M{"L".join(known)}"><title>{escape(clean(run.name))}</title></path>')
    return _picture(
        parts, wide, f"{number_format.plural(len(runs), 'run')} across {', '.join(clean(c.key) for c, _, _ in axes)}"
    )


def _axis(column: Column, runs: Sequence[RunRecord]) -> tuple[Column, list[float | None], tuple[str, str]] | None:
    """Return the position of each run on an axis, from 0 to 1, and labels of its ends; None if all values are equal."""
    # A column of text becomes an axis of categories, up to 12 of them.
    found = [column.number(run) for run in runs]
    finite = [one for one in found if one is not None and math.isfinite(one)]
    if len(finite) == len([run for run in runs if column.of(run) is not None]) and len(set(finite)) > 1:
        low, high = min(finite), max(finite)
        axis = Axis(low, high, powers=Axis.over(finite).powers)
        places = [None if one is None or not math.isfinite(one) else axis.place(one) for one in found]
        first, last = number_format.column([low, high])
        return column, places, (first, last)
    words = list(dict.fromkeys(str(column.of(run)) for run in runs if column.of(run) is not None))
    if len(words) < 2 or len(words) > 12:
        return None
    spots = [None if column.of(run) is None else words.index(str(column.of(run))) / (len(words) - 1) for run in runs]
    return column, spots, (clean(words[0])[:18], clean(words[-1])[:18])


def _finite(column: Column, run: RunRecord) -> float | None:
    found = column.number(run)
    return found if found is not None and math.isfinite(found) else None


def _across(place: float) -> float:
    return _LEFT + (_WIDE - _LEFT - _RIGHT) * place


def _up(place: float) -> float:
    return _TOP + (_HIGH - _TOP - _BOTTOM) * (1 - place)


def _picture(parts: Sequence[str], wide: int, said: str) -> str:
    box = f'viewBox="0 0 {wide} {_HIGH}" style="max-width:{wide}px" role="img" aria-label="{escape(said)}"'
    return f'<svg class="space" {box}>{"".join(parts)}</svg>'
