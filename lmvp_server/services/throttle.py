"""Counts what somebody does within a time, and says when it is too often."""

from __future__ import annotations

import time
from collections import deque
from threading import Lock

from lmvp.errors import TooManyRequests

_KNOWN = 10_000
"""Keys that are remembered at most; who comes with ever new ones makes room for themselves alone."""


class Throttle:
    """Lets a key do something so often within so many seconds.

    Examples
    --------
    >>> logins = Throttle(2, 60.0, "logins")
    >>> logins.count("ada"), logins.count("ada")
    (None, None)
    >>> logins.count("ada")
    Traceback (most recent call last):
    lmvp.errors.TooManyRequests: too many logins
      hint: try again in a minute
    """

    def __init__(self, often: int, seconds: float, what: str) -> None:
        self._often, self._seconds, self._what = often, seconds, what
        self._times: dict[str, deque[float]] = {}
        self._lock = Lock()

    def count(self, key: str) -> None:
        """Count one more.

        Raises
        ------
        TooManyRequests
            If that is one too many.
        """
        at = time.monotonic()
        with self._lock:
            times = self._times.pop(key, None) or deque[float](maxlen=self._often)
            self._times[key] = times  # last: the one that was heard of longest ago is the first to go
            while len(self._times) > _KNOWN:
                del self._times[next(iter(self._times))]
            if len(times) == self._often and at - times[0] < self._seconds:
                hint = "try again in a minute" if self._seconds <= 60 else "try again in some minutes"
                raise TooManyRequests(f"too many {self._what}", hint=hint)
            times.append(at)

    def forget(self, key: str) -> None:
        """Begin to count a key anew."""
        with self._lock:
            self._times.pop(key, None)
