"""`Comparison`: the differences between runs as a table, in text and HTML."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from lmvp.core import html_tables, number_format
from lmvp.core.environment import commit_of, packages_of
from lmvp.core.sanitize import clean, one_line, printable
from lmvp.core.schemas.runs import RunRecord
from lmvp.views._text import Column, table
from lmvp.views.runs import duration, status, value

_BEST = "★"


@dataclass(frozen=True)
class Row:
    """A row of a comparison: one value of each run.

    Attributes
    ----------
    kind : str
        `run`, `param`, `tag`, `summary`, `metric` or `made by`.
    name : str
        The key, for example `lr`.
    cells : tuple of str
        The formatted value of each run; empty if the run does not have it.
    best : tuple of int
        The indexes of the runs with the best value; empty if the direction of the metric is unknown.
    """

    kind: str
    name: str
    cells: tuple[str, ...]
    best: tuple[int, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """The differences between runs.

    Attributes
    ----------
    names : tuple of str
        The names of the runs.
    rows : tuple of Row
    alike : int
        The number of rows that are left out because all runs have the same value.
    """

    names: tuple[str, ...]
    rows: tuple[Row, ...]
    alike: int = 0

    @classmethod
    def of(cls, records: Sequence[RunRecord], *, every: bool = False) -> Comparison:
        """Compare runs.

        Parameters
        ----------
        records : sequence of RunRecord
        every : bool
            Whether to include rows in which all runs are equal. False by default.
        """
        rows = [
            Row("run", "status", tuple(status(record.status) for record in records)),
            Row("run", "took", tuple(duration(record.duration) for record in records)),
            *_rows("param", [record.params for record in records]),
            *_rows("tag", [record.tags for record in records]),
            *_rows("summary", [record.summary for record in records]),
            *_rows("metric", [record.metrics for record in records]),
            *_rows("made by", [_made_by(record) for record in records]),
        ]
        shown = [row for row in rows if every or len(set(row.cells)) > 1]
        return cls(tuple(clean(record.name) for record in records), tuple(shown), len(rows) - len(shown))

    def to_pandas(self) -> Any:
        """Return a DataFrame with a row for each compared value and a column for each run.

        Raises
        ------
        MissingDependency
            If pandas is not installed.
        """
        from lmvp.core.optional import pandas_module

        rows = [(row.kind, row.name, *row.cells) for row in self.rows]
        return pandas_module().DataFrame(rows, columns=["kind", "name", *self.names])

    def __repr__(self) -> str:
        if not self.rows:
            return one_line(f"{' and '.join(self.names)} do not differ")
        kinds = [row.kind if not at or self.rows[at - 1].kind != row.kind else "" for at, row in enumerate(self.rows)]
        columns = [Column("", kinds), Column("", [clean(row.name) for row in self.rows], flexible=True, most=40)]
        for number, name in enumerate(self.names):
            columns.append(Column(name, [_marked(row, number) for row in self.rows], right=True, most=40))
        lines = table(columns, shutil.get_terminal_size((120, 24)).columns)
        return printable("\n".join([*lines, *([self._note()] if self.alike else [])]))

    def _repr_html_(self) -> str:
        if not self.rows:
            return f"<p>{escape(' and '.join(self.names))} do not differ</p>"
        rows = [
            [
                html_tables.safe(row.kind),
                html_tables.key(row.name),
                *(_bold(row, number) for number in range(len(self.names))),
            ]
            for row in self.rows
        ]
        heads = ["", "", *(html_tables.key(name) for name in self.names)]
        note = f"<p>{escape(self._note())}</p>" if self.alike else ""
        return html_tables.table(heads, rows, range(2, len(heads)), names=[1]) + note

    def _note(self) -> str:
        return f"{number_format.plural(self.alike, 'thing')} alike, not shown"


def _rows(kind: str, mappings: Sequence[dict[str, Any]]) -> list[Row]:
    keys = dict.fromkeys(key for mapping in mappings for key in mapping)
    return [_row(kind, key, [mapping.get(key) for mapping in mappings]) for key in keys]


def _row(kind: str, key: str, given: Sequence[Any]) -> Row:
    """Format one value of all runs; numbers of metrics get the same number of decimals."""
    known = [each for each in given if isinstance(each, (int, float)) and not isinstance(each, bool)]
    if kind in ("metric", "summary") and len(known) == len([each for each in given if each is not None]):
        cells = tuple(number_format.column(given))
        return Row(kind, key, cells, _best(key, given))
    return Row(kind, key, tuple("" if each is None else value(each) for each in given))


def _best(key: str, given: Sequence[Any]) -> tuple[int, ...]:
    """Return the indexes of the best runs; empty if the name of the metric does not imply a direction."""
    way = number_format.better(key)
    known = [each for each in given if each is not None and each == each]  # without NaN
    if not way or len(set(known)) < 2:
        return ()
    best = max(known) if way > 0 else min(known)
    return tuple(number for number, each in enumerate(given) if each is not None and each == best)


def _made_by(record: RunRecord) -> dict[str, Any]:
    """Return the comparable part of the environment: user, host, commit, Python and packages."""
    environment = record.environment
    found = {key: environment[key] for key in ("user", "host", "python") if environment.get(key)}
    if commit := commit_of(environment):
        found["commit"] = commit
    return found | packages_of(environment)


def _marked(row: Row, number: int) -> str:
    return f"{_BEST} {row.cells[number]}" if number in row.best else row.cells[number]


def _bold(row: Row, number: int) -> str:
    cell = html_tables.safe(row.cells[number])
    return f'<b title="best">{cell}</b>' if number in row.best else cell
