"""The layers of a diff seen from the side: width is parameters, height is change on a logarithmic axis."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

from lmvp.records import CHANGED, IDENTICAL, NEW, Layer
from lmvp.render import diffs, strip
from lmvp.render.words import clean
from lmvp.views.diff import axis_of, layer_amount, layer_change

if TYPE_CHECKING:
    from lmvp.views.diff import Diff

WIDTH, HEIGHT, LEFT, BELOW = 760, 128, 44, 16
RULES = (0.1, 1, 10, 100)
"""Percentages that have a line."""

_LOWEST = 1e-4
_GREY, _LINE, _FONT = "#7a7a7a", "#888", 'font-family="system-ui, sans-serif" font-size="11"'


def height(relative: float) -> float:
    """Return how high a change stands, 0 to 1: from 0.01 % to 100 %, by its logarithm.

    Examples
    --------
    >>> [height(change) for change in (0.0, 0.0001, 0.01, 1.0, math.inf)]
    [0.0, 0.02, 0.5, 1.0, 1.0]
    """
    if relative <= 0:
        return 0.0
    return min(1.0, max(0.02, math.log10(min(relative, 1.0) / _LOWEST) / 4))


def figure(diff: Diff) -> str:
    """Draw the layers as a picture that stands by itself, with its legend."""
    picture = strip.picture(svg(diff), diffs.sentence(diff), LEFT + WIDTH, HEIGHT + BELOW + 6)
    legend = "Each bar is a layer; width: parameters; height and shade: change; hatched: new or reshaped"
    gone = "; outlined: removed" if any(t.change == "removed" for t in diff.tensors) else ""
    return f"<p>{picture}</p>\n<p>{escape(legend + gone)}.</p>"


def svg(diff: Diff) -> str:
    """Draw the layers as SVG that needs no stylesheet and reads on any paper."""
    found = axis_of(diff.tensors)
    axis = [layer for layer, _ in found]
    amounts = [layer_amount(tensors) for _, tensors in found]
    heights = [height(amount.relative) if amount else 0.0 for amount in amounts]
    codes = "".join(diffs.CODES[layer_change(tensors)] for _, tensors in found)
    bars = []
    for segment, (x, wide) in zip(strip.fold(axis, WIDTH), strip.places(axis, WIDTH), strict=True):
        part = slice(segment.first, segment.last)
        bars.append(_bar(LEFT + x, wide, codes[part], max(heights[part])))
    rules = "".join(_rule(percent) for percent in RULES)
    whole = f'width="{LEFT + WIDTH}" height="{HEIGHT + BELOW + 6}" viewBox="0 0 {LEFT + WIDTH} {HEIGHT + BELOW + 6}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {whole} fill="{strip.COLOUR}">{rules}'
        f'<path d="M{LEFT} {HEIGHT + 6.5}h{WIDTH}" stroke="{_LINE}"/>{"".join(bars)}{_labels(axis)}</svg>'
    )


def _rule(percent: float) -> str:
    y = 6.5 + HEIGHT * (1 - height(percent / 100))
    line = f'<path d="M{LEFT} {y:.1f}h{WIDTH}" stroke="{_LINE}" stroke-opacity=".25"/>'
    return f'{line}<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="{_GREY}" {_FONT}>{percent:g} %</text>'


def _bar(x: float, wide: float, codes: str, high: float) -> str:
    bottom, kinds = HEIGHT + 6, set(codes)
    if NEW in kinds:
        box = strip.outline(x, wide, HEIGHT) + strip.hatch(x, wide, HEIGHT)
        return f'<path transform="translate(0 6)" d="{box}" stroke="{strip.COLOUR}" fill="none"/>'
    if high or CHANGED in kinds:
        up = max(2.0, HEIGHT * high)
        shade = strip.OPACITY[_shade(high)] if high else strip.OPACITY[CHANGED]
        return f'<path d="M{x:.1f} {bottom}h{wide:.1f}v-{up:.1f}h-{wide:.1f}z" fill-opacity="{shade}"/>'
    if kinds == {IDENTICAL}:
        return ""
    return f'<path transform="translate(0 6)" d="{strip.outline(x, wide, HEIGHT)}" stroke="{_LINE}" fill="none"/>'


def _shade(high: float) -> str:
    from lmvp.views.diff import shade

    return shade(10 ** (4 * high) * _LOWEST)


def _labels(axis: list[Layer]) -> str:
    """Write the names of the groups below their layers, where there is room for them."""
    spans: dict[str, list[float]] = {}
    for segment, (x, wide) in zip(strip.fold(axis, WIDTH), strip.places(axis, WIDTH), strict=True):
        spans.setdefault(axis[segment.first].group, [x, x])[1] = x + wide
    labels = []
    for group, (first, last) in spans.items():
        name = clean(group).rpartition(".")[2]
        if last - first > 6.5 * len(name):
            at = f'x="{LEFT + (first + last) / 2:.1f}" y="{HEIGHT + BELOW + 4}" text-anchor="middle"'
            labels.append(f'<text {at} fill="{_GREY}" {_FONT}>{escape(name)}</text>')
    return "".join(labels)
