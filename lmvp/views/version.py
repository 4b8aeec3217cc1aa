"""`Showing`, the details of a version: tensors, metrics, params, environment, parent, children and model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from itertools import groupby
from typing import Any

from lmvp import hints
from lmvp.core import html_tables, number_format
from lmvp.core.layers import group_of, is_counter, layer_of, shade, sum_amounts
from lmvp.core.manifest import File, Tensor
from lmvp.core.marimo import MarimoDisplay
from lmvp.core.optional import pandas_module
from lmvp.core.sanitize import clean, clean_code, clip, listed, one_line, printable, width
from lmvp.core.schemas import IDENTICAL, NEW, Amount, Child, Histograms, Layers, Model, Version, decode_float
from lmvp.views import _svg, _text, layer_strip
from lmvp.views._source import VersionSource
from lmvp.views._text import Column, terminal_width
from lmvp.views.changes import SpreadOf, facts_of
from lmvp.views.code_diff import code_of
from lmvp.views.diff import COUNTERS_ONLY, better_of, only_counters
from lmvp.views.model_card import card_html, card_text, nodes
from lmvp.views.snippets import pull_code

ROWS = 60
"""Maximum number of rows of a table. With more tensors, the table lists modules instead."""
SVG_ROWS = 30
"""Maximum number of versions or metrics."""
_MESSAGE = 48
"""Maximum number of letters of a message."""
# A new tensor is the largest change of its group. JSON has no infinity, so 1e300 takes its place.
_SAME: dict[str, Any] = {"code": IDENTICAL, "change": "identical", "relative": 0.0}
_NEW: dict[str, Any] = {"code": NEW, "change": "new", "relative": 1e300}


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
        rows = [(tensor.name, tensor.dtype, tensor.shape, tensor.size) for tensor in self.tensors]
        return pandas_module().DataFrame(rows, columns=["name", "dtype", "shape", "size"])

    def to_svg(self) -> str:
        """Return the version as an SVG image, for example for a README or a slide."""
        return showing_svg(self)

    def _repr_html_(self) -> str:
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


def sentence(showing: Showing) -> str:
    """Return the numbers of tensors and parameters, or of files, and the size in one line."""
    held, version = len(showing.tensors), showing.version
    if not held:
        return f"{number_format.plural(len(showing.files), 'file')}, {number_format.size(version.size)}"
    parameters = number_format.plural(showing.parameters, "parameter")
    return f"{number_format.plural(held, 'tensor')}, {parameters}, {number_format.size(version.size)}"


def origin(showing: Showing) -> list[tuple[str, str]]:
    """Return where a version comes from as pairs of label and text: author, time, parents, children, run, digest."""
    version = showing.version
    by = f" by {clean(version.author)}" if version.author else ""
    grown = ", ".join(clean(str(child)) for child in showing.children)
    more = f" and {showing.grown - len(showing.children):,} more" if showing.grown > len(showing.children) else ""
    pairs = [
        ("published", f"{number_format.stamp(version.created_at)} UTC{by}"),
        ("parents", listed(map(str, version.parents)) or "none"),
        ("used by", grown + more or "no version yet"),
        ("run", version.run),
        ("tags", listed(f"{clean(key)} {clean(value)}" for key, value in version.tags.items())),
        ("format", version.format),
        ("sent", number_format.size(version.sent)),
        ("digest", version.digest[:12]),
    ]
    return [(key, one_line(value)) for key, value in pairs if value]


def provenance(showing: Showing) -> list[tuple[str, str]]:
    """Return the environment as pairs of label and text: commit, Python, platform, host and packages."""
    made = showing.version.environment
    packages = made.get("packages")
    known = packages if isinstance(packages, dict) else {}
    return [(clean(key), clean(str(value))) for key, value in (*facts_of(showing.version).items(), *known.items())]


def metric_rows(showing: Showing) -> list[tuple[str, str, str]]:
    """Return the metrics as rows of key, value and difference from the parent."""
    before = showing.parent.metrics if showing.parent else {}
    rows = []
    for key, value in showing.version.metrics.items():
        old = before.get(key)
        _, written, step = number_format.pair(None if old is None else float(old), float(value))
        rows.append((clean(key), written, step))
    return rows


def param_rows(showing: Showing) -> list[tuple[str, str]]:
    """Return the params as rows of key and value."""
    return [(clean(key), clean(str(value))) for key, value in showing.version.params.items()]


def code_of_showing(showing: Showing) -> list[str]:
    """Return the lines of the code that is stored with a version."""
    return [clean_code(line) for line in code_of(showing.version).splitlines()]


def tensor_rows(showing: Showing) -> list[tuple[str, ...]]:
    """Return the tensors as rows of name, shape, parameters and size; more than 60 are grouped by module."""
    if len(showing.tensors) <= ROWS:
        return [_tensor_row(tensor) for tensor in showing.tensors]
    return [_group_row(name, tensors) for name, tensors in showing.groups()]


def _tensor_row(tensor: Tensor) -> tuple[str, ...]:
    return clean(tensor.name), shape(tensor), f"{_count(tensor):,}", number_format.size(tensor.size)


def _group_row(name: str, tensors: Sequence[Tensor]) -> tuple[str, ...]:
    held = number_format.plural(len(tensors), "tensor")
    return clean(name), held, f"{sum(map(_count, tensors)):,}", number_format.size(sum(t.size for t in tensors))


def shape(tensor: Tensor) -> str:
    """Format the shape and the dtype of a tensor: `768 × 256, F32`."""
    return f"{' × '.join(map(str, tensor.shape)) or 'one number'}, {tensor.dtype}"


def _count(tensor: Tensor) -> int:
    return count(tensor.shape)


def showing_text(showing: Showing) -> str:
    """Return the details of a version as text: summary, origin, model card, metrics, params and tensors."""
    version, wide = showing.version, terminal_width()
    aliases = "".join(f" [{clean(alias)}]" for alias in version.aliases)
    head = one_line(f"{version.reference}{aliases}  {clean(version.message)}".rstrip())

    def block(heads: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
        shown = rows[:ROWS]
        columns = [Column(h, [r[i] for r in shown], right=i in right, flexible=not i) for i, h in enumerate(heads)]
        more = [f"… {len(rows) - ROWS:,} more rows; .tensors holds them all"] if len(rows) > ROWS else []
        return ["\n".join([*_text.table(columns, wide), *more])] if rows else []

    rows = [*origin(showing), ("pull", pull_code(version, hints.reader()))]
    facts = "\n".join(f"  {key:<10} {value}" for key, value in rows)
    card = [card_text(showing.model.description, wide)] if showing.model.description.strip() else []
    parts = [f"{head}\n  {sentence(showing)}\n{facts}", *card]
    parts += block(("Metric", "Value", "Against parent"), metric_rows(showing), (1, 2))
    parts += block(("Param", "Value"), param_rows(showing), (1,))
    parts += block(("Tensor", "Shape", "Parameters", "Size"), tensor_rows(showing), (2, 3))
    return "\n\n".join(parts)


def showing_html(showing: Showing) -> str:
    """Return the details of a version as static HTML: the text form with layer strip and environment."""
    version = showing.version
    aliases = "".join(f" <i>{html_tables.safe(alias)}</i>" for alias in version.aliases)
    summary = escape(sentence(showing))
    message = html_tables.safe(version.message)
    parts = [f"<p><b>{html_tables.safe(version.reference)}</b>{aliases} {message}<br>{summary}</p>"]
    card = card_html(showing.model.description)
    parts += [f"<div>{card}</div>"] if card else []
    parts.append(_strip(showing))

    def block(heads: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
        shown = [[html_tables.key(row[0]), *(escape(word) for word in row[1:])] for row in rows[:ROWS]]
        more = f"<p>… {len(rows) - ROWS:,} more rows</p>" if len(rows) > ROWS else ""
        return html_tables.table(list(heads), shown, right, names=[0]) + more if rows else ""

    parts += [
        block(("Tensor", "Shape", "Parameters", "Size"), tensor_rows(showing), (2, 3)),
        block(("Metric", "Value", "Against parent"), metric_rows(showing), (1, 2)),
        block(("Param", "Value"), param_rows(showing), (1,)),
        f"<pre>{html_tables.safe(pull_code(version, hints.reader()))}</pre>",
        block(("Where from", ""), origin(showing)),
        block(("Made with", ""), provenance(showing)),
    ]
    return "\n".join(part for part in parts if part)


def _strip(showing: Showing) -> str:
    codes = showing.layers.strips.get(str(showing.version.number))
    if not codes:
        return ""
    drawing = layer_strip.svg(showing.layers.axis, codes, 640, 24)
    picture = layer_strip.picture(drawing, layer_strip.summary(codes), 640, 24, flat=True)
    return f"<p>{picture}<br>{escape(layer_strip.legend(showing.layers))}</p>"


def showing_svg(shown: Showing) -> str:
    """Return a version with its summary, layer strip and metrics."""
    parts = [_svg.words(_svg.PAD, 1, sentence(shown))]
    codes = shown.layers.strips.get(str(shown.version.number))
    if codes:
        drawing = layer_strip.svg(shown.layers.axis, codes, 640, 24)
        parts.append(f'<g transform="translate({_svg.PAD} {_svg.LINE * 2})">{drawing}</g>')
    first = 4 if codes else 2
    rows = [(clip(key, _MESSAGE), *values) for key, *values in metric_rows(shown)[:SVG_ROWS]]
    names = max((width(row[0]) for row in rows), default=0) + 2
    for line, row in enumerate(rows, first):
        parts += [
            _svg.words(_svg.PAD, line, row[0]),
            _svg.words(_svg.PAD + names * _svg.LETTER, line, "  ".join(row[1:])),
        ]
    head = f"{shown.version.reference}  {clean(shown.version.message)}"
    return _svg.sheet(head, parts, 640 + 2 * _svg.PAD, first + len(rows))


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
        "layers": layer_strip.layers_data(showing.layers),
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
