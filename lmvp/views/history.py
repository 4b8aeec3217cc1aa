"""`History`: the versions of a model or a project.

It prints as text and displays as static HTML in a notebook. With `%load_ext lmvp_jupyter` it becomes a widget.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Protocol, overload

from lmvp.core.marimo import MarimoDisplay
from lmvp.core.references import suggest
from lmvp.core.schemas import Alias, Layers, Version
from lmvp.errors import InvalidArgument, LmvpError, NotFound
from lmvp.views._source import Source
from lmvp.views.diff import Diff, FileChange, TensorChange, ValueChange

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
        from lmvp.core.optional import pandas_module

        return pandas_module().DataFrame([_flat(v) for v in self._versions])

    to_frame = to_pandas

    def to_dict(self) -> dict[str, Any]:
        """Return the data of the widget: the newest 200 rows, their graph and layer strips.

        Returns
        -------
        dict
            Values that JSON can represent.
        """
        from lmvp.views.history_json import history_data

        return history_data(self)

    def __repr__(self) -> str:
        from lmvp.core.sanitize import printable
        from lmvp.views._text import history_text

        return printable(history_text(self))

    def to_svg(self) -> str:
        """Return the newest 30 versions as standalone SVG, for a README or a slide.

        Returns
        -------
        str
            An `<svg>` element.
        """
        from lmvp.views._svg import history_svg

        return history_svg(self)

    def _repr_html_(self) -> str:
        from lmvp.views._html import history_html

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
