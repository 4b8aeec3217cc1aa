"""Plain-text forms of histories, versions and diffs, and text tables that fit the width of the terminal."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lmvp import hints
from lmvp.core import number_format
from lmvp.core.sanitize import (
    clean,
    clip,
    clip_middle,
    one_line,
    pad,
    width,
)
from lmvp.core.schemas import Version
from lmvp.views import diff_tables

if TYPE_CHECKING:
    from lmvp.views.diff import Diff
    from lmvp.views.history import History

ROWS = 30
"""Maximum number of versions in the table of a history."""
GAP = "  "
_BAR = 14
"""Width of the bars of a diff, in columns of the terminal."""


@dataclass(frozen=True)
class Column:
    """A column of a text table.

    Attributes
    ----------
    head : str
    cells : sequence of str
    right : bool
        Align to the right, for numbers.
    flexible : bool
        Shorten this column if the table is too wide.
    drop : int
        Order in which columns are left out of a table that is too wide, the highest first; 0: never.
    most : int
        Maximum width, in columns of the terminal.
    """

    head: str
    cells: Sequence[str]
    right: bool = False
    flexible: bool = False
    drop: int = 0
    most: int = 1000

    @property
    def width(self) -> int:
        """Width of the widest cell, in columns of the terminal."""
        return min(max(map(width, (self.head, *self.cells)), default=0), self.most)


def table(columns: Sequence[Column], room: int, least: int = 32) -> list[str]:
    """Return the lines of a table.

    Empty columns are left out. If the table is too wide, columns with the highest `drop` are left out first, then the
    flexible ones are shortened.

    Parameters
    ----------
    columns : sequence of Column
    room : int
        Width in columns of the terminal.
    least : int
        Minimum width of a flexible column, 32 by default. The lines are wider than `room` if it does not fit.
    """
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
    """Return the minimum width of a table."""
    return sum(min(c.width, least) if c.flexible else c.width for c in columns) + len(GAP) * (len(columns) - 1)


def _line(row: Sequence[str], columns: Sequence[Column], widths: Sequence[int]) -> str:
    cells = [pad(clip(cell, wide), wide, right=c.right) for cell, c, wide in zip(row, columns, widths, strict=True)]
    return GAP.join(cells).rstrip()


def terminal_width() -> int:
    """Return the width of the terminal in columns; 100 if the output is not a terminal."""
    return shutil.get_terminal_size((100, 24)).columns


def history_text(history: History, room: int | None = None) -> str:
    """Return the newest 30 versions of a history as a table, newest first."""
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
        Column("When (UTC)", [number_format.stamp(v.created_at) for v in shown], drop=2),
        Column("Size", [number_format.size(v.size) for v in shown], right=True, drop=4),
    ]


def _metric_column(shown: Sequence[Version], key: str, rank: int) -> Column:
    """Return the column of a metric. A long key is shortened in the middle: its ends, `train/…/loss`, identify it."""
    written = number_format.column(value_of(v, key) for v in shown)
    return Column(clip_middle(clean(key), 20), written, right=True, drop=rank and 10 + rank)


def value_of(version: Version, key: str | None) -> float | None:
    """Return a metric of a version; None if the version does not have it."""
    value = version.metrics.get(key) if key else None
    return None if value is None else float(value)


def heading(history: History) -> str:
    """Return the title of a history: `13 versions of birdsong/tagger, newest first`."""
    part = "" if len(history) == history.total else f"{len(history):,} of "
    return f"{part}{number_format.plural(history.total, 'version')} of {clean(history.title)}, newest first"


def nothing(history: History) -> str:
    """Return the message of an empty history, or of an empty part of one."""
    if history.total:
        return (
            f"None of the {number_format.plural(history.total, 'version')} of {clean(history.title)} is in this part."
        )
    return f"No versions of {clean(history.title)} yet. The first one is published by"


def filled_by(history: History) -> str:
    """Return the code that pushes a first version; empty if the history has versions in another part."""
    if history.total:
        return ""
    title = clean(history.title)
    name = title if "/" in title else f"{title}/my-model"
    return hints.code(f"`lmvp push {name} FILE -m 'first try'`")


def diff_text(diff: Diff, room: int | None = None) -> str:
    """Return a diff as text: a summary, and a table for each kind of data that differs."""
    wide = room or terminal_width()
    parts = [f"{clean(diff.title)}: {diff_tables.sentence(diff)}"]
    for block in diff_tables.tables(diff):
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
    lines = diff_tables.code_lines(diff)
    more = (
        [f"… {len(lines) - diff_tables.ROWS:,} more lines; .code holds them all"]
        if len(lines) > diff_tables.ROWS
        else []
    )
    return ["\n".join(["Code", *lines[: diff_tables.ROWS], *more])] if lines else []
