"""Bundles of the JavaScript modules in `lmvp_server/static/widgets`, for notebooks.

A page of the console loads the files as ES modules. A notebook cannot import them, so a bundle contains each imported
module once, without `export`, before the module of the view. Therefore top-level names must be unique in all modules.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

# The modules have no build step; these expressions cover exactly the forms that they use.
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./([a-z_]+\.js)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async |const |function |class ))|^export default .*\n", re.MULTILINE)


@cache
def static(*path: str) -> str:
    """Return the text of a file in the server's `static` folder."""
    return files("lmvp_server").joinpath("static", *path).read_text("utf-8")


@cache
def module(name: str, *, chart: bool = False) -> str:
    """Return the bundle of a view.

    Parameters
    ----------
    name : str
        The file name of the module, for example `history.js`.
    chart : bool
        Whether to include uPlot, which draws charts. False by default.

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
    """Add a module to `found`, after those that it imports."""
    text = static("widgets", name)
    for other in _IMPORT.findall(text):
        if other not in found:
            _gather(other, found)
    found[name] = _IMPORT.sub("", text)


@cache
def styles(*, chart: bool = False) -> str:
    """Return the style sheet. The rules of uPlot are nested, so that they do not affect the rest of the notebook."""
    theirs = f".lmvp {{\n{static('vendor', 'uPlot-1.6.32.min.css')}\n}}\n" if chart else ""
    return theirs + static("tokens.css") + static("look.css")
