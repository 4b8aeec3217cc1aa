"""Syntax highlighting of code, and decoding of text files for pages."""

from __future__ import annotations

from html import escape

LIMIT = 256 << 10
"""The maximum number of bytes of a file that are shown."""


def highlighted(text: str, name: str = "code.py") -> str:
    r"""Highlight code as HTML: comments, strings and keywords in spans. The file name selects the language.

    Examples
    --------
    >>> highlighted("if x:  # <b>", "train.py")
    '<span class="kw">if</span> x:  <span class="cm"># &lt;b&gt;</span>\n'
    """
    if not text:
        return ""
    # Imported here because pygments takes long to import and most requests do not need it.
    from pygments import lex  # type: ignore[import-untyped, unused-ignore]
    from pygments.lexers import (  # type: ignore[import-untyped, unused-ignore]
        TextLexer,
        get_lexer_for_filename,
    )
    from pygments.util import ClassNotFound  # type: ignore[import-untyped, unused-ignore]

    try:
        lexer = get_lexer_for_filename(name)
    except ClassNotFound:
        lexer = TextLexer()
    return "".join(_span(str(kind), words) for kind, words in lex(text, lexer))


def _span(kind: str, words: str) -> str:
    css = next((css for start, css in _KINDS.items() if kind.startswith(start)), "")
    return f'<span class="{css}">{escape(words, quote=False)}</span>' if css else escape(words, quote=False)


_KINDS = {"Token.Comment": "cm", "Token.Literal.String": "st", "Token.Keyword": "kw", "Token.Name.Tag": "kw"}


def as_text(data: bytes, *, whole: bool) -> str | None:
    """Decode a file as UTF-8 text. Return None for a binary file.

    Examples
    --------
    >>> as_text(b"a = 1", whole=True), as_text(bytes(8), whole=True)
    ('a = 1', None)
    """
    if b"\0" in data:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:  # the beginning of a long file can end inside a character
        return None if whole or error.start < len(data) - 4 else data[: error.start].decode("utf-8")
