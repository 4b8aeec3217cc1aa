"""Curves of runs for a page, downsampled as in a notebook, and read from the services without a request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from lmvp.core.schemas.runs import RunRecord
from lmvp.views.curve_queries import SYSTEM, of_runs
from lmvp.views.curves import Curves
from lmvp.views.runs import RecordedRun
from lmvp_server.services import Services
from lmvp_server.services.access import Caller
from lmvp_server.services.paging import Page
from lmvp_server.web.source import ServiceSource


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
    return of_runs(
        ServiceSource(services, caller, first=first, last=last), [RecordedRun(one) for one in records], keys, **how
    )


def has_system(services: Services, caller: Caller, runs: Iterable[RunRecord]) -> bool:
    """Whether one of the runs has system metrics. The last values of a run do not include them."""
    return any(services.metrics.keys(caller, run.project, run.id, SYSTEM, Page(1))["items"] for run in runs)


def records(found: Iterable[Any]) -> list[RunRecord]:
    """Convert documents of the services to run records."""
    return msgspec.convert(list(found), list[RunRecord])
