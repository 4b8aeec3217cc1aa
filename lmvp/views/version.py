"""`Showing`, the details of a version: tensors, metrics, params, environment, parent, children and model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import Any

from lmvp.core.layers import group_of, layer_of
from lmvp.core.manifest import File, Tensor
from lmvp.core.marimo import MarimoDisplay
from lmvp.core.schemas import (
    Amount,
    Child,
    Histograms,
    Layers,
    Model,
    Version,
)
from lmvp.views._source import VersionSource
from lmvp.views.diff import SpreadOf


@dataclass(frozen=True)
class Showing(MarimoDisplay):
    """The details of a version. Notebooks draw them; `str` returns them as text.

    Attributes
    ----------
    version : Version
        The record of the version.
    model : Model
        The record of its model, with the model card.
    tensors : tuple of Tensor
        The tensors in the order of the model: name, dtype, shape, and size in bytes.
    files : tuple of File
        The files.
    parent : Version, optional
        The first parent, to compare the metrics with.
    layers : Layers
        The layer strip.
    amounts : mapping of str to Amount
        The amount of change of each tensor since the first parent; empty if it is unknown.
    children : tuple of Child
        The newest children in the project, at most 20.
    grown : int
        The total number of children.
    spread : callable, optional
        Computes histograms of tensors; None if they are not available.
    """

    version: Version
    model: Model
    tensors: tuple[Tensor, ...]
    files: tuple[File, ...]
    parent: Version | None = None
    layers: Layers = field(default_factory=Layers)
    amounts: Mapping[str, Amount] = field(default_factory=dict)
    children: tuple[Child, ...] = ()
    grown: int = 0
    """The total number of children."""
    spread: SpreadOf | None = field(default=None, repr=False, compare=False)
    """Computes histograms of tensors; None if they are not available."""

    @property
    def parameters(self) -> int:
        """The number of parameters: the number of elements of all tensors."""
        return sum(count(tensor.shape) for tensor in self.tensors)

    def code(self, layer: str) -> str:
        """Return the code of a layer in the layer strip; empty for an unknown layer. See `lmvp.core.schemas.Layers`."""
        return self._codes.get(layer, "")

    @cached_property
    def _codes(self) -> dict[str, str]:
        codes = self.layers.strips.get(str(self.version.number), "")
        # Not strict: a strip from a server can be shorter than the axis.
        return {each.path: code for each, code in zip(self.layers.axis, codes, strict=False)}

    def groups(self) -> list[tuple[str, list[Tensor]]]:
        """Return the tensors grouped by module, up to the index of the module, for example `blocks.0`."""
        found = groupby(self.tensors, key=lambda tensor: group_of(layer_of(tensor.name)))
        return [(name, list(members)) for name, members in found]

    def __repr__(self) -> str:
        from lmvp.core.sanitize import printable
        from lmvp.views.version_text import showing_text

        return printable(showing_text(self))

    def to_pandas(self) -> Any:
        """Return a DataFrame with a row for each tensor: name, dtype, shape and size in bytes.

        Returns
        -------
        pandas.DataFrame

        Raises
        ------
        MissingDependency
            If pandas is not installed.
        """
        from lmvp.core.optional import pandas_module

        rows = [(tensor.name, tensor.dtype, tensor.shape, tensor.size) for tensor in self.tensors]
        return pandas_module().DataFrame(rows, columns=["name", "dtype", "shape", "size"])

    def to_svg(self) -> str:
        """Return the version as an SVG image, for example for a README or a slide."""
        from lmvp.views._svg import showing_svg

        return showing_svg(self)

    def _repr_html_(self) -> str:
        from lmvp.views.version_text import showing_html

        return showing_html(self)


def count(shape: Sequence[int]) -> int:
    """Return the number of elements of a tensor with this shape."""
    total = 1
    for length in shape:
        total *= length
    return total


def show(source: VersionSource, version: Version, layers: Layers | None = None) -> Showing:
    """Read the details of a version; see `Client.show`. `layers` is its layer strip, if it is known."""

    def spread(tensors: Sequence[str]) -> Histograms:
        return source.histograms(version.reference, tensors)

    manifest = source.manifest(version)
    children, grown = source.children(version)
    return Showing(
        version,
        source.model(f"{version.project}/{version.model}"),
        manifest.tensors,
        manifest.files,
        source.parent(version),
        source.layers(version) if layers is None else layers,
        source.amounts(version),
        tuple(children),
        grown,
        spread,
    )
