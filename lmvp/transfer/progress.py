"""Progress of a transfer: a bar, a callable of the user's, or nothing."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from lmvp.errors import InvalidArgument

Progress: TypeAlias = bool | Callable[[int, int], Any] | None
"""`None`: a bar where the transfer is long, on a terminal or in a notebook; `True`, `False`: always, never; a callable
gets bytes done and bytes in all."""

Advance: TypeAlias = Callable[[int], None]

LONG = 32 << 20
"""Bytes from which on a transfer counts as long."""


def check(progress: Any) -> None:
    """Refuse what is no way to show progress.

    Raises
    ------
    InvalidArgument
        If it is neither None, a bool nor a callable.
    """
    if progress is not None and not isinstance(progress, bool) and not callable(progress):
        raise InvalidArgument(
            f"progress= is {type(progress).__name__} {progress!r}"[:80],
            hint="True or False: a bar or none; or a function that is given bytes done and bytes in all",
        )


@contextmanager
def showing(progress: Progress, total: int, label: str, moved: Callable[[], str] | None = None) -> Iterator[Advance]:
    """Show how far a transfer of `total` bytes is, while the block runs; give the function that adds bytes done.

    Parameters
    ----------
    moved : callable, optional
        Tells what has travelled so far, which is less where much was there already; stands behind the bar.
    """
    if callable(progress):
        yield _Counter(progress, total).advance
    elif progress or (progress is None and total >= LONG and _is_seen()):
        with _bar(total, label, moved) as advance:
            yield advance
    else:
        yield lambda _: None


def halves(advance: Advance) -> Advance:
    """Return a function that counts each byte as half of one, for bytes that are handled twice.

    Examples
    --------
    >>> counted = []
    >>> half = halves(counted.append)
    >>> half(3), half(3), sum(counted)
    (None, None, 3)
    """
    lock, handled = threading.Lock(), 0

    def add(count: int) -> None:
        nonlocal handled
        with lock:
            before, handled = handled // 2, handled + count
            whole = handled // 2 - before
        advance(whole)

    return add


def _is_seen() -> bool:
    """Tell whether somebody can watch a bar: on a terminal, or in a notebook. In a log file it would be noise."""
    if sys.stderr is not None and sys.stderr.isatty():
        return True
    kernel = getattr(sys.modules.get("ipykernel.kernelapp"), "IPKernelApp", None)
    return kernel is not None and bool(kernel.initialized())


@contextmanager
def following(progress: Progress, size: int, label: str) -> Iterator[Callable[[int, int], None]]:
    """Show how far something on the server is, while the block runs; give what is told bytes done and bytes in all."""
    if callable(progress):
        yield progress
        return
    with showing(progress, size, label) as advance:
        far = 0

        def told(done: int, total: int) -> None:
            nonlocal far
            now = size * done // max(total, 1)
            advance(now - far)
            far = now

        yield told


class _Counter:
    """Adds up bytes from several threads and tells the user's callable."""

    def __init__(self, tell: Callable[[int, int], Any], total: int) -> None:
        self._tell, self._total, self._done = tell, total, 0
        self._lock = threading.Lock()

    def advance(self, count: int) -> None:
        """Add bytes."""
        with self._lock:
            self._done += count
            self._tell(self._done, self._total)


@contextmanager
def _bar(total: int, label: str, moved: Callable[[], str] | None) -> Iterator[Advance]:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tqdm warns where ipywidgets is missing, and then draws a bar of text
        from tqdm.auto import tqdm

    lock = threading.Lock()
    with tqdm(total=total, desc=label, unit="B", unit_scale=True, leave=False, delay=0.2) as bar:

        def advance(count: int) -> None:
            with lock:
                if moved is not None:
                    bar.set_postfix_str(moved(), refresh=False)
                bar.update(count)

        yield advance
