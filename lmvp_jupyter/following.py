"""Keeps tables up to date: one thread looks at the log of events of each project, and refreshes what shows it.

A table is looked after as long as it is open and was touched within half an hour, so that a forgotten notebook does not
keep a server awake.
"""

from __future__ import annotations

import threading
import time
from datetime import datetime, timezone
from typing import Any, Protocol

from lmvp.errors import LmvpError

EVERY = 3.0
"""Seconds between two looks."""
PATIENCE = 1800.0
"""Seconds without a touch after which a table is left as it is."""


class Table(Protocol):
    """What is kept up to date."""

    history: Any
    at_rest: Any

    @property
    def is_open(self) -> bool:
        """Whether the view can be sent something."""
        ...

    def refresh(self) -> None:
        """Ask the server anew."""
        ...

    def send(self, message: Any) -> None:
        """Tell the view something."""
        ...


class Followed:
    """A table, what its project had last, and when it was touched last."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._mark: str | None = None
        self._touched = time.monotonic()
        self._lost = False

    def touch(self) -> None:
        """Note that somebody uses it."""
        self._touched = time.monotonic()

    @property
    def alive(self) -> bool:
        """Whether it is open, and was touched lately."""
        return self.table.is_open and time.monotonic() - self._touched < PATIENCE

    def rest(self) -> None:
        """Leave what it has now as its static form, if it is still open: running its cell wakes it."""
        if self.table.is_open and self.table.at_rest is not None:
            self.table.at_rest()

    def look(self) -> None:
        """Refresh the table, if something happened in its project; say so where nobody answers."""
        try:
            mark = self.table.history.mark()
            if self._mark != mark or self._lost:  # the first time too: something may have happened since it was made
                self.table.refresh()
            self._mark = mark
        except LmvpError as error:
            self._say_lost(error)
        else:
            self._say_back()

    def _say_lost(self, error: LmvpError) -> None:
        if not self._lost:
            since = f"{datetime.now(timezone.utc):%H:%M} UTC"
            self.table.send({"kind": "server", "words": f"{error.message}; this is what it had at {since}"})
        self._lost = True

    def _say_back(self) -> None:
        if self._lost:
            self.table.send({"kind": "server", "words": ""})
        self._lost = False


_followed: list[Followed] = []
_lock = threading.Lock()
_thread: threading.Thread | None = None


def follow(table: Table) -> Followed:
    """Keep a table up to date from now on."""
    global _thread
    followed = Followed(table)
    with _lock:
        _followed.append(followed)
        if _thread is None or not _thread.is_alive():
            _thread = threading.Thread(target=_look, name="lmvp-follow", daemon=True)
            _thread.start()
    return followed


def _look() -> None:
    global _thread
    while True:
        time.sleep(EVERY)
        with _lock:
            tired = [each for each in _followed if not each.alive]
            _followed[:] = now = [each for each in _followed if each.alive]
            if not now:
                _thread = None
        for each in tired:
            each.rest()
        if not now:
            return
        for each in now:
            each.look()
