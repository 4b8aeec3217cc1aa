"""`Diff`: what differs between two versions: files, tensors, metrics, params."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from functools import reduce
from operator import add
from typing import Any, Literal

from lmvp.live import MarimoDisplay
from lmvp.records import Amount, Changes, Histograms, Layer, Version
from lmvp.storage.manifest import File, Manifest, Tensor

SpreadOf = Callable[[Sequence[str]], Histograms]
"""What fetches histograms of the tensors of these names."""

FileKind = Literal["added", "removed", "changed", "identical"]
TensorKind = Literal["new", "removed", "reshaped", "changed", "identical"]

STEPS_LIMIT = 5_000_000
"""Comparisons of lines in a diff of code, about a second; a hostile text can ask for billions."""
CONTEXT = 2
"""Lines around a change that a diff of code shows."""
_COUNTERS = frozenset(
    ("num_batches_tracked", "n_averaged", "step", "steps", "global_step", "iteration", "iterations", "n_iter_", "t_",
     "n_samples_seen_", "count", "counter")
)  # fmt: skip
_NO_AMOUNT = Amount(count=0, changed=0, squares=0.0, base_squares=0.0, largest=0.0, after_squares=0.0)


@dataclass(frozen=True)
class FileChange:
    """A file of either version; the size is None on the side that lacks it."""

    path: str
    change: FileKind
    size_before: int | None
    size_after: int | None


@dataclass(frozen=True)
class TensorChange:
    """A tensor of either version. `reshaped` means another shape or dtype; the side that lacks it has None.

    Attributes
    ----------
    amount : Amount, optional
        How much it changed; None where nothing in its layer changed, its form did, or it was not measured.
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
        """The module that holds it: the name up to the last dot or slash, or the name itself."""
        return layer_of(self.name)

    @property
    def size(self) -> int:
        """How many numbers it holds, after, or before where it was removed."""
        shape = self.shape_after if self.shape_after is not None else self.shape_before
        return math.prod(shape or ())

    @property
    def is_counter(self) -> bool:
        """Whether it counts steps, batches or samples; see `is_counter`."""
        shape = self.shape_after if self.shape_after is not None else self.shape_before
        return is_counter(self.name, self.dtype_after or self.dtype_before or "", shape or ())


@dataclass(frozen=True)
class ValueChange:
    """A metric, a param, a tag, a fact or a package that differs; the side that lacks it has None."""

    key: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Diff(MarimoDisplay):
    """What differs between two versions.

    Attributes
    ----------
    before, after : Version
    files : tuple of FileChange
        All files, the identical ones too.
    tensors : tuple of TensorChange
        All tensors in model order, the identical ones too.
    metrics, params, tags, environment, packages : tuple of ValueChange
        Only what differs; `environment` is the commit, Python, the platform and the host.
    code : tuple of str
        Lines of a unified diff of the code that was kept with them; empty where it is the same, or not kept.
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
    """What tells how the numbers of some tensors are spread before and after; None where nobody can."""

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
        """Compare two versions by their records and manifests; no weights are needed.

        Parameters
        ----------
        changes : Changes, optional
            How much the tensors changed, where that was measured.
        spread : callable, optional
            Fetches histograms of tensors.
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
        """Return a DataFrame with a row for each tensor: name, change, shapes, dtypes, and the relative change.

        A counter, as `num_batches_tracked`, has no relative change.

        Raises
        ------
        MissingDependency
            If pandas is not installed.
        """
        from lmvp.tracking.reading import pandas_module

        fields = ("name", "change", "shape_before", "shape_after", "dtype_before", "dtype_after")
        rows = [(*(getattr(tensor, field) for field in fields), _relative(tensor)) for tensor in self.tensors]
        return pandas_module().DataFrame(rows, columns=[*fields, "relative"])

    @property
    def identical(self) -> bool:
        """Whether both versions hold the same files."""
        return all(file.change == "identical" for file in self.files)

    @property
    def title(self) -> str:
        """What is compared: `project/model v1 → v2`, or two references where the models differ."""
        b, a = self.before, self.after
        if (b.project, b.model) == (a.project, a.model):
            return f"{b.project}/{b.model} {b.name} → {a.name}"
        return f"{b.reference} → {a.reference}"

    def __repr__(self) -> str:
        from lmvp.render.text import diff_text
        from lmvp.render.words import printable

        return printable(diff_text(self))

    def to_svg(self) -> str:
        """Return the layers from the side as one SVG picture, for a README or a slide."""
        from lmvp.render.pictures import diff_svg

        return diff_svg(self)

    def _repr_html_(self) -> str:
        from lmvp.render.html import diff_html

        return diff_html(self)


def _relative(tensor: TensorChange) -> float | None:
    """Return the relative change of a tensor; None of a counter, which would be the largest of all."""
    return tensor.amount.relative if tensor.amount is not None and not tensor.is_counter else None


def layer_of(tensor: str) -> str:
    """Give the layer that a tensor belongs to: its name up to the last dot or slash.

    Examples
    --------
    >>> layer_of("blocks.0.attn.qkv.weight"), layer_of("lstm/lstm_cell/kernel"), layer_of("scale")
    ('blocks.0.attn.qkv', 'lstm/lstm_cell', 'scale')
    """
    return tensor[: max(tensor.rfind("."), tensor.rfind("/"), 0)] or tensor


def group_of(layer: str) -> str:
    """Give the group of a layer: its path up to the first block index.

    Examples
    --------
    >>> [group_of(layer) for layer in ("blocks.0.attn.qkv", "head.norm", "conv1", "0", "lstm/lstm_cell")]
    ['blocks.0', 'head', 'conv1', '0', 'lstm']
    """
    indexed = re.match(r"(?:[^./]*[./])*?\d+(?=[./]|$)", layer)
    return indexed[0] if indexed else re.split("[./]", layer, maxsplit=1)[0] or layer


def shade(relative: float) -> str:
    """Give the code of a change by its size, as `lmvp.records.Layers` writes it.

    Parameters
    ----------
    relative : float
        ‖w − w₀‖ / ‖w₀‖.

    Examples
    --------
    >>> [shade(change) for change in (0.0005, 0.001, 0.04, 0.2, math.inf)]
    ['1', '2', '3', '5', '5']
    """
    return str(1 + sum(relative >= limit for limit in (0.001, 0.01, 0.05, 0.2)))


def axis_of(tensors: Iterable[TensorChange]) -> list[tuple[Layer, list[TensorChange]]]:
    """Gather tensors into layers, in model order."""
    found: dict[str, list[TensorChange]] = {}
    for tensor in tensors:
        found.setdefault(tensor.layer, []).append(tensor)
    return [(Layer(path=p, group=group_of(p), size=sum(t.size for t in ts)), ts) for p, ts in found.items()]


def layer_change(tensors: Iterable[TensorChange]) -> TensorKind:
    """Give the change of a layer from those of its tensors: it is new or removed only as a whole."""
    kinds = {tensor.change for tensor in tensors}
    if len(kinds) == 1:
        return next(iter(kinds))
    return "reshaped" if kinds & {"new", "removed", "reshaped"} else "changed"


def layer_amount(tensors: Iterable[TensorChange]) -> Amount | None:
    """Return how much the weights of a layer changed; see `sum_amounts`."""
    return sum_amounts((tensor.is_counter, tensor.amount) for tensor in tensors)


def sum_amounts(tensors: Iterable[tuple[bool, Amount | None]]) -> Amount | None:
    """Return how much a layer changed: the sum over its tensors without counters; None if no tensor was measured.

    The layer strip, the diff and the page of a version all use this sum, so that a layer has one number everywhere. A
    counter grows by hundreds while weights move by hundredths: with it, the number would tell nothing about the layer.

    Parameters
    ----------
    tensors : iterable of tuple
        Of each tensor of the layer, whether it is a counter, and its amount.

    Examples
    --------
    >>> weight = Amount(count=4, changed=4, squares=0.01, base_squares=1.0, largest=0.1)
    >>> batches = Amount(count=1, changed=1, squares=160_000.0, base_squares=10_000.0, largest=400.0)
    >>> sum_amounts([(False, weight), (True, batches)]).relative, sum_amounts([(True, batches)]).relative
    (0.1, 0.0)
    """
    known = [(counts, amount) for counts, amount in tensors if amount is not None]
    return reduce(add, (amount for counts, amount in known if not counts), _NO_AMOUNT) if known else None


def is_counter(name: str, dtype: str, shape: Sequence[int]) -> bool:
    """Tell whether a tensor counts steps, batches or samples instead of holding weights.

    It is a single integer, or a single number or an array of integers that has the name of a usual counter. A matrix
    of integers with any other name is a quantised weight.

    Examples
    --------
    >>> is_counter("bn1.num_batches_tracked", "I64", ()), is_counter("state.0.step", "F32", ())
    (True, True)
    >>> is_counter("fc.weight", "I8", (10, 32)), is_counter("logit_scale", "F32", ()), is_counter("mask", "BOOL", ())
    (False, False, False)
    """
    single, whole = math.prod(shape) == 1, dtype[:1] in ("I", "U")
    return (single and whole) or ((single or whole) and re.split("[./]", name)[-1] in _COUNTERS)


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
    """Return where a version was made, in the words of people: commit, Python, platform, host."""
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
    """Return the code that was kept with a version: the cells of its notebook one below the other, or its script."""
    return "\n\n".join(cells_of(version.environment))


def cells_of(environment: Mapping[str, Any]) -> list[str]:
    """Return the code that was kept with a version or a run: the cells of its notebook, or its script as one.

    Examples
    --------
    >>> cells_of({"code": {"cells": ["a = 1", "a"]}}), cells_of({"code": {"source": "a = 1"}}), cells_of({})
    (['a = 1', 'a'], ['a = 1'], [])
    """
    kept = environment.get("code")
    if not isinstance(kept, dict):
        return [str(environment["cell"])] if environment.get("cell") else []
    cells = kept.get("cells")
    found = [str(cell) for cell in cells] if isinstance(cells, list) else [str(kept.get("source", ""))]
    return [cell for cell in found if cell]


def _code_lines(before: Version, after: Version) -> Iterable[str]:
    old, new = code_of(before), code_of(after)
    if old and new:
        yield from unified_diff(old.splitlines(), new.splitlines(), before.name, after.name)


def unified_diff(old: Sequence[str], new: Sequence[str], before: str, after: str) -> Iterable[str]:
    """Yield the lines of a unified diff, in time that grows with the texts alone.

    A text whose lines repeat in many places takes `difflib` cubic time. Beyond `STEPS_LIMIT` comparisons, the diff is
    still correct, but not the shortest: between the lines that begin and end both texts, it replaces all.

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
    pass


class _Matcher(SequenceMatcher[str]):
    """A matcher that counts the comparisons that it is about to make."""

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
    """Return the operations that replace all between the common beginning and the common end."""
    most = min(len(old), len(new))
    first = next((at for at in range(most) if old[at] != new[at]), most)
    last = next((at for at in range(most - first) if old[-1 - at] != new[-1 - at]), most - first)
    i, j = len(old) - last, len(new) - last
    found = [("equal", 0, first, 0, first), ("replace", first, i, first, j), ("equal", i, len(old), j, len(new))]
    return [one for one in found if one[1] < one[2] or one[3] < one[4]]


def _span(start: int, stop: int) -> str:
    """Write a range of lines as the format wants it: the line before, where it is empty."""
    length = stop - start
    return f"{start + 1}" if length == 1 else f"{start + (length > 0)},{length}"


def _same(a: Any, b: Any) -> bool:
    both_nan = isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b)
    return both_nan or (a == b and isinstance(a, bool) == isinstance(b, bool))


def _union(before: Iterable[str], after: Iterable[str]) -> list[str]:
    """Names of both sides: in the order of `after`, each removed one behind its old neighbour."""
    kept = dict.fromkeys(after)
    removed: dict[str | None, list[str]] = {}
    anchor = None
    for name in before:
        if name in kept:
            anchor = name
        else:
            removed.setdefault(anchor, []).append(name)
    return [*removed.get(None, []), *(n for name in kept for n in (name, *removed.get(name, [])))]
