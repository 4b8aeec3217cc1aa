"""Model cards: Markdown of other people, as text, as static HTML and as the tree that the widget draws."""

import re
import time
from datetime import datetime, timezone
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support import sample_history as sample

import lmvp_server
from lmvp.core.schemas import Model
from lmvp.views.model_card import (
    LETTERS,
    TAGS,
    card,
    card_html,
    card_text,
    is_cheap,
    nodes,
)
from lmvp.views.version import Showing, showing_data

CARD = """# Birds

Hears **240 species** in ten seconds of *sound*,
see [the paper](https://example.org/p?a=1&b=2).

## Use

1. 32 kHz, `mono`
2. a list
   - inside

> Not for bats.

    x = 1 < 2

| set   | seconds |
| ----- | ------: |
| train | 410,000 |
| test  |  52,000 |

![spectrum](https://example.org/s.png)
"""
TEXT = """Birds
─────

Hears 240 species in ten seconds of sound, see the paper
(https://example.org/p?a=1&b=2).

Use
───

1. 32 kHz, mono
2. a list
   - inside

> Not for bats.

    x = 1 < 2

set    seconds
─────  ───────
train  410,000
test    52,000

[image: spectrum] (https://example.org/s.png)"""

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[a](javascript:alert(1))",
    "[a](JaVaScRiPt&colon;alert(1))",
    "[a](data:text/html;base64,PHNjcmlwdD4=)",
    "[a](vbscript:x)",
    "[a](//evil.example/x)",
    "[a](/hub/logout)",
    "[a](../api/contents)",
    "[a](#main)",
    "![a](javascript:alert(1))",
    '[a](https://example.org "x" onmouseover=alert(1)")',
    "[a](<https://example.org/ onmouseover=alert(1)>)",
    '<https://example.org/"onmouseover=alert(1)>',
    "```html onload=alert(1)\n<b>\n```",
    "| a |\n|--|\n| <svg onload=alert(1)> |",
    "\x1b[31m red \u202e evil",
]


def shown(text):
    at = datetime(2026, 11, 26, tzinfo=timezone.utc)
    model = Model(id="m", project="birdsong", name="tagger", created_at=at, description=text)
    return Showing(sample.versions()[0], model, (), ())


class Elements(HTMLParser):
    """The elements of a text of HTML, each with its attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def test_card_is_readable_text():
    assert card_text(CARD, 60) == TEXT
    assert TEXT.splitlines()[0] in repr(shown(CARD))
    assert "**" not in repr(shown(CARD))


def test_card_is_formatted_in_static_html():
    html = shown(CARD)._repr_html_()
    parts = ["<h4>Birds</h4>", "<h5>Use</h5>", "<strong>240 species</strong>", "<em>sound</em>", "<code>mono</code>",
             "<td>410,000</td>", ">x = 1 &lt; 2\n</pre>", "<blockquote><p>Not for bats.</p></blockquote>",
             ' rel="nofollow noopener noreferrer">the paper<', 'href="https://example.org/p?a=1&amp;b=2"']  # fmt: skip
    for part in parts:
        assert part in html
    assert "<img" not in card_html(CARD), "nothing is fetched"
    assert "example.org/s.png" in card_html(CARD)


def test_notebook_and_console_format_a_card_alike():
    def words(html):
        return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html)).strip()

    assert words(card_html(CARD)) == words(card(CARD))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_card_makes_no_element_of_its_own(text):
    html = card_html(text)
    for tag, attributes in Elements(html).found:
        assert tag in TAGS | {"div"}
        assert set(attributes) <= {"href", "rel", "style"}
        assert attributes.get("href", "https://").startswith(("https://", "mailto:"))
        assert attributes.get("style", "overflow-x:auto") == "overflow-x:auto"
    for form in (html, card_text(text), repr(shown(text))):
        assert "\x1b" not in form
        assert "\u202e" not in form


@pytest.mark.parametrize("text", [CARD, *HOSTILE])
def test_tree_of_a_card_has_allowed_tags_alone(text):
    def check(node):
        if isinstance(node, str):
            return
        tag, address, children = node
        assert tag in TAGS
        assert not address or (tag == "a" and re.match("https://|mailto:", address))
        for child in children:
            check(child)

    for node in nodes(text):
        check(node)
    assert showing_data(shown(text))["card"] == nodes(text)
    assert showing_data(shown(text), card=False)["card"] == []


def test_widget_and_python_allow_the_same_tags():
    source = (Path(lmvp_server.__file__).parent / "static/widgets/model.js").read_text("utf-8")
    assert set(re.search(r'CARD_TAGS = new Set\("([^"]+)"', source)[1].split()) == TAGS


@pytest.mark.parametrize(
    "text",
    ["[" * LETTERS, "![" * 9000, "<!--" * 5000, f"{'|a' * 100}|\n{'|-' * 100}|\n" + "|x\n" * 6000, "a " * LETTERS],
    ids=["brackets", "images", "comments", "cells", "letters"],
)  # fmt: skip
def test_card_beyond_the_limits_is_shown_as_it_was_written(text):
    began = time.process_time()
    assert not is_cheap(text)
    assert nodes(text) == [["pre", "", [text]]]
    assert card_text(text) == text.strip()
    assert time.process_time() - began < 1


def test_empty_card_shows_nothing():
    assert (nodes(" \n"), card_html(""), card_text("")) == ([], "", "")
    assert "<div></div>" not in shown("")._repr_html_()
