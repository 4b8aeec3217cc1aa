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

    def kept(self, versions: Sequence[Version]) -> list[Version]:
        """Return which of some versions (newest first) this clause keeps; of equal ones, the newest."""
        if not self.metric:
            return list(versions[: self.count])
        measured = [one for one in versions if not math.isnan(_metric(one, self.metric))]
        return sorted(measured, key=lambda one: -self.sign * _metric(one, self.metric))[: self.count]


def parse(rule: str) -> list[Clause]:
    """Read a rule.

    Raises
    ------
    InvalidArgument
        Naming the clause that cannot be read, or the metric of which it is not known which way is better.

    Examples
    --------
    >>> parse("best:val/loss:3, last:5")
    [Clause(count=3, metric='val/loss', sign=-1), Clause(count=5, metric='', sign=1)]
    """
    clauses = [_clause(part.strip()) for part in rule.split(",") if part.strip()]
    if not clauses:
        raise InvalidArgument(f"{rule[:80]!r} says nothing about what to keep", hint=HINT)
    return clauses


def kept(rule: Sequence[Clause], versions: Sequence[Version]) -> set[int]:
    """Return the numbers of the versions of a model (newest first) that a rule keeps; the newest one stays in any case.

    Versions that an alias stands at stay too, and so do their first parents.
    """
    named = [one for one in versions if one.aliases]
    stay = {one.number for one in [*versions[:1], *named]}
    stay |= {one.parents[0].number for one in named if one.parents}
    return stay.union(*({one.number for one in clause.kept(versions)} for clause in rule))


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
