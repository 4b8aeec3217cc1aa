"""The layer strip: one segment a layer, as wide as its parameters, shaded by how much it changed.

All strips of one table share one axis, so a layer can be read downwards through the history. `fold` decides which
layers share a segment when there are too many for the width; `lmvp_server/static/widgets/strip.js` has its twin.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby, pairwise
from typing import NamedTuple

from lmvp.records import ABSENT, CHANGED, IDENTICAL, NEW, Layer, Layers
from lmvp.render import numbers

COLOUR = "#b9488c"
OPACITY = {"1": 0.22, "2": 0.4, "3": 0.58, "4": 0.78, "5": 1, CHANGED: 0.58}
WIDTH, HEIGHT = 300, 12
REMOVED = "-"
"""The code of a removed layer, drawn as an outline; only diffs have it."""

_RANK = {code: rank for rank, code in enumerate((ABSENT, IDENTICAL, "1", "2", "3", CHANGED, "4", "5", REMOVED, NEW))}
_SLOT = 3
"""Pixels that a segment wants on average: two of its own and the gap."""


class Segment(NamedTuple):
    """Layers `first` to `last` (excluded) of the axis, drawn as one; `gap` pixels before it."""

    first: int
    last: int
    weight: float
    gap: int


_last: tuple[Sequence[Layer], float, list[Segment]] | None = None


def weight(layer: Layer) -> float:
    """Return the width of a layer beside the others: the fourth root of its size, of any integer from a server."""
    return math.sqrt(math.sqrt(min(max(layer.size, 0), numbers.LIMIT)))


def fold(axis: Sequence[Layer], width: float = WIDTH) -> list[Segment]:
    """Cut the axis into segments that fit a width: layers, else parts of blocks, else blocks, else several blocks."""
    global _last
    last = _last
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
    starts = {first for first, _ in blocks[1:]} if parts else set()
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
    found = []
    for _, members in groupby(enumerate(axis), key=lambda pair: pair[1].group):
        at = [i for i, _ in members]
        found.append((at[0], at[-1] + 1))
    return found


def _parts(blocks: Sequence[tuple[int, int]], room: int) -> int:
    """Return the most parts that each block can be cut into; 0 if not even one each fits.

    The number of segments grows with the number of parts, so a binary search finds it: a manifest may have 100,000
    layers.
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
    parts = min(parts, last - first)
    at = [first + (last - first) * i // parts for i in range(parts + 1)] if parts else []
    return list(pairwise(at))


def shade(codes: str) -> str:
    """Give the code of a segment: the largest change of its layers."""
    return max(codes, key=lambda code: _RANK.get(code, 0), default=ABSENT)


def summary(codes: str) -> str:
    """Say what a strip shows.

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
    """Tell whether some layer's change was measured, not only noticed."""
    return any(set(codes) & set("12345") for codes in strips)


def legend(layers: Layers) -> str:
    """Give the sentence that explains the strips of a static table."""
    if has_amounts(layers.strips.values()):
        shades = "shade: change, in five tints from 0.1 % to 20 %"
    else:
        shades = "solid: changed"
    return f"Layers from input to output; width: parameters; {shades}; line: identical; hatched: new or reshaped."


def svg(axis: Sequence[Layer], codes: str, width: int = WIDTH, height: int = HEIGHT) -> str:
    """Draw a strip that needs no stylesheet and reads on any paper."""
    boxes: dict[float, str] = {}
    lines: list[str] = []
    strokes: list[str] = []
    for x, wide, code in _place(axis, codes, width):
        if code in OPACITY:
            opacity = OPACITY[code]  # a path for each shade: half the bytes of a rectangle for each segment
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
    """Yield where each segment begins, how wide it is, and its code."""
    for segment, (x, wide) in zip(fold(axis, width), places(axis, width), strict=True):
        yield x, wide, shade(codes[segment.first : segment.last])


def places(axis: Sequence[Layer], width: int) -> Iterable[tuple[float, float]]:
    """Yield where each segment begins and how wide it is, in pixels."""
    segments = fold(axis, width)
    widths = _share([s.weight for s in segments], width - sum(s.gap for s in segments))
    x = 0.0
    for segment, wide in zip(segments, widths, strict=True):
        x += segment.gap
        yield x, wide
        x += wide


def _share(weights: Sequence[float], free: float) -> list[float]:
    """Divide the width by weight, where nothing is narrower than a pixel."""
    thin: set[int] = set()
    while True:
        rest = sum(w for i, w in enumerate(weights) if i not in thin) or 1.0
        unit = (free - len(thin)) / rest
        more = {i for i, w in enumerate(weights) if i not in thin and w * unit < 1}
        if not more:
            return [1.0 if i in thin else w * unit for i, w in enumerate(weights)]
        thin |= more


def outline(x: float, width: float, height: int) -> str:
    """Return the path around a box."""
    inner = max(width - 1, 0)
    return f"M{x + 0.5:.1f} .5h{inner:.1f}v{height - 1}h-{inner:.1f}z"


def hatch(x: float, width: float, height: int) -> str:
    """Diagonal strokes inside a box, cut at its sides by arithmetic, since a saved page may not keep patterns."""
    strokes = []
    for start in range(-height, int(width) + 1, 4):
        left, right = max(0, start), min(width, start + height)
        if right > left:
            strokes.append(
                f"M{x + left:.1f} {height - (left - start):.1f}L{x + right:.1f} {height - (right - start):.1f}"
            )
    return "".join(strokes)


def picture(svg_text: str, alt: str, width: int, height: int, *, flat: bool = False) -> str:
    """Wrap a drawing as an `<img>`: an untrusted notebook drops inline SVG, but keeps pictures.

    Where there is no room it shrinks; a `flat` one, a strip, keeps its height.
    """
    data = base64.b64encode(svg_text.encode()).decode()
    style = f"min-width:4em;max-width:100%;height:{height}px" if flat else "max-width:100%;height:auto"
    size = f'width="{width}" height="{height}" style="{style}"'
    return f'<img alt="{escape(alt)}" {size} src="data:image/svg+xml;base64,{data}">'
