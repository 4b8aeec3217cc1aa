"""Display of results as widgets in a notebook.

The environment variable `LMVP_DISPLAY` selects the form:

| `LMVP_DISPLAY` | output |
| --- | --- |
| `widget` (default) | the static form, over which JupyterLab lays the live view; a saved notebook has the static form |
| `view` | the widget, for editors without this live view; without its kernel it shows "model not found" |
| `static` | the static form: HTML and pictures |
| `text` | plain text |

When a cell runs again, the widgets of its previous outputs are closed. `freeze` closes all widgets.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import partial
from typing import Any

from lmvp.client.console import ConsolePage
from lmvp.views.diff import Diff
from lmvp.views.history import History
from lmvp.views.version import Showing
from lmvp_jupyter.mode import mode

VIEWS = {History: "HistoryTable", Diff: "DiffView", Showing: "ModelView", ConsolePage: "ConsoleButton"}
"""Types of results and the names of their widgets in `lmvp_jupyter.widgets`."""


@dataclass
class _Shown:
    """A widget in an output.

    Attributes
    ----------
    widget : LiveWidget
    display_id : str
        The id by which the output can be replaced.
    cell : str or None
        The id of the cell.
    ours : bool
        Whether this module created the widget, and not the user.
    """

    widget: Any
    display_id: str
    cell: str | None
    ours: bool

    def freeze(self) -> None:
        """Close the widget and replace the output by its static form."""
        forms = self.widget.static()
        self.widget.close()
        replace(forms, self.display_id)


class Display:
    """The display of results and widgets in one shell."""

    def __init__(self, ip: Any) -> None:
        self._ip = ip
        self._cell: str | None = None
        self._shown: list[_Shown] = []

    def start(self) -> None:
        """Register with the shell."""
        from lmvp.tracking.active_run import ActiveRun
        from lmvp.tracking.start import on_start
        from lmvp.views.curves import Curves, ModelCurves
        from lmvp.views.run_comparison import Comparison
        from lmvp.views.runs import Run, Runs
        from lmvp_jupyter.live import LiveWidget

        formatter = self._ip.display_formatter.ipython_display_formatter
        for kind, view in VIEWS.items():
            formatter.for_type(kind, partial(self._live, view))
        formatter.for_type(LiveWidget, self._widget)
        formatter.for_type(Curves, self._curves)
        formatter.for_type(ModelCurves, self._model)
        formatter.for_type(Run, self._curves)
        formatter.for_type(ActiveRun, self._curves)
        formatter.for_type(Runs, self._static)
        formatter.for_type(Comparison, self._static)
        self._unwatch = on_start(self._watch)
        self._ip.events.register("pre_run_cell", self._before_cell)

    def stop(self) -> None:
        """Undo `start`."""
        from lmvp.tracking.active_run import ActiveRun
        from lmvp.views.curves import Curves, ModelCurves
        from lmvp.views.run_comparison import Comparison
        from lmvp.views.runs import Run, Runs
        from lmvp_jupyter.live import LiveWidget

        formatter = self._ip.display_formatter.ipython_display_formatter
        for kind in (*VIEWS, LiveWidget, Curves, ModelCurves, Run, ActiveRun, Runs, Comparison):
            formatter.pop(kind, None)
        self._unwatch()
        self._ip.events.unregister("pre_run_cell", self._before_cell)

    def freeze(self) -> int:
        """Replace all widgets by their static forms and return their number."""
        shown, self._shown = self._shown, []
        for each in shown:
            each.freeze()
        return len(shown)

    def _rest(self, shown: _Shown) -> None:
        """Replace a widget that has not been used for half an hour by its static form."""
        if shown in self._shown:
            self._shown.remove(shown)
            shown.freeze()

    def _before_cell(self, info: Any) -> None:
        """Close the widgets of a cell that runs again. Those that a user created can also be in other outputs."""
        self._cell = getattr(info, "cell_id", None)
        if self._cell is None:
            return
        for each in [each for each in self._shown if each.cell == self._cell]:
            self._shown.remove(each)
            if each.ours:
                each.widget.close()

    def _live(self, view: str, result: Any) -> None:
        """Display a result as the named widget, or in its static form."""
        if mode() in {"widget", "view"}:
            from lmvp_jupyter import widgets

            self._show(getattr(widgets, view)(result), ours=True)
        else:
            self._static(result)

    def _widget(self, widget: Any) -> None:
        self._show(widget, ours=False)

    def _curves(self, what: Any) -> None:
        from lmvp_jupyter.curves import plot_of

        plot = plot_of(what)
        if plot is not None:
            self._show(plot, ours=True)

    def _model(self, found: Any) -> None:
        """Display a plot of each metric over versions, then the curves of the runs."""
        from lmvp_jupyter.plots import MetricsPlot

        for history, metric in found.charts:
            self._show(MetricsPlot(history, metric), ours=True)
        if found.lines:
            self._curves(found.of_runs())

    def _watch(self, run: Any) -> None:
        """Display the curves of a run that starts in a cell, below that cell."""
        from lmvp_jupyter.curves import LiveRun

        # The output of another thread could appear below another cell.
        if threading.current_thread() is not threading.main_thread():
            return
        if mode() in {"static", "text"}:  # these forms cannot be updated: one picture at the end
            run.on_end(lambda: self._static(plot_at_end(run)))
            return
        live = LiveRun(run, lambda plot: replace(plot.forms(), handle.display_id))
        handle = self._show(live.plot, ours=True)

    def _show(self, widget: Any, *, ours: bool) -> Any:
        """Display a widget and register it, so that it can be closed or replaced later."""
        handle = publish(widget.forms())
        if mode() in {"widget", "view"}:
            shown = _Shown(widget, handle.display_id, self._cell, ours)
            self._shown.append(shown)
            widget.at_rest = lambda: self._rest(shown)
        return handle

    def _static(self, result: Any) -> None:
        publish(_allowed({"text/plain": repr(result), "text/html": result._repr_html_()}))


def plot_at_end(run: Any) -> Any:
    """Return the curves of a finished run of this process, from its journal."""
    from lmvp.tracking.feed import Feed
    from lmvp_jupyter.curves import curves_of_feed

    feed = Feed(run.folder)
    feed.look()
    return curves_of_feed(run, feed)


def replace(forms: dict[str, Any], display_id: str) -> None:
    """Replace the forms of an output."""
    from IPython.display import update_display

    update_display(  # type: ignore[no-untyped-call, unused-ignore]
        forms, display_id=display_id, raw=True
    )


def publish(forms: dict[str, Any]) -> Any:
    """Display forms by MIME type below the cell, and return a handle with their `display_id`."""
    from IPython.display import display

    return display(  # type: ignore[no-untyped-call, unused-ignore]
        forms, raw=True, display_id=True
    )


def _allowed(forms: dict[str, str]) -> dict[str, str]:
    return {"text/plain": forms["text/plain"]} if mode() == "text" else forms


_displays: dict[int, Display] = {}


def install(ip: Any) -> None:
    """Display results of this shell as widgets. Do nothing in a terminal, which cannot show them."""
    if getattr(ip, "kernel", None) is None or id(ip) in _displays:
        return
    _displays[id(ip)] = Display(ip)
    _displays[id(ip)].start()


def uninstall(ip: Any) -> None:
    """Undo `install`. Existing outputs do not change."""
    display = _displays.pop(id(ip), None)
    if display is not None:
        display.stop()


def freeze() -> int:
    """Replace all widgets by their static forms.

    Call it before saving a notebook with `LMVP_DISPLAY=view`. With other values, a saved notebook is static anyway.

    Returns
    -------
    int
        The number of widgets.
    """
    return sum(display.freeze() for display in _displays.values())
