"""The changes of files, tensors and values between two versions, and of layers as sums over their tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lmvp.core.layers import group_of, is_counter, layer_of, sum_amounts
from lmvp.core.manifest import File, Manifest, Tensor
from lmvp.core.schemas import Amount, Histograms, Layer, Version

SpreadOf = Callable[[Sequence[str]], Histograms]
"""Fetches histograms of the tensors with these names, before and after."""
FileKind = Literal["added", "removed", "changed", "identical"]
TensorKind = Literal["new", "removed", "reshaped", "changed", "identical"]


@dataclass(frozen=True)
class FileChange:
    """The change of a file.

    Attributes
    ----------
    path : str
        Path within the version.
    change : str
        `added`, `removed`, `changed` or `identical`.
    size_before, size_after : int or None
        Size in bytes; None if the version does not have the file.
    """

    path: str
    change: FileKind
    size_before: int | None
    size_after: int | None


@dataclass(frozen=True)
class TensorChange:
    """The change of a tensor.

    Attributes
    ----------
    name : str
    change : str
        `new`, `removed`, `reshaped` (another shape or dtype), `changed` or `identical`.
    shape_before, shape_after : tuple of int or None
        Shape; None if the version does not have the tensor.
    dtype_before, dtype_after : str or None
        Dtype as in safetensors, for example `F32`; None if the version does not have the tensor.
    amount : Amount, optional
        The amount of change; None if it was not measured, nothing in the layer changed, or the tensor was reshaped.
    """

    name: str
    change: TensorKind
    shape_before: tuple[int, ...] | None
    shape_after: tuple[int, ...] | None
    dtype_before: str | None
    dtype_after: str | None
    amount: Amount | None = None

    @property
    def layer(self) -> str:
        """The layer of the tensor: its name up to the last dot or slash, or the name itself."""
        return layer_of(self.name)

    @property
    def size(self) -> int:
        """The number of elements in the newer version; in the older one if the tensor was removed."""
        shape = self.shape_after if self.shape_after is not None else self.shape_before
        return math.prod(shape or ())

    @property
    def is_counter(self) -> bool:
        """Whether the tensor counts steps, batches or samples; see the function `is_counter`."""
        shape = self.shape_after if self.shape_after is not None else self.shape_before
        return is_counter(self.name, self.dtype_after or self.dtype_before or "", shape or ())


@dataclass(frozen=True)
class ValueChange:
    """The change of a metric, param, tag, package or part of the environment.

    Attributes
    ----------
    key : str
    before, after : object
        The values; None if the version does not have the key.
    """

    key: str
    before: Any
    after: Any


def axis_of(tensors: Iterable[TensorChange]) -> list[tuple[Layer, list[TensorChange]]]:
    """Group tensors into layers, in model order."""
    found: dict[str, list[TensorChange]] = {}
    for tensor in tensors:
        found.setdefault(tensor.layer, []).append(tensor)
    return [(Layer(path=p, group=group_of(p), size=sum(t.size for t in ts)), ts) for p, ts in found.items()]


def layer_change(tensors: Iterable[TensorChange]) -> TensorKind:
    """Return the change of a layer from those of its tensors. It is new or removed only if all its tensors are."""
    kinds = {tensor.change for tensor in tensors}
    if len(kinds) == 1:
        return next(iter(kinds))
    return "reshaped" if kinds & {"new", "removed", "reshaped"} else "changed"


def layer_amount(tensors: Iterable[TensorChange]) -> Amount | None:
    """Return the amount of change of a layer; see `sum_amounts`."""
    return sum_amounts((tensor.is_counter, tensor.amount) for tensor in tensors)


def file_changes(before: Manifest, after: Manifest) -> Iterable[FileChange]:
    """Yield the change of each file, in the order of the older version."""
    old, new = {f.path: f for f in before.files}, {f.path: f for f in after.files}
    for path in _union(old, new):
        a, b = old.get(path), new.get(path)
        yield FileChange(path, _file_kind(a, b), a.size if a else None, b.size if b else None)


def _file_kind(before: File | None, after: File | None) -> FileKind:
    if before is None:
        return "added"
    if after is None:
        return "removed"
    return "identical" if before.digest == after.digest else "changed"


def tensor_changes(before: Manifest, after: Manifest, amounts: Mapping[str, Amount]) -> Iterable[TensorChange]:
    """Yield the change of each tensor, in model order."""
    old, new = {t.name: t for t in before.tensors}, {t.name: t for t in after.tensors}
    for name in _union(old, new):
        a, b = old.get(name), new.get(name)
        yield TensorChange(
            name,
            _tensor_kind(a, b),
            a.shape if a else None,
            b.shape if b else None,
            a.dtype if a else None,
            b.dtype if b else None,
            amounts.get(name),
        )


def _tensor_kind(before: Tensor | None, after: Tensor | None) -> TensorKind:
    if before is None:
        return "new"
    if after is None:
        return "removed"
    if (before.dtype, before.shape) != (after.dtype, after.shape):
        return "reshaped"
    return "identical" if before.digest == after.digest else "changed"


def value_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[ValueChange]:
    """Yield the values that differ."""
    for key in _union(before, after):
        if not (key in before and key in after and _same(before[key], after[key])):
            yield ValueChange(key, before.get(key), after.get(key))


def facts_of(version: Version) -> dict[str, Any]:
    """Return the environment of a version for display: commit, Python, platform and host, as far as they are known."""
    made, git = version.environment, version.environment.get("git")
    found = {key: made[key] for key in ("python", "platform", "host") if isinstance(made.get(key), str)}
    if isinstance(git, dict) and isinstance(git.get("commit"), str):
        dirty = " with uncommitted changes" if git.get("dirty") else ""
        found = {"commit": f"{git['commit'][:10]}{dirty}", **found}
    return found


def packages(version: Version) -> dict[str, Any]:
    """Return the versions of the packages that a version was made with."""
    known = version.environment.get("packages")
    return known if isinstance(known, dict) else {}


def _same(a: Any, b: Any) -> bool:
    """Return whether two values are equal; NaN equals NaN, but True does not equal 1."""
    both_nan = isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b)
    return both_nan or (a == b and isinstance(a, bool) == isinstance(b, bool))


def _union(before: Iterable[str], after: Iterable[str]) -> list[str]:
    """Return the names of both sides in the order of `after`; each removed name follows its previous neighbor."""
    kept = dict.fromkeys(after)
    removed: dict[str | None, list[str]] = {}
    anchor = None
    for name in before:
        if name in kept:
            anchor = name
        else:
            removed.setdefault(anchor, []).append(name)
    return [*removed.get(None, []), *(n for name in kept for n in (name, *removed.get(name, [])))]
