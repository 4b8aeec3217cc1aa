"""Islands: parts of a page that a notebook widget makes interactive. Without scripts, a static form is shown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import msgspec

STATIC = Path(__file__).parent.parent / "static"
# The widgets use only this form of import.
_IMPORT = re.compile(r'^import .*? from "([./\w]+)";', re.MULTILINE)


def island(root: str, view: str, data: Mapping[str, Any], still: str, **urls: str) -> str:
    r"""Return an island as HTML.

    The island lists all modules of the view as preloads, so that the browser loads them in parallel. The static form is
    in a `<noscript>`, which costs nothing where scripts run. If the view cannot be drawn, a script shows the static
    form.

    Parameters
    ----------
    root : str
        The relative path to the first page: `"../"` for each level of the page.
    view : str
        A module of `static/widgets/`.
    data : dict
        The data of the view, as the widget in a notebook gets it.
    still : str
        HTML that browsers without scripts show.
    urls : str
        URLs for further data, by the name of the data.

    Examples
    --------
    >>> print(island("", "strip", {"title": "</script>"}, "still", histograms="../h"))
    <link rel="modulepreload" href="static/console/islands.js">
    <link rel="modulepreload" href="static/widgets/strip.js">
    <link rel="modulepreload" href="static/widgets/dom.js">
    <div class="island" data-view="strip" data-histograms="../h">
    <script type="application/json">{"title":"\u003c/script>"}</script>
    <noscript><div class="still">still</div></noscript></div>
    """
    needed = ["console/islands.js", *(f"widgets/{name}" for name in modules(f"{view}.js"))]
    early = "".join(f'<link rel="modulepreload" href="{root}static/{name}">\n' for name in needed)
    told = msgspec.json.encode(data).decode().replace("<", "\\u003c")  # `</script>` in the data must not close the tag
    places = "".join(f' data-{name}="{escape(url)}"' for name, url in urls.items() if url)
    script = f'<script type="application/json">{told}</script>'
    static = f'<noscript><div class="still">{still}</div></noscript>'
    return f'{early}<div class="island" data-view="{view}"{places}>\n{script}\n{static}</div>'


def later(view: str, still: str, **urls: str) -> str:
    """Return an island that loads nothing before its `<details>` is opened.

    Parameters
    ----------
    view, urls
        As for `island`. `urls` has the URL of the data, by the name of the view.
    still : str
        HTML that browsers without scripts show.

    Examples
    --------
    >>> later("curves", "needs scripts", curves="../c")
    '<div data-later data-view="curves" data-curves="../c"><noscript>needs scripts</noscript></div>'
    """
    places = "".join(f' data-{name}="{escape(url)}"' for name, url in urls.items() if url)
    return f'<div data-later data-view="{view}"{places}><noscript>{still}</noscript></div>'


@cache
def modules(first: str) -> tuple[str, ...]:
    """Return the module of `static/widgets/` and all modules that it imports, itself first.

    Examples
    --------
    >>> modules("strip.js")
    ('strip.js', 'dom.js')
    """
    return tuple(dict.fromkeys(_modules(first)))


def _modules(name: str) -> Iterator[str]:
    yield name
    for each in _IMPORT.findall((STATIC / "widgets" / name).read_text("utf-8")):
        yield from modules(each.removeprefix("./"))
