"""The runs to which this process logs, newest last; `lmvp.log()` and `lmvp.update()` use the newest."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmvp.tracking.active_run import ActiveRun

# Each operation on the lists is atomic. A lock would block a signal handler that interrupts its holder.
_runs: list[ActiveRun] = []
_undelivered: list[ActiveRun] = []


def begin(run: ActiveRun) -> None:
    """Add a run, which becomes the active one."""
    _runs.append(run)


def end(run: ActiveRun) -> None:
    """Remove a run; the one before it becomes active again."""
    with suppress(ValueError):
        _runs.remove(run)


def active() -> ActiveRun | None:
    """Return the active run of this process, or None."""
    return next(reversed(_runs.copy()), None)


def keep(run: ActiveRun) -> None:
    """Add an ended run that was logged to; it is delivered at the end of the process."""
    _undelivered.append(run)


def undelivered() -> list[ActiveRun]:
    """Return the ended runs that were logged to."""
    return list(_undelivered)


def forget_all() -> None:
    """Drop the parent's undelivered runs in a forked process."""
    _undelivered.clear()


def every() -> list[ActiveRun]:
    """Return all runs to which this process logs."""
    return list(_runs)


def active_in(project: str, url: str) -> str:
    """Return the id of the active run if it belongs to this project on this server, otherwise an empty text."""
    run = active()
    return run.id if run is not None and run.is_of(project, url) else ""
