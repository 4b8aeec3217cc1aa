"""Standalone SVG of histories, diffs and versions, for a README or a slide.

Text is grey, so that it is readable on light and on dark pages. Layer strips and layer charts are those of the HTML
forms.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from lmvp.core import number_format
from lmvp.core.sanitize import clean, clip, width
from lmvp.views import (
    _text,
    diff_tables,
    layer_chart,
    layer_strip,
    version_text,
)

if TYPE_CHECKING:
    from lmvp.core.schemas import Version
    from lmvp.views.diff import Diff
    from lmvp.views.history import History
    from lmvp.views.version import Showing

ROWS = 30
"""Maximum number of versions or metrics."""
_GREY = "#7a7a7a"
_FONT = "ui-monospace, Menlo, Consolas, monospace"
_LETTER, _LINE, _PAD = 7.25, 22, 12
"""Width of a letter in the monospaced font, height of a line and margin, in pixels. SVG cannot measure text."""
_MESSAGE = 48
"""Maximum number of letters of a message."""


def history_svg(history: History) -> str:
    """Return the newest versions as lines of text with their layer strips.

    Parameters
    ----------
    history : History

    Returns
    -------
    str
        An `<svg>` element, which contains its title.
    """
    if not history:
        return _sheet(_text.nothing(history), [_words(_PAD, 1, _text.filled_by(history))], 640, 2)
    shown = history[:ROWS]
    columns = _columns(history, shown)
    places = _places(columns)
    parts = [_words(x, 1, head) for x, (head, _, _) in zip(places, columns, strict=True)]
    for row in range(len(shown)):
        parts += [_words(x, row + 2, cells[row]) for x, (_, cells, _) in zip(places, columns, strict=True)]
        parts.append(_strip(history, shown[row].number, places[-1], row + 2))
    wide = places[-1] + (layer_strip.WIDTH if history.layers.strips else 0) + _PAD
    return _sheet(_text.heading(history), parts, wide, len(shown) + 2)


def diff_svg(diff: Diff) -> str:
    """Return the layer chart of a diff below its summary."""
    drawing = f'<g transform="translate({_PAD} {_LINE * 2})">{layer_chart.svg(diff)}</g>'
    title = f"{clean(diff.title)}: {diff_tables.sentence(diff)}"
    return _sheet(title, [drawing], layer_chart.LEFT + layer_chart.WIDTH + 2 * _PAD, 2 + layer_chart.tall(diff) / _LINE)


def showing_svg(shown: Showing) -> str:
    """Return a version with its summary, layer strip and metrics."""
    parts = [_words(_PAD, 1, version_text.sentence(shown))]
    codes = shown.layers.strips.get(str(shown.version.number))
    if codes:
        drawing = layer_strip.svg(shown.layers.axis, codes, 640, 24)
        parts.append(f'<g transform="translate({_PAD} {_LINE * 2})">{drawing}</g>')
    first = 4 if codes else 2
    rows = [(clip(key, _MESSAGE), *values) for key, *values in version_text.metric_rows(shown)[:ROWS]]
    names = max((width(row[0]) for row in rows), default=0) + 2
    for line, row in enumerate(rows, first):
        parts += [_words(_PAD, line, row[0]), _words(_PAD + names * _LETTER, line, "  ".join(row[1:]))]
    head = f"{shown.version.reference}  {clean(shown.version.message)}"
    return _sheet(head, parts, 640 + 2 * _PAD, first + len(rows))


Columns = list[tuple[str, list[str], int]]
"""Head, cells and width in letters of each column."""


def _columns(history: History, shown: Sequence[Version]) -> Columns:
    """Return the columns that are not empty. The last one is the empty column for the layer strips."""
    metric = number_format.column(_text.value_of(v, history.metric) for v in shown)
    columns = {
        "Model": [clip(clean(v.model), 32) if history.of_project else "" for v in shown],
        "Version": [v.name for v in shown],
        "Message": [clip(" ".join([clean(v.message), *map(_alias, v.aliases)]).strip(), _MESSAGE) for v in shown],
        clip(clean(history.metric or ""), 24): metric,
        "By": [clip(clean(v.author), 24) for v in shown],
        "When (UTC)": [number_format.stamp(v.created_at) for v in shown],
    }
    found = [(head, cells, max(map(width, (head, *cells)))) for head, cells in columns.items() if any(cells)]
    layers = "Layers changed" if history.layers.strips else ""
    return [*found, (layers, [""] * len(shown), 0)]


def _alias(name: str) -> str:
    return f"@{clean(name)}"


def _places(columns: Columns) -> list[float]:
    """Return the x coordinate of each column."""
    places = [float(_PAD)]
    for _, _, letters in columns[:-1]:
        places.append(places[-1] + (letters + 2) * _LETTER)
    return places


def _strip(history: History, number: int, x: float, line: int) -> str:
    codes = history.layers.strips.get(str(number))
    if not codes:
        return ""
    drawing = layer_strip.svg(history.layers.axis, codes)
    return f'<g transform="translate({x:.1f} {_LINE * line + (_LINE - layer_strip.HEIGHT) / 2:.1f})">{drawing}</g>'


def _words(x: float, line: float, words: str) -> str:
    if not words:
        return ""
    return f'<text x="{x:.1f}" y="{_LINE * line + 15:.1f}" xml:space="preserve">{escape(words)}</text>'


def _sheet(title: str, parts: Sequence[str], wide: float, lines: float = 1) -> str:
    """Return an SVG element with a title above its parts; `lines` is the height in lines of text."""
    title = clip(title, 160)
    wide = max(wide, 2 * _PAD + _LETTER * width(title))
    high = _LINE * lines + _PAD
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide:.0f}" height="{high:.0f}" '
        f'viewBox="0 0 {wide:.0f} {high:.0f}" role="img" aria-label="{escape(title)}" fill="{_GREY}" '
        f'font-family="{_FONT}" font-size="12">'
        f'<text x="{_PAD}" y="15" font-weight="600">{escape(title)}</text>{"".join(parts)}</svg>'
    )
