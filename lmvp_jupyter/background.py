"""Pushes that go on while other cells run: one after the other, each with a line that tells how far it is.

The weights are copied when the cell runs, so that training may go on. A kernel that ends in order waits for them.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from html import escape
from pathlib import Path
from typing import Any

from lmvp import hints, origins
from lmvp.errors import LmvpError
from lmvp.records import Version
from lmvp.render.numbers import size
from lmvp.render.words import printable

_OFTEN = 0.25
_pool = ThreadPoolExecutor(1, thread_name_prefix="lmvp-push")

Show = Callable[[dict[str, Any]], Any]


class PendingPush:
    """A push that goes on; `result()` waits for its version.

    Attributes
    ----------
    name : str
        The model.
    """

    def __init__(self, name: str, future: Future[Version], line: _Line) -> None:
        self.name, self._future, self._line = name, future, line

    def result(self, timeout: float | None = None) -> Version:
        """Wait for the version.

        Raises
        ------
        LmvpError
            Why it could not be pushed.
        TimeoutError
            If it is not there after so many seconds.
        """
        return self._future.result(timeout)

    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self._future.done()

    def __repr__(self) -> str:
        return printable(self._line.words)


class _Line:
    """The line below the cell: drawn anew at most four times a second, and at the end."""

    def __init__(self, name: str, show: Show) -> None:
        self.words = f"push {name}: waiting"
        self._name, self._last = name, 0.0
        self._redraw: Callable[[dict[str, Any]], Any] = show(self._forms())

    def _forms(self) -> dict[str, Any]:
        return {"text/plain": printable(self.words), "text/html": f"<code>{escape(self.words)}</code>"}

    def far(self, done: int, total: int) -> None:
        """Tell how many bytes of how many are done."""
        now = time.monotonic()
        if now - self._last >= _OFTEN:
            self._last = now
            share = 100 * done // total if total else 100
            self.say(f"{share} % of {size(total)}")

    def say(self, words: str) -> None:
        """Tell something."""
        self.words = f"push {self._name}: {words}"
        self._redraw(self._forms())


def push(
    update: Callable[..., Version],
    name: str,
    obj: Any,
    show: Show,
    moves: Callable[[Version], Sequence[str]] = lambda _: (),
    **fields: Any,
) -> PendingPush:
    """Push a copy of an object while the kernel does other things.

    Parameters
    ----------
    update : callable
        `Client.update`.
    show : callable
        Shows forms by MIME type, and returns what shows others in their place.
    moves : callable
        Returns a line for each alias that the new version moved.
    """
    taken = obj if isinstance(obj, (str, Path)) else copy.deepcopy(obj)
    origins.hand_on(obj, taken)
    line = _Line(name, show)

    def work() -> Version:
        line.say("looking what is there already")
        try:
            version = update(name, taken, progress=line.far, **fields)
        except LmvpError as error:
            error.caller = hints.MAGIC
            line.say(f"failed: {error}")
            raise
        except BaseException as error:
            line.say(f"failed: {type(error).__name__}: {error}")
            raise
        origins.hand_on(taken, obj)
        line.say("; ".join([f"{version.reference} is there, {size(version.sent)} sent", *moves(version)]))
        return version

    return PendingPush(name, _pool.submit(work), line)
