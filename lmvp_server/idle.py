"""What the server does while nobody uses it, in a thread of its own that gives way to everything else."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from lmvp.errors import LmvpError
from lmvp_server.memory import give_back

_logger = logging.getLogger("lmvp_server")
_TICK = 0.5
_NICE = 10


class IdleWork:
    """Calls `work` once after each time that the server was used, as soon as it is quiet again.

    Parameters
    ----------
    work : callable
        Gets a function that says whether it may go on, which it asks often; returns when it is done or may not.
    quiet_for : callable
        Tells for how many seconds nobody has used the server; 0 while somebody does.
    wait : float
        Seconds of quiet before work begins.
    """

    def __init__(self, work: Callable[[Callable[[], bool]], None], quiet_for: Callable[[], float], wait: float) -> None:
        self._work, self._quiet_for, self._wait = work, quiet_for, wait
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lmvp-idle", daemon=True)

    def start(self) -> None:
        """Begin to look out for quiet."""
        self._thread.start()

    def stop(self) -> None:
        """Let go of the work in hand, at its next question, and end."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        _give_way()
        done = -1.0
        while not self._stop.wait(_TICK):
            if self._may_go_on() and time.monotonic() - self._quiet_for() > done:
                began = time.monotonic()
                self._work_once()
                done = began if self._may_go_on() else done

    def _work_once(self) -> None:
        try:
            self._work(self._may_go_on)
        except LmvpError as error:  # a full disk, say; the next attempt comes
            _logger.error("work in idle time failed: %s", error.message)  # noqa: TRY400 - no fault of the server
        except Exception:  # the server continues, and tries again later
            _logger.exception("work in idle time failed")
        give_back()

    def _may_go_on(self) -> bool:
        return not self._stop.is_set() and self._quiet_for() >= self._wait


def _give_way() -> None:
    """Let this thread, and those that it starts, run when no other wants to; Linux alone knows threads here."""
    with suppress(AttributeError, OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
