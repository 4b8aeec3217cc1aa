"""`MetricsPlot`: a plot of a metric over the versions of a model, or of the curves of runs."""

from __future__ import annotations

from typing import Any

from lmvp.core.sanitize import printable
from lmvp.errors import InvalidArgument
from lmvp.views.history import History
from lmvp.views.metric_plot import plot_data, plot_html, plot_svg
from lmvp_jupyter.bundle import module, styles
from lmvp_jupyter.live import LiveWidget


class MetricsPlot(LiveWidget):
    """A plot of a metric over the versions of a model. With runs as the argument, it returns a `CurvesPlot`.

    Parameters
    ----------
    history : History, Run, Runs, or list of Run
    metric : str, optional
        The key of the metric. The metric of the history by default. It does not apply to runs.
    """

    def __new__(cls, history: Any = None, *args: Any, **traits: Any) -> Any:
        """Return a `MetricsPlot` of a history, or a `CurvesPlot` of runs.

        Raises
        ------
        InvalidArgument
            If the argument is neither a history nor runs.
        """
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
        super().__init__(data=plot_data(history, metric), **traits)

    def static(self) -> dict[str, str]:
        """Return the plot as text, HTML and SVG."""
        data = dict(self.data)
        words = data["empty"]["words"] if data["empty"] else f"{data['title']}: {data['summary']}"
        forms = {"text/plain": printable(words), "text/html": plot_html(data)}
        return forms if data["empty"] else {**forms, "image/svg+xml": plot_svg(data)}
