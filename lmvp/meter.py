"""How fast bytes went of late, over all that moved at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_MEMORY = 32 << 20
"""Bytes after which what was measured before counts half."""


_GOOD_FOR = 300.0
"""Seconds after which a link may well be another one."""


class Meter:
    """Bytes a second while anything is under way; several transfers at once count as one.

    Parameters
    ----------
    guess : float
        Bytes a second, until enough was measured.
    enough : int
        Bytes below which what was measured tells of delays rather than of speed.

    Examples
    --------
    >>> meter = Meter(guess=5.0)
    >>> with meter.busy():
    ...     meter.count(3)
    >>> meter.rate, meter.known
    (5.0, False)
    """

    def __init__(self, guess: float, enough: int = 128 << 10) -> None:
        self._guess, self._enough = guess, enough
        self._bytes, self._seconds = 0.0, 0.0
        self._active, self._began, self._mark, self._last = 0, 0.0, 0.0, 0.0
        self._lock = Lock()

    @property
    def known(self) -> bool:
        """Whether enough was measured."""
        return self._bytes >= self._enough

    @property
    def fresh(self) -> bool:
        """Whether enough was measured, and not long ago."""
        return self.known and time.monotonic() - self._last < _GOOD_FOR

    @property
    def rate(self) -> float:
        """Bytes a second, measured or guessed."""
        with self._lock:
            return self._bytes / max(self._seconds, 1e-9) if self.known else self._guess

    @contextmanager
    def busy(self, delay: float = 0.0) -> Iterator[None]:
        """Say that something is under way while the block runs.

        Parameters
        ----------
        delay : float
            Seconds in which nothing can have come yet, if nothing else is under way: they do not count.
        """
        with self._lock:
            if not self._active:
                self._began = time.monotonic()
                self._mark = self._began + delay
            self._active += 1
        try:
            yield
        finally:
            with self._lock:
                self._active -= 1

    def count(self, size: int) -> None:
        """Add bytes that have arrived by now."""
        with self._lock:
            now = time.monotonic()
            passed = max(now - self._mark, (now - self._began) / 10 if self._mark > self._began else 0.0)
            self._bytes += size
            self._seconds += passed
            self._mark = self._began = self._last = now
            if self._bytes > _MEMORY:
                self._bytes, self._seconds = self._bytes / 2, self._seconds / 2
