"""Pushes in the background, while other cells run: `%lmvp push … --no-wait`.

The weights are copied when the cell runs, so that training can continue. Pushes run one after the other, each with a
line below its cell that shows the progress. A kernel that shuts down normally waits for them.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from html import escape
from pathlib import Path
from typing import Any

from lmvp import hints
from lmvp.client import _lineage
from lmvp.core.number_format import size
from lmvp.core.sanitize import printable
from lmvp.core.schemas import Version
from lmvp.errors import LmvpError

_OFTEN = 0.25
"""Minimum time between two updates of the progress, in seconds."""
# One thread: parallel pushes would compete for the link, and versions would be numbered in random order.
_pool = ThreadPoolExecutor(1, thread_name_prefix="lmvp-push")

Show = Callable[[dict[str, Any]], Any]
"""Shows forms by MIME type and returns a function that replaces them."""


class PendingPush:
    """A push that runs in the background; `result()` waits for its version.

    Attributes
    ----------
    name : str
        `[project/]model`.
    """

    def __init__(self, name: str, future: Future[Version], line: _Line) -> None:
        self.name, self._future, self._line = name, future, line

    def result(self, timeout: float | None = None) -> Version:
        """Wait for the end of the push and return the version.

        Parameters
        ----------
        timeout : float, optional
            Maximum time to wait, in seconds. No limit by default.

        Returns
        -------
        Version

        Raises
        ------
        LmvpError
            If the push failed.
        TimeoutError
            If the push does not finish within `timeout`.
        """
        return self._future.result(timeout)

    def done(self) -> bool:
        """Return whether the push has succeeded or failed."""
        return self._future.done()

    def __repr__(self) -> str:
        return printable(self._line.words)


class _Line:
    """The line below the cell. It is updated at most four times per second, and at the end."""

    def __init__(self, name: str, show: Show) -> None:
        self.words = f"push {name}: waiting"
        self._name, self._last = name, 0.0
        self._redraw: Callable[[dict[str, Any]], Any] = show(self._forms())

    def _forms(self) -> dict[str, Any]:
        return {"text/plain": printable(self.words), "text/html": f"<code>{escape(self.words)}</code>"}

    def far(self, done: int, total: int) -> None:
        """Show the progress in bytes."""
        now = time.monotonic()
        if now - self._last >= _OFTEN:
            self._last = now
            share = 100 * done // total if total else 100
            self.say(f"{share} % of {size(total)}")

    def say(self, words: str) -> None:
        """Show a message."""
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
    """Push a copy of an object in the background.

    Parameters
    ----------
    update : callable
        `Client.update`.
    name : str
        `[project/]model`.
    obj : object
        The object, which is copied before this returns, or a path, whose files are read later.
    show : callable
        Shows forms by MIME type and returns a function that replaces them.
    moves : callable
        Returns a line for each alias that the new version moved.
    **fields
        Other arguments of `update`.

    Returns
    -------
    PendingPush
    """
    taken = obj if isinstance(obj, (str, Path)) else copy.deepcopy(obj)
    _lineage.hand_on(obj, taken)  # the copy has the same parent version as the object
    line = _Line(name, show)

    def work() -> Version:
        line.say("checking which data the server has")
        try:
            version = update(name, taken, progress=line.far, **fields)
        except LmvpError as error:
            error.caller = hints.MAGIC  # the hint shows magics instead of Python code
            line.say(f"failed: {error}")
            raise
        except BaseException as error:
            line.say(f"failed: {type(error).__name__}: {error}")
            raise
        _lineage.hand_on(taken, obj)  # the new version is the parent of the next push of the object
        line.say("; ".join([f"{version.reference} was published, {size(version.sent)} sent", *moves(version)]))
        return version

    return PendingPush(name, _pool.submit(work), line)
