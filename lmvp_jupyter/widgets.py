"""Live widgets: the AFM modules of `lmvp_server/static/widgets`, the same that the console shows.

A widget sends its data once, as JSON. What a browser sends back, the chosen rows, arrives when the kernel is idle: a
running cell does not hear it.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any
from uuid import uuid4

import anywidget
import msgspec
import traitlets

from lmvp.compare import Diff, SpreadOf
from lmvp.errors import InvalidArgument, LmvpError
from lmvp.history import History
from lmvp.records import Version
from lmvp.render import data as render_data
from lmvp.render.diff_data import diff_data
from lmvp.render.plot import plot_html, plot_svg
from lmvp.render.showing_data import showing_data
from lmvp.render.text import diff_text, history_text
from lmvp.showing import Showing
from lmvp_jupyter.bundle import module, styles
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

    @traitlets.default("place")
    def _new_place(self) -> str:
        return f"lmvp-live-{uuid4().hex}"

    def static(self) -> dict[str, str]:
        """Return the forms that need no kernel, by MIME type; each widget has its own."""
        raise NotImplementedError  # abstract: the metaclass of traitlets leaves no room for that of abc

    def forms(self) -> dict[str, Any]:
        """Return what an output holds, by MIME type, as `LMVP_DISPLAY` wants it; a closed widget is static."""
        static, chosen = self.static(), mode()
        if chosen == "text":
            return {"text/plain": static["text/plain"]}
        if chosen == "static" or self.comm is None:
            return dict(static)
        if chosen == "view":
            return {**static, VIEW: {"version_major": 2, "version_minor": 0, "model_id": self.model_id}}
        return {**static, "text/html": f'<div class="{self.place}">{static["text/html"]}</div>'}

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return self.forms(), {}


class HistoryTable(LiveWidget):
    """A history as a table: graph, versions, layer strips, metric; its rows can be chosen.

    Parameters
    ----------
    history : History

    Attributes
    ----------
    selected : list
        Version numbers of the chosen rows, newest first; `"model@v3"` where the history is of several models.
    """

    _esm = module("history.js")
    _css = styles()
    selected: Any = traitlets.List().tag(sync=True)

    def __init__(self, history: History, **traits: Any) -> None:
        self.history = history
        super().__init__(data=render_data.history_data(history), **traits)

    @traitlets.validate("selected")
    def _known(self, proposal: Any) -> list[Any]:
        chosen = set(proposal["value"])
        return [row["key"] for row in self.data["rows"] if row["key"] in chosen]

    @property
    def chosen(self) -> list[Version]:
        """The versions of the chosen rows, newest first."""
        keys: Iterable[Any] = (row["key"] for row in self.data["rows"])
        picked = set(self.selected)
        return [version for version, key in zip(self.history, keys, strict=False) if key in picked]

    def static(self) -> dict[str, str]:
        """Return the table as text and HTML."""
        return {"text/plain": history_text(self.history), "text/html": self.history._repr_html_()}


class MetricsPlot(LiveWidget):
    """A metric over the versions of a model; of a run, or several, their curves: a `CurvesPlot`.

    Parameters
    ----------
    history : History, Run, Runs, or list of Run
    metric : str, optional
        Of versions; without it, the metric that the history shows.
    """

    def __new__(cls, history: Any = None, *args: Any, **traits: Any) -> Any:
        """Return the plot that fits."""
        if not isinstance(history, History):
            from lmvp_jupyter.curves import plot_of

            plot = plot_of(history)
            if plot is not None:
                return plot
            kind = type(history).__name__
            raise InvalidArgument(
                f"a plot of {kind}", hint="MetricsPlot(history), MetricsPlot(run), or of several runs"
            )
        return super().__new__(cls, history, *args, **traits)

    _esm = module("metrics.js", chart=True)
    _css = styles(chart=True)

    def __init__(self, history: History, metric: str | None = None, **traits: Any) -> None:
        self.history = history
        super().__init__(data=render_data.plot_data(history, metric), **traits)

    def static(self) -> dict[str, str]:
        """Return the plot as text, HTML and SVG."""
        data = dict(self.data)
        words = data["empty"]["words"] if data["empty"] else f"{data['title']}: {data['summary']}"
        forms = {"text/plain": words, "text/html": plot_html(data)}
        return forms if data["empty"] else {**forms, "image/svg+xml": plot_svg(data)}


class DiffView(LiveWidget):
    """What differs between two versions: the layers from the side and as a tree, then metrics, params, packages, code.

    Parameters
    ----------
    diff : Diff
    """

    _esm = module("diff.js")
    _css = styles()

    def __init__(self, diff: Diff, **traits: Any) -> None:
        self.diff = diff
        super().__init__(data=diff_data(diff), **traits)
        self.on_msg(self._heard)

    def static(self) -> dict[str, str]:
        """Return the diff as text and HTML."""
        return {"text/plain": diff_text(self.diff), "text/html": self.diff._repr_html_()}

    def _heard(self, _: Any, message: Any, __: Any) -> None:
        tell_spread(self, self.diff.spread, message)


class ModelView(LiveWidget):
    """One version: its strip, its tensors with histograms on demand, metrics, params, what made it, what grew from it.

    Parameters
    ----------
    showing : Showing
        What `lmvp.show` returns.
    """

    _esm = module("model.js")
    _css = styles()

    def __init__(self, showing: Showing, **traits: Any) -> None:
        self.showing = showing
        super().__init__(data=showing_data(showing), **traits)
        self.on_msg(self._heard)

    def static(self) -> dict[str, str]:
        """Return the version as text and HTML."""
        return {"text/plain": repr(self.showing), "text/html": self.showing._repr_html_()}

    def _heard(self, _: Any, message: Any, __: Any) -> None:
        tell_spread(self, self.showing.spread, message)


def tell_spread(widget: LiveWidget, spread: SpreadOf | None, message: Any) -> None:
    """Answer a view that asks how the numbers of tensors on show are spread; if nobody can tell, it does without."""
    if not isinstance(message, dict) or message.get("kind") != "histograms" or spread is None:
        return
    with suppress(LmvpError):
        found = spread([str(name) for name in message.get("tensors", ())])
        widget.send({"kind": "histograms", **msgspec.to_builtins(found)})
