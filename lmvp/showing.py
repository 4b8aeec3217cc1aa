"""`Showing`: all there is to say about one version of a model: its tensors, what made it, what grew from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any

from lmvp.live import MarimoDisplay
from lmvp.records import Amount, Child, Histograms, Layers, Model, Version
from lmvp.storage.manifest import File, Tensor
from lmvp.views.diff import SpreadOf, group_of, layer_of

if TYPE_CHECKING:
    from lmvp.looking import Looking


@dataclass(frozen=True)
class Showing(MarimoDisplay):
    """A version, opened up.

    Attributes
    ----------
    version : Version
    model : Model
    tensors : tuple of Tensor
        In model order: name, dtype, shape, and size in bytes.
    files : tuple of File
    parent : Version, optional
        The version that it grew from, to tell what became of its metrics.
    layers : Layers
        Its layer strip.
    amounts : dict
        By tensor: how much it changed since the parent, where that is known.
    children : tuple of Child
        The versions of the project that grew from it; at most 20.
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
    """How many versions grew from it."""
    spread: SpreadOf | None = field(default=None, repr=False, compare=False)
    """What tells how the numbers of some tensors are spread; None where nobody can."""

    @property
    def parameters(self) -> int:
        """How many numbers its tensors hold."""
        return sum(count(tensor.shape) for tensor in self.tensors)

    def code(self, layer: str) -> str:
        """Return the code of a layer in the strip, as `lmvp.records.Layers` writes it; empty where there is none."""
        return self._codes.get(layer, "")

    @cached_property
    def _codes(self) -> dict[str, str]:
        codes = self.layers.strips.get(str(self.version.number), "")
        return {each.path: code for each, code in zip(self.layers.axis, codes, strict=False)}

    def groups(self) -> list[tuple[str, list[Tensor]]]:
        """Return the tensors by the module that holds them, up to its index: `blocks.0`."""
        found = groupby(self.tensors, key=lambda tensor: group_of(layer_of(tensor.name)))
        return [(name, list(members)) for name, members in found]

    def __repr__(self) -> str:
        from lmvp.render.showing import showing_text
        from lmvp.render.words import printable

        return printable(showing_text(self))

    def to_pandas(self) -> Any:
        """Return a DataFrame with a row for each tensor: name, dtype, shape and size in bytes.

        Raises
        ------
        MissingDependency
            If pandas is not installed.
        """
        from lmvp.tracking.reading import pandas_module

        rows = [(tensor.name, tensor.dtype, tensor.shape, tensor.size) for tensor in self.tensors]
        return pandas_module().DataFrame(rows, columns=["name", "dtype", "shape", "size"])

    def to_svg(self) -> str:
        """Return the version as one SVG picture, for a README or a slide."""
        from lmvp.render.pictures import showing_svg

        return showing_svg(self)

    def _repr_html_(self) -> str:
        from lmvp.render.showing import showing_html

        return showing_html(self)


def count(shape: Sequence[int]) -> int:
    """Return how many numbers a tensor of some shape holds."""
    total = 1
    for length in shape:
        total *= length
    return total


def show(client: Looking, name: str) -> Showing:
    """Return all there is to say about a version; see `Client.show`."""
    version = client.version(name)
    manifest = client.manifest(version)
    children, grown = client.children(version)

    def spread(tensors: Sequence[str]) -> Histograms:
        return client.histograms(version.reference, tensors)

    return Showing(
        version,
        client.model(f"{version.project}/{version.model}"),
        manifest.tensors,
        manifest.files,
        client.parent(version),
        client.layers(version),
        client.amounts(version),
        tuple(children),
        grown,
        spread,
    )
