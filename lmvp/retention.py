"""Which versions of a model are kept: rules such as `best:val_acc:3,last:5`.

A rule is a list of clauses, and a version stays if one of them keeps it:

- `last:N` keeps the N newest,
- `best:METRIC:N` the N best by a metric, whose name tells which way is better (`val_acc` up, `loss` down),
- `max:METRIC:N` and `min:METRIC:N` say it themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lmvp.errors import InvalidArgument
from lmvp.records import Version
from lmvp.render.numbers import better

HINT = 'a rule is made of `last:N`, `best:METRIC:N`, `max:METRIC:N`, `min:METRIC:N`: "best:val_acc:3,last:5"'
LENGTH_LIMIT, CLAUSES_LIMIT = 2000, 100
"""Characters and clauses of a rule, at most."""
_MOST = 1_000_000


@dataclass(frozen=True, slots=True)
class Clause:
    """A part of a rule: `count` versions, the newest ones, or the best by `metric`.

    Attributes
    ----------
    sign : int
        1 where more is better, −1 where less is.
    """

    count: int
    metric: str = ""
    sign: int = 1


def parse(rule: str) -> list[Clause]:
    """Read a rule.

    Raises
    ------
    InvalidArgument
        Naming the clause that cannot be read, or the metric of which it is not known which way is better; or if the
        rule is too long.

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
    """Read a rule that a model has; older versions of LMVP accepted rules of any length."""
    clauses = [_clause(part.strip()) for part in rule.split(",") if part.strip()]
    if not clauses:
        raise InvalidArgument(f"{rule[:80]!r} says nothing about what to keep", hint=HINT)
    return clauses


def kept(rule: Sequence[Clause], versions: Sequence[Version]) -> set[int]:
    """Return the numbers of the versions of a model (newest first) that a rule keeps; the newest one stays in any case.

    Versions that an alias points at stay too, and so do their first parents. The work grows with the length of the
    rule plus the number of metrics of all versions, not with their product.
    """
    named = [one for one in versions if one.aliases]
    stay = {one.number for one in [*versions[:1], *named]}
    stay |= {one.parents[0].number for one in named if one.parents}
    counts: dict[tuple[str, int], int] = {}  # of clauses that differ only in their count, the highest keeps all
    for clause in rule:
        of = clause.metric, clause.sign
        counts[of] = max(clause.count, counts.get(of, 0))
    measured: dict[str, list[Version]] = {metric: [] for metric, _ in counts}
    for one in versions:
        for metric in one.metrics:
            if metric in measured and not math.isnan(_metric(one, metric)):
                measured[metric].append(one)
    for (metric, sign), count in counts.items():
        stay |= {one.number for one in (_best(measured[metric], metric, sign) if metric else versions)[:count]}
    return stay


def _best(versions: Sequence[Version], metric: str, sign: int) -> Sequence[Version]:
    """Return versions by a metric, the best first; of equal ones, the newest first."""
    return sorted(versions, key=lambda one: -sign * _metric(one, metric))


def _clause(text: str) -> Clause:
    kind, _, rest = text.partition(":")
    metric, _, count = rest.rpartition(":")
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
