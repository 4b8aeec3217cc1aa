"""Plain-text forms: what `print` shows in a terminal, as wide as the terminal."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lmvp import hints
from lmvp.records import Version
from lmvp.render import diffs, numbers
from lmvp.render.words import clean, clip, clip_middle, listed, one_line, pad, width

if TYPE_CHECKING:
    from lmvp.views.diff import Diff
    from lmvp.views.history import History

ROWS = 30
GAP = "  "
_BAR = 14


@dataclass(frozen=True)
class Column:
    """A column of a text table, at most `most` wide.

    The one with `flexible` gives way; those with the highest `drop` go first.
    """

    head: str
    cells: Sequence[str]
    right: bool = False
    flexible: bool = False
    drop: int = 0
    most: int = 1000

    @property
    def width(self) -> int:
        """Columns that its widest cell takes."""
        return min(max(map(width, (self.head, *self.cells)), default=0), self.most)


def table(columns: Sequence[Column], room: int, least: int = 32) -> list[str]:
    """Lay columns out in a width: some are dropped, then the flexible one is clipped."""
    columns = [
        replace(column, head=one_line(column.head), cells=[one_line(cell) for cell in column.cells])
        for column in columns
        if any(column.cells) or column.flexible
    ]
    while _needed(columns, least) > room and any(column.drop for column in columns):
        worst = max(column.drop for column in columns)
        columns = [column for column in columns if column.drop != worst]
    fixed = sum(column.width for column in columns if not column.flexible) + len(GAP) * (len(columns) - 1)
    widths = [min(c.width, max(room - fixed, least)) if c.flexible else c.width for c in columns]
    rows = [[c.head for c in columns], *zip(*(c.cells for c in columns), strict=True)]
    return [_line(row, columns, widths) for row in rows]


def _needed(columns: Sequence[Column], least: int) -> int:
    return sum(min(c.width, least) if c.flexible else c.width for c in columns) + len(GAP) * (len(columns) - 1)


def _line(row: Sequence[str], columns: Sequence[Column], widths: Sequence[int]) -> str:
    cells = [pad(clip(cell, wide), wide, right=c.right) for cell, c, wide in zip(row, columns, widths, strict=True)]
    return GAP.join(cells).rstrip()


def terminal_width() -> int:
    """Columns of the terminal, 100 where there is none."""
    return shutil.get_terminal_size((100, 24)).columns


def history_text(history: History, room: int | None = None) -> str:
    """Write a history as a table, newest first."""
    if not history:
        return f"{nothing(history)}\n    {filled_by(history)}".rstrip()
    shown = history[:ROWS]
    lines = table(_history_columns(shown, history), room or terminal_width())
    older = shown.older
    tail = [f"… {older:,} older"] if older > 0 else []
    return "\n".join([heading(history), "", *lines, *tail])


def _history_columns(shown: Sequence[Version], history: History) -> list[Column]:
    keys = [key for key in dict.fromkeys([history.metric, *history.metrics[:3]]) if key]
    return [
        Column("Model", [clean(v.model) if history.of_project else "" for v in shown], most=32),
        Column("Version", [v.name for v in shown]),
        Column("Message", [clean(v.message) for v in shown], flexible=True),
        Column("Aliases", [", ".join(map(clean, v.aliases)) for v in shown], drop=1, most=32),
        *(_metric_column(shown, key, rank) for rank, key in enumerate(keys)),
        Column("By", [clean(v.author) for v in shown], drop=3, most=24),
        Column("When (UTC)", [numbers.stamp(v.created_at) for v in shown], drop=2),
        Column("Size", [numbers.size(v.size) for v in shown], right=True, drop=4),
    ]


def _metric_column(shown: Sequence[Version], key: str, rank: int) -> Column:
    """Give the column of a metric; of a long key the middle goes, since `train/…/loss` is told by its ends."""
    written = numbers.column(value_of(v, key) for v in shown)
    return Column(clip_middle(clean(key), 20), written, right=True, drop=rank and 10 + rank)


def value_of(version: Version, key: str | None) -> float | None:
    """Give a metric of a version, None where it has none."""
    value = version.metrics.get(key) if key else None
    return None if value is None else float(value)


def heading(history: History) -> str:
    """Say what a history shows: `13 versions of birdsong/tagger, newest first`."""
    part = "" if len(history) == history.total else f"{len(history):,} of "
    return f"{part}{numbers.plural(history.total, 'version')} of {clean(history.title)}, newest first"


def nothing(history: History) -> str:
    """Say that a history, or the part of it that was asked for, is empty."""
    if history.total:
        return f"None of the {numbers.plural(history.total, 'version')} of {clean(history.title)} is in this part."
    return f"No versions of {clean(history.title)} yet. The first one is published by"


def filled_by(history: History) -> str:
    """Give the code that publishes a first version; empty where there are versions elsewhere."""
    if history.total:
        return ""
    title = clean(history.title)
    name = title if "/" in title else f"{title}/my-model"
    return hints.code(f"`lmvp push {name} FILE -m 'first try'`")


def version_text(version: Version) -> str:
    """Write a version as a few lines: what it is, then its facts."""
    head = one_line(f"{version.reference}  {clean(version.message)}".rstrip())
    facts = version_facts(version)
    wide = max(width(key) for key, _ in facts)
    return "\n".join([head, *(f"  {pad(key, wide)}  {value}" for key, value in facts)])


def version_facts(version: Version) -> list[tuple[str, str]]:
    """List what there is to say about a version, as pairs of words."""
    by = f" by {clean(version.author)}" if version.author else ""
    pairs = [
        ("published", f"{numbers.stamp(version.created_at)} UTC{by}"),
        ("aliases", listed(map(clean, version.aliases))),
        ("metrics", _listed({k: numbers.one(float(v)) for k, v in version.metrics.items()})),
        ("params", _listed({k: str(v) for k, v in version.params.items()})),
        ("tags", _listed(version.tags)),
        ("parents", listed(map(str, version.parents)) or "none"),
        ("size", f"{numbers.size(version.size)}, {numbers.size(version.sent)} sent"),
        ("format", version.format),
        ("digest", version.digest),
    ]
    return [(key, one_line(value)) for key, value in pairs if value]


def _listed(values: dict[str, str]) -> str:
    return listed(f"{clean(key)} {clean(value)}" for key, value in values.items())


def diff_text(diff: Diff, room: int | None = None) -> str:
    """Write a diff: what the layers did, then files, metrics and params, only what differs."""
    wide = room or terminal_width()
    parts = [f"{clean(diff.title)}: {diffs.sentence(diff)}"]
    for block in diffs.tables(diff):
        columns = [
            Column(head, [row[i] for row in block.rows], right=i in block.right, flexible=i == 0)
            for i, head in enumerate(block.heads)
        ]
        if block.bars:
            at = block.heads.index("Relative change") + 1
            columns.insert(at, Column("0.01 % … 100 %", [bar(high, _BAR) for high in block.bars], drop=1))
        parts.append("\n".join([*table(columns, wide), *block.notes]))
    return "\n\n".join([*parts, *_code_text(diff)])


def bar(share: float, columns: int) -> str:
    """Return a bar of block characters, as long as a share of some columns.

    Examples
    --------
    >>> bar(0.5, 4), bar(0.01, 4), bar(0.0, 4)
    ('██', '▏', '')
    """
    eighths = max(round(8 * columns * share), 1) if share > 0 else 0
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def _code_text(diff: Diff) -> list[str]:
    lines = diffs.code_lines(diff)
    more = [f"… {len(lines) - diffs.ROWS:,} more lines; .code holds them all"] if len(lines) > diffs.ROWS else []
    return ["\n".join(["Code", *lines[: diffs.ROWS], *more])] if lines else []
