"""`LiveWidget`: the base class of the widgets, with a static form over which the page lays the live view.

A widget sends its data once, as JSON. Messages from the browser arrive when the kernel is idle, not during a cell.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import uuid4

import anywidget
import msgspec
import traitlets

from lmvp.errors import LmvpError
from lmvp.views.changes import SpreadOf
from lmvp_jupyter.mode import mode

VIEW = "application/vnd.jupyter.widget-view+json"
"""The MIME type of a widget in an output."""


class LiveWidget(anywidget.AnyWidget):  # type: ignore[misc, unused-ignore]
    """A widget whose output is its static form, over which the page lays the live view; see `mount.js`.

    A saved notebook therefore contains the static form only, and shows it without a kernel. The output of other widgets
    is "model not found" then.

    Attributes
    ----------
    data : dict
        The data that the view draws, as JSON.
    place : str
        The CSS class of the element over which the live view is laid.
    """

    data = traitlets.Dict().tag(sync=True)
    place = traitlets.Unicode().tag(sync=True)

    at_rest: Callable[[], object] | None = None
    """Replaces the output of the widget by its static form; None if the widget is not in an output."""

    @traitlets.default("place")
    def _new_place(self) -> str:
        return f"lmvp-live-{uuid4().hex}"

    @property
    def is_open(self) -> bool:
        """Whether the kernel can send messages to the view."""
        # marimo closes the comm of a cell that runs again, but does not remove it from the widget.
        return self.comm is not None and not getattr(self.comm, "_closed", False)

    def static(self) -> dict[str, str]:
        """Return the forms that need no kernel, by MIME type. Each subclass implements this.

        Returns
        -------
        dict of str
            At least `text/plain` and `text/html`.
        """
        raise NotImplementedError  # not an `abstractmethod`: the metaclasses of traitlets and abc conflict

    def forms(self) -> dict[str, Any]:
        """Return the content of an output by MIME type, as `LMVP_DISPLAY` selects it; a closed widget is static."""
        static, chosen = self.static(), mode()
        if chosen == "text":
            return {"text/plain": static["text/plain"]}
        if chosen == "static" or not self.is_open:
            return dict(static)
        if chosen == "view":
            return {**static, VIEW: {"version_major": 2, "version_minor": 0, "model_id": self.model_id}}
        return {**static, "text/html": f'<div class="{self.place}">{static["text/html"]}</div>'}

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return self.forms(), {}


def tell_spread(widget: LiveWidget, spread: SpreadOf | None, message: Any) -> None:
    """Send the histograms that a view asks for. If they cannot be fetched, the view shows no histograms.

    Parameters
    ----------
    widget : LiveWidget
    spread : callable or None
        Fetches the histograms of tensors by name; None if no server is available for it.
    message : object
        The message of the view; other messages are ignored.
    """
    if not isinstance(message, dict) or message.get("kind") != "histograms" or spread is None:
        return
    with suppress(LmvpError):
        found = spread([str(name) for name in message.get("tensors", ())])
        widget.send({"kind": "histograms", **msgspec.to_builtins(found)})
