"""The table of the runs of a project: chosen columns, grouped where that is asked for."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from lmvp.records import decode_float
from lmvp.render import numbers
from lmvp.render.runs import value
from lmvp.render.words import clean
from lmvp.tracking.records import RunRecord

COLUMNS = 6
"""Columns that are shown where none are chosen."""
CHOICES = 200
KINDS = ("metrics", "params", "tags", "summary")


@dataclass(frozen=True, slots=True)
class Column:
    """A metric, param, tag or entry of the summary: `metrics.val/acc`."""

    kind: str
    key: str

    @classmethod
    def read(cls, name: str) -> Column:
        """Read a name: what has no kind before it is a metric."""
        kind, dot, key = name.partition(".")
        return cls(kind, key) if dot and kind in KINDS else cls("metrics", name)

    @property
    def name(self) -> str:
        """Its name in a URL."""
        return f"{self.kind}.{self.key}"

    @property
    def field(self) -> str:
        """Its name in the language of filters."""
        plain = self.key.isidentifier()
        return f"{self.kind}.{self.key}" if plain else f'{self.kind}["{self.key}"]'

    def of(self, run: RunRecord) -> object:
        """Return what a run has there; None if nothing."""
        return getattr(run, self.kind).get(self.key)

    def number(self, run: RunRecord) -> float | None:
        """Return the value that a run has there as float64; None if it is no number."""
        found = self.exact(run)
        return None if found is None else numbers.real(found)

    def exact(self, run: RunRecord) -> float | None:
        """Return the value that a run has there as it was stored, an integer of any length; None if it is no number."""
        found = self.of(run)
        if isinstance(found, str) and self.kind in ("metrics", "summary"):
            found = decode_float(found) if found in ("NaN", "Infinity", "-Infinity") else None
        return found if isinstance(found, (int, float)) and not isinstance(found, bool) else None


@dataclass(frozen=True, slots=True)
class Group:
    """Runs that have one value in common, or all of them."""

    title: str
    runs: Sequence[RunRecord]
    cells: Sequence[Sequence[str]]
    """By column, then by run."""
    means: Sequence[str]


def choices(runs: Sequence[RunRecord]) -> list[Column]:
    """Return the columns that there are, those that most runs have first, metrics before params."""
    found: list[Column] = []
    for kind in KINDS:
        seen = Counter(key for run in runs for key in getattr(run, kind))
        found += [Column(kind, key) for key, _ in seen.most_common()]
    return found[:CHOICES]


def usual(runs: Sequence[RunRecord], known: Sequence[Column]) -> list[Column]:
    """Return the columns that are shown where none are chosen: the params that differ, then metrics."""
    params = [one for one in known if one.kind == "params" and _differs(one, runs)]
    metrics = [one for one in known if one.kind == "metrics"]
    return [*params[: COLUMNS // 2], *metrics[: COLUMNS - len(params[: COLUMNS // 2])]]


def _differs(column: Column, runs: Sequence[RunRecord]) -> bool:
    first = column.of(runs[0])
    return any(column.of(run) != first for run in runs)


def groups(runs: Sequence[RunRecord], columns: Sequence[Column], by: Column | None) -> list[Group]:
    """Return runs by what they have in a column, in the order in which that comes; all together without one."""
    if by is None:
        return [_group("", runs, columns)]
    found: dict[str, list[RunRecord]] = {}
    for run in runs:
        given = by.of(run)
        found.setdefault("none" if given is None else value(given), []).append(run)
    return [_group(f"{clean(by.key)} = {title}", some, columns) for title, some in found.items()]


def _group(title: str, runs: Sequence[RunRecord], columns: Sequence[Column]) -> Group:
    cells = [_cells(column, runs) for column in columns]
    return Group(title, runs, cells, [_mean(column, runs) for column in columns] if title else [])


def _cells(column: Column, runs: Sequence[RunRecord]) -> list[str]:
    if column.kind in ("metrics", "summary"):
        return numbers.column([column.exact(run) for run in runs])
    return ["" if column.of(run) is None else clean(value(column.of(run)))[:60] for run in runs]


def _mean(column: Column, runs: Sequence[RunRecord]) -> str:
    found = [one for run in runs if (one := column.number(run)) is not None and math.isfinite(one)]
    if column.kind != "metrics" or not found:
        return ""
    return numbers.one(numbers.mean(found))


def address(**query: object) -> str:
    """Return a query of a URL, without what is empty."""
    given = {name: found for name, found in query.items() if found}
    return f"?{urlencode(given, doseq=True)}" if given else ""
