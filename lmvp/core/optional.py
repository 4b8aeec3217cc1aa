"""Imports of optional dependencies."""

from __future__ import annotations

from typing import Any

from lmvp.errors import MissingDependency


def pandas_module() -> Any:
    """Import pandas; raise `MissingDependency` if it is not installed."""
    try:
        import pandas
    except ImportError:
        raise MissingDependency("pandas is not installed", hint="pip install pandas") from None
    return pandas
