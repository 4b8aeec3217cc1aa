"""Base class of results that marimo shows as live views. marimo calls the method `_display_` of an object."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class MarimoDisplay:
    """A result that marimo shows as a live view, and Jupyter after `%load_ext lmvp_jupyter`."""

    __slots__ = ()

    def _display_(self) -> Any:
        """Return the view for marimo, which is the only caller."""
        # Imported by name, because `lmvp` must not depend on `lmvp_jupyter`.
        return import_module("lmvp_jupyter.marimo_display").view(self)


def watch_in_marimo(run: Any) -> None:
    """Draw the curves of a run below the marimo cell that started it, while the run is active."""
    import_module("lmvp_jupyter.marimo_display").watch(run)
