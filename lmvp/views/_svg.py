"""Standalone SVG of lines of text, for a README or a slide. Text is grey: readable on light and on dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from lmvp.core.sanitize import clip, width

_GREY = "#7a7a7a"
_FONT = "ui-monospace, Menlo, Consolas, monospace"
LETTER, LINE, PAD = 7.25, 22, 12
"""Width of a letter in the monospaced font, height of a line and margin, in pixels. SVG cannot measure text."""


def words(x: float, line: float, text: str) -> str:
    if not text:
        return ""
    return f'<text x="{x:.1f}" y="{LINE * line + 15:.1f}" xml:space="preserve">{escape(text)}</text>'


def sheet(title: str, parts: Sequence[str], wide: float, lines: float = 1) -> str:
    """Return an SVG element with a title above its parts; `lines` is the height in lines of text."""
    title = clip(title, 160)
    wide = max(wide, 2 * PAD + LETTER * width(title))
    high = LINE * lines + PAD
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide:.0f}" height="{high:.0f}" '
        f'viewBox="0 0 {wide:.0f} {high:.0f}" role="img" aria-label="{escape(title)}" fill="{_GREY}" '
        f'font-family="{_FONT}" font-size="12">'
        f'<text x="{PAD}" y="15" font-weight="600">{escape(title)}</text>{"".join(parts)}</svg>'
    )
