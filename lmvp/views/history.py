"""`History`: the versions of a model or a project.

It prints as text and displays as static HTML in a notebook. With `%load_ext lmvp_jupyter` it becomes a widget.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from html import escape
from typing import Any, Protocol, overload

from lmvp import hints
from lmvp.core import html_tables, number_format
from lmvp.core.marimo import MarimoDisplay
from lmvp.core.optional import pandas_module
from lmvp.core.references import suggest
from lmvp.core.sanitize import clean, clip, clip_middle, printable, width
from lmvp.core.schemas import Alias, Layers, Version, encode_float
from lmvp.errors import InvalidArgument, LmvpError, NotFound
from lmvp.views import _svg, _text, layer_strip
from lmvp.views._source import Source
from lmvp.views._text import Column, terminal_width, value_of
from lmvp.views.changes import FileChange, TensorChange, ValueChange
from lmvp.views.diff import Diff
from lmvp.views.snippets import pull_code
from lmvp.views.version_graph import lanes

__all__ = ["Diff", "FileChange", "History", "LayersOf", "TensorChange", "ValueChange"]

LayersOf = Callable[[Sequence[Version]], Layers]
"""Fetches the layer strips of versions of one model."""
Pages = Callable[[int, int, str, str], tuple[Sequence[Version], int]]
"""Fetches a part of a list: takes offset, maximum count, filter and order, and returns the versions and the total."""

ProtectedOf = Callable[[str, str], Sequence[str]]
"""Fetches the names of the protected aliases of a model: takes the project and the model."""
DEFAULT_PROTECTED = ("production",)
"""The protected aliases of a new model."""

SHOWN = 200
"""Maximum number of rows of a widget, and of versions whose layer strips are fetched."""
TEXT_ROWS = 30
"""Maximum number of versions in the text table."""
HTML_ROWS = 50
"""Maximum number of versions in the HTML table."""
SVG_ROWS = 30
"""Maximum number of versions in the image."""
_MESSAGE = 48
"""Maximum number of letters of a message."""
KEYS = 400
"""Maximum number of metrics and params that the column menu offers."""


class HistoryClient(Source, Protocol):
    """The methods of a client that a history and its widget call."""

    def last_event(self, project: str) -> str:
        """Return the digest of the newest event of a project."""

    @property
    def alias(self) -> Callable[..., Alias]:
        """Point an alias at a version."""

    @property
    def diff(self) -> Callable[..., Diff]:
        """Compare two versions."""

    @property
    def download(self) -> Callable[..., Any]:
        """Download the object of a version."""


class History(MarimoDisplay, Sequence[Version]):
    """Versions of a model, or of all models of a project, newest first. It is a sequence of `Version`.

    Indexing accepts a position, a slice, or the name of a version such as `"v3"` or an alias.

    Parameters
    ----------
    versions : iterable of Version
        Newest first.
    title : str
        The name of the model or project: `project/model` or `project`.
    total : int, optional
        The number of versions on the server, if `versions` is only a part of them. Their number by default.
    layers : callable, optional
        Fetches the layer strips of versions of one model, when they are needed for the first time.
    metric : str, optional
        The key of the metric to show. By default, the metric that most versions have.
    pages : callable, optional
        Fetches another part of the list; see `page`.
    first : int
        The number of newer versions that precede these. 0 by default.
    client : Client, optional
        The client that sends requests about these versions.
    protected : callable, optional
        Fetches the protected aliases of a model, when a widget marks them. By default, `production` is protected.

    Attributes
    ----------
    title : str
    total : int
        The number of versions on the server.
    older : int
        The number of versions on the server that follow these.

    Examples
    --------
    >>> History([], title="digits/mlp")
    No versions of digits/mlp yet. The first one is published by
        lmvp.push('digits/mlp', model, message='first try')
    """

    def __init__(
        self,
        versions: Iterable[Version],
        *,
        title: str,
        total: int | None = None,
        layers: LayersOf | None = None,
        metric: str | None = None,
        pages: Pages | None = None,
        first: int = 0,
        client: HistoryClient | None = None,
        protected: ProtectedOf | None = None,
    ) -> None:
        self._versions = tuple(versions)
        self.title = title
        self.total = max(total or 0, len(self._versions))
        self.older = max(self.total - first - len(self._versions), 0)
        self._newer = first
        self._pages, self._client = pages, client
        self._fetch = layers
        self._protected_of = protected
        self._protected: dict[tuple[str, str], frozenset[str]] = {}
        self._layers: Layers | None = None
        self._metric = metric

    def __len__(self) -> int:
        return len(self._versions)

    @overload
    def __getitem__(self, which: int | str) -> Version: ...
    @overload
    def __getitem__(self, which: slice) -> History: ...

    def __getitem__(self, which: int | str | slice) -> Version | History:
        if isinstance(which, slice):
            return self._slice(which)
        return self.version(which) if isinstance(which, str) else self._versions[which]

    def _slice(self, which: slice) -> History:
        start, _, step = which.indices(len(self))
        found = self._versions[which]
        part = self._part(found, self.total, self._newer + start)
        if step != 1:  # a slice with a step is not a page of the list
            part.older = 0
        return part

    def _part(self, versions: Iterable[Version], total: int, first: int) -> History:
        return History(
            versions,
            title=self.title,
            total=total,
            layers=self._fetch,
            metric=self._metric,
            pages=self._pages,
            first=first,
            client=self._client,
            protected=self._protected_of,
        )

    def _is_protected(self, version: Version, alias: str) -> bool:
        """Return whether only maintainers can move an alias of a version. If the rule is not available, guess it."""
        model = (version.project, version.model)
        if model not in self._protected:
            names: Sequence[str] = DEFAULT_PROTECTED
            if self._protected_of is not None:
                with suppress(LmvpError):  # the mark is optional: without it, the history is still useful
                    names = self._protected_of(*model)
            self._protected[model] = frozenset(name.lower() for name in names)
        return alias.lower() in self._protected[model]

    def page(self, first: int = 0, count: int = SHOWN, *, where: str = "", order: str = "") -> History:
        """Fetch another part of the list from the server.

        Parameters
        ----------
        first : int
            The number of versions to skip. 0 by default.
        count : int
            Maximum number of versions. 200 by default.
        where : str
            A filter, for example `"metrics.val_acc > 0.9"`; see docs/api.md, Filters. Empty by default: all versions.
        order : str
            The field to sort by, for example `"-metrics.val_acc"` for the greatest first. Empty by default: newest
            first.

        Returns
        -------
        History
            Its `total` is the number of matching versions.

        Raises
        ------
        InvalidArgument
            If the filter or the order is invalid, or these versions do not come from a server.
        """
        if self._pages is None:
            raise InvalidArgument("these versions are of no server", hint="`lmvp history NAME` has pages")
        versions, total = self._pages(first, count, where, order)
        return self._part(versions, total, first)

    @property
    def client(self) -> HistoryClient:
        """The client that fetched these versions.

        Raises
        ------
        InvalidArgument
            If they do not come from a server.
        """
        if self._client is None:
            raise InvalidArgument("these versions are of no server", hint="`lmvp history NAME` asks one")
        return self._client

    @property
    def can_page(self) -> bool:
        """Whether `page` can fetch other parts of the list."""
        return self._pages is not None

    def mark(self) -> str:
        """Fetch the digest of the newest event of the project, which differs after each change in the project."""
        project = self.title.partition("/")[0]
        return self.client.last_event(project)

    @property
    def first(self) -> int:
        """The number of newer versions that precede these."""
        return self._newer

    def version(self, which: int | str) -> Version:
        """Return a version by its number or an alias.

        Parameters
        ----------
        which : int or str
            The number, `3`, `"3"` or `"v3"`, or an alias.

        Returns
        -------
        Version

        Raises
        ------
        NotFound
            If these versions do not include it.
        InvalidArgument
            If several models of a project have such a version.
        """
        found = [v for v in self._versions if which in (v.number, v.name, str(v.number), *v.aliases)]
        if not found:
            raise NotFound(f"no version {which!r} among these {len(self)} of {self.title}")
        if len(found) > 1:
            names = ", ".join(v.reference for v in found[:5])
            raise InvalidArgument(f"{which!r} is a version of several models: {names}", hint="take one model's history")
        return found[0]

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the models of these versions, ordered by their newest version, newest first."""
        return tuple(dict.fromkeys(v.model for v in self._versions))

    @property
    def of_project(self) -> bool:
        """Whether this is the history of a project, even if the project has only one model."""
        return len(self.models) > 1 or any(self.title == v.project for v in self._versions[:1])

    @property
    def metric(self) -> str | None:
        """The key of the metric that tables and plots show; None if no version has a metric."""
        if self._metric is not None:
            return self._metric
        return next(iter(self.metrics), None)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The keys of all metrics, the most common first, then in the order of the newest version."""
        return tuple(key for key, _ in Counter(key for v in self._versions for key in v.metrics).most_common())

    @property
    def layers(self) -> Layers:
        """The layer strips of the newest 200 versions; empty for several models, or if they cannot be fetched."""
        if self._layers is None:
            self._layers = self._fetched()
        return self._layers

    def _fetched(self) -> Layers:
        if self._fetch is None or len(self.models) != 1:
            return Layers()
        try:
            return self._fetch(self._versions[:SHOWN])
        except LmvpError:  # strips are an addition: the table must also display if they cannot be fetched
            return Layers()

    def to_pandas(self) -> Any:
        """Return a DataFrame with a row for each version, and the columns `metrics.…` and `params.…`.

        Returns
        -------
        pandas.DataFrame

        Raises
        ------
        MissingDependency
            If pandas is not installed.
        """
        return pandas_module().DataFrame([_flat(v) for v in self._versions])

    to_frame = to_pandas

    def to_dict(self) -> dict[str, Any]:
        """Return the data of the widget: the newest 200 rows, their graph and layer strips.

        Returns
        -------
        dict
            Values that JSON can represent.
        """
        return history_data(self)

    def __repr__(self) -> str:
        return printable(history_text(self))

    def to_svg(self) -> str:
        """Return the newest 30 versions as standalone SVG, for a README or a slide.

        Returns
        -------
        str
            An `<svg>` element.
        """
        return history_svg(self)

    def _repr_html_(self) -> str:
        return history_html(self)


def _flat(version: Version) -> dict[str, Any]:
    fields = ("project", "model", "number", "message", "author", "created_at", "digest", "format", "size", "sent")
    return {
        **{name: getattr(version, name) for name in fields},
        "aliases": ", ".join(version.aliases),
        "parents": ", ".join(map(str, version.parents)),
        **{f"metrics.{key}": value for key, value in version.metrics.items()},
        **{f"params.{key}": value for key, value in version.params.items()},
    }


def check_metric(history: History, metric: str | None) -> None:
    """Raise an error if the metric is missing in all of these versions.

    Without this check, the history would show its default metric, and the reader would take it for the requested one.
    """
    if metric is None or not history or metric in history.metrics:
        return
    part = f"the newest {len(history):,} versions" if history.older else "the versions"
    near = suggest(metric, history.metrics)
    known = ", ".join(map(repr, history.metrics[:8])) or "none"
    raise NotFound(
        f"none of {part} of {history.title} has the metric {metric!r}",
        hint=f"did you mean {near!r}?" if near else f"they have: {known}",
    )


def history_text(history: History, room: int | None = None) -> str:
    """Return the newest 30 versions of a history as a table, newest first."""
    if not history:
        return f"{nothing(history)}\n    {filled_by(history)}".rstrip()
    shown = history[:TEXT_ROWS]
    lines = _text.table(_text_columns(shown, history), room or terminal_width())
    older = shown.older
    tail = [f"… {older:,} older"] if older > 0 else []
    return "\n".join([heading(history), "", *lines, *tail])


def _text_columns(shown: Sequence[Version], history: History) -> list[Column]:
    keys = [key for key in dict.fromkeys([history.metric, *history.metrics[:3]]) if key]
    return [
        Column("Model", [clean(v.model) if history.of_project else "" for v in shown], most=32),
        Column("Version", [v.name for v in shown]),
        Column("Message", [clean(v.message) for v in shown], flexible=True),
        Column("Aliases", [", ".join(map(clean, v.aliases)) for v in shown], drop=1, most=32),
        *(_metric_column(shown, key, rank) for rank, key in enumerate(keys)),
        Column("By", [clean(v.author) for v in shown], drop=3, most=24),
        Column("When (UTC)", [number_format.stamp(v.created_at) for v in shown], drop=2),
        Column("Size", [number_format.size(v.size) for v in shown], right=True, drop=4),
    ]


def _metric_column(shown: Sequence[Version], key: str, rank: int) -> Column:
    """Return the column of a metric. A long key is shortened in the middle: its ends, `train/…/loss`, identify it."""
    written = number_format.column(value_of(v, key) for v in shown)
    return Column(clip_middle(clean(key), 20), written, right=True, drop=rank and 10 + rank)


def heading(history: History) -> str:
    """Return the title of a history: `13 versions of birdsong/tagger, newest first`."""
    part = "" if len(history) == history.total else f"{len(history):,} of "
    return f"{part}{number_format.plural(history.total, 'version')} of {clean(history.title)}, newest first"


def nothing(history: History) -> str:
    """Return the message of an empty history, or of an empty part of one."""
    if history.total:
        return (
            f"None of the {number_format.plural(history.total, 'version')} of {clean(history.title)} is in this part."
        )
    return f"No versions of {clean(history.title)} yet. The first one is published by"


def filled_by(history: History) -> str:
    """Return the code that pushes a first version; empty if the history has versions in another part."""
    if history.total:
        return ""
    title = clean(history.title)
    name = title if "/" in title else f"{title}/my-model"
    return hints.code(f"`lmvp push {name} FILE -m 'first try'`")


def history_html(history: History) -> str:
    """Return the newest 50 versions of a history as a table."""
    if not history:
        code = filled_by(history)
        return f"<p>{escape(nothing(history))}</p>{code and f'<pre>{escape(code)}</pre>'}"
    shown, layers = history[:HTML_ROWS], history.layers
    columns = [column for column in _html_columns(history, shown, layers) if any(column.cells)]
    body = html_tables.table(
        [column.head for column in columns],
        zip(*(column.cells for column in columns), strict=True),
        right=[i for i, column in enumerate(columns) if column.right],
        names=[i for i, column in enumerate(columns) if column.flexible],
    )
    return f"{body}\n<p>{_caption(history, shown.older, layers)}</p>"


def _html_columns(history: History, shown: Sequence[Version], layers: Layers) -> list[Column]:
    metric = number_format.column(value_of(v, history.metric) for v in shown)
    return [
        Column("Model", [html_tables.safe(v.model) if history.of_project else "" for v in shown]),
        Column("Version", [v.name for v in shown]),
        Column("Message", [_message(v) for v in shown], flexible=True),
        Column("Layers changed against the parent", [_html_strip(layers, v) for v in shown]),
        Column(html_tables.key(history.metric or ""), metric, right=True),
        Column("By", [html_tables.safe(v.author) for v in shown]),
        Column("When (UTC)", [_whole(number_format.stamp(v.created_at)) for v in shown]),
    ]


def _whole(words: str) -> str:
    """Return words that do not wrap."""
    return f'<span style="white-space:nowrap">{words}</span>'


def _message(version: Version) -> str:
    return " ".join(
        [html_tables.safe(version.message), *(f"<i>{html_tables.safe(alias)}</i>" for alias in version.aliases)]
    ).strip()


def _html_strip(layers: Layers, version: Version) -> str:
    codes = layers.strips.get(str(version.number))
    if not codes:
        return ""
    drawing = layer_strip.svg(layers.axis, codes)
    return layer_strip.picture(drawing, layer_strip.summary(codes), layer_strip.WIDTH, layer_strip.HEIGHT, flat=True)


def _caption(history: History, behind: int, layers: Layers) -> str:
    older = f" … {behind:,} older." if behind else ""
    legend = f" {layer_strip.legend(layers)}" if layers.strips else ""
    return f"{escape(heading(history))}.{older}{escape(legend)}"


def history_svg(history: History) -> str:
    """Return the newest versions as lines of text with their layer strips.

    Parameters
    ----------
    history : History

    Returns
    -------
    str
        An `<svg>` element, which contains its title.
    """
    if not history:
        return _svg.sheet(nothing(history), [_svg.words(_svg.PAD, 1, filled_by(history))], 640, 2)
    shown = history[:SVG_ROWS]
    columns = _svg_columns(history, shown)
    places = _places(columns)
    parts = [_svg.words(x, 1, head) for x, (head, _, _) in zip(places, columns, strict=True)]
    for row in range(len(shown)):
        parts += [_svg.words(x, row + 2, cells[row]) for x, (_, cells, _) in zip(places, columns, strict=True)]
        parts.append(_svg_strip(history, shown[row].number, places[-1], row + 2))
    wide = places[-1] + (layer_strip.WIDTH if history.layers.strips else 0) + _svg.PAD
    return _svg.sheet(heading(history), parts, wide, len(shown) + 2)


SvgColumns = list[tuple[str, list[str], int]]
"""Head, cells and width in letters of each column."""


def _svg_columns(history: History, shown: Sequence[Version]) -> SvgColumns:
    """Return the columns that are not empty. The last one is the empty column for the layer strips."""
    metric = number_format.column(value_of(v, history.metric) for v in shown)
    columns = {
        "Model": [clip(clean(v.model), 32) if history.of_project else "" for v in shown],
        "Version": [v.name for v in shown],
        "Message": [clip(" ".join([clean(v.message), *map(_alias, v.aliases)]).strip(), _MESSAGE) for v in shown],
        clip(clean(history.metric or ""), 24): metric,
        "By": [clip(clean(v.author), 24) for v in shown],
        "When (UTC)": [number_format.stamp(v.created_at) for v in shown],
    }
    found = [(head, cells, max(map(width, (head, *cells)))) for head, cells in columns.items() if any(cells)]
    layers = "Layers changed" if history.layers.strips else ""
    return [*found, (layers, [""] * len(shown), 0)]


def _alias(name: str) -> str:
    return f"@{clean(name)}"


def _places(columns: SvgColumns) -> list[float]:
    """Return the x coordinate of each column."""
    places = [float(_svg.PAD)]
    for _, _, letters in columns[:-1]:
        places.append(places[-1] + (letters + 2) * _svg.LETTER)
    return places


def _svg_strip(history: History, number: int, x: float, line: int) -> str:
    codes = history.layers.strips.get(str(number))
    if not codes:
        return ""
    drawing = layer_strip.svg(history.layers.axis, codes)
    return (
        f'<g transform="translate({x:.1f} {_svg.LINE * line + (_svg.LINE - layer_strip.HEIGHT) / 2:.1f})">{drawing}</g>'
    )


def history_data(history: History, columns: Sequence[str] | None = None, *, plain: bool = True) -> dict[str, Any]:
    """Return the data of `widgets/history.js`: up to 200 rows with their graph, layer strips and metrics.

    Parameters
    ----------
    history : History
    columns : sequence of str, optional
        Keys of metrics, and of params as `params.lr`. The metric of the history by default.
    plain : bool
        Whether the versions are neither filtered nor sorted. Only then a graph can be drawn. True by default.
    """
    shown = history[:SHOWN]
    keys = list(dict.fromkeys(columns)) if columns is not None else [history.metric] if history.metric else []
    alone = len(history.models) <= 1
    low, high, ends = _track([value_of(v, history.metric) for v in shown])
    return {
        "title": clean(history.title),
        "total": history.total,
        "first": history.first,
        "older": shown.older,
        "pages": history.can_page,
        "columns": [{"key": key, "label": clean(key), "better": number_format.better(key)} for key in keys],
        "keys": _keys(history),
        "several": history.of_project,
        "metric": history.metric and clean(history.metric),
        "better": number_format.better(history.metric or ""),
        "scale": {"low": low, "high": high, "ends": ends},
        "rows": _rows(history, shown, alone, keys),
        "graph": lanes(shown) if alone and plain else [],
        "layers": layer_strip.layers_data(history.layers) if alone else None,
        "diff": hints.code("`lmvp diff BEFORE AFTER`"),
        "empty": None if shown else {"words": nothing(history), "code": filled_by(history)},
    }


def _track(values: Sequence[float | None]) -> tuple[float, float, list[str]]:
    """Return the range of the small metric axis in the table, and the labels of its ends."""
    low, high = number_format.scale(v for v in values if v is not None)
    return low, high, number_format.ends(low, high)


def _keys(history: History) -> list[str]:
    """Return the keys that the column menu offers: metrics, then params."""
    params = dict.fromkeys(f"params.{key}" for version in history for key in version.params)
    return [*history.metrics, *params][:KEYS]


def _cells(shown: Sequence[Version], key: str) -> list[list[Any]]:
    """Return a column: for each version the value, the formatted value, and whether it is the best one."""
    if key.startswith("params.") and not any(key in version.metrics for version in shown):
        found = [version.params.get(key.removeprefix("params.")) for version in shown]
        return [["" if value is None else value, "" if value is None else clean(str(value)), False] for value in found]
    values = [value_of(version, key) for version in shown]
    finite = [value for value in values if value is not None and math.isfinite(value)]
    better = number_format.better(key)
    best = (max if better > 0 else min)(finite) if better and len(finite) > 1 else None
    return [
        [None if value is None else encode_float(value), written, value is not None and value == best]
        for value, written in zip(values, number_format.column(values), strict=True)
    ]


def _rows(history: History, shown: Sequence[Version], alone: bool, keys: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows of the table; `alone` states that all versions belong to one model."""
    values = [value_of(v, history.metric) for v in shown]
    columns = [_cells(shown, key) for key in keys]
    rows = []
    for at, (version, value, written) in enumerate(zip(shown, values, number_format.column(values), strict=True)):
        rows.append(
            {
                "key": version.number if alone else f"{version.model}@v{version.number}",
                "cells": [column[at] for column in columns],
                "number": version.number,
                "model": clean(version.model),
                "reference": version.reference,
                "parents": [p.number for p in version.parents],
                "message": clean(version.message),
                "author": clean(version.author),
                "at": number_format.iso(version.created_at),
                "aliases": [
                    # Not public: a name of `History` would be part of the API.
                    {"name": clean(alias), "protected": history._is_protected(version, alias)}  # noqa: SLF001
                    for alias in version.aliases
                ],
                "value": None if value is None else encode_float(value),
                "written": written,
                "sent": number_format.size(version.sent),
                "bytes": version.sent,
                "pull": pull_code(version, hints.reader()),
            }
        )
    return rows
