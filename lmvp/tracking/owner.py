"""A lock that lives as long as its process: it tells the journal of a live writer from one that was left behind."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from lmvp import private


class Owner:
    """Holds a lock on a file beside a journal.

    A forked child has the lock's descriptor too, and must `let_go`, or the lock would outlive its owner.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def take(self) -> bool:
        """Take the lock if it is free; return whether it was. Where there can be no lock, it counts as taken by us."""
        try:
            self._descriptor = private.create(self._path, os.O_RDWR)
        except OSError:
            return True
        if _locked(self._descriptor):
            return True
        self.let_go()
        return False

    def let_go(self) -> None:
        """Close the file; the lock is free when nobody has it open any more."""
        with suppress(OSError):
            if self._descriptor >= 0:
                os.close(self._descriptor)
        self._descriptor = -1


def _locked(descriptor: int) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
