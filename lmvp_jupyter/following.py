"""Automatic updates of tables: a thread checks the events of each project and refreshes its tables.

A table is updated while it is open and was used in the last half hour. Otherwise a forgotten notebook would prevent the
local server from stopping when it is idle.
"""

from __future__ import annotations

import threading
import time
from datetime import datetime, timezone
from typing import Any, Protocol

from lmvp.errors import LmvpError

EVERY = 3.0
"""Seconds between two checks."""
PATIENCE = 1800.0
"""Seconds without use after which a table is no longer updated."""


class Table(Protocol):
    """A table that can be updated: `HistoryTable`."""

    history: Any
    at_rest: Any

    @property
    def is_open(self) -> bool:
        """Whether the kernel can send messages to the view."""
        ...

    def refresh(self) -> None:
        """Fetch the data from the server again and update the view."""
        ...

    def send(self, message: Any) -> None:
        """Send a message to the view."""
        ...


class Followed:
    """A table with the last known event of its project and the time of its last use."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._mark: str | None = None
        self._touched = time.monotonic()
        self._lost = False

    def touch(self) -> None:
        """Record that the table is in use."""
        self._touched = time.monotonic()

    @property
    def alive(self) -> bool:
        """Whether the table is open and was used in the last half hour."""
        return self.table.is_open and time.monotonic() - self._touched < PATIENCE

    def rest(self) -> None:
        """Replace an open table by its static form. Running its cell again creates a new table."""
        if self.table.is_open and self.table.at_rest is not None:
            self.table.at_rest()

    def look(self) -> None:
        """Refresh the table if its project has a new event; show a message if the server is unreachable."""
        try:
            mark = self.table.history.mark()
            # Also the first time, because an event can have occurred since the table was created.
            if self._mark != mark or self._lost:
                self.table.refresh()
            self._mark = mark
        except LmvpError as error:
            self._say_lost(error)
        else:
            self._say_back()

    def _say_lost(self, error: LmvpError) -> None:
        """Show once that the server is unreachable and when the table was last updated."""
        if not self._lost:
            since = f"{datetime.now(timezone.utc):%H:%M} UTC"
            self.table.send({"kind": "server", "words": f"{error.message}; the table shows the state of {since}"})
        self._lost = True

    def _say_back(self) -> None:
        """Remove the message about the server."""
        if self._lost:
            self.table.send({"kind": "server", "words": ""})
        self._lost = False


_followed: list[Followed] = []
_lock = threading.Lock()
_thread: threading.Thread | None = None


def follow(table: Table) -> Followed:
    """Start to update a table, and start the thread if necessary."""
    global _thread
    followed = Followed(table)
    with _lock:
        _followed.append(followed)
        if _thread is None or not _thread.is_alive():
            _thread = threading.Thread(target=_look, name="lmvp-follow", daemon=True)
            _thread.start()
    return followed


def _look() -> None:
    """Check all tables every few seconds; end when none is left."""
    global _thread
    while True:
        time.sleep(EVERY)
        with _lock:
            tired = [each for each in _followed if not each.alive]
            _followed[:] = now = [each for each in _followed if each.alive]
            if not now:  # within the lock, so that `follow` starts a new thread for a table that comes next
                _thread = None
        for each in tired:
            each.rest()
        if not now:
            return
        for each in now:
            each.look()
