"""Repeated parts of pages. A template inserts one with `{% module Field("name", "Name") %}`.

Each class has a template in `templates/parts/`, which also gets the fields that every page has, for example `root`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from typing import Any

from tornado.web import UIModule

from lmvp_server.web.activity import Entry

_MARKED = re.compile(r'(?P<cm>^#.*$)|(?P<st>"[^"\n]*")', re.MULTILINE)
_LITERAL = {"spellcheck": "false", "autocapitalize": "none"}
"""Attributes of fields whose text browsers must not correct: names, filters, URLs."""


class Breadcrumb(UIModule):
    """The path to a page: links as pairs of label and URL, and the label of the page itself."""

    def render(self, current: str, *links: tuple[str, str]) -> str:
        """Return the navigation."""
        return self.render_string("parts/breadcrumb.html", current=current, links=links).decode()


class HiddenFields(UIModule):
    """The CSRF token of a form, and more hidden fields."""

    def render(self, **fields: str) -> str:
        """Return the fields."""
        return self.render_string("parts/hidden_fields.html", fields=fields).decode()


class Field(UIModule):
    """A field of a form with its label and help: a text, several lines, or a choice."""

    def render(
        self,
        name: str,
        label: str,
        *,
        id: str = "",  # noqa: A002 - the name of the attribute
        value: str = "",
        help: str = "",  # noqa: A002 - the name of the class in the stylesheet
        type: str = "text",  # noqa: A002 - the name of the attribute
        css: str = "",
        literal: bool = False,
        choices: Iterable[tuple[str, str]] | None = None,
        **attributes: str | bool,
    ) -> str:
        """Return the field.

        Parameters
        ----------
        name, label, value
            As in HTML.
        id : str
            The id, which is unique on a page. By default, it is the name.
        help : str
            A sentence below the field; `` `code` `` in backticks is shown as code.
        type : str
            As for `<input>`, or `textarea`.
        css : str
            A class of the whole field.
        literal : bool
            Whether browsers must not correct the text.
        choices : iterable of tuple of str
            The values of a choice with their labels.
        attributes
            Further attributes of the input, with `_` for `-`, and `class_` for `class`. True stands for an attribute
            without a value, False for none.
        """
        id = id or name  # noqa: A001 - the name of the attribute
        found = {**(_LITERAL if literal else {}), **({"aria_describedby": f"{id}-help"} if help else {}), **attributes}
        return self.render_string(
            "parts/field.html",
            id=id,
            name=name,
            label=label,
            value=value,
            help=with_code(help),
            type=type,
            css=css,
            choices=None if choices is None else list(choices),
            attributes=html_attributes(found),
        ).decode()


class ButtonForm(UIModule):
    """A form that consists of a button. Screen readers hear the object, which `about` names, after the label."""

    def render(self, action: str, label: str, *, do: str = "", css: str = "", about: str = "", **fields: str) -> str:
        """Return the form."""
        button = {"action": action, "label": label, "do": do, "css": css, "about": about, "fields": fields}
        return self.render_string("parts/button_form.html", **button).decode()


class RemoveForm(UIModule):
    """A section that opens to the question whether an object is removed, with its button."""

    def render(self, action: str, title: str, sentence: str, label: str) -> str:
        """Return the section."""
        parts = {"action": action, "title": title, "sentence": sentence, "label": label}
        return self.render_string("parts/remove_form.html", **parts).decode()


class CodeBlock(UIModule):
    """Code with a button that copies it. `html` is code with highlighting, which is trusted, in place of `text`."""

    def render(self, text: str = "", *, html: str = "", css: str = "") -> str:
        """Return the block."""
        return self.render_string("parts/code_block.html", code=html or highlighted(text), css=css).decode()


class Facts(UIModule):
    """A list of names and values, for example metrics."""

    def render(self, pairs: Iterable[tuple[str, str]], *, css: str = "mono") -> str:
        """Return the list."""
        return self.render_string("parts/facts.html", pairs=list(pairs), css=css).decode()


class Feed(UIModule):
    """Events with their times."""

    def render(self, lines: Iterable[Entry]) -> str:
        """Return the list."""
        return self.render_string("parts/feed.html", lines=list(lines)).decode()


class Pager(UIModule):
    """Links to other pages of a table. A link without a URL is omitted."""

    def render(self, *links: tuple[str, str], note: str = "") -> str:
        """Return the links and the note."""
        known = [link for link in links if link[1]]
        return self.render_string("parts/pager.html", links=known, note=note).decode() if known else ""


class Empty(UIModule):
    """A sentence in place of an empty table, with code that adds the first row."""

    def render(self, sentence: str, code: str = "") -> str:
        """Return the sentence."""
        return self.render_string("parts/empty.html", sentence=with_code(sentence), code=code).decode()


UI_MODULES: dict[str, type[UIModule]] = {
    module.__name__: module
    for module in (Breadcrumb, HiddenFields, Field, ButtonForm, RemoveForm, CodeBlock, Facts, Feed, Pager, Empty)
}
"""The modules by the name that templates use."""


def highlighted(text: str) -> str:
    r"""Escape a few lines of code; mark their comments and strings. It needs no lexer, unlike `code.highlighted`.

    Examples
    --------
    >>> highlighted('# <shell>\nlmvp push digits/mlp -m "first try"')
    '<span class="cm"># &lt;shell&gt;</span>\nlmvp push digits/mlp -m <span class="st">"first try"</span>'
    """
    return _MARKED.sub(lambda found: f'<span class="{found.lastgroup}">{found[0]}</span>', escape(text, quote=False))


def with_code(text: str) -> str:
    """Escape a sentence; show parts in backticks as code.

    Examples
    --------
    >>> with_code("a group such as `@vision`")
    'a group such as <code>@vision</code>'
    """
    plain, *rest = escape(text, quote=False).split("`")
    return plain + "".join(f"<code>{part}</code>" if at % 2 == 0 else part for at, part in enumerate(rest))


def html_attributes(attributes: dict[str, Any]) -> str:
    """Return attributes as HTML.

    Examples
    --------
    >>> html_attributes({"required": True, "disabled": False, "aria_label": "a & b"})
    ' required aria-label="a &amp; b"'
    """
    found = (
        (name.rstrip("_").replace("_", "-"), value) for name, value in attributes.items() if value not in (False, "")
    )
    return "".join(f" {name}" if value is True else f' {name}="{escape(str(value))}"' for name, value in found)
