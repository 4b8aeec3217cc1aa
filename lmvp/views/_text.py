"""Text tables that fit the width of the terminal."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lmvp.core.sanitize import clip, one_line, pad, width
from lmvp.core.schemas import Version

GAP = "  "


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


def value_of(version: Version, key: str | None) -> float | None:
    """Return a metric of a version; None if the version does not have it."""
    value = version.metrics.get(key) if key else None
    return None if value is None else float(value)
