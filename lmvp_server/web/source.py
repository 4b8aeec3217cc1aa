"""`ServiceSource`: the data of the views for a page, read from the services without a request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from lmvp.core.manifest import Manifest
from lmvp.core.references import Reference
from lmvp.core.schemas import Amount, Changes, Child, Histograms, Layers, Model, Version
from lmvp.core.schemas.runs import Curves, KeyRecord
from lmvp.errors import LmvpError
from lmvp_server.process import cancellation
from lmvp_server.services import Services
from lmvp_server.services.access import Caller
from lmvp_server.services.metrics import CurveQuery, as_curves
from lmvp_server.services.paging import Page
from lmvp_server.services.tensors import AT_ONCE

_KEYS = 1000
"""Maximum number of metrics of a run that are read."""


class ServiceSource:
    """The `Source` of the views that reads from the services with the rights of one caller.

    Parameters
    ----------
    first, last : float, optional
        The range of the axis of curves. Default: all.
    """

    def __init__(
        self, services: Services, caller: Caller, *, first: float | None = None, last: float | None = None
    ) -> None:
        self._services, self._caller, self._range = services, caller, (first, last)

    def version(self, name: str, /) -> Version:
        """Return the version with a reference, `project/model[@revision]`."""
        place = Reference.parse(name)
        return record(self._services.versions.version(self._caller, place.project or "", place.model, place.revision))

    def model(self, name: str, /) -> Model:
        """Return the model with the name `project/model`."""
        place = Reference.parse(name)
        return msgspec.convert(self._services.catalog.model(self._caller, place.project or "", place.model), Model)

    def manifest(self, version: Version, /) -> Manifest:
        """Return the manifest of a version."""
        cancellation.check()
        return self._services.versions.content(self._caller, version.project, version.model, version.name)[1]

    def parent(self, version: Version, /) -> Version | None:
        """Return the first parent of a version, or None if it was removed or belongs to another model."""
        if not version.parents:
            return None
        try:
            return self.version(f"{version.project}/{version.model}@{version.parents[0].digest}")
        except LmvpError:  # removed, or a version of another model
            return None

    def children(self, version: Version, limit: int = 20, /) -> tuple[Sequence[Child], int]:
        """Return the newest children of a version, and the total number of children."""
        asked = self._caller, version.project, version.model, version.name, Page(limit)
        found = self._services.versions.children(*asked)
        return found["items"], found["total"]

    def layers(self, version: Version, /) -> Layers:
        """Return the layer strip of a version; an empty one if it cannot be computed, so that the page is shown."""
        try:
            return self._services.layers.one(self._caller, version.project, version.model, version.name) or Layers()
        except LmvpError:
            return Layers()

    def amounts(self, version: Version, /) -> Mapping[str, Amount]:
        """Return the amount of change of each tensor since the first parent; empty if it is unknown."""
        parent = self.parent(version)
        # Comparing larger versions takes too long for a page.
        if parent is None or max(parent.size, version.size) > AT_ONCE:
            return {}
        return self.changes(parent, version).tensors

    def changes(self, before: Version, after: Version) -> Changes:
        """Return the amount of change of each tensor between two versions of a project."""
        against = f"{before.model}@{before.name}"
        return self._services.tensor_changes.changes(self._caller, after.project, after.model, after.name, against)

    def histograms(self, name: str, tensors: Sequence[str], /, *, bins: int = 28, against: str = "") -> Histograms:
        """Return histograms of the values of tensors of a version, and of another version as `[model]@revision`."""
        place = Reference.parse(name)
        asked = self._caller, place.project or "", place.model, place.revision, tensors
        return self._services.histograms.of_version(*asked, bins=bins, against=against)

    def curves(
        self, project: str, runs: Iterable[str], keys: Iterable[str] = (), *, points: int = 1000, axis: str = "step"
    ) -> Curves:
        """Return curves of several runs and metrics."""
        asked = CurveQuery(tuple(runs), tuple(keys), points, *self._range, axis)
        return as_curves(self._services.metrics.curves(self._caller, project, asked))

    def metric_keys(self, project: str, run: str) -> list[KeyRecord]:
        """Return the records of the metrics of a run."""
        return list(self._services.metrics.keys(self._caller, project, run, "", Page(_KEYS))["items"])


def record(found: Any) -> Version:
    """Convert a document of the services to a version."""
    return msgspec.convert(found, Version)
