"""Static HTML of histories, versions and diffs: tables without style sheets or scripts.

The HTML must display in each notebook: saved, exported or not trusted. A notebook that is not trusted removes inline
SVG, so layer strips are `<img>` elements with the SVG in a data URL.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from lmvp.core import number_format
from lmvp.core.sanitize import clean
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
# Inline styles: a notebook has no style sheet of LMVP, and those that are not trusted remove `<style>`.
_PAD = "padding:.4em .75em .4em 0;text-align:"
_NAME = ";min-width:6.5em;overflow-wrap:anywhere"
_ROW = ' style="background:none;border-bottom:1px solid rgba(128,128,128,.25)"'
_LONG = 16
"""Number of letters from which a name can break at its separators."""


def cell(content: str, *, right: bool = False, name: bool = False) -> str:
    """Return a table cell.

    Parameters
    ----------
    content : str
        HTML.
    right : bool
        Align to the right and do not wrap, for numbers.
    name : bool
        Allow breaks within words, so that a long name does not widen the table.
    """
    side = "right;white-space:nowrap" if right else "left"
    return f'<td style="{_PAD}{side}{_NAME if name else ""}">{content}</td>'


def head(content: str, *, right: bool = False) -> str:
    """Return the head of a column; `content` is HTML."""
    return f'<th scope="col" style="font-weight:400;{_PAD}{"right" if right else "left"}">{content}</th>'


def table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = (), names: Sequence[int] = ()
) -> str:
    """Return a table. It has thin lines between its rows instead of the notebook's stripes, and scrolls horizontally.

    Parameters
    ----------
    heads : sequence of str
        Heads of the columns, as HTML.
    rows : iterable of sequence of str
        Cells, as HTML.
    right : sequence of int
        Indexes of columns with numbers.
    names : sequence of int
        Indexes of columns with names; see `cell`.
    """
    first = "".join(head(h, right=i in right) for i, h in enumerate(heads))
    body = "\n".join(
        f"<tr{_ROW}>{''.join(cell(c, right=i in right, name=i in names) for i, c in enumerate(row))}</tr>"
        for row in rows
    )
    return _scrolling(f"<table><thead><tr>{first}</tr></thead><tbody>\n{body}\n</tbody></table>")


def _scrolling(content: str) -> str:
    return f'<div style="overflow-x:auto">{content}</div>'


def safe(words: str) -> str:
    """Remove control characters from a text of another user, and escape it for HTML."""
    return escape(clean(words))


def key(words: str) -> str:
    """Escape the name of a layer or metric for HTML; a long one can break after each of its parts.

    Examples
    --------
    >>> key("val/top_1"), key("encoder.layers.0.attention")
    ('val/top_1', 'encoder.<wbr>layers.<wbr>0.<wbr>attention')
    """
    return safe(words) if len(words) <= _LONG else re.sub(r"([/._])(?=.)", r"\1<wbr>", safe(words))


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


def version_html(version: Version) -> str:
    """Return a version with its message and its properties."""
    rows = [(f"<b>{escape(fact)}</b>", escape(value)) for fact, value in _text.version_facts(version)]
    body = "\n".join(f"<tr{_ROW}>{cell(fact)}{cell(value, name=True)}</tr>" for fact, value in rows)
    return (
        f"<p><b>{escape(version.reference)}</b> {safe(version.message)}</p>\n<table><tbody>\n{body}\n</tbody></table>"
    )


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
