"""The layer chart of a diff: a bar for each layer, with parameters as width and the change as height.

The height has a logarithmic axis from 0.01 % to 100 %. `diff.js` draws the live form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from itertools import groupby
from typing import NamedTuple

from lmvp.core.layers import shade
from lmvp.core.sanitize import clean, clip_middle
from lmvp.core.schemas import CHANGED, IDENTICAL, NEW, Layer
from lmvp.views import layer_strip
from lmvp.views.changes import TensorChange, axis_of, layer_amount, layer_change

WIDTH, HEIGHT, LEFT = 760, 128, 44
"""Width and height of the area of the bars, and space for the labels of the Y axis, in pixels."""
RULES = (0.1, 1, 10, 100)
"""Percentages with a horizontal line."""
_TOP, _ROW, _LETTER = 6, 15, 6.5
_NARROWEST, _LONGEST, _FEW = 10.5, 14, 10
"""Minimum width in pixels of a bar with a vertical name, maximum number of letters of a vertical name, and number of
letters that must fit of a horizontal name."""
_GREY, _LINE, _FONT = "#7a7a7a", "#888", 'font-family="system-ui, sans-serif" font-size="11"'
LOWEST = 1e-4
"""The relative change at which a bar begins: 0.01 %."""
# A reshaped layer has the same code as a new one: neither can be compared with its previous values.
CODES = {"identical": IDENTICAL, "changed": CHANGED, "reshaped": NEW, "new": NEW, "removed": layer_strip.REMOVED}


def height(relative: float) -> float:
    """Return the height of the bar of a relative change, 0 to 1, on a logarithmic axis from 0.01 % to 100 %.

    A change above zero has a height of at least 0.02, so that it is visible.

    Examples
    --------
    >>> [height(change) for change in (0.0, 0.0001, 0.01, 1.0, math.inf)]
    [0.0, 0.02, 0.5, 1.0, 1.0]
    """
    if relative <= 0:
        return 0.0
    return min(1.0, max(0.02, math.log10(min(relative, 1.0) / LOWEST) / 4))


class Span(NamedTuple):
    """A range of the X axis, in pixels, with its name."""

    first: float
    last: float
    name: str

    @property
    def fits(self) -> bool:
        """Whether the name fits horizontally."""
        return self.last - self.first > _LETTER * len(self.name)

    def clipped(self) -> Span:
        """Return the span with its name shortened in the middle until it fits."""
        room = int((self.last - self.first) / _LETTER)
        return self if self.fits else self._replace(name=clip_middle(self.name, room))


def figure(tensors: Sequence[TensorChange], title: str) -> str:
    """Return the layer chart as a picture with a title and a legend."""
    picture = layer_strip.picture(svg(tensors), title, LEFT + WIDTH, tall(tensors))
    legend = "Each bar is a layer; width: parameters; height and shade: change; hatched: new or reshaped"
    gone = "; outlined: removed" if any(t.change == "removed" for t in tensors) else ""
    return f"<p>{picture}</p>\n<p>{escape(legend + gone)}.</p>"


def tall(tensors: Sequence[TensorChange]) -> int:
    """Return the height of the chart in pixels, which depends on the space for the names below the bars."""
    return _names([layer for layer, _ in axis_of(tensors)])[1]


def svg(tensors: Sequence[TensorChange]) -> str:
    """Return the layer chart as SVG that needs no style sheet and is readable on light and on dark pages."""
    found = axis_of(tensors)
    axis = [layer for layer, _ in found]
    amounts = [layer_amount(changes) for _, changes in found]
    heights = [height(amount.relative) if amount else None for amount in amounts]
    codes = "".join(CODES[layer_change(changes)] for _, changes in found)
    bars = []
    for segment, (x, wide) in zip(layer_strip.fold(axis, WIDTH), layer_strip.places(axis, WIDTH), strict=True):
        part = slice(segment.first, segment.last)
        # A bar of several layers has the height of the largest change.
        known = [high for high in heights[part] if high is not None]
        bars.append(_bar(LEFT + x, wide, codes[part], max(known, default=None)))
    rules = "".join(_rule(percent) for percent in RULES)
    labels, high = _names(axis)
    whole = f'width="{LEFT + WIDTH}" height="{high}" viewBox="0 0 {LEFT + WIDTH} {high}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {whole} fill="{layer_strip.COLOUR}">{rules}'
        f'<path d="M{LEFT} {HEIGHT + _TOP + 0.5}h{WIDTH}" stroke="{_LINE}"/>{"".join(bars)}{labels}</svg>'
    )


def _rule(percent: float) -> str:
    y = _TOP + 0.5 + HEIGHT * (1 - height(percent / 100))
    line = f'<path d="M{LEFT} {y:.1f}h{WIDTH}" stroke="{_LINE}" stroke-opacity=".25"/>'
    return f'{line}<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="{_GREY}" {_FONT}>{percent:g} %</text>'


def _bar(x: float, wide: float, codes: str, high: float | None) -> str:
    """Return a bar.

    Parameters
    ----------
    x, wide : float
        Left edge and width in pixels.
    codes : str
        The codes of the layers of the bar.
    high : float or None
        The height, 0 to 1; None if the change was not measured.
    """
    bottom, kinds = HEIGHT + _TOP, set(codes)
    if NEW in kinds:
        box = layer_strip.outline(x, wide, HEIGHT) + layer_strip.hatch(x, wide, HEIGHT)
        return f'<path transform="translate(0 {_TOP})" d="{box}" stroke="{layer_strip.COLOUR}" fill="none"/>'
    if high or CHANGED in kinds:
        up = max(2.0, HEIGHT * (high or 0.0))
        opacity = layer_strip.OPACITY[CHANGED if high is None else _shade(high)]
        return f'<path d="M{x:.1f} {bottom}h{wide:.1f}v-{up:.1f}h-{wide:.1f}z" fill-opacity="{opacity}"/>'
    if kinds == {IDENTICAL}:
        return ""
    box = layer_strip.outline(x, wide, HEIGHT)
    return f'<path transform="translate(0 {_TOP})" d="{box}" stroke="{_LINE}" fill="none"/>'


def _shade(high: float) -> str:
    """Return the shade of a bar from its height: the inverse of `height`."""
    return shade(10 ** (4 * high) * LOWEST if high else 0.0)


def _names(axis: list[Layer]) -> tuple[str, int]:
    """Return the names of layers and groups below the bars, and the height of the whole chart in pixels.

    Names that do not fit horizontally are written vertically. If most bars are too narrow for that, too, only the
    groups have names. `diff.js` has the JavaScript version.
    """
    bars = list(zip(layer_strip.fold(axis, WIDTH), layer_strip.places(axis, WIDTH), strict=True))
    own = [
        Span(x, x + wide, _own_name(axis[bar.first]) if bar.last - bar.first == 1 else "") for bar, (x, wide) in bars
    ]
    bottom, parts, named = HEIGHT + _TOP, list[str](), True
    if all(span.fits or span.last - span.first >= _FEW * _LETTER for span in own if span.name):
        parts += [_label(span.clipped(), bottom + _ROW) for span in own]
        bottom += _ROW
    elif sum(span.last - span.first >= _NARROWEST for span in own if span.name) > len(own) / 2:
        shown = [span._replace(name=clip_middle(span.name, _LONGEST)) for span in own]
        parts += [_upright(span, bottom + 5) for span in shown if span.last - span.first >= _NARROWEST]
        bottom += 5 + round(_LETTER * max(len(span.name) for span in shown))
    else:
        named = False
    spans = []
    for group, members in groupby(zip(bars, own, strict=True), key=lambda pair: axis[pair[0][0].first].group):
        found = [span for _, span in members]
        # A group of one layer often has the same name, which is not written twice.
        repeated = named and len(found) == 1 and found[0].name == clean(group)
        spans.append(Span(found[0].first, found[-1].last, "" if repeated else clean(group)))
    for row in _group_rows(spans):
        fitting = [span for span in row if span.fits and span.name]
        bottom += _ROW if fitting else 0
        parts += [_label(span, bottom) for span in fitting]
    return "".join(parts), bottom + 6


def _own_name(layer: Layer) -> str:
    """Return the name of a layer within its group."""
    return clean(layer.path.removeprefix(layer.group).lstrip("./") or layer.path)


def _group_rows(spans: list[Span]) -> list[list[Span]]:
    """Return the names of groups in one row if all fit; otherwise their last parts, and their common stems below."""
    if all(span.fits for span in spans if span.name):
        return [spans] if any(span.name for span in spans) else []
    stems = [(stem, list(members)) for stem, members in groupby(spans, key=lambda span: span.name.rpartition(".")[0])]
    last = [span._replace(name=span.name.rpartition(".")[2]) for span in spans]
    shared = [Span(members[0].first, members[-1].last, stem) for stem, members in stems if stem]
    return [last, shared] if shared else [last]


def _label(span: Span, y: float) -> str:
    at = f'x="{LEFT + (span.first + span.last) / 2:.1f}" y="{y:.1f}" text-anchor="middle"'
    return f'<text {at} fill="{_GREY}" {_FONT}>{escape(span.name)}</text>' if span.name else ""


def _upright(span: Span, y: float) -> str:
    """Return a vertical label that ends below its bar."""
    at = f'transform="translate({LEFT + (span.first + span.last) / 2 + 4:.1f} {y:.1f}) rotate(-90)" text-anchor="end"'
    return f'<text {at} fill="{_GREY}" {_FONT}>{escape(span.name)}</text>' if span.name else ""
