"""The background thread of a run: it syncs the journal to the disk and samples the system."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

# Seconds between two syncs; a power failure loses at most the points of this time.
_SYNC = 1.0


class Pulse(threading.Thread):
    """Calls `sync` once a second, and `measure` at a longer interval.

    Parameters
    ----------
    every : float
        Seconds between two calls of `measure`; 0 disables it.
    """

    def __init__(self, sync: Callable[[], None], measure: Callable[[float], None], every: float) -> None:
        super().__init__(name="lmvp-pulse", daemon=True)
        self._sync, self._measure, self._every = sync, measure, every
        self._end = threading.Event()

    def close(self) -> None:
        """Ask the thread to stop; it stops within a second."""
        self._end.set()

    def run(self) -> None:
        """Work until `close` is called."""
        began = measured = time.monotonic()
        while not self._end.wait(_SYNC):
            self._sync()
            now = time.monotonic()
            if self._every and (now - measured >= self._every or measured == began):
                measured = now
                _quietly(partial(self._measure, now - began))


def _quietly(work: Callable[[], None]) -> None:
    """Call a function and log its exception, which must not fail the training."""
    try:
        work()
    except Exception:
        import logging

        logging.getLogger("lmvp").debug("in the background of a run", exc_info=True)
