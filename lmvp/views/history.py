"""What calls about many versions return: `History`; `Diff` stands beside it in `lmvp.views.diff`.

Both print as text, show as static HTML in any notebook, and become live widgets once `%load_ext lmvp_jupyter` has run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, overload

from lmvp.errors import InvalidArgument, LmvpError, NotFound
from lmvp.live import MarimoDisplay
from lmvp.records import Layers, Version
from lmvp.views.diff import Diff, FileChange, TensorChange, ValueChange

if TYPE_CHECKING:
    from lmvp.client import Client

__all__ = ["Diff", "FileChange", "History", "LayersOf", "TensorChange", "ValueChange"]

LayersOf = Callable[[Sequence[Version]], Layers]
"""What fetches the strips of some versions of one model."""

Pages = Callable[[int, int, str, str], tuple[Sequence[Version], int]]
"""What fetches a part of a list: how many to leave out, how many at most, a filter, an order; with how many match."""

SHOWN = 200
"""A widget shows so many rows, and strips are fetched for so many: the rest is a slice away."""


class History(MarimoDisplay, Sequence[Version]):
    """Versions of a model, or of all the models of a project, newest first.

    Parameters
    ----------
    versions : iterable of Version
        Newest first.
    title : str
        What they are versions of: `project/model` or `project`.
    total : int, optional
        How many there are on the server, where `versions` is only a part.
    layers : callable, optional
        Fetches the layer strips of versions of one model; called when they are first looked at.
    metric : str, optional
        The metric to show; without it, the newest version and what most others share decide.
    pages : callable, optional
        Fetches another part of the list; see `page`.
    first : int
        How many versions come before these.
    client : Client, optional
        What asks the server.

    Attributes
    ----------
    total : int
        How many versions there are.
    older : int
        How many of them come after the last of these.

    Examples
    --------
    >>> History([], title="digits/mlp")
    No versions of digits/mlp yet. The first one is published by
        lmvp.update("digits/mlp", model, message="first try")
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
        client: Client | None = None,
    ) -> None:
        self._versions = tuple(versions)
        self.title = title
        self.total = max(total or 0, len(self._versions))
        self.older = max(self.total - first - len(self._versions), 0)
        self._newer = first
        self._pages, self._client = pages, client
        self._fetch = layers
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
        if step != 1:
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
        )

    def page(self, first: int = 0, count: int = SHOWN, *, where: str = "", order: str = "") -> History:
        """Return another part of the list, as the server has it now.

        Parameters
        ----------
        first : int
            How many versions to leave out.
        count : int
            At most so many.
        where, order : str
            A filter, `"metrics.val_acc > 0.9"`, and what to sort by, `"-metrics.val_acc"`: docs/api.md, Filters.

        Returns
        -------
        History
            Its `total` counts those that match.

        Raises
        ------
        InvalidArgument
            If filter or order cannot be read, or these versions are of no server.
        """
        if self._pages is None:
            raise InvalidArgument("these versions are of no server", hint="`lmvp history NAME` has pages")
        versions, total = self._pages(first, count, where, order)
        return self._part(versions, total, first)

    @property
    def client(self) -> Client:
        """What asks the server for them.

        Raises
        ------
        InvalidArgument
            If they are of no server.
        """
        if self._client is None:
            raise InvalidArgument("these versions are of no server", hint="`lmvp history NAME` asks one")
        return self._client

    @property
    def can_page(self) -> bool:
        """Whether there is a server to ask for more."""
        return self._pages is not None

    def mark(self) -> str:
        """Return what is another after whatever happened in the project."""
        project = self.title.partition("/")[0]
        return self.client.last_event(project)

    @property
    def first(self) -> int:
        """How many versions come before these."""
        return self._newer

    def version(self, which: int | str) -> Version:
        """Return a version by its number, `3` or `"v3"`, or by an alias.

        Raises
        ------
        NotFound
            If it is not among these versions.
        InvalidArgument
            If several models of a project have it.
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
        """The models that these versions belong to, those with the newest versions first."""
        return tuple(dict.fromkeys(v.model for v in self._versions))

    @property
    def of_project(self) -> bool:
        """Whether these are versions of the models of a project, be it that it has one only."""
        return len(self.models) > 1 or any(self.title == v.project for v in self._versions[:1])

    @property
    def metric(self) -> str | None:
        """The metric that tables and plots show."""
        if self._metric is not None:
            return self._metric
        return next(iter(self.metrics), None)

    @property
    def metrics(self) -> tuple[str, ...]:
        """All metric keys, those that most versions have first, then in the order of the newest version."""
        return tuple(key for key, _ in Counter(key for v in self._versions for key in v.metrics).most_common())

    @property
    def layers(self) -> Layers:
        """The layer strips of the newest 200 of these versions; empty for a project, and where they cannot be had."""
        if self._layers is None:
            self._layers = self._fetched()
        return self._layers

    def _fetched(self) -> Layers:
        if self._fetch is None or len(self.models) != 1:
            return Layers()
        try:
            return self._fetch(self._versions[:SHOWN])
        except LmvpError:  # a table without strips is better than none
            return Layers()

    def to_pandas(self) -> Any:
        """Return a DataFrame with a row for each version, and the columns `metrics.…` and `params.…`.

        Raises
        ------
        MissingDependency
            If pandas is not installed.
        """
        from lmvp.tracking.reading import pandas_module

        return pandas_module().DataFrame([_flat(v) for v in self._versions])

    to_frame = to_pandas

    def to_dict(self) -> dict[str, Any]:
        """Return what a widget shows, as JSON: the newest 200 rows, the graph, the strips."""
        from lmvp.render.data import history_data

        return history_data(self)

    def __repr__(self) -> str:
        from lmvp.render.text import history_text
        from lmvp.render.words import printable

        return printable(history_text(self))

    def to_svg(self) -> str:
        """Return the newest 30 versions as one SVG picture, for a README or a slide."""
        from lmvp.render.pictures import history_svg

        return history_svg(self)

    def _repr_html_(self) -> str:
        from lmvp.render.html import history_html

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
