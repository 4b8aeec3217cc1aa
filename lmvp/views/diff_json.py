"""JSON data of the diff view.

Changes are computed and numbers are formatted here, so that `widgets/diff.js` only draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lmvp.core import number_format
from lmvp.core.layers import shade
from lmvp.core.sanitize import clean
from lmvp.core.schemas import Amount, Layer, decode_float
from lmvp.views import diff_tables, layer_strip
from lmvp.views.diff import TensorChange, axis_of, layer_amount, layer_change

if TYPE_CHECKING:
    from lmvp.views.diff import Diff


def diff_data(diff: Diff) -> dict[str, Any]:
    """Return the data of `widgets/diff.js`."""
    groups = diff_tables.grouped(axis_of(diff.tensors))
    return {
        "title": clean(diff.title),
        "sentence": diff_tables.sentence(diff),
        "before": diff.before.reference,
        "after": diff.after.reference,
        "measured": any(tensor.amount for tensor in diff.tensors),
        "blocks": [_block(run) for run in diff_tables.alike(groups)],
        "tables": [_table(block) for block in diff_tables.value_tables(diff) if block.rows],
        "code": diff_tables.code_lines(diff),
    }


def _block(run: Sequence[diff_tables.Layered]) -> dict[str, Any]:
    """Return consecutive groups with the same changes, folded into one block."""
    first, last = run[0][0][0].group, run[-1][0][0].group
    layers = [pair for group in run for pair in group]
    name = clean(first) if len(run) == 1 else f"{clean(first)} to {last.rpartition('.')[2]}"
    told = diff_tables.story(run[0])
    return {
        "name": name,
        "story": told if len(run) == 1 else f"{told} in each",
        **_sums(layers),
        "groups": [_group(group) for group in run],
    }


def _group(group: diff_tables.Layered) -> dict[str, Any]:
    path = group[0][0].group
    return {
        "name": clean(path),
        "label": clean(path).rpartition(".")[2],
        "story": diff_tables.story(group),
        **_sums(group),
        "layers": [_layer(layer, tensors) for layer, tensors in group],
    }


def _sums(layers: diff_tables.Layered) -> dict[str, Any]:
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
        "shape": diff_tables.shapes(largest),
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
        "shape": diff_tables.shapes(tensor),
        "dtype": clean(tensor.dtype_after or tensor.dtype_before or ""),
        "parameters": f"{tensor.size:,}",
        **(_count(tensor) if tensor.is_counter else _change(tensor.change, tensor.amount)),
    }


def _count(tensor: TensorChange) -> dict[str, Any]:
    """Return the change of a counter. It has no height, because it is not comparable with changes of weights."""
    if tensor.change != "changed":
        return _change(tensor.change, None)
    return {
        "kind": "changed",
        "code": shade(0.0),
        "height": 0,
        "counter": f"counter {diff_tables.counted(tensor)}".strip(),
    }


def _change(kind: str, amount: Amount | None) -> dict[str, Any]:
    """Return a change as its kind and shade, with its height and numbers if it was measured."""
    if kind != "changed" or amount is None:
        return {"kind": kind, "code": diff_tables.CODES[kind]}
    if diff_tables.only_counters(amount):
        return {"kind": kind, "code": shade(0.0), "height": 0, "counter": diff_tables.COUNTERS_ONLY}
    cosine = amount.cosine
    return {
        "kind": kind,
        "code": shade(amount.relative),
        "height": round(100 * diff_tables.height(amount.relative), 1),
        "percent": number_format.percent(amount.relative),
        "share": number_format.percent(amount.share),
        "cosine": "" if cosine is None else f"{cosine:.4f}".replace("-", number_format.MINUS),
        "step": number_format.one(decode_float(amount.largest)),
    }


def _table(block: diff_tables.Table) -> dict[str, Any]:
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
