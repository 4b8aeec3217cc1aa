"""Modules of `lmvp_server/static/widgets` as a notebook wants them: one text each, since it can import nothing.

A page of the console loads the very files, as ES modules. Here, what a module imports is put in front of it, once, and
loses the word `export`; so names at the top of a module are unique among all of them.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_IMPORT = re.compile(r'^import \{[^}]*\} from "\./([a-z_]+\.js)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async |const |function |class ))|^export default .*\n", re.MULTILINE)


@cache
def static(*path: str) -> str:
    """Return a file of the server's `static` folder."""
    return files("lmvp_server").joinpath("static", *path).read_text("utf-8")


@cache
def module(name: str, *, chart: bool = False) -> str:
    """Return a view as one module; one with a chart has uPlot in front.

    Examples
    --------
    >>> "import {" in module("history.js"), module("history.js").count("function make(")
    (False, 1)
    """
    order: dict[str, str] = {}
    _gather(name, order)
    view = order.pop(name)
    parts = [_EXPORT.sub("", text) for text in order.values()]
    return "\n".join([*([static("vendor", "uPlot-1.6.32.iife.min.js")] if chart else []), *parts, view])


def _gather(name: str, found: dict[str, str]) -> None:
    """Add a module behind those that it imports."""
    text = static("widgets", name)
    for other in _IMPORT.findall(text):
        if other not in found:
            _gather(other, found)
    found[name] = _IMPORT.sub("", text)


@cache
def styles(*, chart: bool = False) -> str:
    """Return the look; uPlot's own rules are nested, so that they reach nothing outside."""
    theirs = f".lmvp {{\n{static('vendor', 'uPlot-1.6.32.min.css')}\n}}\n" if chart else ""
    return theirs + static("tokens.css") + static("look.css")
