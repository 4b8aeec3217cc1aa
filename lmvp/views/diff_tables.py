"""Tables of formatted strings of a diff, which its text, HTML and widget forms share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from lmvp.core import number_format
from lmvp.core.layers import shade
from lmvp.core.sanitize import clean, clean_code, listed
from lmvp.core.schemas import (
    CHANGED,
    IDENTICAL,
    NEW,
    Amount,
    Layer,
    decode_float,
)
from lmvp.views.diff import TensorChange, ValueChange, axis_of, layer_amount, layer_change
from lmvp.views.layer_strip import REMOVED

if TYPE_CHECKING:
    from lmvp.views.diff import Diff

ROWS = 60
"""Maximum number of rows of a table."""
CODE_ROWS = 5000
"""Maximum number of lines of code."""
LOWEST = 1e-4
"""The relative change at which a bar begins: 0.01 %."""
COUNTERS_ONLY = "counters only"
_COUNTERS = 3
"""Maximum number of counters that a note lists."""
# A reshaped layer has the same code as a new one: neither can be compared with its previous values.
CODES = {"identical": IDENTICAL, "changed": CHANGED, "reshaped": NEW, "new": NEW, "removed": REMOVED}

Layered = list[tuple[Layer, list[TensorChange]]]


@dataclass(frozen=True)
class Table:
    """A table of formatted strings.

    Attributes
    ----------
    heads : tuple of str
    rows : list of tuple of str
    right : tuple of int
        The indexes of columns with numbers, which are aligned to the right.
    notes : tuple of str
        Lines below the table.
    bars : tuple of float
        A bar for each row, 0 to 1; empty if the table has no bars.
    """

    heads: tuple[str, ...]
    rows: list[tuple[str, ...]]
    right: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    bars: tuple[float, ...] = ()


def strip_codes(diff: Diff) -> tuple[list[Layer], str]:
    """Return the layers of a diff, and one code per layer in a string; `lmvp.core.schemas.Layers` lists the codes."""
    found = axis_of(diff.tensors)
    return [layer for layer, _ in found], "".join(_code(tensors) for _, tensors in found)


def _code(tensors: Sequence[TensorChange]) -> str:
    kind, amount = layer_change(tensors), layer_amount(tensors)
    return shade(amount.relative) if kind == "changed" and amount else CODES[kind]


def sentence(diff: Diff) -> str:
    """Summarize the changes of the layers in one line; of the files if the versions have no tensors."""
    if not diff.tensors:
        return _counts([file.change for file in diff.files], "file")
    if all(tensor.change == "identical" for tensor in diff.tensors) and not diff.identical:
        return "all layers identical, other files differ"
    return _counts([layer_change(tensors) for _, tensors in axis_of(diff.tensors)], "layer")


def _counts(kinds: Sequence[str], noun: str) -> str:
    """Return the counts of the kinds of change: `3 of 12 layers changed, 1 new`.

    The total counts the layers of the newer version, like its layer strip, so it excludes removed layers.
    """
    there = len(kinds) - (kinds.count("removed") if noun == "layer" else 0)
    order = ("changed", "reshaped", "new", "added", "removed", "identical")
    told = [(kinds.count(kind), kind) for kind in order if kind in kinds]
    if not told:
        return f"no {noun}s on either side"
    if len(told) == 1 and told[0][1] == "identical":
        return f"all {number_format.plural(len(kinds), noun)} identical"
    (first, kind), rest = told[0], told[1:]
    start = (
        f"{first:,} of {number_format.plural(there, noun)}" if kind != "removed" else number_format.plural(first, noun)
    )
    return ", ".join([f"{start} {kind}", *(f"{n:,} {kind}" for n, kind in rest)])


def tables(diff: Diff) -> list[Table]:
    """Return the tables of a diff that have rows."""
    return [block for block in (_layers(diff), *value_tables(diff)) if block.rows]


def value_tables(diff: Diff) -> list[Table]:
    """Return the tables of metrics, params, tags, environment, packages and files, including empty ones."""
    named = (("Param", diff.params), ("Tag", diff.tags), ("Made with", diff.environment), ("Package", diff.packages))
    return [_metrics(diff), *(_values(diff, head, changes) for head, changes in named), _files(diff)]


def code_lines(diff: Diff) -> list[str]:
    """Return the unified diff of the code without its file names: lines with `+`, `-` or a space, and `@@` lines."""
    lines = diff.code[2:]  # without the lines `--- v1` and `+++ v2`
    more = [f"… {len(lines) - CODE_ROWS:,} more lines; .code holds them all"] if len(lines) > CODE_ROWS else []
    return [*(line[:1] + clean_code(line[1:]) for line in lines[:CODE_ROWS]), *more]


def _layers(diff: Diff) -> Table:
    """Return the table of the layers that differ."""
    found = _layer_rows(axis_of(diff.tensors))
    rows, bars = [row for row, _ in found], tuple(bar for _, bar in found[:ROWS])
    more = (f"… {len(rows) - ROWS:,} more rows; .tensors holds them all",) if len(rows) > ROWS else ()
    notes = (*more, *_counters(diff))
    heads = ("Layer", "Shape", "Parameters", "Change", "Relative change", "Values changed")
    if not any(row[4] for row in rows):  # not measured
        return Table(heads[:4], [row[:4] for row in rows[:ROWS]], (2,), notes)
    shown = [(*row[:4], *(word or "none" for word in row[4:])) for row in rows[:ROWS]]
    return Table(heads, shown, (2, 4, 5), notes, bars)


def _counters(diff: Diff) -> tuple[str, ...]:
    """Return a note with the counters that changed. The table excludes them, because they would rank above weights."""
    found = [tensor for tensor in diff.tensors if tensor.is_counter and tensor.change == "changed"]
    told = listed((f"{clean(tensor.name)} {counted(tensor)}".strip() for tensor in found), _COUNTERS)
    return (f"Counters, not in the numbers above: {told}",) if found else ()


def counted(tensor: TensorChange) -> str:
    """Format the change of a counter: `by 400`; empty if it was not measured."""
    return f"by {number_format.significant(decode_float(tensor.amount.largest))}" if tensor.amount else ""


def only_counters(amount: Amount) -> bool:
    """Return whether all weights of a changed layer are identical, so that only its counters changed."""
    return not amount.changed


def _layer_rows(found: Layered) -> list[tuple[tuple[str, ...], float]]:
    """Return the rows of the layers that differ, each with the height of its bar; similar blocks share a row."""
    groups = [group for group in grouped(found) if story(group) != f"{len(group)} identical"]
    rows: list[tuple[tuple[str, ...], float]] = []
    for run in alike(groups):
        if len(run) > 1:
            rows.append(_shared_row(run))
        else:
            rows += [_layer_row(layer, ts) for layer, ts in run[0] if layer_change(ts) != "identical"]
    return rows


def grouped(found: Layered) -> list[Layered]:
    """Split layers into their groups, in model order."""
    return [list(members) for _, members in groupby(found, key=lambda pair: pair[0].group)]


def alike(groups: Sequence[Layered]) -> list[list[Layered]]:
    """Join consecutive groups with the same changes, for example `blocks.0` to `blocks.5`."""
    runs: list[list[Layered]] = []
    for group in groups:
        if runs and _follows(runs[-1][-1], group):
            runs[-1].append(group)
        else:
            runs.append([group])
    return runs


def _follows(before: Layered, group: Layered) -> bool:
    """Return whether a block has the next index and the same changes as the block before."""
    # At most 9 digits: a hostile name can have thousands, for which `int` raises an error.
    stem, _, index = before[0][0].group.rpartition(".")
    stem_, _, index_ = group[0][0].group.rpartition(".")
    numbered = index.isdecimal() and index_.isdecimal() and max(len(index), len(index_)) < 10 and stem == stem_
    return numbered and int(index_) == int(index) + 1 and _signature(before) == _signature(group)


def _signature(group: Layered) -> list[tuple[str, str]]:
    """Return the layers of a group, by their path within it, with their kinds of change."""
    return [(layer.path.removeprefix(layer.group), layer_change(tensors)) for layer, tensors in group]


def story(group: Layered) -> str:
    """Count the kinds of change in a group: `6 changed, 1 removed`."""
    kinds = [layer_change(tensors) for _, tensors in group]
    order = ("changed", "reshaped", "new", "removed", "identical")
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in order if kind in kinds)


def height(relative: float) -> float:
    """Return the height of the bar of a relative change, 0 to 1, on a logarithmic axis from 0.01 % to 100 %.

    A change above zero has a height of at least 0.02, so that it is visible.

    Examples
    --------
    >>> [height(change) for change in (0.0, 0.0001, 0.01, 1.0, math.inf)]
    [0.0, 0.02, 0.5, 1.0, 1.0]
    """
    if relative <= 0:
        return 0.0
    return min(1.0, max(0.02, math.log10(min(relative, 1.0) / LOWEST) / 4))


def _shared_row(run: Sequence[Layered]) -> tuple[tuple[str, ...], float]:
    """Return the row of several blocks with the same changes; its amounts are the largest of the blocks."""
    first, last = run[0][0][0].group, run[-1][0][0].group
    parameters = sum(layer.size for group in run for layer, _ in group)
    known = [found for group in run for _, tensors in group if (found := layer_amount(tensors))]
    most = max(known, key=lambda one: one.relative, default=None)
    name = f"{clean(first)} to {last.rpartition('.')[2]}"
    row = name, "", f"{parameters:,}", f"{story(run[0])} in each", *_amounts(most, "up to ")
    return row, height(most.relative) if most else 0.0


def _layer_row(layer: Layer, tensors: Sequence[TensorChange]) -> tuple[tuple[str, ...], float]:
    largest = max(tensors, key=lambda t: (t.change == "reshaped", t.size))
    amount = layer_amount(tensors)
    row = clean(layer.path), shapes(largest), f"{layer.size:,}", layer_change(tensors), *_amounts(amount)
    return row, height(amount.relative) if amount else 0.0


def _amounts(amount: Amount | None, limit: str = "") -> tuple[str, str]:
    """Format the relative change of a layer in the Euclidean norm, and the share of its values that changed."""
    if amount is None:
        return "", ""
    if only_counters(amount):
        return COUNTERS_ONLY, "0 %"
    return limit + number_format.percent(amount.relative), limit + number_format.percent(amount.share)


def shapes(tensor: TensorChange) -> str:
    """Format the shape of a tensor, before and after if they differ: `87 × 256 → 132 × 256`."""
    before, after = _shape(tensor.shape_before), _shape(tensor.shape_after)
    if before == after and tensor.dtype_before != tensor.dtype_after:
        return f"{after}, {tensor.dtype_before} → {tensor.dtype_after}"
    return after if before == after or tensor.change == "new" else f"{before} → {after}"


def _shape(shape: tuple[int, ...] | None) -> str:
    if shape is None:
        return "none"
    return " × ".join(map(str, shape)) if shape else "one number"


def _files(diff: Diff) -> Table:
    def size(count: int | None) -> str:
        return "none" if count is None else number_format.size(count)

    changed = [file for file in diff.files if file.change != "identical"]
    rows: list[tuple[str, ...]] = [
        (clean(f.path), size(f.size_before), size(f.size_after), f.change) for f in changed[:ROWS]
    ]
    notes = (f"… {len(changed) - ROWS:,} more; .files holds them all",) if len(changed) > ROWS else ()
    return Table(("File", diff.before.name, diff.after.name, "Change"), rows, (1, 2), notes)


def _metrics(diff: Diff) -> Table:
    rows = [_metric_row(change) for change in diff.metrics]
    return Table(("Metric", diff.before.name, diff.after.name, "Difference"), rows, (1, 2, 3))


def _metric_row(change: ValueChange) -> tuple[str, ...]:
    before, after, step = number_format.pair(change.before, change.after)
    return clean(change.key), before or "none", after or "none", step


def _values(diff: Diff, head: str, changes: Sequence[ValueChange]) -> Table:
    rows: list[tuple[str, ...]] = [(clean(v.key), _word(v.before), _word(v.after)) for v in changes[:ROWS]]
    notes = (f"… {len(changes) - ROWS:,} more",) if len(changes) > ROWS else ()
    return Table((head, diff.before.name, diff.after.name), rows, (1, 2), notes)


def _word(value: Any) -> str:
    return "none" if value is None else clean(str(value))
