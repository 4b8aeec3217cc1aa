"""Leases of projects for open backups. Nothing in a leased project is deleted until the lease ends or expires.

A deletion that a lease prevents is deferred. `due` returns the projects of these deletions after the lease has ended.
"""

from __future__ import annotations

import time
from threading import Lock

LIFETIME = 300.0
"""Seconds from the last request of a backup until its lease expires."""


class Leases:
    """The leases and their projects. They are in memory, because a backup does not survive a restart of the server.

    Parameters
    ----------
    lifetime : float, default 300
        Seconds from the last request of a backup until its lease expires.

    Examples
    --------
    >>> leases = Leases()
    >>> leases.begin("b1"), leases.add("b1", "p1"), leases.holds("p1"), leases.due()
    (None, None, True, set())
    >>> leases.end("b1"), leases.holds("p1"), leases.due()
    (None, False, {'p1'})
    """

    def __init__(self, lifetime: float = LIFETIME) -> None:
        self.lifetime = lifetime
        self._held: dict[str, set[str]] = {}
        self._seen: dict[str, float] = {}  # monotonic times, which changes of the system clock do not affect
        self._owed: set[str] = set()  # projects with a deferred deletion
        self._lock = Lock()

    def begin(self, lease: str) -> None:
        """Start a lease without projects."""
        with self._lock:
            self._held[lease], self._seen[lease] = set(), time.monotonic()

    def add(self, lease: str, space: str) -> None:
        """Add a project to a lease. The caller must be `pinning` it, so that no deletion is in progress there.

        Raises
        ------
        KeyError
            If the lease has ended or expired.
        """
        with self._lock:
            self._held[lease].add(space)
            self._seen[lease] = time.monotonic()

    def touch(self, lease: str) -> bool:
        """Extend a lease; return whether it has neither ended nor expired."""
        with self._lock:
            self._expire()
            if lease in self._held:
                self._seen[lease] = time.monotonic()
            return lease in self._held

    def end(self, lease: str) -> None:
        """End a lease."""
        with self._lock:
            self._held.pop(lease, None)
            self._seen.pop(lease, None)

    def holds(self, space: str) -> bool:
        """Return whether a project is leased. If so, defer the deletion of the caller; see `due`."""
        with self._lock:
            held = self._is_held(space)
            if held:
                self._owed.add(space)
            return held

    def due(self) -> set[str]:
        """Return the projects whose deferred deletion can run now. Each deferred deletion is returned once."""
        with self._lock:
            free = {space for space in self._owed if not self._is_held(space)}
            self._owed -= free
            return free

    def alive(self) -> list[str]:
        """Return the active leases, the one with the oldest last request first."""
        with self._lock:
            self._expire()
            return sorted(self._seen, key=self._seen.__getitem__)

    def _is_held(self, space: str) -> bool:
        self._expire()  # a client that has disappeared must not prevent deletions
        return any(space in spaces for spaces in self._held.values())

    def _expire(self) -> None:
        oldest = time.monotonic() - self.lifetime
        for lease in [lease for lease, seen in self._seen.items() if seen < oldest]:
            del self._held[lease], self._seen[lease]
