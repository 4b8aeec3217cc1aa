"""The data of the diff view: JSON that `widgets/diff.js` draws without knowing how to measure or to write a number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lmvp.records import Amount, Layer, decode_float
from lmvp.render import diffs, numbers, strip
from lmvp.render.words import clean
from lmvp.views.diff import TensorChange, axis_of, layer_amount, layer_change, shade

if TYPE_CHECKING:
    from lmvp.views.diff import Diff


def diff_data(diff: Diff) -> dict[str, Any]:
    """Return what `widgets/diff.js` draws."""
    groups = diffs.grouped(axis_of(diff.tensors))
    return {
        "title": clean(diff.title),
        "sentence": diffs.sentence(diff),
        "before": diff.before.reference,
        "after": diff.after.reference,
        "measured": any(tensor.amount for tensor in diff.tensors),
        "blocks": [_block(run) for run in diffs.alike(groups)],
        "tables": [_table(block) for block in diffs.value_tables(diff) if block.rows],
        "code": diffs.code_lines(diff),
    }


def _block(run: Sequence[diffs.Layered]) -> dict[str, Any]:
    """Return groups in a row that tell the same story."""
    first, last = run[0][0][0].group, run[-1][0][0].group
    layers = [pair for group in run for pair in group]
    name = clean(first) if len(run) == 1 else f"{clean(first)} to {last.rpartition('.')[2]}"
    told = diffs.story(run[0])
    return {
        "name": name,
        "story": told if len(run) == 1 else f"{told} in each",
        **_sums(layers),
        "groups": [_group(group) for group in run],
    }


def _group(group: diffs.Layered) -> dict[str, Any]:
    path = group[0][0].group
    return {
        "name": clean(path),
        "label": clean(path).rpartition(".")[2],
        "story": diffs.story(group),
        **_sums(group),
        "layers": [_layer(layer, tensors) for layer, tensors in group],
    }


def _sums(layers: diffs.Layered) -> dict[str, Any]:
    amounts = [amount for _, tensors in layers if (amount := layer_amount(tensors))]
    top = max((amount.relative for amount in amounts), default=0.0)
    return {
        "identical": all(layer_change(tensors) == "identical" for _, tensors in layers),
        "parameters": f"{sum(layer.size for layer, _ in layers):,}",
        "top": f"≤ {numbers.percent(top)}" if top else "",
    }


def _layer(layer: Layer, tensors: Sequence[TensorChange]) -> dict[str, Any]:
    kind = layer_change(tensors)
    largest = max(tensors, key=lambda t: (t.change == "reshaped", t.size))
    found = {
        "path": clean(layer.path),
        "name": clean(layer.path.removeprefix(layer.group).lstrip("./") or layer.path),
        "weight": round(strip.weight(layer), 2),
        "shape": diffs.shapes(largest),
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
        "shape": diffs.shapes(tensor),
        "dtype": clean(tensor.dtype_after or tensor.dtype_before or ""),
        "parameters": f"{tensor.size:,}",
        **(_count(tensor) if tensor.is_counter else _change(tensor.change, tensor.amount)),
    }


def _count(tensor: TensorChange) -> dict[str, Any]:
    """Return the change of a counter: by how much, and no height, since it does not compare with weights."""
    if tensor.change != "changed":
        return _change(tensor.change, None)
    return {"kind": "changed", "code": shade(0.0), "height": 0, "counter": f"counter {diffs.counted(tensor)}".strip()}


def _change(kind: str, amount: Amount | None) -> dict[str, Any]:
    """Return a change as words and as a shade; with its height and its numbers, where it was measured."""
    if kind != "changed" or amount is None:
        return {"kind": kind, "code": diffs.CODES[kind]}
    if diffs.only_counters(amount):
        return {"kind": kind, "code": shade(0.0), "height": 0, "counter": diffs.COUNTERS_ONLY}
    cosine = amount.cosine
    return {
        "kind": kind,
        "code": shade(amount.relative),
        "height": round(100 * diffs.height(amount.relative), 1),
        "percent": numbers.percent(amount.relative),
        "share": numbers.percent(amount.share),
        "cosine": "" if cosine is None else f"{cosine:.4f}".replace("-", numbers.MINUS),
        "step": numbers.one(decode_float(amount.largest)),
    }


def _table(block: diffs.Table) -> dict[str, Any]:
    found: dict[str, Any] = {
        "heads": list(block.heads),
        "rows": [list(row) for row in block.rows],
        "notes": list(block.notes),
    }
    if block.heads[0] == "Metric":
        found["better"] = [better_of(row[0], row[3]) for row in block.rows]
    return found


def better_of(metric: str, step: str) -> int:
    """Tell from its written difference whether a metric got better (1) or worse (−1); 0 where nobody can tell."""
    if not step or step == "0":
        return 0
    return numbers.better(metric) * (-1 if step.startswith(numbers.MINUS) else 1)
