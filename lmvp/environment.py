"""What a version was made with: Python, platform, host, and the versions of the frameworks that are loaded."""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any

FRAMEWORKS = ("torch", "numpy", "sklearn", "skops", "tensorflow", "keras", "jax", "onnx", "transformers", "lightning")


def environment() -> dict[str, Any]:
    """Return the environment of this process, as plain JSON.

    Examples
    --------
    >>> sorted(environment())
    ['host', 'packages', 'platform', 'python']
    """
    return {**_machine(), "packages": _packages()}


@lru_cache(maxsize=1)
def _machine() -> dict[str, str]:
    import platform

    return {"python": platform.python_version(), "platform": platform.platform(terse=True), "host": platform.node()}


def _packages() -> dict[str, str]:
    loaded = {name: getattr(sys.modules.get(name), "__version__", None) for name in FRAMEWORKS}
    return {name: str(version) for name, version in loaded.items() if version}


@lru_cache(maxsize=1)
def user() -> str:
    """Return the name of the user of this process."""
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in some containers
        return ""
