"""Histories for pages, with the same rows, graph, strips and scale as the widget in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from lmvp.core import number_format
from lmvp.core.schemas import Layers, Model, Version
from lmvp.views._text import value_of
from lmvp.views.history import History, history_data
from lmvp.views.metric_plot import POINTS, plot_data
from lmvp.views.model_card import first_words
from lmvp_server.services import Services
from lmvp_server.services.access import Caller
from lmvp_server.services.paging import Page
from lmvp_server.web import svg_marks

ROWS = 50  # versions on a page
_SPARK = 30  # versions in a sparkline
_CHOICES = 100  # metrics that the page offers


@dataclass(frozen=True, slots=True)
class Listed:
    """A page of the history of a model.

    Attributes
    ----------
    data : dict
        The result of `lmvp.views.history.history_data`.
    versions : sequence of Version
        The versions of the page.
    graph, track, strips : list of str
        The marks of each row, as HTML.
    legend : str
        The legend of the strips, as HTML.
    older : str or None
        The cursor of the next page.
    """

    data: dict[str, Any]
    versions: Sequence[Version]
    graph: list[str]
    track: list[str]
    strips: list[str]
    legend: str
    older: str | None


def history(services: Services, caller: Caller, project: str, model: str, cursor: int | None = None) -> Listed:
    """Return a page of the history of a model, newest first."""
    found = services.versions.of_model(caller, project, model, Page(ROWS, cursor))
    versions = msgspec.convert(found["items"], list[Version])

    def strips(some: Sequence[Version]) -> Layers:
        return services.layers.strips(caller, project, model, [one.number for one in some])

    def protected(project: str, model: str) -> Sequence[str]:
        return msgspec.convert(services.catalog.model(caller, project, model), Model).protected

    shown = History(versions, title=f"{project}/{model}", total=found["total"], layers=strips, protected=protected)
    data = history_data(shown)
    width = svg_marks.lanes_width(data["graph"])
    return Listed(
        data,
        versions,
        [svg_marks.graph(place, row, width) for place, row in zip(data["graph"], data["rows"], strict=True)],
        svg_marks.metric_track(data) if data["metric"] else ["" for _ in versions],
        [svg_marks.layer_strip(shown.layers, version.number) for version in versions],
        svg_marks.legend(shown.layers),
        found["next"],
    )


def plot(services: Services, caller: Caller, project: str, model: str, metric: str | None) -> dict[str, Any]:
    """Return the data of a chart of a metric over the newest 1,000 versions; see `metric_plot.plot_data`."""
    found = services.versions.of_model(caller, project, model, Page(POINTS))
    shown = History(msgspec.convert(found["items"], list[Version]), title=f"{project}/{model}", total=found["total"])
    return {**plot_data(shown, metric), "choices": list(shown.metrics)[:_CHOICES]}


@dataclass(frozen=True, slots=True)
class Summary:
    """A model as a row of its project: the beginning of its card, its newest version, layer strip and sparkline."""

    model: dict[str, Any]
    about: str
    newest: Version | None
    aliases: Sequence[dict[str, Any]]
    strip: str
    spark: str
    metric: str
    value: str


def summary(services: Services, caller: Caller, project: str, model: dict[str, Any]) -> Summary:
    """Return the row of a model in its project."""
    name, about = model["name"], first_words(model["description"])
    found = services.versions.of_model(caller, project, name, Page(_SPARK))["items"]
    versions = msgspec.convert(found, list[Version])
    aliases = services.aliases.of_model(caller, project, name)["items"]
    if not versions:
        return Summary(model, about, None, aliases, "", "", "", "")
    newest = versions[0]
    shown = History(versions, title=name)
    layers = services.layers.strips(caller, project, name, [newest.number])
    values = [value for one in reversed(versions) if (value := value_of(one, shown.metric)) is not None]
    words = number_format.column(values)
    said = f"{shown.metric} from {words[0]} to {words[-1]}" if values else ""
    return Summary(
        model,
        about,
        newest,
        aliases,
        svg_marks.layer_strip(layers, newest.number),
        svg_marks.spark(values, said),
        shown.metric or "",
        words[-1] if values else "",
    )
