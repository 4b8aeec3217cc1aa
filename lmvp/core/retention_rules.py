"""Retention rules, which state the versions of a model to keep, for example `best:val_acc:3,last:5`.

A rule is a list of clauses. A version is kept if at least one clause keeps it:

- `last:N` keeps the N newest versions.
- `best:METRIC:N` keeps the N best versions by a metric. The direction follows from the name of the metric: higher is
  better for `val_acc`, lower is better for `loss`.
- `max:METRIC:N` and `min:METRIC:N` keep the N versions with the highest or the lowest value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lmvp.core.number_format import better
from lmvp.core.schemas import Version
from lmvp.errors import InvalidArgument

HINT = 'a rule is made of `last:N`, `best:METRIC:N`, `max:METRIC:N`, `min:METRIC:N`: "best:val_acc:3,last:5"'
LENGTH_LIMIT, CLAUSES_LIMIT = 2000, 100
"""Maximum number of characters and of clauses of a rule."""
_MOST = 1_000_000
"""Maximum number of versions of a clause."""


@dataclass(frozen=True, slots=True)
class Clause:
    """A clause of a rule. It keeps the `count` newest versions, or the `count` best versions by a metric.

    Attributes
    ----------
    count : int
        The number of versions to keep.
    metric : str
        The metric; empty: keep the newest versions.
    sign : int
        1 if higher values are better, −1 if lower values are better.
    """

    count: int
    metric: str = ""
    sign: int = 1


def parse(rule: str) -> list[Clause]:
    """Parse a rule.

    Raises
    ------
    InvalidArgument
        If a clause is invalid, if the direction of a metric in `best` is unknown, or if the rule is too long.

    Examples
    --------
    >>> parse("best:val/loss:3, last:5")
    [Clause(count=3, metric='val/loss', sign=-1), Clause(count=5, metric='', sign=1)]
    """
    if len(rule) > LENGTH_LIMIT:
        raise InvalidArgument(f"the rule has {len(rule):,} characters; the limit is {LENGTH_LIMIT:,}", hint=HINT)
    if (count := rule.count(",") + 1) > CLAUSES_LIMIT:
        raise InvalidArgument(f"the rule has {count:,} clauses; the limit is {CLAUSES_LIMIT}", hint=HINT)
    return stored(rule)


def stored(rule: str) -> list[Clause]:
    """Parse the stored rule of a model, without the limits of `parse`. Older releases accepted rules of any length."""
    clauses = [_clause(part.strip()) for part in rule.split(",") if part.strip()]
    if not clauses:
        raise InvalidArgument(f"{rule[:80]!r} says nothing about what to keep", hint=HINT)
    return clauses


def kept(rule: Sequence[Clause], versions: Sequence[Version]) -> set[int]:
    """Return the numbers of the versions that a rule keeps.

    The newest version, versions with an alias, and the first parents of versions with an alias are always kept. The
    time is linear in the length of the rule plus the number of metrics of all versions, not in their product.

    Parameters
    ----------
    rule : sequence of Clause
        The rule.
    versions : sequence of Version
        All versions of the model, newest first.

    Returns
    -------
    set of int
    """
    named = [one for one in versions if one.aliases]
    stay = {one.number for one in [*versions[:1], *named]}
    stay |= {one.parents[0].number for one in named if one.parents}
    counts: dict[tuple[str, int], int] = {}  # of clauses for the same metric, only the highest count matters
    for clause in rule:
        of = clause.metric, clause.sign
        counts[of] = max(clause.count, counts.get(of, 0))
    measured: dict[str, list[Version]] = {metric: [] for metric, _ in counts}
    for one in versions:
        for metric in one.metrics:
            # NaN is not comparable, so a version with NaN is never among the best.
            if metric in measured and not math.isnan(_metric(one, metric)):
                measured[metric].append(one)
    for (metric, sign), count in counts.items():
        stay |= {one.number for one in (_best(measured[metric], metric, sign) if metric else versions)[:count]}
    return stay


def _best(versions: Sequence[Version], metric: str, sign: int) -> Sequence[Version]:
    """Sort versions by a metric, the best first. The sort is stable: of equal values, the newest comes first."""
    return sorted(versions, key=lambda one: -sign * _metric(one, metric))


def _clause(text: str) -> Clause:
    kind, _, rest = text.partition(":")
    metric, _, count = rest.rpartition(":")  # from the right, because the name of a metric can contain colons
    if not (count.isascii() and count.isdigit() and len(count) < 19 and int(count) <= _MOST):
        raise InvalidArgument(f"cannot read {text[:80]!r}", hint=HINT)
    if kind == "last" and not metric:
        return Clause(int(count))
    if kind in {"best", "max", "min"} and metric:
        return Clause(int(count), metric, _sign(kind, metric))
    raise InvalidArgument(f"cannot read {text[:80]!r}", hint=HINT)


def _sign(kind: str, metric: str) -> int:
    sign = {"max": 1, "min": -1}.get(kind) or better(metric)
    if not sign:
        raise InvalidArgument(
            f"nothing tells which way {metric!r} is better", hint=f"say max:{metric}:N or min:{metric}:N"
        )
    return sign


def _metric(version: Version, key: str) -> float:
    value = version.metrics.get(key, math.nan)
    return float(value)
