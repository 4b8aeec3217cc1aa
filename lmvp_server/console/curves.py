"""Curves of runs for a page: thinned as for the widget of a notebook, read without a request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

import msgspec

from lmvp.curves import SYSTEM, Curves, of_runs
from lmvp.tracking.reading import Run
from lmvp.tracking.records import Curves as CurvesRecord
from lmvp.tracking.records import KeyRecord, RunRecord
from lmvp_server.services import Services
from lmvp_server.services.access import Caller
from lmvp_server.services.metrics import Asked, as_curves
from lmvp_server.services.paging import Page

if TYPE_CHECKING:
    from lmvp.tracking.reading import Tracking

_KEYS = 1000


class Source:
    """Answers what `lmvp.curves` asks, for one caller."""

    def __init__(self, services: Services, caller: Caller, first: float | None, last: float | None) -> None:
        self._services, self._caller, self._range = services, caller, (first, last)

    def curves(
        self, project: str, runs: Iterable[str], keys: Iterable[str] = (), *, points: int = 1000, axis: str = "step"
    ) -> CurvesRecord:
        """Return curves of several runs and metrics."""
        asked = Asked(tuple(runs), tuple(keys), points, *self._range, axis)
        return as_curves(self._services.metrics.curves(self._caller, project, asked))

    def metric_keys(self, project: str, run: str) -> list[KeyRecord]:
        """Return what is known of each metric of a run."""
        return list(self._services.metrics.keys(self._caller, project, run, "", Page(_KEYS))["items"])


def curves_of(
    services: Services,
    caller: Caller,
    records: Sequence[RunRecord],
    keys: Sequence[str] = (),
    *,
    first: float | None = None,
    last: float | None = None,
    **how: Any,
) -> Curves:
    """Return the curves of runs of one project; of a range of the axis where one is given.

    Raises
    ------
    NotFound
        If none of them has such a metric.
    """
    source = Source(services, caller, first, last)
    return of_runs(source, [Run(cast("Tracking", source), one) for one in records], keys, **how)


def has_system(services: Services, caller: Caller, runs: Iterable[RunRecord]) -> bool:
    """Whether one of some runs has metrics of the machine; the last values of a run do not tell."""
    return any(services.metrics.keys(caller, run.project, run.id, SYSTEM, Page(1))["items"] for run in runs)


def records(found: Iterable[Any]) -> list[RunRecord]:
    """Return documents of the services as runs."""
    return msgspec.convert(list(found), list[RunRecord])
