"""The thread that works while a run goes on: it syncs the journal and measures the machine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

_SYNC = 1.0


class Pulse(threading.Thread):
    """Calls `sync` once a second, and `measure` from time to time.

    Parameters
    ----------
    every : float
        Seconds between two calls of `measure`; 0: never.
    """

    def __init__(self, sync: Callable[[], None], measure: Callable[[float], None], every: float) -> None:
        super().__init__(name="lmvp-pulse", daemon=True)
        self._sync, self._measure, self._every = sync, measure, every
        self._end = threading.Event()

    def close(self) -> None:
        """End the thread, soon."""
        self._end.set()

    def run(self) -> None:
        """Work until told to end."""
        began = measured = time.monotonic()
        while not self._end.wait(_SYNC):
            self._sync()
            now = time.monotonic()
            if self._every and (now - measured >= self._every or measured == began):
                measured = now
                _quietly(partial(self._measure, now - began))


def _quietly(work: Callable[[], None]) -> None:
    """Do what training must not fail for."""
    try:
        work()
    except Exception:
        import logging

        logging.getLogger("lmvp").debug("in the background of a run", exc_info=True)
