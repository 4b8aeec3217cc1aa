"""`Diff`: the differences between two versions, and the functions that group tensors into layers.

A comparison needs the records and manifests of both versions, but not their weights: tensors are compared by digest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any, Literal

import msgspec

from lmvp.core.layers import group_of, is_counter, layer_of, sum_amounts
from lmvp.core.manifest import File, Manifest, Tensor
from lmvp.core.marimo import MarimoDisplay
from lmvp.core.schemas import (
    Amount,
    Changes,
    Histograms,
    Layer,
    Version,
)
from lmvp.views._source import VersionSource

SpreadOf = Callable[[Sequence[str]], Histograms]
"""Fetches histograms of the tensors with these names, before and after."""

FileKind = Literal["added", "removed", "changed", "identical"]
TensorKind = Literal["new", "removed", "reshaped", "changed", "identical"]

STEPS_LIMIT = 5_000_000
"""Maximum number of line comparisons for a diff of code, about a second. A hostile text can need billions."""
CONTEXT = 2
"""Number of unchanged lines around a change in a diff of code."""


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


@dataclass(frozen=True)
class Diff(MarimoDisplay):
    """The differences between two versions, as `lmvp.diff` returns them.

    A diff prints as text and displays as static HTML in a notebook. With `%load_ext lmvp_jupyter` it becomes a widget.

    Attributes
    ----------
    before, after : Version
    files : tuple of FileChange
        All files, including identical ones.
    tensors : tuple of TensorChange
        All tensors in model order, including identical ones.
    metrics, params, tags, environment, packages : tuple of ValueChange
        Only the values that differ. `environment` has the commit, Python, platform and host.
    code : tuple of str
        Lines of a unified diff of the stored code; empty if the code is equal or not stored with both versions.
    """

    before: Version
    after: Version
    files: tuple[FileChange, ...]
    tensors: tuple[TensorChange, ...]
    metrics: tuple[ValueChange, ...]
    params: tuple[ValueChange, ...]
    tags: tuple[ValueChange, ...] = ()
    environment: tuple[ValueChange, ...] = ()
    packages: tuple[ValueChange, ...] = ()
    code: tuple[str, ...] = ()
    spread: SpreadOf | None = field(default=None, repr=False, compare=False)
    """Fetches histograms of the values of tensors, before and after; None if no server is available for it."""

    @classmethod
    def between(
        cls,
        before: Version,
        after: Version,
        manifest_before: Manifest,
        manifest_after: Manifest,
        changes: Changes | None = None,
        spread: SpreadOf | None = None,
    ) -> Diff:
        """Compare two versions by their records and manifests, without their weights.

        Parameters
        ----------
        before, after : Version
            The records of the versions.
        manifest_before, manifest_after : Manifest
            Their manifests.
        changes : Changes, optional
            The measured amounts of change of tensors.
        spread : callable, optional
            Fetches histograms of tensors.

        Returns
        -------
        Diff
        """
        return cls(
            before,
            after,
            tuple(_files(manifest_before, manifest_after)),
            tuple(_tensors(manifest_before, manifest_after, changes.tensors if changes else {})),
            tuple(_values(before.metrics, after.metrics)),
            tuple(_values(before.params, after.params)),
            tuple(_values(before.tags, after.tags)),
            tuple(_values(facts_of(before), facts_of(after))),
            tuple(_values(_packages(before), _packages(after))),
            tuple(_code_lines(before, after)),
            spread,
        )

    def to_pandas(self) -> Any:
        """Return a DataFrame with a row for each tensor: name, change, shapes, dtypes and relative change.

        A counter such as `num_batches_tracked` has no relative change.

        Returns
        -------
        pandas.DataFrame

        Raises
        ------
        MissingDependency
            If pandas is not installed.
        """
        from lmvp.core.optional import pandas_module

        fields = ("name", "change", "shape_before", "shape_after", "dtype_before", "dtype_after")
        rows = [(*(getattr(tensor, field) for field in fields), _relative(tensor)) for tensor in self.tensors]
        return pandas_module().DataFrame(rows, columns=[*fields, "relative"])

    @property
    def identical(self) -> bool:
        """Whether all files of both versions are equal."""
        return all(file.change == "identical" for file in self.files)

    @property
    def title(self) -> str:
        """The title: `project/model v1 → v2`, or two references if the models differ."""
        b, a = self.before, self.after
        if (b.project, b.model) == (a.project, a.model):
            return f"{b.project}/{b.model} {b.name} → {a.name}"
        return f"{b.reference} → {a.reference}"

    def __repr__(self) -> str:
        from lmvp.core.sanitize import printable
        from lmvp.views._text import diff_text

        return printable(diff_text(self))

    def to_svg(self) -> str:
        """Return the layer chart as standalone SVG, for a README or a slide.

        Returns
        -------
        str
            An `<svg>` element.
        """
        from lmvp.views._svg import diff_svg

        return diff_svg(self)

    def _repr_html_(self) -> str:
        from lmvp.views._html import diff_html

        return diff_html(self)


def _relative(tensor: TensorChange) -> float | None:
    """Return the relative change of a tensor; None for a counter, whose change would exceed that of all weights."""
    return tensor.amount.relative if tensor.amount is not None and not tensor.is_counter else None


def diff_of(
    source: VersionSource, before: Version, after: Version, changes: Changes | None, limit: int | None = None
) -> Diff:
    """Read two versions and compare them.

    Parameters
    ----------
    changes : Changes, optional
        The amount of change of each tensor, if it was measured.
    limit : int, optional
        Maximum number of tensors of each version to compare. Default: all.
    """

    def spread(tensors: Sequence[str]) -> Histograms:
        return source.histograms(after.reference, tensors, against=f"{before.model}@{before.name}")

    old, new = (
        manifest if limit is None else msgspec.structs.replace(manifest, tensors=manifest.tensors[:limit])
        for manifest in (source.manifest(before), source.manifest(after))
    )
    return Diff.between(before, after, old, new, changes, spread if changes else None)


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


def _files(before: Manifest, after: Manifest) -> Iterable[FileChange]:
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


def _tensors(before: Manifest, after: Manifest, amounts: Mapping[str, Amount]) -> Iterable[TensorChange]:
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


def _values(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[ValueChange]:
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


def _packages(version: Version) -> dict[str, Any]:
    known = version.environment.get("packages")
    return known if isinstance(known, dict) else {}


def code_of(version: Version) -> str:
    """Return the code that is stored with a version: its script, or the cells of its notebook separated by a line."""
    return "\n\n".join(cells_of(version.environment))


def cells_of(environment: Mapping[str, Any]) -> list[str]:
    """Return the code that is stored with a version or run: the cells of its notebook, or its script as one cell.

    Examples
    --------
    >>> cells_of({"code": {"cells": ["a = 1", "a"]}}), cells_of({"code": {"source": "a = 1"}}), cells_of({})
    (['a = 1', 'a'], ['a = 1'], [])
    """
    kept = environment.get("code")
    if not isinstance(kept, dict):  # a run of `%%lmvp run` has the source of its cell instead
        return [str(environment["cell"])] if environment.get("cell") else []
    cells = kept.get("cells")
    found = [str(cell) for cell in cells] if isinstance(cells, list) else [str(kept.get("source", ""))]
    return [cell for cell in found if cell]


def _code_lines(before: Version, after: Version) -> Iterable[str]:
    old, new = code_of(before), code_of(after)
    if old and new:
        yield from unified_diff(old.splitlines(), new.splitlines(), before.name, after.name)


def unified_diff(old: Sequence[str], new: Sequence[str], before: str, after: str) -> Iterable[str]:
    """Yield the lines of a unified diff, in limited time.

    `difflib` takes cubic time for texts whose lines repeat often. After `STEPS_LIMIT` comparisons, the diff replaces
    all lines between the common beginning and the common end: it is still correct, but not the shortest.

    Parameters
    ----------
    old, new : sequence of str
        The lines of both texts.
    before, after : str
        Their names in the first two lines of the diff.

    Examples
    --------
    >>> list(unified_diff(["a", "b"], ["a", "c"], "v1", "v2"))
    ['--- v1', '+++ v2', '@@ -1,2 +1,2 @@', ' a', '-b', '+c']
    """
    matcher = _Matcher(old, new)
    try:
        matcher.get_opcodes()
    except _TooManySteps:
        matcher.opcodes = _replaced(old, new)
    for number, group in enumerate(matcher.get_grouped_opcodes(CONTEXT)):
        yield from () if number else (f"--- {before}", f"+++ {after}")
        yield f"@@ -{_span(group[0][1], group[-1][2])} +{_span(group[0][3], group[-1][4])} @@"
        for kind, i, i_end, j, j_end in group:
            if kind == "equal":
                yield from (f" {line}" for line in old[i:i_end])
            else:
                yield from (f"-{line}" for line in old[i:i_end])
                yield from (f"+{line}" for line in new[j:j_end])


class _TooManySteps(Exception):
    """The diff needs more than `STEPS_LIMIT` comparisons."""


class _Matcher(SequenceMatcher[str]):
    """A matcher that counts its comparisons and raises `_TooManySteps` at the limit."""

    def __init__(self, old: Sequence[str], new: Sequence[str]) -> None:
        super().__init__(None, old, new)
        self.opcodes: Any = None
        self.steps = 0
        self._old = old

    def find_longest_match(self, alo: int = 0, ahi: int | None = None, blo: int = 0, bhi: int | None = None) -> Any:
        places: Mapping[str, Sequence[int]] = self.b2j  # type: ignore[attr-defined] # public, typeshed omits it
        self.steps += sum(1 + len(places.get(line, ())) for line in self._old[alo:ahi])
        if self.steps > STEPS_LIMIT:
            raise _TooManySteps
        return super().find_longest_match(alo, ahi, blo, bhi)


def _replaced(old: Sequence[str], new: Sequence[str]) -> list[tuple[str, int, int, int, int]]:
    """Return the operations that replace all lines between the common beginning and the common end."""
    most = min(len(old), len(new))
    first = next((at for at in range(most) if old[at] != new[at]), most)
    last = next((at for at in range(most - first) if old[-1 - at] != new[-1 - at]), most - first)
    i, j = len(old) - last, len(new) - last
    found = [("equal", 0, first, 0, first), ("replace", first, i, first, j), ("equal", i, len(old), j, len(new))]
    return [one for one in found if one[1] < one[2] or one[3] < one[4]]


def _span(start: int, stop: int) -> str:
    """Format a range of lines for an `@@` line. The format states the line before an empty range."""
    length = stop - start
    return f"{start + 1}" if length == 1 else f"{start + (length > 0)},{length}"


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
