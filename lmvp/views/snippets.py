"""Generation of the code that pulls a version, with the arguments that its format needs."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from lmvp import hints

if TYPE_CHECKING:
    from lmvp.core.schemas import Version

_NAME = re.compile(r"[A-Za-z_]\w{0,99}(\.[A-Za-z_]\w{0,99}){0,20}", re.ASCII)
_NAMES = 50
"""Maximum number of classes in a snippet. Users should read the list before they run the code."""


def pull_code(version: Version, form: str = hints.PYTHON, *, name: str = "") -> str:
    """Return the code that pulls a version.

    The arguments are in the environment of the version. The push records them there, because only the format of the
    object can determine the classes that need `trust=`.

    Parameters
    ----------
    version : Version
        The version to pull.
    form : str
        The form of the code: `hints.PYTHON`, `hints.MAGIC` or `hints.SHELL`.
    name : str, default ""
        The reference in the code. Empty: the reference of the version.

    Examples
    --------
    >>> from datetime import datetime
    >>> from lmvp.core.schemas import Version
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
    # Only valid identifiers: the text comes from the client that pushed the version, and users paste and run the code.
    names = [one for one in needs.get("trust", ()) if _NAME.fullmatch(str(one))][:_NAMES]
    if form == hints.MAGIC and all("." in one for one in names):
        return " ".join([f"model = %lmvp pull {place}", *(f"--trust {one}" for one in names)])
    # A name without a module is not an import path, so the object itself is passed instead of a string.
    given = ", ".join(json.dumps(one) if "." in one else one for one in names)
    return f'model = lmvp.pull("{place}", trust=[{given}])' if names else f'model = lmvp.pull("{place}")'


def comment(version: Version) -> str:
    """Return the comment to show above a snippet with `into=`; empty for other snippets."""
    return "# build the model first; the pull fills it" if _needs(version).get("into") else ""


def _needs(version: Version) -> dict[str, Any]:
    """Return the arguments that a pull needs; empty if the stored value, which can be any JSON, is invalid."""
    found = version.environment.get("pull")
    if not isinstance(found, dict) or not isinstance(found.get("trust", []), list):
        return {"to": True} if version.format == "files" and found is None else {}
    return found
