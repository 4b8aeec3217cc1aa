"""Threads that work side by side, and leave off together."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from threading import Event
from typing import Any


class Stopped(Exception):
    """Another thread failed, or somebody pressed Ctrl-C: never leaves `Workers`."""


class Workers:
    """Threads that do the same until nothing is left of it.

    Where one of them fails, or Ctrl-C interrupts the wait for them, the others would go on to the end of all that there
    is to do, and only then the error would be seen: so they ask on the way whether to go on.
    """

    def __init__(self) -> None:
        self._stopped = Event()

    def go_on(self) -> None:
        """Return if there is reason to go on.

        Raises
        ------
        Stopped
            If there is none.
        """
        if self._stopped.is_set():
            raise Stopped

    def run(self, work: Callable[[], Any], count: int) -> None:
        """Do some work in so many threads, and wait for them.

        Raises
        ------
        Exception
            What the first one that failed has raised.
        """
        with ThreadPoolExecutor(count) as threads:
            try:
                for done in as_completed([threads.submit(work) for _ in range(count)]):
                    done.result()
            except BaseException:
                self._stopped.set()
                raise
