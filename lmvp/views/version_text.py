"""Text and HTML forms of the details of one version: origin, tensors, metrics, params and environment."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from lmvp import hints
from lmvp.core import number_format
from lmvp.core.sanitize import (
    clean,
    clean_code,
    listed,
    one_line,
)
from lmvp.views import layer_strip
from lmvp.views.diff import code_of, facts_of
from lmvp.views.model_card import card_html, card_text
from lmvp.views.snippets import pull_code

if TYPE_CHECKING:
    from lmvp.core.manifest import Tensor
    from lmvp.views.version import Showing

ROWS = 60
"""Maximum number of rows of a table. With more tensors, the table lists modules instead."""


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
    from lmvp.views.version import count

    return count(tensor.shape)


def showing_text(showing: Showing) -> str:
    """Return the details of a version as text: summary, origin, model card, metrics, params and tensors."""
    from lmvp.views._text import Column, table, terminal_width

    version, wide = showing.version, terminal_width()
    aliases = "".join(f" [{clean(alias)}]" for alias in version.aliases)
    head = one_line(f"{version.reference}{aliases}  {clean(version.message)}".rstrip())

    def block(heads: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
        shown = rows[:ROWS]
        columns = [Column(h, [r[i] for r in shown], right=i in right, flexible=not i) for i, h in enumerate(heads)]
        more = [f"… {len(rows) - ROWS:,} more rows; .tensors holds them all"] if len(rows) > ROWS else []
        return ["\n".join([*table(columns, wide), *more])] if rows else []

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
    from lmvp.core.html_tables import key, safe, table

    version = showing.version
    aliases = "".join(f" <i>{safe(alias)}</i>" for alias in version.aliases)
    parts = [f"<p><b>{safe(version.reference)}</b>{aliases} {safe(version.message)}<br>{escape(sentence(showing))}</p>"]
    card = card_html(showing.model.description)
    parts += [f"<div>{card}</div>"] if card else []
    parts.append(_strip(showing))

    def block(heads: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
        shown = [[key(row[0]), *(escape(word) for word in row[1:])] for row in rows[:ROWS]]
        more = f"<p>… {len(rows) - ROWS:,} more rows</p>" if len(rows) > ROWS else ""
        return table(list(heads), shown, right, names=[0]) + more if rows else ""

    parts += [
        block(("Tensor", "Shape", "Parameters", "Size"), tensor_rows(showing), (2, 3)),
        block(("Metric", "Value", "Against parent"), metric_rows(showing), (1, 2)),
        block(("Param", "Value"), param_rows(showing), (1,)),
        f"<pre>{safe(pull_code(version, hints.reader()))}</pre>",
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
