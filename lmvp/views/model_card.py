"""Safe conversion of model cards, which are Markdown of other users, to HTML, element trees and plain text.

The console and the notebook share this module. markdown-it-py parses CommonMark with tables and strikethrough. HTML in
a card is shown as text, links are limited to web and mail addresses, and images become links, so that a reader's
browser loads nothing from other servers.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from html import escape
from typing import TYPE_CHECKING, Any

from lmvp.core.sanitize import (
    clean,
    pad,
    printable,
    width,
)

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.tree import SyntaxTreeNode

Node = str | list[Any]
"""A text, or `[tag, address, children]`. The address is empty except for links (`a`)."""

INLINE = frozenset(("a", "br", "code", "del", "em", "strong"))
BLOCKS = frozenset(("blockquote", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "ul"))
TABLES = frozenset(("table", "tbody", "td", "th", "thead", "tr"))
TAGS = INLINE | BLOCKS | TABLES
"""The allowed tags of `Node`. `model.js` creates elements of these tags only."""

LETTERS, BRACKETS, CELLS, ANGLES = 20_000, 400, 4000, 400
"""Limits of a card that a notebook formats; a larger one is shown as its source.

markdown-it-py takes quadratic time for brackets and for `<!`, and pads short rows of tables. Within these limits, the
slowest known card takes 0.6 s in the kernel.
"""

_LEAD, _FEW_BRACKETS = 1500, 30
"""Maximum number of characters and of opening brackets that `first_words` parses. Each bracket scans the text after
it."""
_ABSOLUTE = re.compile(r"(?:https?://|mailto:)[^\s\\]+", re.IGNORECASE)
_TOP = 4
"""The level of the highest heading of a card in a notebook, below the levels of the notebook's own headings."""


# -- pages of the console


def card(text: str) -> str:
    r"""Return Markdown as HTML for a page of the console; its highest heading becomes `h2`.

    The time for hostile Markdown is not limited here: a renderer process with a timeout runs this function, see
    `lmvp_server.web.rendering`.

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
    r"""Return the first paragraph of a card without markup, for lists of models.

    Parameters
    ----------
    text : str
        Markdown.
    most : int
        Maximum number of characters, 120 by default. A longer paragraph is cut at a space, with an ellipsis.

    Examples
    --------
    >>> first_words("# Use\n\nHears **240** species\nin `ten` seconds.\n\n- mono")
    'Hears 240 species in ten seconds.'
    >>> first_words("word " * 9, 12)
    'word word…'
    """
    return _first_words(text[:_LEAD], most)


@lru_cache(300)  # each request of a list of models needs the same texts again
def _first_words(start: str, most: int) -> str:
    if start.count("[") > _FEW_BRACKETS:
        return _cut(" ".join(start.split()), most)
    tokens = _markdown().parse(start)
    begin = next((at for at, token in enumerate(tokens) if token.type == "paragraph_open"), None)
    inside = (tokens[begin + 1].children or []) if begin is not None else []
    words = " ".join("".join(token.content or " " * token.type.endswith("break") for token in inside).split())
    return _cut(words, most)


def _cut(words: str, most: int) -> str:
    return words if len(words) <= most else f"{words[:most].rpartition(' ')[0] or words[:most]}…"


# -- notebooks


def nodes(text: str) -> list[Node]:
    r"""Return a card as a tree of elements, from which a widget creates DOM elements instead of parsing HTML.

    Examples
    --------
    >>> nodes("**240** species, [site](https://example.org)")
    [['p', '', [['strong', '', ['240']], ' species, ', ['a', 'https://example.org', ['site']]]]]
    >>> nodes("[bad](javascript:x) <b>")
    [['p', '', ['[bad](javascript:x) <b>']]]
    """
    if not text.strip():
        return []
    if not is_cheap(text):
        return [["pre", "", [printable(text)]]]
    tree = _tree(text)
    levels = [int(node.tag[1]) for node in tree.walk() if node.type == "heading"]
    return _joined(_nodes(tree, _TOP - min(levels, default=1)))


def card_html(text: str) -> str:
    r"""Return a card as static HTML for a notebook.

    Examples
    --------
    >>> card_html("# Use\n\n<b> & [x](../delete)")
    '<h4>Use</h4><p>&lt;b&gt; &amp; x</p>'
    """
    return "".join(map(_html, nodes(text)))


def card_text(text: str, columns: int = 80) -> str:
    r"""Return a card as plain text without markup: addresses follow their links, and tables are aligned.

    Parameters
    ----------
    text : str
        Markdown.
    columns : int
        Width of paragraphs in columns of the terminal, 80 by default. Code and tables are not wrapped.

    Examples
    --------
    >>> print(card_text("# Use\n\nHears **240** species: [site](https://example.org).\n\n- mono\n- 32 kHz"))
    Use
    ───
    <BLANKLINE>
    Hears 240 species: site (https://example.org).
    <BLANKLINE>
    - mono
    - 32 kHz
    """
    if not is_cheap(text):
        return printable(text.strip())
    return printable("\n\n".join(_blocks(_tree(text), columns)))


def is_cheap(text: str) -> bool:
    """Return whether a card is within the limits of cards that a notebook formats."""
    most = max((line.count("|") for line in text.splitlines()), default=0)
    cells = most * sum("|" in line for line in text.splitlines())
    counts = ((len(text), LETTERS), (text.count("["), BRACKETS), (text.count("<"), ANGLES), (cells, CELLS))
    return all(count <= limit for count, limit in counts)


def _tree(text: str) -> SyntaxTreeNode:
    from markdown_it.tree import SyntaxTreeNode

    return SyntaxTreeNode(_markdown().parse(text))


_PLAIN = {"fence": "pre", "code_block": "pre", "code_inline": "code", "hr": "hr", "hardbreak": "br"}


def _nodes(parent: SyntaxTreeNode, down: int) -> Iterator[Node]:
    """Yield the children of a syntax node as nodes, with headings moved down by some levels."""
    for node in parent.children:
        if node.type == "text":
            yield printable(node.content)
        elif node.type == "softbreak":
            yield "\n"
        elif node.type in _PLAIN:
            yield [_PLAIN[node.type], "", [printable(node.content)] if node.content else []]
        elif node.type == "image":
            yield _link(str(node.attrs.get("src", "")), [printable(node.content or "image")])
        elif node.type == "link":
            yield _link(str(node.attrs.get("href", "")), _joined(_nodes(node, down)))
        elif node.type == "inline" or (node.type == "paragraph" and node.hidden):
            yield from _nodes(node, down)
        else:
            tag = {"s": "del"}.get(node.tag, node.tag)
            level = f"h{min(6, int(tag[1]) + down)}" if node.type == "heading" else tag
            yield [level if level in TAGS else "p", "", _joined(_nodes(node, down))]


def _link(address: str, inside: list[Node]) -> Node:
    """Return a link. A relative address would lead to a page of Jupyter, so only its text is returned."""
    return ["a", address, inside] if _ABSOLUTE.fullmatch(address) else ["span", "", inside]


def _joined(found: Iterable[Node]) -> list[Node]:
    """Join adjacent texts and replace spans by their content."""
    flat: list[Node] = []
    for node in found:
        for one in node[2] if isinstance(node, list) and node[0] == "span" else [node]:
            if one == "":
                continue
            if isinstance(one, str) and flat and isinstance(flat[-1], str):
                flat[-1] += one
            else:
                flat.append(one)
    return flat


def _html(node: Node) -> str:
    if isinstance(node, str):
        return escape(node, quote=False)
    tag, address, children = node
    inside = "".join(map(_html, children))
    if tag in ("hr", "br"):
        return f"<{tag}>"
    if tag == "a":
        return f'<a href="{escape(address)}" rel="nofollow noopener noreferrer">{inside}</a>'
    if tag == "table":
        return f'<div style="overflow-x:auto"><table>{inside}</table></div>'
    return f'<pre style="overflow-x:auto">{inside}</pre>' if tag == "pre" else f"<{tag}>{inside}</{tag}>"


# -- plain text


def _blocks(parent: SyntaxTreeNode, columns: int) -> Iterator[str]:
    """Yield the blocks of a card as text, wrapped at a width; code and tables are not wrapped."""
    columns = max(columns, 20)  # nested lists and quotes would leave no space for text
    for node in parent.children:
        if node.type == "heading":
            words = _words(node)
            yield f"{words}\n{'─' * min(width(words), columns)}" if node.tag in ("h1", "h2") else words
        elif node.type in ("bullet_list", "ordered_list"):
            yield _listing(node, columns)
        elif node.type == "blockquote":
            yield textwrap.indent("\n\n".join(_blocks(node, columns - 2)), "> ", lambda _: True)
        elif node.type in ("fence", "code_block"):
            yield textwrap.indent(node.content.rstrip(), "    ")
        elif node.type == "hr":
            yield "─" * min(columns, 40)
        elif node.type == "table":
            yield _table(node)
        else:
            yield _filled(_words(node), columns)


def _listing(node: SyntaxTreeNode, columns: int) -> str:
    """Return a list as text; the items of a tight list have no blank lines between them."""
    first = int(node.attrs.get("start", 1))
    tight = all(child.hidden for item in node.children for child in item.children if child.type == "paragraph")
    items = []
    for number, item in enumerate(node.children, first):
        mark = f"{number}. " if node.type == "ordered_list" else "- "
        inside = ("\n" if tight else "\n\n").join(_blocks(item, columns - len(mark)))
        items.append(mark + textwrap.indent(inside, " " * len(mark)).lstrip(" "))
    return ("\n" if tight else "\n\n").join(items)


def _table(node: SyntaxTreeNode) -> str:
    cells = [cell for cell in node.walk() if cell.type in ("th", "td")]
    wide = max(1, sum(cell.type == "th" for cell in cells))
    right = ["right" in str(cell.attrs.get("style", "")) for cell in cells[:wide]]
    words = [clean(_words(cell)) for cell in cells]
    rows = [words[at : at + wide] for at in range(0, len(words), wide)]
    widths = [max(map(width, column)) for column in zip(*rows, strict=False)]
    lines = []
    for row in rows:
        padded = (pad(w, n, right=r) for w, n, r in zip(row, widths, right, strict=False))
        lines.append("  ".join(padded).rstrip())
    return "\n".join([lines[0], "  ".join("─" * n for n in widths), *lines[1:]])


def _words(parent: SyntaxTreeNode) -> str:
    """Return the text of a block without markup; the address of a link follows its text."""
    parts = []
    for node in parent.children:
        if node.type == "softbreak":
            parts.append(" ")
        elif node.type == "hardbreak":
            parts.append("\n")
        elif node.type in ("link", "image"):
            words, key = (_words(node), "href") if node.type == "link" else (f"[image: {node.content}]", "src")
            address = str(node.attrs.get(key, ""))
            parts.append(words if not address or words == address else f"{words} ({address})")
        else:
            parts.append(node.content if not node.children else _words(node))
    return "".join(parts)


def _filled(words: str, columns: int) -> str:
    lines: Sequence[str] = words.split("\n")
    return "\n".join(textwrap.fill(line, columns, break_on_hyphens=False, break_long_words=False) for line in lines)


# -- the parser


@lru_cache(1)
def _markdown() -> MarkdownIt:
    """Return the parser, which escapes HTML and rejects `javascript:` and similar addresses."""
    from markdown_it import MarkdownIt

    made = MarkdownIt("js-default", {"html": False, "linkify": False})
    made.add_render_rule("heading_open", _head)
    made.add_render_rule("heading_close", _head)
    made.add_render_rule("link_open", _opened)
    made.add_render_rule("image", _picture)
    made.add_render_rule("table_open", lambda *_: '<div class="scroll" tabindex="0"><table>')
    made.add_render_rule("table_close", lambda *_: "</table></div>\n")
    return made


# Render rules have the signature of markdown-it-py: renderer, tokens, index, options and environment.
def _head(_: Any, tokens: Any, at: int, __: Any, env: Any) -> str:
    level = min(6, int(tokens[at].tag[1]) + env["down"])
    return f"<h{level}>" if tokens[at].nesting == 1 else f"</h{level}>\n"


def _opened(self: Any, tokens: Any, at: int, options: Any, env: Any) -> str:
    tokens[at].attrSet("rel", "nofollow noopener noreferrer")
    return str(self.renderToken(tokens, at, options, env))


def _picture(_: Any, tokens: Any, at: int, *__: Any) -> str:
    where, words = str(tokens[at].attrGet("src") or ""), tokens[at].content or "picture"
    return f'<a href="{escape(where)}" rel="nofollow noopener noreferrer">{escape(words)}</a>'
