"""Background work in a low-priority thread while nobody uses the server."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from lmvp.errors import LmvpError
from lmvp_server.process.memory import give_back

_logger = logging.getLogger("lmvp_server")
_TICK = 0.5
_NICE = 10


class IdleWork:
    """Runner that calls `work` once after each use of the server, when the server is quiet again.

    Parameters
    ----------
    work : callable
        Receives a function that returns whether the work can continue, and must call it often. It returns when the work
        is done or interrupted.
    quiet_for : callable
        Returns the seconds since the last use of the server; 0 during a request.
    wait : float
        Seconds without use before the work starts.
    """

    def __init__(self, work: Callable[[Callable[[], bool]], None], quiet_for: Callable[[], float], wait: float) -> None:
        self._work, self._quiet_for, self._wait = work, quiet_for, wait
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lmvp-idle", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Interrupt the current work at its next check, and wait for the thread."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        _give_way()
        done = -1.0
        while not self._stop.wait(_TICK):
            # Only if the server was used since the last completed work.
            if self._may_go_on() and time.monotonic() - self._quiet_for() > done:
                began = time.monotonic()
                self._work_once()
                done = began if self._may_go_on() else done

    def _work_once(self) -> None:
        try:
            self._work(self._may_go_on)
        except LmvpError as error:  # for example a full disk; the next attempt follows
            _logger.error("work in idle time failed: %s", error.message)  # noqa: TRY400 - not a fault of the server
        except Exception:  # the server continues and retries later
            _logger.exception("work in idle time failed")
        # Compaction uses much memory; an idle server must not occupy it.
        give_back()

    def _may_go_on(self) -> bool:
        return not self._stop.is_set() and self._quiet_for() >= self._wait


def _give_way() -> None:
    """Lower the priority of this thread and of the threads that it starts. Only Linux has priorities for threads."""
    with suppress(AttributeError, OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
