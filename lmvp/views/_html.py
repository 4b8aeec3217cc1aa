"""Static HTML of histories, versions and diffs: tables without style sheets or scripts.

The HTML must display in each notebook: saved, exported or not trusted. A notebook that is not trusted removes inline
SVG, so layer strips are `<img>` elements with the SVG in a data URL.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from lmvp.core import number_format
from lmvp.core.html_tables import key, safe, table
from lmvp.core.schemas import Layers, Version
from lmvp.views import (
    _text,
    diff_tables,
    layer_chart,
    layer_strip,
)

if TYPE_CHECKING:
    from lmvp.views.diff import Diff
    from lmvp.views.history import History

ROWS = 50
"""Maximum number of versions in the table of a history."""


def history_html(history: History) -> str:
    """Return the newest 50 versions of a history as a table."""
    if not history:
        code = _text.filled_by(history)
        return f"<p>{escape(_text.nothing(history))}</p>{code and f'<pre>{escape(code)}</pre>'}"
    shown, layers = history[:ROWS], history.layers
    columns = [column for column in _history_columns(history, shown, layers) if any(column.cells)]
    body = table(
        [column.head for column in columns],
        zip(*(column.cells for column in columns), strict=True),
        right=[i for i, column in enumerate(columns) if column.right],
        names=[i for i, column in enumerate(columns) if column.flexible],
    )
    return f"{body}\n<p>{_caption(history, shown.older, layers)}</p>"


def _history_columns(history: History, shown: Sequence[Version], layers: Layers) -> list[_text.Column]:
    metric = number_format.column(_text.value_of(v, history.metric) for v in shown)
    return [
        _text.Column("Model", [safe(v.model) if history.of_project else "" for v in shown]),
        _text.Column("Version", [v.name for v in shown]),
        _text.Column("Message", [_message(v) for v in shown], flexible=True),
        _text.Column("Layers changed against the parent", [_strip(layers, v) for v in shown]),
        _text.Column(key(history.metric or ""), metric, right=True),
        _text.Column("By", [safe(v.author) for v in shown]),
        _text.Column("When (UTC)", [_whole(number_format.stamp(v.created_at)) for v in shown]),
    ]


def _whole(words: str) -> str:
    """Return words that do not wrap."""
    return f'<span style="white-space:nowrap">{words}</span>'


def _message(version: Version) -> str:
    return " ".join([safe(version.message), *(f"<i>{safe(alias)}</i>" for alias in version.aliases)]).strip()


def _strip(layers: Layers, version: Version) -> str:
    codes = layers.strips.get(str(version.number))
    if not codes:
        return ""
    drawing = layer_strip.svg(layers.axis, codes)
    return layer_strip.picture(drawing, layer_strip.summary(codes), layer_strip.WIDTH, layer_strip.HEIGHT, flat=True)


def _caption(history: History, behind: int, layers: Layers) -> str:
    older = f" … {behind:,} older." if behind else ""
    legend = f" {layer_strip.legend(layers)}" if layers.strips else ""
    return f"{escape(_text.heading(history))}.{older}{escape(legend)}"


def diff_html(diff: Diff) -> str:
    """Return a diff: a chart of all layers, and a table for each kind of data that differs."""
    parts = [f"<p><b>{safe(diff.title)}</b> {escape(diff_tables.sentence(diff))}</p>", _diff_strip(diff)]
    for block in diff_tables.tables(diff):
        rows = [
            [key(row[0]), *(escape(word).replace(" × ", "&nbsp;×&nbsp;") for word in row[1:])] for row in block.rows
        ]
        parts.append(table(list(map(escape, block.heads)), rows, block.right, names=[0]))
        parts += [f"<p>{escape(note)}</p>" for note in block.notes]
    parts.append(_code(diff))
    return "\n".join(part for part in parts if part)


def _code(diff: Diff) -> str:
    """Return the diff of the code. Added and removed lines are bold, because a notebook can remove colors."""
    lines = diff_tables.code_lines(diff)
    body = "\n".join(f"<b>{escape(line)}</b>" if line[:1] in "+-" else escape(line) for line in lines)
    return f'<p>Code that differs</p>\n<pre style="overflow-x:auto">{body}</pre>' if lines else ""


def _diff_strip(diff: Diff) -> str:
    axis, codes = diff_tables.strip_codes(diff)
    if not axis:
        return ""
    if any(tensor.amount for tensor in diff.tensors):  # without measured amounts, bars would have no height
        return layer_chart.figure(diff)
    drawing = layer_strip.svg(axis, codes, 640, 24)
    legend = layer_strip.legend(Layers(strips={"": codes})).removesuffix(".")
    removed = "; outlined: removed" if layer_strip.REMOVED in codes else ""
    picture = layer_strip.picture(drawing, diff_tables.sentence(diff), 640, 24, flat=True)
    return f"<p>{picture}</p>\n<p>{escape(legend + removed)}.</p>"
