"""Cancellation of read-only work when its client closes the connection.

Python cannot stop a thread. Expensive loops therefore call `check` for each item, block or file, and `check` raises
`Cancelled` when the request is cancelled. A context variable holds the cancellation token, so that services need no
parameter for it. Work that writes has no token and always completes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")


class Cancelled(Exception):
    """The request is cancelled. It is not an `LmvpError`, so that services that handle those errors do not continue."""


class Cancellation:
    """The cancellation token of one request.

    Examples
    --------
    >>> token = Cancellation()
    >>> token.run(lambda: check() or "finished")
    'finished'
    >>> token.cancel()
    >>> try:
    ...     token.run(check)
    ... except Cancelled:
    ...     print("cancelled")
    cancelled
    """

    def __init__(self) -> None:
        self.is_cancelled = False

    def cancel(self) -> None:
        """Let the next `check` of the work raise `Cancelled`; thread-safe."""
        self.is_cancelled = True

    def run(self, work: Callable[..., T], *args: object) -> T:
        """Call a function in this thread with this token as the current one.

        Raises
        ------
        Cancelled
            If the function calls `check` after the token was cancelled.
        """
        previous = _current.set(self)
        try:
            check()
            return work(*args)
        finally:
            _current.reset(previous)


_current: ContextVar[Cancellation | None] = ContextVar("cancellation", default=None)


def check() -> None:
    """Raise `Cancelled` if the request of this thread is cancelled; takes about 0.1 µs.

    Raises
    ------
    Cancelled
        If the request is cancelled.
    """
    # Without a token, the work writes or runs in the background and must complete.
    current = _current.get()
    if current is not None and current.is_cancelled:
        raise Cancelled
