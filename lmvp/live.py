"""Live views in marimo, which asks an object itself for its view; see `_display_` in the docs of marimo."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class MarimoDisplay:
    """A result that marimo shows as a live view, and Jupyter after `%load_ext lmvp_jupyter`."""

    __slots__ = ()

    def _display_(self) -> Any:
        """Return the view for marimo; nothing else calls this."""
        # By name, because this package does not depend on the notebook layer.
        return import_module("lmvp_jupyter.marimo_display").view(self)


def watch_in_marimo(run: Any) -> None:
    """Draw the curves of a run that starts in a cell of marimo, below that cell, while it is running."""
    import_module("lmvp_jupyter.marimo_display").watch(run)
