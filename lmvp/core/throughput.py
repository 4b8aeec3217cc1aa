"""Measurement of the recent throughput of a connection, over all concurrent transfers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_MEMORY = 32 << 20
"""Bytes after which the weight of earlier measurements is halved, so that the rate follows the network."""


_GOOD_FOR = 300.0
"""Seconds after which a measurement is too old, because the machine can have changed its network."""


class Meter:
    """Throughput in bytes per second while at least one transfer is active. Concurrent transfers are added up.

    Parameters
    ----------
    guess : float
        The rate in bytes per second until enough data was measured.
    enough : int, default 128 KiB
        The bytes to measure before the rate is known. Smaller amounts measure the latency rather than the throughput.

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
        """Whether enough data was measured."""
        return self._bytes >= self._enough

    @property
    def fresh(self) -> bool:
        """Whether enough data was measured, and the last measurement is less than 300 seconds old."""
        return self.known and time.monotonic() - self._last < _GOOD_FOR

    @property
    def rate(self) -> float:
        """Bytes per second: the measured rate if it is known, otherwise the guess."""
        with self._lock:
            return self._bytes / max(self._seconds, 1e-9) if self.known else self._guess

    @contextmanager
    def busy(self, delay: float = 0.0) -> Iterator[None]:
        """Include the duration of the block in the active time.

        Parameters
        ----------
        delay : float, default 0
            The latency in seconds. It is excluded if no other transfer is active, because no data can arrive during
            this time.
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
        """Add bytes that have arrived."""
        with self._lock:
            now = time.monotonic()
            # If data arrives before the assumed delay is over, the delay was too long. Count at least a tenth of the
            # elapsed time then, so that the rate does not become infinite.
            passed = max(now - self._mark, (now - self._began) / 10 if self._mark > self._began else 0.0)
            self._bytes += size
            self._seconds += passed
            self._mark = self._began = self._last = now
            if self._bytes > _MEMORY:
                self._bytes, self._seconds = self._bytes / 2, self._seconds / 2
