"""JSON data of the view of one version, which `widgets/model.js` draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lmvp import hints
from lmvp.core import number_format
from lmvp.core.layers import is_counter, layer_of, shade, sum_amounts
from lmvp.core.sanitize import clean
from lmvp.core.schemas import (
    IDENTICAL,
    NEW,
    Amount,
    decode_float,
)
from lmvp.views import layer_strip
from lmvp.views.diff_json import better_of
from lmvp.views.diff_tables import COUNTERS_ONLY, only_counters
from lmvp.views.history_json import layers_data
from lmvp.views.model_card import nodes
from lmvp.views.snippets import pull_code
from lmvp.views.version_text import (
    code_of_showing,
    metric_rows,
    origin,
    param_rows,
    provenance,
    sentence,
    shape,
)

if TYPE_CHECKING:
    from lmvp.core.manifest import Tensor
    from lmvp.views.version import Showing

# A new tensor is the largest change of its group. JSON has no infinity, so 1e300 takes its place.
_SAME: dict[str, Any] = {"code": IDENTICAL, "change": "identical", "relative": 0.0}
_NEW: dict[str, Any] = {"code": NEW, "change": "new", "relative": 1e300}


def showing_data(showing: Showing, *, card: bool = True) -> dict[str, Any]:
    """Return the data of `widgets/model.js`.

    Parameters
    ----------
    showing : Showing
    card : bool
        Whether to include the model card. A page of the console renders it on the server. True by default.
    """
    version = showing.version
    codes = showing.layers.strips.get(str(version.number), "")
    protected = {name.lower() for name in showing.model.protected}
    return {
        "title": version.reference,
        "message": clean(version.message),
        "aliases": [{"name": clean(alias), "protected": alias.lower() in protected} for alias in version.aliases],
        "sentence": sentence(showing),
        "layers": layers_data(showing.layers),
        "codes": codes,
        "said": layer_strip.summary(codes) if codes else "",
        "groups": [_group(showing, name, tensors) for name, tensors in showing.groups()],
        "measured": bool(showing.amounts),
        "against": showing.parent.name if showing.parent else "",
        "card": nodes(showing.model.description) if card else [],
        "at": number_format.iso(version.created_at),
        "author": clean(version.author),
        "pull": pull_code(version, hints.reader()),
        "metrics": [[*row, better_of(row[0], row[2])] for row in metric_rows(showing)],
        "params": param_rows(showing),
        "origin": [pair for pair in origin(showing) if pair[0] != "published"],
        "provenance": provenance(showing),
        "files": [(clean(file.path), number_format.size(file.size)) for file in showing.files],
        "code": code_of_showing(showing),
    }


def _group(showing: Showing, name: str, tensors: Sequence[Tensor]) -> dict[str, Any]:
    """Return a group of tensors with its totals; counters are listed last."""
    from lmvp.views.version import count

    changes = [_change(showing, tensor) for tensor in tensors]
    counters_last = sorted(zip(tensors, changes, strict=True), key=lambda row: _counts(row[0]))
    return {
        "name": clean(name),
        "count": number_format.plural(len(tensors), "tensor"),
        "parameters": f"{sum(count(tensor.shape) for tensor in tensors):,}",
        "size": number_format.size(sum(tensor.size for tensor in tensors)),
        **_group_change(showing, tensors),
        "tensors": [_tensor(name, tensor, change) for tensor, change in counters_last],
    }


def _group_change(showing: Showing, tensors: Sequence[Tensor]) -> dict[str, Any]:
    """Return the largest change of the layers of a group, in the form of the diff."""
    layers: dict[str, list[Tensor]] = {}
    for tensor in tensors:
        layers.setdefault(layer_of(tensor.name), []).append(tensor)
    changes = [_layer_change(showing, path, members) for path, members in layers.items()]
    most = max(changes, key=lambda change: change["relative"])
    many = len(changes) > 1 and most["change"].endswith("%")
    return {**most, "change": f"≤ {most['change']}"} if many else most


def _layer_change(showing: Showing, path: str, tensors: Sequence[Tensor]) -> dict[str, Any]:
    """Return the change of a layer; a layer whose counters alone changed states that."""
    if showing.code(path) == NEW:
        return _NEW
    each = [(_counts(one), showing.amounts.get(one.name)) for one in tensors]
    amount = sum_amounts(each)
    if amount is not None and only_counters(amount) and any(one.changed for _, one in each if one):
        return {**_SAME, "code": shade(0.0), "change": COUNTERS_ONLY}
    return _SAME if amount is None or not amount.changed else _measured(amount)


def _tensor(group: str, tensor: Tensor, change: dict[str, Any]) -> dict[str, Any]:
    from lmvp.views.version import count

    return {
        "path": tensor.name,
        "name": clean(tensor.name.removeprefix(group).lstrip("./") or tensor.name),
        "shape": shape(tensor).rpartition(",")[0],
        "dtype": tensor.dtype,
        "parameters": f"{count(tensor.shape):,}",
        "size": number_format.size(tensor.size),
        **change,
    }


def _change(showing: Showing, tensor: Tensor) -> dict[str, Any]:
    """Return the change of a tensor as shade, text and number. A tensor without a measurement is identical or new."""
    amount = showing.amounts.get(tensor.name)
    if amount is None:
        return _NEW if showing.code(layer_of(tensor.name)) == NEW else _SAME
    if not amount.changed:
        return _SAME
    if _counts(tensor):
        return {**_SAME, "code": shade(0.0), "change": f"by {number_format.significant(decode_float(amount.largest))}"}
    return _measured(amount)


def _counts(tensor: Tensor) -> bool:
    return is_counter(tensor.name, tensor.dtype, tensor.shape)


def _measured(amount: Amount) -> dict[str, Any]:
    relative = min(amount.relative, 1e300)
    return {"code": shade(relative), "change": number_format.percent(amount.relative), "relative": relative}
