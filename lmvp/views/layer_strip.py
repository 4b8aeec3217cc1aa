"""The layer strip: a row of segments, one per layer. The width of a segment shows parameters, its shade the change.

All strips of a table share one axis, so that a layer is in the same column in each row. If the layers do not fit,
`fold` joins neighbors into one segment. `lmvp_server/static/widgets/strip.js` is the JavaScript version.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby, pairwise
from typing import Any, NamedTuple

from lmvp.core import number_format
from lmvp.core.sanitize import clean
from lmvp.core.schemas import (
    ABSENT,
    CHANGED,
    IDENTICAL,
    NEW,
    Layer,
    Layers,
)

COLOUR = "#b9488c"
# By code. A change whose amount was not measured has the middle shade.
OPACITY = {"1": 0.22, "2": 0.4, "3": 0.58, "4": 0.78, "5": 1, CHANGED: 0.58}
WIDTH, HEIGHT = 300, 12
REMOVED = "-"
"""The code of a removed layer, which is drawn as an outline. Only diffs use it."""

# A segment of several layers shows the code with the highest rank.
_RANK = {code: rank for rank, code in enumerate((ABSENT, IDENTICAL, "1", "2", "3", CHANGED, "4", "5", REMOVED, NEW))}
_SLOT = 3
"""Average width of a segment in pixels: two for the segment and one for the gap."""


class Segment(NamedTuple):
    """Layers of the axis that are drawn as one.

    Attributes
    ----------
    first, last : int
        Range of indexes; `last` is excluded.
    weight : float
        Relative width.
    gap : int
        Space before the segment, in pixels.
    """

    first: int
    last: int
    weight: float
    gap: int


_last: tuple[Sequence[Layer], float, list[Segment]] | None = None
"""The arguments and the result of the last call of `fold`. A table calls it with the same axis for each row."""


def weight(layer: Layer) -> float:
    """Return the relative width of a layer: the fourth root of its size, so that small layers stay visible.

    A server can send any integer as the size, so it is limited to the range of floats.
    """
    return math.sqrt(math.sqrt(min(max(layer.size, 0), number_format.LIMIT)))


def fold(axis: Sequence[Layer], width: float = WIDTH) -> list[Segment]:
    """Return the segments of an axis that fit a width.

    A segment is a layer if all layers fit. Otherwise it is a part of a block, a whole block, or several blocks.

    Parameters
    ----------
    axis : sequence of Layer
    width : float
        Width in pixels.
    """
    global _last
    last = _last  # read once: another thread can replace it
    if last is None or last[0] is not axis or last[1] != width:
        _last = last = (axis, width, _fold(axis, width))
    return last[2]


def _fold(axis: Sequence[Layer], width: float) -> list[Segment]:
    blocks = _blocks(axis)
    room = int((width - 2 * len(blocks)) // _SLOT)
    parts = _parts(blocks, room)
    if parts:
        cuts = [cut for first, last in blocks for cut in _cut(first, last, parts)]
    else:
        cuts = [(blocks[a][0], blocks[b - 1][1]) for a, b in _cut(0, len(blocks), max(int(width // _SLOT), 1))]
    starts = {first for first, _ in blocks[1:]} if parts else set()  # blocks are separated by a wider gap
    return [
        Segment(
            first,
            last,
            sum(map(weight, axis[first:last])),
            0 if not i else 3 if first in starts else 1,
        )
        for i, (first, last) in enumerate(cuts)
    ]


def _blocks(axis: Sequence[Layer]) -> list[tuple[int, int]]:
    """Return the ranges of consecutive layers of one group."""
    found = []
    for _, members in groupby(enumerate(axis), key=lambda pair: pair[1].group):
        at = [i for i, _ in members]
        found.append((at[0], at[-1] + 1))
    return found


def _parts(blocks: Sequence[tuple[int, int]], room: int) -> int:
    """Return the maximum number of parts into which each block can be cut; 0 if the blocks themselves do not fit.

    A binary search is used, because the number of segments grows with the number of parts and a manifest can have
    100,000 layers.
    """
    least, most = 0, max((last - first for first, last in blocks), default=0)
    while least < most:
        parts = (least + most + 1) // 2
        if sum(min(b - a, parts) for a, b in blocks) <= room:
            least = parts
        else:
            most = parts - 1
    return least


def _cut(first: int, last: int, parts: int) -> list[tuple[int, int]]:
    """Cut a range into parts of almost equal size."""
    parts = min(parts, last - first)
    at = [first + (last - first) * i // parts for i in range(parts + 1)] if parts else []
    return list(pairwise(at))


def shade(codes: str) -> str:
    """Return the code of a segment: the largest change of its layers."""
    return max(codes, key=lambda code: _RANK.get(code, 0), default=ABSENT)


def summary(codes: str) -> str:
    """Return the alternative text of a strip: the numbers of changed, new and identical layers.

    Examples
    --------
    >>> summary("00x+."), summary("000")
    ('1 of 4 layers changed, 1 new or reshaped, 2 identical', '3 of 3 layers identical')
    """
    seen = len(codes) - codes.count(ABSENT)
    new, same = codes.count(NEW), codes.count(IDENTICAL)
    counts = [(seen - new - same, "changed"), (new, "new or reshaped"), (same, "identical")]
    told = [(n, word) for n, word in counts if n]
    if not told:
        return "no layers"
    (first, word), rest = told[0], told[1:]
    return ", ".join([f"{first} of {seen} layers {word}", *(f"{n} {word}" for n, word in rest)])


def has_amounts(strips: Iterable[str]) -> bool:
    """Return whether the amount of change was measured for some layer, and not only that it changed."""
    return any(set(codes) & set("12345") for codes in strips)


def legend(layers: Layers) -> str:
    """Return the legend of the strips of a static table."""
    if has_amounts(layers.strips.values()):
        shades = "shade: change, in five tints from 0.1 % to 20 %"
    else:
        shades = "solid: changed"
    return f"Layers from input to output; width: parameters; {shades}; line: identical; hatched: new or reshaped."


def svg(axis: Sequence[Layer], codes: str, width: int = WIDTH, height: int = HEIGHT) -> str:
    """Return a strip as SVG that needs no style sheet and is readable on light and on dark pages."""
    boxes: dict[float, str] = {}
    lines: list[str] = []
    strokes: list[str] = []
    for x, wide, code in _place(axis, codes, width):
        if code in OPACITY:
            opacity = OPACITY[code]  # one path per shade takes half the bytes of one rectangle per segment
            boxes[opacity] = f"{boxes.get(opacity, '')}M{x:.1f} 0h{wide:.1f}v{height}h-{wide:.1f}"
        elif code == IDENTICAL:
            lines.append(f"M{x:.1f} {height / 2}h{wide:.1f}")
        elif code == NEW:
            strokes.append(outline(x, wide, height) + hatch(x, wide, height))
        elif code == REMOVED:
            lines.append(outline(x, wide, height))
    shades = "".join(f'<path d="{path}" fill-opacity="{opacity}"/>' for opacity, path in boxes.items())
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'preserveAspectRatio="none" shape-rendering="crispEdges" fill="{COLOUR}">{shades}'
        f'<path d="{"".join(lines)}" stroke="#888" fill="none"/>'
        f'<path d="{"".join(strokes)}" stroke="{COLOUR}" fill="none" shape-rendering="auto"/></svg>'
    )


def _place(axis: Sequence[Layer], codes: str, width: int) -> Iterable[tuple[float, float, str]]:
    """Yield the x coordinate, the width and the code of each segment."""
    for segment, (x, wide) in zip(fold(axis, width), places(axis, width), strict=True):
        yield x, wide, shade(codes[segment.first : segment.last])


def places(axis: Sequence[Layer], width: int) -> Iterable[tuple[float, float]]:
    """Yield the x coordinate and the width of each segment, in pixels."""
    segments = fold(axis, width)
    widths = _share([s.weight for s in segments], width - sum(s.gap for s in segments))
    x = 0.0
    for segment, wide in zip(segments, widths, strict=True):
        x += segment.gap
        yield x, wide
        x += wide


def _share(weights: Sequence[float], free: float) -> list[float]:
    """Divide a width by weights, with at least one pixel for each.

    Segments below one pixel get one pixel, which leaves less for the others. So the division is repeated until no
    further segment is below one pixel.
    """
    thin: set[int] = set()
    while True:
        rest = sum(w for i, w in enumerate(weights) if i not in thin) or 1.0
        unit = (free - len(thin)) / rest
        more = {i for i, w in enumerate(weights) if i not in thin and w * unit < 1}
        if not more:
            return [1.0 if i in thin else w * unit for i, w in enumerate(weights)]
        thin |= more


def outline(x: float, width: float, height: int) -> str:
    """Return the path of the outline of a box; half pixels make lines of one pixel sharp."""
    inner = max(width - 1, 0)
    return f"M{x + 0.5:.1f} .5h{inner:.1f}v{height - 1}h-{inner:.1f}z"


def hatch(x: float, width: float, height: int) -> str:
    """Return diagonal strokes inside a box as a path.

    The strokes are cut at the sides of the box here, because a saved page can lose SVG patterns and clip paths.
    """
    strokes = []
    for start in range(-height, int(width) + 1, 4):
        left, right = max(0, start), min(width, start + height)
        if right > left:
            strokes.append(
                f"M{x + left:.1f} {height - (left - start):.1f}L{x + right:.1f} {height - (right - start):.1f}"
            )
    return "".join(strokes)


def picture(svg_text: str, alt: str, width: int, height: int, *, flat: bool = False) -> str:
    """Return an `<img>` element with an SVG drawing, since a notebook that is not trusted removes inline SVG.

    Parameters
    ----------
    svg_text : str
        The `<svg>` element.
    alt : str
        Alternative text for screen readers.
    width, height : int
        Size in pixels. On a narrow page, the picture shrinks.
    flat : bool
        Whether the picture keeps its height when it shrinks, as a layer strip does. False by default.
    """
    data = base64.b64encode(svg_text.encode()).decode()
    style = f"min-width:4em;max-width:100%;height:{height}px" if flat else "max-width:100%;height:auto"
    size = f'width="{width}" height="{height}" style="{style}"'
    return f'<img alt="{escape(alt)}" {size} src="data:image/svg+xml;base64,{data}">'


def layers_data(layers: Layers) -> dict[str, Any] | None:
    """Return layer strips as JSON; None if the versions have none."""
    if not layers.strips:
        return None
    return {
        "axis": [[clean(layer.path), layer.group, round(weight(layer), 2)] for layer in layers.axis],
        "strips": layers.strips,
        "said": {number: summary(codes) for number, codes in layers.strips.items()},
        "amounts": has_amounts(layers.strips.values()),
    }
