"""Code that pulls a version, with the arguments that its format needs."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from lmvp import hints

if TYPE_CHECKING:
    from lmvp.records import Version

_NAME = re.compile(r"[A-Za-z_]\w{0,99}(\.[A-Za-z_]\w{0,99}){0,20}", re.ASCII)
_NAMES = 50
"""Classes in a snippet, at most: nobody reads more of them before trusting them."""


def pull_code(version: Version, form: str = hints.PYTHON, *, name: str = "") -> str:
    """Return the code that pulls a version.

    The push has recorded the arguments in the environment of the version, because only the framework of the object
    knows which classes need `trust=`.

    Parameters
    ----------
    version : Version
    form : str
        `hints.PYTHON`, `hints.MAGIC` or `hints.SHELL`.
    name : str
        The reference to write. Default: that of the version.

    Examples
    --------
    >>> from datetime import datetime
    >>> from lmvp.records import Version
    >>> version = Version(project="digits", model="mlp", number=1, digest="", content="", format="torch.module",
    ...                   created_at=datetime(2026, 1, 1), environment={"pull": {"trust": ["net.CNN"]}})
    >>> print(pull_code(version))
    model = lmvp.pull("digits/mlp@v1", trust=["net.CNN"])
    >>> print(pull_code(version, hints.MAGIC))
    model = %lmvp pull digits/mlp@v1 --trust net.CNN
    """
    place = name or version.reference
    if form == hints.SHELL:
        return f"lmvp pull {place} --to {version.model}/"
    needs = _needs(version)
    if needs.get("to"):
        magic, python = f"paths = %lmvp pull {place} --to {version.model}/", f'to="{version.model}/"'
        return magic if form == hints.MAGIC else f'paths = lmvp.pull("{place}", {python})'
    if needs.get("into"):
        return f"%lmvp pull {place} --into model" if form == hints.MAGIC else f'lmvp.pull("{place}", into=model)'
    names = [one for one in needs.get("trust", ()) if _NAME.fullmatch(str(one))][:_NAMES]
    if form == hints.MAGIC and all("." in one for one in names):
        return " ".join([f"model = %lmvp pull {place}", *(f"--trust {one}" for one in names)])
    # a function of which only the last part is known is given itself
    given = ", ".join(json.dumps(one) if "." in one else one for one in names)
    return f'model = lmvp.pull("{place}", trust=[{given}])' if names else f'model = lmvp.pull("{place}")'


def comment(version: Version) -> str:
    """Return the comment that a snippet with `into=` needs above it; else an empty text."""
    return "# build the model first; the pull fills it" if _needs(version).get("into") else ""


def _needs(version: Version) -> dict[str, Any]:
    """Return the arguments that a pull needs. A client may have stored any JSON there."""
    found = version.environment.get("pull")
    if not isinstance(found, dict) or not isinstance(found.get("trust", []), list):
        return {"to": True} if version.format == "files" and found is None else {}
    return found
