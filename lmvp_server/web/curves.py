"""Curves of runs for a page, downsampled as in a notebook, and read from the services without a request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from lmvp.core.schemas.runs import Curves as CurvesRecord
from lmvp.core.schemas.runs import KeyRecord, RunRecord
from lmvp.views.curves import SYSTEM, Curves, of_runs
from lmvp.views.runs import RecordedRun
from lmvp_server.services import Services
from lmvp_server.services.access import Caller
from lmvp_server.services.metrics import Asked, as_curves
from lmvp_server.services.paging import Page

_KEYS = 1000  # metrics of a run that are read at most


class Source:
    """Data source for `lmvp.views.curves` that reads from the services with the rights of one caller."""

    def __init__(self, services: Services, caller: Caller, first: float | None, last: float | None) -> None:
        self._services, self._caller, self._range = services, caller, (first, last)

    def curves(
        self, project: str, runs: Iterable[str], keys: Iterable[str] = (), *, points: int = 1000, axis: str = "step"
    ) -> CurvesRecord:
        """Return curves of several runs and metrics."""
        asked = Asked(tuple(runs), tuple(keys), points, *self._range, axis)
        return as_curves(self._services.metrics.curves(self._caller, project, asked))

    def metric_keys(self, project: str, run: str) -> list[KeyRecord]:
        """Return the state of each metric of a run."""
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
    """Return the curves of runs of one project, optionally of a range of the axis.

    Raises
    ------
    NotFound
        If none of the runs has one of the metrics.
    """
    return of_runs(Source(services, caller, first, last), [RecordedRun(one) for one in records], keys, **how)


def has_system(services: Services, caller: Caller, runs: Iterable[RunRecord]) -> bool:
    """Whether one of the runs has system metrics. The last values of a run do not include them."""
    return any(services.metrics.keys(caller, run.project, run.id, SYSTEM, Page(1))["items"] for run in runs)


def records(found: Iterable[Any]) -> list[RunRecord]:
    """Convert documents of the services to run records."""
    return msgspec.convert(list(found), list[RunRecord])
