"""The runs that this process logs to, the newest last: what `lmvp.log()` and `lmvp.update()` go by."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmvp.tracking.active import ActiveRun

_runs: list[ActiveRun] = []
_lock = threading.Lock()


def begin(run: ActiveRun) -> None:
    """Make a run the active one."""
    with _lock:
        _runs.append(run)


def end(run: ActiveRun) -> None:
    """Forget a run; the one before it is the active one again."""
    with _lock:
        if run in _runs:
            _runs.remove(run)


def active() -> ActiveRun | None:
    """Return the active run of this process; None if there is none."""
    return _runs[-1] if _runs else None


def every() -> list[ActiveRun]:
    """Return all runs that this process logs to."""
    return list(_runs)


def active_in(project: str, url: str) -> str:
    """Return the id of the active run, if it is of this project on this server; empty if not."""
    run = active()
    return run.id if run is not None and run.is_of(project, url) else ""
