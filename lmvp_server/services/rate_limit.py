"""Rate limits: a maximum number of attempts in a time window, and exponential backoff after failures."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from ipaddress import IPv6Address, ip_address
from math import ceil
from threading import Lock

from lmvp.errors import TooManyRequests

_KNOWN = 10_000
"""The maximum number of keys in memory. The least recently used key is removed first."""


class Throttle:
    """A limit of the attempts by one key in a sliding time window.

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
        """Count an attempt.

        Raises
        ------
        TooManyRequests
            If the window has the maximum number of attempts.
        """
        at = time.monotonic()
        with self._lock:
            times = self._times.pop(key, None) or deque[float](maxlen=self._often)
            self._times[key] = times  # inserted last: dicts keep the order of insertion, so the first key is the oldest
            while len(self._times) > _KNOWN:
                del self._times[next(iter(self._times))]
            if len(times) == self._often and at - times[0] < self._seconds:
                hint = "try again in a minute" if self._seconds <= 60 else "try again in some minutes"
                raise TooManyRequests(f"too many {self._what}", hint=hint)
            times.append(at)

    def take_back(self, key: str) -> None:
        """Remove the last attempt of a key because it succeeded."""
        with self._lock:
            times = self._times.get(key)
            if times:
                times.pop()


class Backoff:
    """A delay after failures of one key. It doubles with each failure up to a limit, and never locks the key.

    An attempt counts as a failure until `succeed` is called, so that parallel attempts cannot bypass the limit.

    Parameters
    ----------
    free : int
        The number of failures without a delay.
    longest : float
        The longest delay in seconds. Failures are forgotten after twice this time without an attempt.

    Examples
    --------
    >>> passwords = Backoff(2, 300.0, "wrong passwords")
    >>> passwords.attempt("ada"), passwords.attempt("ada")
    (None, None)
    >>> passwords.attempt("ada")
    Traceback (most recent call last):
    lmvp.errors.TooManyRequests: too many wrong passwords
      hint: try again in 1 s
    >>> passwords.attempt("grace")
    """

    def __init__(self, free: int, longest: float, what: str) -> None:
        self._free, self._longest, self._what = free, longest, what
        self._failures: OrderedDict[str, tuple[int, float, float]] = OrderedDict()  # count, blocked until, last attempt
        self._lock = Lock()

    def attempt(self, key: str) -> None:
        """Begin an attempt.

        Raises
        ------
        TooManyRequests
            If the key must wait. `retry_after` is the remaining time in seconds.
        """
        at = time.monotonic()
        with self._lock:
            count, until, last = self._failures.get(key, (0, 0.0, at))
            if at < until:
                seconds = ceil(until - at)
                error = TooManyRequests(f"too many {self._what}", hint=f"try again in {seconds} s")
                error.retry_after = seconds
                raise error
            # Otherwise an account would stay at the longest delay forever.
            if at - last > 2 * self._longest:
                count = 0
            count += 1
            # The exponent is limited, because a float overflows at 2**1024.
            delay = 0.0 if count < self._free else min(2.0 ** min(count - self._free, 30), self._longest)
            self._failures[key] = count, at + delay, at
            self._failures.move_to_end(key)
            while len(self._failures) > _KNOWN:
                self._failures.popitem(last=False)

    def succeed(self, key: str) -> None:
        """Forget the failures of a key."""
        with self._lock:
            self._failures.pop(key, None)


def network_of(address: str) -> str:
    """Return the part of an address that one client controls: for IPv6, the first 64 bits.

    Examples
    --------
    >>> network_of("192.0.2.1"), network_of("2001:db8::7"), network_of("::ffff:192.0.2.1"), network_of("")
    ('192.0.2.1', '2001:db8::/64', '192.0.2.1', '')
    """
    try:
        known = ip_address(address.partition("%")[0])
    except ValueError:
        return address[:100]
    if not isinstance(known, IPv6Address):
        return str(known)
    if known.ipv4_mapped is not None:
        return str(known.ipv4_mapped)
    # Providers assign at least a /64 to each client, which could use any address in it.
    return f"{IPv6Address(int(known) >> 64 << 64)}/64"
