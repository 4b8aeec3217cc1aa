"""Display of results in marimo: the widgets of Jupyter, without an extension to load.

marimo displays widgets directly, so its outputs do not need the static form below the live view. `LMVP_DISPLAY` applies
here, too; `widget` and `view` both select the live view.
"""

from __future__ import annotations

from typing import Any

from lmvp.views.history import History
from lmvp_jupyter.display import VIEWS
from lmvp_jupyter.mode import mode

_REPEAT = 2.0
"""Seconds after which all lines of a live plot are sent again; see `LiveRun`."""


def view(result: Any) -> Any:
    """Return a result as marimo displays it: live view, HTML or text, as `LMVP_DISPLAY` selects it."""
    import marimo

    chosen = mode()
    if chosen == "text":
        return marimo.plain_text(repr(result))
    widget = _widget(result)
    if chosen == "static":
        widget.close()
        return marimo.Html(widget.static()["text/html"])
    if isinstance(result, History):
        widget.keep_up()  # the request of the view would wait for a training that occupies the kernel
    return marimo.ui.anywidget(widget)


def watch(run: Any) -> None:
    """Display the curves of a run that starts in a cell, below that cell, while it is running."""
    import marimo

    if mode() in {"static", "text"}:
        return
    from lmvp_jupyter.curves import LiveRun

    # The output is not replaced by a static form at the end, because marimo does not save outputs in the notebook.
    live = LiveRun(run, lambda _: None, repeat=_REPEAT)
    marimo.output.append(marimo.ui.anywidget(live.plot))


def _widget(result: Any) -> Any:
    """Return the widget of a result."""
    from lmvp_jupyter import widgets
    from lmvp_jupyter.curves import plot_of

    for kind, name in VIEWS.items():
        if isinstance(result, kind):
            return getattr(widgets, name)(result)
    return plot_of(result)
