"""Table of the runs of a project, with selected columns and optional groups."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from lmvp.core import number_format
from lmvp.core.sanitize import clean
from lmvp.core.schemas import decode_float
from lmvp.core.schemas.runs import RunRecord
from lmvp.views.runs import value

COLUMNS = 6
"""The number of columns that are shown by default."""
CHOICES = 200  # columns that the page offers
KINDS = ("metrics", "params", "tags", "summary")


@dataclass(frozen=True, slots=True)
class Column:
    """A column: a metric, param, tag or summary value, for example `metrics.val/acc`."""

    kind: str
    key: str

    @classmethod
    def read(cls, name: str) -> Column:
        """Parse the name of a column. A name without a kind is a metric."""
        kind, dot, key = name.partition(".")
        return cls(kind, key) if dot and kind in KINDS else cls("metrics", name)

    @property
    def name(self) -> str:
        """The name in a URL."""
        return f"{self.kind}.{self.key}"

    @property
    def field(self) -> str:
        """The name in the filter language."""
        # Keys such as `val/acc` must be quoted in a filter.
        plain = self.key.isidentifier()
        return f"{self.kind}.{self.key}" if plain else f'{self.kind}["{self.key}"]'

    def of(self, run: RunRecord) -> object:
        """Return the value of a run, or None."""
        return getattr(run, self.kind).get(self.key)

    def number(self, run: RunRecord) -> float | None:
        """Return the value of a run as float64, or None if it is not a number."""
        found = self.exact(run)
        return None if found is None else number_format.real(found)

    def exact(self, run: RunRecord) -> float | None:
        """Return the value of a run as it is stored, including integers of any size, or None if it is not a number."""
        found = self.of(run)
        # JSON has no NaN and infinity, so records have them as text.
        if isinstance(found, str) and self.kind in ("metrics", "summary"):
            found = decode_float(found) if found in ("NaN", "Infinity", "-Infinity") else None
        return found if isinstance(found, (int, float)) and not isinstance(found, bool) else None


@dataclass(frozen=True, slots=True)
class Group:
    """Runs with the same value in a column, or all runs."""

    title: str
    runs: Sequence[RunRecord]
    cells: Sequence[Sequence[str]]
    """The texts of the cells, by column, then by run."""
    means: Sequence[str]


def choices(runs: Sequence[RunRecord]) -> list[Column]:
    """Return the available columns: metrics, params, tags, summary; of each kind, the most frequent first."""
    found: list[Column] = []
    for kind in KINDS:
        seen = Counter(key for run in runs for key in getattr(run, kind))
        found += [Column(kind, key) for key, _ in seen.most_common()]
    return found[:CHOICES]


def usual(runs: Sequence[RunRecord], known: Sequence[Column]) -> list[Column]:
    """Return the columns that are shown by default: params that differ between runs, then metrics."""
    params = [one for one in known if one.kind == "params" and _differs(one, runs)]
    metrics = [one for one in known if one.kind == "metrics"]
    return [*params[: COLUMNS // 2], *metrics[: COLUMNS - len(params[: COLUMNS // 2])]]


def _differs(column: Column, runs: Sequence[RunRecord]) -> bool:
    first = column.of(runs[0])
    return any(column.of(run) != first for run in runs)


def groups(runs: Sequence[RunRecord], columns: Sequence[Column], by: Column | None) -> list[Group]:
    """Group runs by their value in a column, in order of first appearance. Without a column, return one group."""
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
        return number_format.column([column.exact(run) for run in runs])
    return ["" if column.of(run) is None else clean(value(column.of(run)))[:60] for run in runs]


def _mean(column: Column, runs: Sequence[RunRecord]) -> str:
    found = [one for run in runs if (one := column.number(run)) is not None and math.isfinite(one)]
    # The mean of a param, such as a seed, has no meaning.
    if column.kind != "metrics" or not found:
        return ""
    return number_format.one(number_format.mean(found))


def address(**query: object) -> str:
    """Return a query string without empty parameters."""
    given = {name: found for name, found in query.items() if found}
    return f"?{urlencode(given, doseq=True)}" if given else ""
