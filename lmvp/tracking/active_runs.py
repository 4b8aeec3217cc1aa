"""The runs that this process logs to, the newest last: what `lmvp.log()` and `lmvp.update()` go by."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmvp.tracking.active import ActiveRun

# Each step on the lists is atomic: a lock would block a signal handler that interrupts its holder.
_runs: list[ActiveRun] = []
_undelivered: list[ActiveRun] = []


def begin(run: ActiveRun) -> None:
    """Make a run the active one."""
    _runs.append(run)


def end(run: ActiveRun) -> None:
    """Forget a run; the one before it is the active one again."""
    with suppress(ValueError):
        _runs.remove(run)


def active() -> ActiveRun | None:
    """Return the active run of this process; None if there is none."""
    return next(reversed(_runs.copy()), None)


def keep(run: ActiveRun) -> None:
    """Remember an ended run that was logged to: the end of the process delivers it."""
    _undelivered.append(run)


def undelivered() -> list[ActiveRun]:
    """Return the ended runs that were logged to."""
    return list(_undelivered)


def forget_all() -> None:
    """Forget the runs of the parent in a forked process."""
    _undelivered.clear()


def every() -> list[ActiveRun]:
    """Return all runs that this process logs to."""
    return list(_runs)


def active_in(project: str, url: str) -> str:
    """Return the id of the active run, if it is of this project on this server; empty if not."""
    run = active()
    return run.id if run is not None and run.is_of(project, url) else ""
