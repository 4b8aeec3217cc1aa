"""Static HTML tables without style sheets or scripts, for each notebook: saved, exported or not trusted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

from lmvp.core.sanitize import clean

# Inline styles: a notebook has no style sheet of LMVP, and those that are not trusted remove `<style>`.
_PAD = "padding:.4em .75em .4em 0;text-align:"
_NAME = ";min-width:6.5em;overflow-wrap:anywhere"
ROW = ' style="background:none;border-bottom:1px solid rgba(128,128,128,.25)"'
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
        f"<tr{ROW}>{''.join(cell(c, right=i in right, name=i in names) for i, c in enumerate(row))}</tr>"
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
