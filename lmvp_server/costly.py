"""A queue with a small pool of threads for costly work: pages, and what callers without an account ask of the API.

Such work takes seconds of processor time for large models, and Python runs one thread at a time. In the pool that
serves all requests, a few dozen requests of one client would keep everybody waiting. This queue bounds how much runs at
once, and how much waits: for each account, for each address without an account, and for all callers without one.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from lmvp.errors import TooManyRequests

T = TypeVar("T")

THREADS = 2
ACCOUNT_QUEUE = 64
"""Requests of one account that wait; a browser that restores its tabs sends dozens at once."""
ADDRESS_QUEUE = 40
"""Requests without an account that wait, of one address."""
ANONYMOUS_QUEUE = 80
"""Requests without an account that wait, of all addresses together."""
QUEUE = 256
"""Requests that wait, of all callers."""
RETRY_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Lane:
    """The queue of one caller; some requests of a lane run at a time, and one of all lanes without an account.

    Attributes
    ----------
    name : str
        The account, or the address of a caller without one.
    known : bool
        Whether it is an account.
    """

    name: str
    known: bool


class CostlyWork:
    """The queue; only the event loop calls it, so that it needs no lock.

    Parameters
    ----------
    threads : int
        Requests that run at once.
    each : int
        Requests of one account that run at once; fewer than `threads`, or one account keeps all others waiting.
    """

    def __init__(self, threads: int = THREADS, each: int = 1) -> None:
        self._each = each
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="lmvp-costly")
        self._free = threads
        self._waiting: OrderedDict[Lane, deque[asyncio.Future[None]]] = OrderedDict()
        self._running: Counter[Lane] = Counter()

    def enter(self, lane: Lane, *, admitted: bool = False) -> asyncio.Future[None]:
        """Queue a request; the future is done when its turn has come.

        Cancel the future to leave the queue. After its turn has come, call `run` or `leave`.

        Parameters
        ----------
        lane : Lane
        admitted : bool
            The request has had a turn before, and is not refused in the middle of its answer.

        Raises
        ------
        TooManyRequests
            If too many requests wait already.
        """
        if not admitted:
            self._require_room(lane)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(lane, deque()).append(turn)
        self._begin_next()
        return turn

    async def run(self, lane: Lane, work: Callable[..., T], *args: Any) -> T:
        """Run the work of a request whose turn has come."""
        running = asyncio.get_running_loop().run_in_executor(self._pool, work, *args)
        running.add_done_callback(lambda _: self.leave(lane))  # when the thread is free, not when the caller has left
        return await running

    def leave(self, lane: Lane) -> None:
        """End the turn of a request."""
        self._free += 1
        self._running[lane] -= 1
        if not self._running[lane]:
            del self._running[lane]
        self._begin_next()

    def waiting(self, *, known: bool | None = None) -> int:
        """Return how many requests wait: of all callers, or of those with or without an account."""
        lanes = (turns for lane, turns in self._waiting.items() if known is None or lane.known == known)
        return sum(not turn.done() for turns in lanes for turn in turns)

    def shutdown(self) -> None:
        """Wait for the work that runs."""
        self._pool.shutdown()

    def _require_room(self, lane: Lane) -> None:
        own = sum(not turn.done() for turn in self._waiting.get(lane, ()))
        if lane.known:
            full = own >= ACCOUNT_QUEUE
            message = f"{own} pages or comparisons of this account wait already"
            hint = "wait until some of them are answered"
        else:
            full = own >= ADDRESS_QUEUE or self.waiting(known=False) >= ANONYMOUS_QUEUE
            message = "too many pages or comparisons wait already for callers without an account"
            hint = f"try again in {RETRY_SECONDS} seconds, or sign in"
        if not full and self.waiting() >= QUEUE:
            full, hint = True, f"try again in {RETRY_SECONDS} seconds"
            message = "too many pages or comparisons wait already on this server"
        if full:
            error = TooManyRequests(message, hint=hint)
            error.retry_after = RETRY_SECONDS
            raise error

    def _begin_next(self) -> None:
        """Give turns while a thread is free: to each lane in rotation."""
        for lane in list(self._waiting):
            turns = deque(turn for turn in self._waiting[lane] if not turn.done())  # some have left the queue
            self._waiting[lane] = turns
            if turns and self._free and self._may_begin(lane):
                self._free -= 1
                self._running[lane] += 1
                turns.popleft().set_result(None)
                self._waiting.move_to_end(lane)
            if not turns:
                del self._waiting[lane]

    def _may_begin(self, lane: Lane) -> bool:
        if lane.known:
            return self._running[lane] < self._each
        return all(other.known for other, count in self._running.items() if count)
