"""Which projects a backup under way counts on: nothing in them is deleted until it ends, or is not heard of for long.

Who finds that something may not be deleted now owes the deletion: it is done when the backup has ended.
"""

from __future__ import annotations

import time
from threading import Lock

LIFETIME = 300.0
"""Seconds that a backup is waited for after its last sign of life."""


class Leases:
    """The projects that are held, by whom; kept in memory, since a backup ends with the server that it speaks to.

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
        self._seen: dict[str, float] = {}
        self._owed: set[str] = set()
        self._lock = Lock()

    def begin(self, lease: str) -> None:
        """Begin a lease; it holds nothing yet."""
        with self._lock:
            self._held[lease], self._seen[lease] = set(), time.monotonic()

    def add(self, lease: str, space: str) -> None:
        """Hold a project. The caller is `pinning` it, so that nothing is being deleted there at this moment.

        Raises
        ------
        KeyError
            If the lease has ended.
        """
        with self._lock:
            self._held[lease].add(space)
            self._seen[lease] = time.monotonic()

    def touch(self, lease: str) -> bool:
        """Note that a lease is used; tell whether it still lives."""
        with self._lock:
            self._expire()
            if lease in self._held:
                self._seen[lease] = time.monotonic()
            return lease in self._held

    def end(self, lease: str) -> None:
        """Let go of all that a lease holds."""
        with self._lock:
            self._held.pop(lease, None)
            self._seen.pop(lease, None)

    def holds(self, space: str) -> bool:
        """Tell whether a project is held; if so, the caller's deletion is owed."""
        with self._lock:
            held = self._is_held(space)
            if held:
                self._owed.add(space)
            return held

    def due(self) -> set[str]:
        """Return, once, the projects where a deletion is owed that may be done now."""
        with self._lock:
            free = {space for space in self._owed if not self._is_held(space)}
            self._owed -= free
            return free

    def alive(self) -> list[str]:
        """Return the leases that live, the one first that was not heard of for longest."""
        with self._lock:
            self._expire()
            return sorted(self._seen, key=self._seen.__getitem__)

    def _is_held(self, space: str) -> bool:
        self._expire()
        return any(space in spaces for spaces in self._held.values())

    def _expire(self) -> None:
        oldest = time.monotonic() - self.lifetime
        for lease in [lease for lease, seen in self._seen.items() if seen < oldest]:
            del self._held[lease], self._seen[lease]
