"""The environment in which a version was created: Python, platform, host, and the versions of loaded frameworks."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

FRAMEWORKS = ("torch", "numpy", "sklearn", "skops", "tensorflow", "keras", "jax", "onnx", "transformers", "lightning")
"""Modules whose versions are recorded. Only loaded ones are recorded: an import of a framework takes seconds."""


def environment() -> dict[str, Any]:
    """Return the environment of this process as JSON values.

    Examples
    --------
    >>> sorted(environment())
    ['host', 'packages', 'platform', 'python']
    """
    return {**_machine(), "packages": _packages()}


def commit_of(environment: Mapping[str, Any]) -> str:
    """Return the git commit in an environment for display: 10 digits, and whether the work tree has changes.

    The result is empty if the environment has no valid commit, because clients can store any JSON in it.

    Examples
    --------
    >>> commit_of({"git": {"commit": "0123456789abcdef", "dirty": True}}), commit_of({"git": "main"})
    ('0123456789, changed', '')
    """
    git = environment.get("git")
    if not isinstance(git, dict) or not isinstance(git.get("commit"), str) or not git["commit"]:
        return ""
    return f"{git['commit'][:10]}{', changed' if git.get('dirty') else ''}"


def packages_of(environment: Mapping[str, Any]) -> dict[str, Any]:
    """Return the versions of the packages in an environment by name; empty if the field is not a mapping."""
    packages = environment.get("packages")
    return packages if isinstance(packages, dict) else {}


@lru_cache(maxsize=1)
def _machine() -> dict[str, str]:
    import platform  # imported here, because `import lmvp` must stay fast

    return {"python": platform.python_version(), "platform": platform.platform(terse=True), "host": platform.node()}


def _packages() -> dict[str, str]:
    loaded = {name: getattr(sys.modules.get(name), "__version__", None) for name in FRAMEWORKS}
    return {name: str(version) for name, version in loaded.items() if version}


@lru_cache(maxsize=1)
def user() -> str:
    """Return the name of the user of this process; empty if the user has no name."""
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without an entry in passwd, as in some containers
        return ""
