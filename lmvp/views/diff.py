"""`Diff`: the differences between two versions, as text, HTML, SVG and JSON.

A comparison needs the records and manifests of both versions, but not their weights: tensors are compared by digest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import groupby
from typing import Any

import msgspec

from lmvp.core import html_tables, number_format
from lmvp.core.layers import shade
from lmvp.core.manifest import Manifest
from lmvp.core.marimo import MarimoDisplay
from lmvp.core.optional import pandas_module
from lmvp.core.sanitize import clean, clean_code, listed, printable
from lmvp.core.schemas import Amount, Changes, Histograms, Layer, Layers, Version, decode_float
from lmvp.views import _svg, _text, layer_chart, layer_strip
from lmvp.views._source import VersionSource
from lmvp.views._text import Column, terminal_width
from lmvp.views.changes import (
    FileChange,
    SpreadOf,
    TensorChange,
    ValueChange,
    axis_of,
    facts_of,
    file_changes,
    layer_amount,
    layer_change,
    packages,
    tensor_changes,
    value_changes,
)
from lmvp.views.code_diff import code_changes
from lmvp.views.layer_chart import CODES, height

ROWS = 60
"""Maximum number of rows of a table."""
CODE_ROWS = 5000
"""Maximum number of lines of code."""
COUNTERS_ONLY = "counters only"
_COUNTERS = 3
"""Maximum number of counters that a note lists."""
Layered = list[tuple[Layer, list[TensorChange]]]
_BAR = 14
"""Width of the bars of a diff, in columns of the terminal."""


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
            tuple(file_changes(manifest_before, manifest_after)),
            tuple(tensor_changes(manifest_before, manifest_after, changes.tensors if changes else {})),
            tuple(value_changes(before.metrics, after.metrics)),
            tuple(value_changes(before.params, after.params)),
            tuple(value_changes(before.tags, after.tags)),
            tuple(value_changes(facts_of(before), facts_of(after))),
            tuple(value_changes(packages(before), packages(after))),
            tuple(code_changes(before, after)),
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
        return printable(diff_text(self))

    def to_svg(self) -> str:
        """Return the layer chart as standalone SVG, for a README or a slide.

        Returns
        -------
        str
            An `<svg>` element.
        """
        return diff_svg(self)

    def _repr_html_(self) -> str:
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


def diff_text(diff: Diff, room: int | None = None) -> str:
    """Return a diff as text: a summary, and a table for each kind of data that differs."""
    wide = room or terminal_width()
    parts = [f"{clean(diff.title)}: {sentence(diff)}"]
    for block in tables(diff):
        columns = [
            Column(head, [row[i] for row in block.rows], right=i in block.right, flexible=i == 0)
            for i, head in enumerate(block.heads)
        ]
        if block.bars:
            at = block.heads.index("Relative change") + 1
            columns.insert(at, Column("0.01 % … 100 %", [bar(high, _BAR) for high in block.bars], drop=1))
        parts.append("\n".join([*_text.table(columns, wide), *block.notes]))
    return "\n\n".join([*parts, *_code_text(diff)])


def bar(share: float, columns: int) -> str:
    """Return a bar of block characters.

    Parameters
    ----------
    share : float
        Length of the bar, 0 to 1. A share above zero is at least an eighth of a column.
    columns : int
        Length of a full bar, in columns of the terminal.

    Examples
    --------
    >>> bar(0.5, 4), bar(0.01, 4), bar(0.0, 4)
    ('██', '▏', '')
    """
    eighths = max(round(8 * columns * share), 1) if share > 0 else 0
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def _code_text(diff: Diff) -> list[str]:
    lines = code_lines(diff)
    more = [f"… {len(lines) - ROWS:,} more lines; .code holds them all"] if len(lines) > ROWS else []
    return ["\n".join(["Code", *lines[:ROWS], *more])] if lines else []


def diff_html(diff: Diff) -> str:
    """Return a diff: a chart of all layers, and a table for each kind of data that differs."""
    parts = [f"<p><b>{html_tables.safe(diff.title)}</b> {escape(sentence(diff))}</p>", _diff_strip(diff)]
    for block in tables(diff):
        rows = [
            [html_tables.key(row[0]), *(escape(word).replace(" × ", "&nbsp;×&nbsp;") for word in row[1:])]
            for row in block.rows
        ]
        parts.append(html_tables.table(list(map(escape, block.heads)), rows, block.right, names=[0]))
        parts += [f"<p>{escape(note)}</p>" for note in block.notes]
    parts.append(_code_html(diff))
    return "\n".join(part for part in parts if part)


def _code_html(diff: Diff) -> str:
    """Return the diff of the code. Added and removed lines are bold, because a notebook can remove colors."""
    lines = code_lines(diff)
    body = "\n".join(f"<b>{escape(line)}</b>" if line[:1] in "+-" else escape(line) for line in lines)
    return f'<p>Code that differs</p>\n<pre style="overflow-x:auto">{body}</pre>' if lines else ""


def _diff_strip(diff: Diff) -> str:
    axis, codes = strip_codes(diff)
    if not axis:
        return ""
    if any(tensor.amount for tensor in diff.tensors):  # without measured amounts, bars would have no height
        return layer_chart.figure(diff.tensors, sentence(diff))
    drawing = layer_strip.svg(axis, codes, 640, 24)
    legend = layer_strip.legend(Layers(strips={"": codes})).removesuffix(".")
    removed = "; outlined: removed" if layer_strip.REMOVED in codes else ""
    picture = layer_strip.picture(drawing, sentence(diff), 640, 24, flat=True)
    return f"<p>{picture}</p>\n<p>{escape(legend + removed)}.</p>"


def diff_svg(diff: Diff) -> str:
    """Return the layer chart of a diff below its summary."""
    drawing = f'<g transform="translate({_svg.PAD} {_svg.LINE * 2})">{layer_chart.svg(diff.tensors)}</g>'
    title = f"{clean(diff.title)}: {sentence(diff)}"
    return _svg.sheet(
        title,
        [drawing],
        layer_chart.LEFT + layer_chart.WIDTH + 2 * _svg.PAD,
        2 + layer_chart.tall(diff.tensors) / _svg.LINE,
    )


def diff_data(diff: Diff) -> dict[str, Any]:
    """Return the data of `widgets/diff.js`."""
    groups = grouped(axis_of(diff.tensors))
    return {
        "title": clean(diff.title),
        "sentence": sentence(diff),
        "before": diff.before.reference,
        "after": diff.after.reference,
        "measured": any(tensor.amount for tensor in diff.tensors),
        "blocks": [_block(run) for run in alike(groups)],
        "tables": [_table(block) for block in value_tables(diff) if block.rows],
        "code": code_lines(diff),
    }


def _block(run: Sequence[Layered]) -> dict[str, Any]:
    """Return consecutive groups with the same changes, folded into one block."""
    first, last = run[0][0][0].group, run[-1][0][0].group
    layers = [pair for group in run for pair in group]
    name = clean(first) if len(run) == 1 else f"{clean(first)} to {last.rpartition('.')[2]}"
    told = story(run[0])
    return {
        "name": name,
        "story": told if len(run) == 1 else f"{told} in each",
        **_sums(layers),
        "groups": [_group(group) for group in run],
    }


def _group(group: Layered) -> dict[str, Any]:
    path = group[0][0].group
    return {
        "name": clean(path),
        "label": clean(path).rpartition(".")[2],
        "story": story(group),
        **_sums(group),
        "layers": [_layer(layer, tensors) for layer, tensors in group],
    }


def _sums(layers: Layered) -> dict[str, Any]:
    """Return the totals of some layers: whether all are identical, the parameters, and the largest change."""
    amounts = [amount for _, tensors in layers if (amount := layer_amount(tensors))]
    top = max((amount.relative for amount in amounts), default=0.0)
    return {
        "identical": all(layer_change(tensors) == "identical" for _, tensors in layers),
        "parameters": f"{sum(layer.size for layer, _ in layers):,}",
        "top": f"≤ {number_format.percent(top)}" if top else "",
    }


def _layer(layer: Layer, tensors: Sequence[TensorChange]) -> dict[str, Any]:
    kind = layer_change(tensors)
    # The shape of the layer is that of its reshaped or largest tensor: the weight rather than the bias.
    largest = max(tensors, key=lambda t: (t.change == "reshaped", t.size))
    found = {
        "path": clean(layer.path),
        "name": clean(layer.path.removeprefix(layer.group).lstrip("./") or layer.path),
        "weight": round(layer_strip.weight(layer), 2),
        "shape": shapes(largest),
        "parameters": f"{layer.size:,}",
        **_change(kind, layer_amount(tensors)),
    }
    if kind != "identical":
        found["tensors"] = [_tensor(tensor, layer) for tensor in sorted(tensors, key=lambda one: one.is_counter)]
    return found


def _tensor(tensor: TensorChange, layer: Layer) -> dict[str, Any]:
    return {
        "path": tensor.name,
        "name": clean(tensor.name.removeprefix(layer.path).lstrip("./") or tensor.name),
        "shape": shapes(tensor),
        "dtype": clean(tensor.dtype_after or tensor.dtype_before or ""),
        "parameters": f"{tensor.size:,}",
        **(_count(tensor) if tensor.is_counter else _change(tensor.change, tensor.amount)),
    }


def _count(tensor: TensorChange) -> dict[str, Any]:
    """Return the change of a counter. Its bar has no height, because a counter is not comparable with weights."""
    if tensor.change != "changed":
        return _change(tensor.change, None)
    return {
        "kind": "changed",
        "code": shade(0.0),
        "height": 0,
        "counter": f"counter {counted(tensor)}".strip(),
    }


def _change(kind: str, amount: Amount | None) -> dict[str, Any]:
    """Return a change as its kind and shade, with its height and numbers if it was measured."""
    if kind != "changed" or amount is None:
        return {"kind": kind, "code": CODES[kind]}
    if only_counters(amount):
        return {"kind": kind, "code": shade(0.0), "height": 0, "counter": COUNTERS_ONLY}
    cosine = amount.cosine
    return {
        "kind": kind,
        "code": shade(amount.relative),
        "height": round(100 * height(amount.relative), 1),
        "percent": number_format.percent(amount.relative),
        "share": number_format.percent(amount.share),
        "cosine": "" if cosine is None else f"{cosine:.4f}".replace("-", number_format.MINUS),
        "step": number_format.one(decode_float(amount.largest)),
    }


def _table(block: Table) -> dict[str, Any]:
    found: dict[str, Any] = {
        "heads": list(block.heads),
        "rows": [list(row) for row in block.rows],
        "notes": list(block.notes),
    }
    if block.heads[0] == "Metric":
        found["better"] = [better_of(row[0], row[3]) for row in block.rows]
    return found


def better_of(metric: str, step: str) -> int:
    """Return whether a metric improved (1) or worsened (−1); 0 if it is unchanged or its direction is unknown.

    Parameters
    ----------
    metric : str
        The key, which implies whether greater is better; see `numbers.better`.
    step : str
        The formatted difference, for example `+0.033`.
    """
    if not step or step == "0":
        return 0
    return number_format.better(metric) * (-1 if step.startswith(number_format.MINUS) else 1)
