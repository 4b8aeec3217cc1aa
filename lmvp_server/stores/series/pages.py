"""What was read from segments lately, so that it need not be decoded again; bounded, for all series together."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

_LIMIT = 64 << 20


class Pages:
    """The least recently used go first.

    Parameters
    ----------
    limit : int
        Bytes in all.
    """

    def __init__(self, limit: int = _LIMIT) -> None:
        self._limit, self._size = limit, 0
        self._held: OrderedDict[tuple[Path, int], Any] = OrderedDict()
        self._lock = Lock()

    def get(self, name: tuple[Path, int], read: Callable[[], Any]) -> Any:
        """Return what is held under a name, or else read and hold it. `read` runs without the lock."""
        with self._lock:
            if name in self._held:
                self._held.move_to_end(name)
                return self._held[name]
        value = read()
        with self._lock:
            if name not in self._held:
                self._held[name] = value
                self._size += _bytes(value)
            while self._size > self._limit and len(self._held) > 1:
                self._size -= _bytes(self._held.popitem(last=False)[1])
        return value

    def forget(self, path: Path) -> None:
        """Let go of all that was read from a file."""
        with self._lock:
            for name in [name for name in self._held if name[0] == path]:
                self._size -= _bytes(self._held.pop(name))


def _bytes(value: Any) -> int:
    return sum(getattr(value, name).nbytes for name in value.__slots__)


PAGES = Pages()
"""Those of this process."""
