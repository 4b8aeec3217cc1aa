"""Progress of a transfer: a bar, a function of the user, or nothing."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from threading import Event
from typing import Any, TypeAlias

from lmvp.errors import InvalidArgument

Progress: TypeAlias = bool | Callable[[int, int], Any] | None
"""`None` shows a bar for long transfers on a terminal or in a notebook, `True` always, `False` never. A callable
receives the bytes done and the total bytes."""

Advance: TypeAlias = Callable[[int], None]

LONG = 32 << 20
"""Minimum bytes of a transfer that shows a bar by default."""


def check(progress: Any) -> None:
    """Validate the argument `progress` of a public function.

    Raises
    ------
    InvalidArgument
        If it is not None, a bool or a callable.
    """
    if progress is not None and not isinstance(progress, bool) and not callable(progress):
        raise InvalidArgument(
            f"progress= is {type(progress).__name__} {progress!r}"[:80],
            hint="True or False: a bar or none; or a function that is given bytes done and bytes in all",
        )


@contextmanager
def showing(progress: Progress, total: int, label: str, moved: Callable[[], str] | None = None) -> Iterator[Advance]:
    """Show the progress of a transfer of `total` bytes while the context is active; yield a function that adds bytes.

    Parameters
    ----------
    moved : callable, optional
        Returns the text after the bar: the bytes sent or received, which are fewer if the other side has chunks.
    """
    if callable(progress):
        yield _Counter(progress, total).advance
    elif progress or (progress is None and total >= LONG and _is_seen()):
        with _bar(total, label, moved) as advance:
            yield advance
    else:
        yield lambda _: None


def halves(advance: Advance) -> Advance:
    """Return a function that counts every byte half, for bytes that are processed twice.

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
        with lock:  # whole bytes only, without a rounding error in the sum
            before, handled = handled // 2, handled + count
            whole = handled // 2 - before
        advance(whole)

    return add


def _is_seen() -> bool:
    """Return whether a user can see a bar: on a terminal or in a notebook. In a log file it would be clutter."""
    if sys.stderr is not None and sys.stderr.isatty():
        return True
    # Only if it is imported: a notebook has loaded it already.
    kernel = getattr(sys.modules.get("ipykernel.kernelapp"), "IPKernelApp", None)
    return kernel is not None and bool(kernel.initialized())


@contextmanager
def following(progress: Progress, size: int, label: str) -> Iterator[Callable[[int, int], None]]:
    """Show the progress of a task on the server; yield a function that takes the bytes done and the total bytes."""
    if callable(progress):
        yield progress
        return
    with showing(progress, size, label) as advance:
        far = 0

        def on_progress(done: int, total: int) -> None:
            nonlocal far
            # The total of the server has another unit; scale its fraction to `size`.
            now = size * done // max(total, 1)
            advance(now - far)
            far = now

        yield on_progress


class _Counter:
    """Adds up bytes from several threads and calls the user's function with the sums."""

    def __init__(self, tell: Callable[[int, int], Any], total: int) -> None:
        self._tell, self._total, self._done = tell, total, 0
        self._lock = threading.Lock()

    def advance(self, count: int) -> None:
        """Add bytes and call the user's function, from one thread at a time."""
        with self._lock:
            self._done += count
            self._tell(self._done, self._total)


@contextmanager
def _bar(total: int, label: str, moved: Callable[[], str] | None) -> Iterator[Advance]:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without ipywidgets, tqdm warns and then draws a bar of text
        from tqdm.auto import tqdm

    lock = threading.Lock()
    # delay: a transfer that takes less than 0.2 s shows no bar.
    with tqdm(total=total, desc=label, unit="B", unit_scale=True, leave=False, delay=0.2) as bar:

        def advance(count: int) -> None:
            with lock:
                if moved is not None:
                    bar.set_postfix_str(moved(), refresh=False)
                bar.update(count)

        yield advance


# -- threads


class Stopped(Exception):
    """Raised in a thread after another one failed or Ctrl-C was pressed. It never leaves `Workers`."""


class Workers:
    """Threads that run the same function until the shared work is done.

    If one thread fails or Ctrl-C is pressed, the others must stop too. Otherwise the error would only be seen after
    they had finished all remaining work. They therefore call `raise_if_stopped` regularly.
    """

    def __init__(self) -> None:
        self._stopped = Event()

    def raise_if_stopped(self) -> None:
        """Check that no thread failed.

        Raises
        ------
        Stopped
            If a thread failed or Ctrl-C was pressed.
        """
        if self._stopped.is_set():
            raise Stopped

    def run(self, work: Callable[[], Any], count: int) -> None:
        """Run `work` in `count` threads and wait for them.

        Raises
        ------
        Exception
            The error of the first thread that failed.
        """
        with ThreadPoolExecutor(count) as threads:
            try:
                for done in as_completed([threads.submit(work) for _ in range(count)]):
                    done.result()
            except BaseException:  # including KeyboardInterrupt; the pool then waits until all threads have stopped
                self._stopped.set()
                raise
