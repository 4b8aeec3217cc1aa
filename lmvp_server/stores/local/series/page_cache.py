"""Bounded cache of decoded pages of segments, shared by all series of the process."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

_LIMIT = 64 << 20


class Pages:
    """A cache that removes the least recently used entries.

    Parameters
    ----------
    limit : int, default 64 MiB
        The maximum size in bytes. The newest entry stays even if it alone is larger.
    """

    def __init__(self, limit: int = _LIMIT) -> None:
        self._limit, self._size = limit, 0
        self._held: OrderedDict[tuple[Path, int], Any] = OrderedDict()
        self._lock = Lock()

    def get(self, name: tuple[Path, int], read: Callable[[], Any]) -> Any:
        """Return the entry under a name; if it is missing, call `read` and store the result.

        `read` runs without the lock.
        """
        with self._lock:
            if name in self._held:
                self._held.move_to_end(name)
                return self._held[name]
        value = read()
        with self._lock:
            # Another thread can have read the same page meanwhile.
            if name not in self._held:
                self._held[name] = value
                self._size += _bytes(value)
            # The entry that was just read must stay, even if it is larger than the limit.
            while self._size > self._limit and len(self._held) > 1:
                self._size -= _bytes(self._held.popitem(last=False)[1])
        return value

    def forget(self, path: Path) -> None:
        """Remove all entries of a file."""
        with self._lock:
            for name in [name for name in self._held if name[0] == path]:
                self._size -= _bytes(self._held.pop(name))


def _bytes(value: Any) -> int:
    return sum(getattr(value, name).nbytes for name in value.__slots__)


PAGES = Pages()
"""The cache of this process."""
