"""What all live widgets share: a static form that the page lays the live view over, and answers to the view.

A widget sends its data once, as JSON. What a browser sends back arrives when the kernel is idle: a running cell does
not hear it.
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
from lmvp.views.diff import SpreadOf
from lmvp_jupyter.display import mode

VIEW = "application/vnd.jupyter.widget-view+json"


class LiveWidget(anywidget.AnyWidget):  # type: ignore[misc, unused-ignore]
    """A widget whose output is its static form, which the page lays the live view over: see `mount.js`.

    So a notebook that is saved, at whatever moment, holds the static form alone, and shows it when it is opened
    without a kernel, where the output of any other widget is "model not found".

    Attributes
    ----------
    place : str
        The class of the element that the live view covers.
    """

    data = traitlets.Dict().tag(sync=True)
    place = traitlets.Unicode().tag(sync=True)

    at_rest: Callable[[], object] | None = None
    """Puts the static form in its place, where an output shows it."""

    @traitlets.default("place")
    def _new_place(self) -> str:
        return f"lmvp-live-{uuid4().hex}"

    @property
    def is_open(self) -> bool:
        """Whether the kernel can still send to the view; marimo closes the comm of a cell that runs again itself."""
        return self.comm is not None and not getattr(self.comm, "_closed", False)

    def static(self) -> dict[str, str]:
        """Return the forms that need no kernel, by MIME type; each widget has its own."""
        raise NotImplementedError  # abstract: the metaclass of traitlets leaves no room for that of abc

    def forms(self) -> dict[str, Any]:
        """Return what an output holds, by MIME type, as `LMVP_DISPLAY` wants it; a closed widget is static."""
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
    """Answer a view that asks how the numbers of tensors on show are spread; if nobody can tell, it does without."""
    if not isinstance(message, dict) or message.get("kind") != "histograms" or spread is None:
        return
    with suppress(LmvpError):
        found = spread([str(name) for name in message.get("tensors", ())])
        widget.send({"kind": "histograms", **msgspec.to_builtins(found)})
