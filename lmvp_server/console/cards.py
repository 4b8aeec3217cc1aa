"""What people say of a model, written in Markdown, as HTML that can do nothing."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from markdown_it import MarkdownIt


_LEAD, _BRACKETS = 1500, 30
"""Characters and opening brackets that `first_words` parses at most: the time of a bracket grows with what follows."""


def card(text: str) -> str:
    r"""Return Markdown as HTML: CommonMark with tables and strikethrough.

    HTML in it is text, links lead to the web or into the page, pictures become links: a page fetches nothing that
    others chose. Its highest head comes right below that of the page.

    Examples
    --------
    >>> card("# Use\n<script>x</script> [a](javascript:x) **b**")
    '<h2>Use</h2>\n<p>&lt;script&gt;x&lt;/script&gt; [a](javascript:x) <strong>b</strong></p>\n'
    """
    markdown = _markdown()
    tokens = markdown.parse(text)
    highest = min((int(token.tag[1]) for token in tokens if token.type == "heading_open"), default=1)
    return str(markdown.renderer.render(tokens, markdown.options, {"down": 2 - highest}))


def first_words(text: str, most: int = 120) -> str:
    r"""Return how Markdown begins, without its marks: the first paragraph, cut where it is long.

    Examples
    --------
    >>> first_words("# Use\n\nHears **240** species\nin `ten` seconds.\n\n- mono")
    'Hears 240 species in ten seconds.'
    >>> first_words("word " * 9, 12)
    'word word…'
    """
    return _first_words(text[:_LEAD], most)


@lru_cache(300)
def _first_words(start: str, most: int) -> str:
    if start.count("[") > _BRACKETS:
        return _cut(" ".join(start.split()), most)
    tokens = _markdown().parse(start)
    begin = next((at for at, token in enumerate(tokens) if token.type == "paragraph_open"), None)
    inside = (tokens[begin + 1].children or []) if begin is not None else []
    words = " ".join("".join(token.content or " " * token.type.endswith("break") for token in inside).split())
    return _cut(words, most)


def _cut(words: str, most: int) -> str:
    return words if len(words) <= most else f"{words[:most].rpartition(' ')[0] or words[:most]}…"


@lru_cache(1)
def _markdown() -> MarkdownIt:
    from markdown_it import MarkdownIt

    made = MarkdownIt("js-default", {"html": False, "linkify": False})
    made.add_render_rule("heading_open", _head)
    made.add_render_rule("heading_close", _head)
    made.add_render_rule("link_open", _link)
    made.add_render_rule("image", _picture)
    made.add_render_rule("table_open", lambda *_: '<div class="scroll" tabindex="0"><table>')
    made.add_render_rule("table_close", lambda *_: "</table></div>\n")
    return made


def _head(_: Any, tokens: Any, at: int, __: Any, env: Any) -> str:
    level = min(6, int(tokens[at].tag[1]) + env["down"])
    return f"<h{level}>" if tokens[at].nesting == 1 else f"</h{level}>\n"


def _link(self: Any, tokens: Any, at: int, options: Any, env: Any) -> str:
    tokens[at].attrSet("rel", "nofollow noopener noreferrer")
    return str(self.renderToken(tokens, at, options, env))


def _picture(_: Any, tokens: Any, at: int, *__: Any) -> str:
    from html import escape

    where, words = str(tokens[at].attrGet("src") or ""), tokens[at].content or "picture"
    return f'<a href="{escape(where)}" rel="nofollow noopener noreferrer">{escape(words)}</a>'
