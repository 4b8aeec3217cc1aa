"""How fast bytes went of late, over all that moved at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_ENOUGH = 128 << 10
"""Bytes below which a measurement tells of delays rather than of speed."""

_MEMORY = 32 << 20
"""Bytes after which what was measured before counts half."""

_DELAY = 0.004
"""Seconds of each stretch that are taken for delay, at most nine tenths of it: a round trip, a sync of a disk."""


_GOOD_FOR = 300.0
"""Seconds after which a link may well be another one."""


class Meter:
    """Bytes a second while anything is under way; several transfers at once count as one.

    Parameters
    ----------
    guess : float
        Bytes a second, until enough was measured.

    Examples
    --------
    >>> meter = Meter(guess=5.0)
    >>> with meter.busy():
    ...     meter.count(3)
    >>> meter.rate, meter.known
    (5.0, False)
    """

    def __init__(self, guess: float) -> None:
        self._guess = guess
        self._bytes, self._seconds = 0.0, 0.0
        self._active, self._mark, self._last = 0, 0.0, 0.0
        self._lock = Lock()

    @property
    def known(self) -> bool:
        """Whether enough was measured."""
        return self._bytes >= _ENOUGH

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
    def busy(self) -> Iterator[None]:
        """Say that something is under way while the block runs."""
        with self._lock:
            if not self._active:
                self._mark = time.monotonic()
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
            passed, self._mark = now - self._mark, now
            self._bytes += size
            self._seconds += max(passed - _DELAY, passed / 10)
            self._last = now
            if self._bytes > _MEMORY:
                self._bytes, self._seconds = self._bytes / 2, self._seconds / 2
