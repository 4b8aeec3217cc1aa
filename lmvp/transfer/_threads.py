"""Threads that share work and stop together."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from threading import Event
from typing import Any


class Stopped(Exception):
    """Raised in a thread after another one failed or Ctrl-C was pressed. It never leaves `Workers`."""


class Workers:
    """Threads that run the same function until the shared work is done.

    If one thread fails or Ctrl-C is pressed, the others must stop too. Otherwise the error would only be seen after
    they had finished all remaining work. They therefore call `go_on` regularly.
    """

    def __init__(self) -> None:
        self._stopped = Event()

    def go_on(self) -> None:
        """Check that no thread failed.

        Raises
        ------
        Stopped
            If a thread failed or Ctrl-C was pressed.
        """
        if self._stopped.is_set():
            raise Stopped

    def run(self, work: Callable[[], Any], count: int) -> None:
        """Run `work` in `count` threads and wait for them.

        Raises
        ------
        Exception
            The error of the first thread that failed.
        """
        with ThreadPoolExecutor(count) as threads:
            try:
                for done in as_completed([threads.submit(work) for _ in range(count)]):
                    done.result()
            except BaseException:  # including KeyboardInterrupt; the pool then waits until all threads have stopped
                self._stopped.set()
                raise
