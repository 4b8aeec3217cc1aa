"""Live views in marimo: the widgets that Jupyter shows, without an extension to load.

marimo shows a widget by its module's `render`, so none of its outputs needs the static form that JupyterLab covers.
`LMVP_DISPLAY` applies here too: `widget` and `view` are the live view.
"""

from __future__ import annotations

from typing import Any

from lmvp.views.history import History
from lmvp_jupyter.display import VIEWS, mode

_REPEAT = 2.0
"""Seconds after which a plot is sent whole again."""


def view(result: Any) -> Any:
    """Return the form of a result that marimo shows: a live view, HTML or text, as `LMVP_DISPLAY` says."""
    import marimo

    chosen = mode()
    if chosen == "text":
        return marimo.plain_text(repr(result))
    widget = _widget(result)
    if chosen == "static":
        widget.close()
        return marimo.Html(widget.static()["text/html"])
    if isinstance(result, History):
        widget.keep_up()  # the view's own message waits until the kernel is idle, which a training delays
    return marimo.ui.anywidget(widget)


def watch(run: Any) -> None:
    """Draw the curves of a run that starts in a cell, below that cell, while it is running."""
    import marimo

    if mode() in {"static", "text"}:
        return
    from lmvp_jupyter.curves import LiveRun

    # The last drawing stays as it is: marimo saves no outputs in the notebook.
    live = LiveRun(run, lambda _: None, repeat=_REPEAT)
    marimo.output.append(marimo.ui.anywidget(live.plot))


def _widget(result: Any) -> Any:
    from lmvp_jupyter import widgets
    from lmvp_jupyter.curves import plot_of

    for kind, name in VIEWS.items():
        if isinstance(result, kind):
            return getattr(widgets, name)(result)
    return plot_of(result)
