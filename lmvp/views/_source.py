"""`Source`, from which the views read their data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from lmvp.core.manifest import Manifest
    from lmvp.core.schemas import Amount, Child, Histograms, Layers, Model, Version
    from lmvp.core.schemas.runs import Curves, KeyRecord


class VersionSource(Protocol):
    """Data of versions."""

    def version(self, name: str, /) -> Version:
        """Return the version with a reference, `project/model[@revision]`."""

    def model(self, name: str, /) -> Model:
        """Return the model with the name `project/model`."""

    def manifest(self, version: Version, /) -> Manifest:
        """Return the manifest of a version."""

    def parent(self, version: Version, /) -> Version | None:
        """Return the first parent of a version; None if it has no parents, or the parent was removed."""

    def children(self, version: Version, limit: int = 20, /) -> tuple[Sequence[Child], int]:
        """Return the newest children of a version, and the total number of children."""

    def layers(self, version: Version, /) -> Layers:
        """Return the layer strip of a version."""

    def amounts(self, version: Version, /) -> Mapping[str, Amount]:
        """Return the amount of change of each tensor since the first parent; empty if it is unknown."""

    def histograms(self, name: str, tensors: Sequence[str], /, *, bins: int = 28, against: str = "") -> Histograms:
        """Return histograms of the values of tensors of a version, and of another version as `[model]@revision`."""


class CurveSource(Protocol):
    """Points of runs."""

    def curves(
        self, project: str, runs: Iterable[str], keys: Iterable[str] = (), *, points: int = 1000, axis: str = "step"
    ) -> Curves:
        """Return curves of several runs and metrics."""

    def metric_keys(self, project: str, run: str) -> list[KeyRecord]:
        """Return the records of the metrics of a run: number of points, newest point and range."""


class Source(VersionSource, CurveSource, Protocol):
    """Data of versions and runs: a client, which sends requests, or the services of a server.

    Both give equal views, so text, static HTML, notebook and console come from the same code.
    """
