"""Queues with small thread pools, for costly requests and for requests that hash a password.

Costly requests are pages, and API requests without an account. For large models, they take seconds of CPU time, and
Python runs one thread at a time. Hashing a password takes 0.1 s and 64 MiB. In the common pool, a few dozen requests of
one client would delay all others. A queue limits the running and the waiting requests: for each account, for each
address without an account, and for all callers without an account.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from lmvp.errors import ServerUnavailable, TooManyRequests

T = TypeVar("T")

THREADS = 2
ACCOUNT_QUEUE = 64
"""Waiting requests of one account; a browser that restores its tabs sends dozens at once."""
ADDRESS_QUEUE = 40
"""Waiting requests of one IP address without an account."""
ANONYMOUS_QUEUE = 80
"""Waiting requests of all callers without an account."""
QUEUE = 256
"""Waiting requests of all callers."""
RETRY_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits of a queue.

    Attributes
    ----------
    noun : str
        The name of the requests in messages.
    account, address, anonymous, total : int
        Maximum number of waiting requests: of one account, of one address without an account, of all addresses
        together, and of all callers.
    """

    noun: str = "pages or comparisons"
    account: int = ACCOUNT_QUEUE
    address: int = ADDRESS_QUEUE
    anonymous: int = ANONYMOUS_QUEUE
    total: int = QUEUE


PASSWORD_BOUNDS = Bounds("sign-ins or changes of accounts", account=8, address=8, anonymous=64, total=128)
"""A hash takes about 0.1 s, so the last request of a full queue waits for some seconds."""


@dataclass(frozen=True, slots=True)
class CallerQueue:
    """The waiting requests of one caller. Callers take turns; of those without an account, only one runs at a time.

    Attributes
    ----------
    name : str
        The account, or the IP address of a caller without one.
    known : bool
        Whether the caller has an account.
    """

    name: str
    known: bool


class ServerStopping(ServerUnavailable):
    """The server stops, and does not start the work of this request any more."""


def run_in_pool(pool: ThreadPoolExecutor, work: Callable[..., T], *args: Any) -> asyncio.Future[T]:
    """Start a function in a thread pool.

    Raises
    ------
    ServerStopping
        If the pool was shut down.
    """
    try:
        return asyncio.get_running_loop().run_in_executor(pool, work, *args)
    except RuntimeError:  # only a pool that was shut down raises it here
        raise ServerStopping("the server is stopping", hint="try again when it runs") from None


class CostlyWork:
    """A queue with threads. Only the event loop uses it, so it needs no lock.

    Parameters
    ----------
    threads : int
        Maximum number of running requests.
    each : int
        Maximum number of running requests of one account. It must be less than `threads`, otherwise one account can
        delay all others.
    bounds : Bounds, optional
        The limits of the queue.
    name : str
        The prefix of the thread names, different for each queue of a process.
    """

    def __init__(
        self, threads: int = THREADS, each: int = 1, bounds: Bounds | None = None, name: str = "costly"
    ) -> None:
        self._each, self._bounds = each, bounds or Bounds()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"lmvp-{name}")
        self._free = threads
        self._waiting: OrderedDict[CallerQueue, deque[asyncio.Future[None]]] = OrderedDict()
        self._running: Counter[CallerQueue] = Counter()

    def enter(self, queue: CallerQueue, *, admitted: bool = False) -> asyncio.Future[None]:
        """Add a request to the queue. The future is done when its turn has come.

        Cancel the future to leave the queue. After its turn has come, call `run` or `leave`.

        Parameters
        ----------
        queue : CallerQueue
            The caller.
        admitted : bool
            Whether the request had a turn before. Such a request is not refused, because its response has begun.

        Raises
        ------
        TooManyRequests
            If too many requests wait already.
        """
        if not admitted:
            self._require_room(queue)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(queue, deque()).append(turn)
        self._begin_next()
        return turn

    async def run(self, queue: CallerQueue, work: Callable[..., T], *args: Any) -> T:
        """Run the work of a request whose turn has come.

        Raises
        ------
        ServerStopping
            If the threads have ended.
        """
        try:
            running = run_in_pool(self._pool, work, *args)
        except ServerStopping:
            self.leave(queue)
            raise
        running.add_done_callback(lambda _: self.leave(queue))  # when the thread is free, even after a cancellation
        return await running

    def leave(self, queue: CallerQueue) -> None:
        """Finish the turn of a request and start the next one."""
        self._free += 1
        self._running[queue] -= 1
        if not self._running[queue]:
            del self._running[queue]
        self._begin_next()

    def waiting(self, *, known: bool | None = None) -> int:
        """Return the number of waiting requests: of all callers, or of those with or without an account."""
        queues = (turns for queue, turns in self._waiting.items() if known is None or queue.known == known)
        return sum(not turn.done() for turns in queues for turn in turns)

    def shutdown(self) -> None:
        """Wait for the running work."""
        self._pool.shutdown()

    def _require_room(self, queue: CallerQueue) -> None:
        own, bounds = sum(not turn.done() for turn in self._waiting.get(queue, ())), self._bounds
        if queue.known:
            full = own >= bounds.account
            message = f"{own} {bounds.noun} of this account wait already"
            hint = "wait until some of them are answered"
        else:
            full = own >= bounds.address or self.waiting(known=False) >= bounds.anonymous
            message = f"too many {bounds.noun} wait already for callers without an account"
            hint = f"try again in {RETRY_SECONDS} seconds" + ("" if bounds is PASSWORD_BOUNDS else ", or sign in")
        # The limit of the queue comes first, because its message helps the caller more.
        if not full and self.waiting() >= bounds.total:
            full, hint = True, f"try again in {RETRY_SECONDS} seconds"
            message = f"too many {bounds.noun} wait already on this server"
        if full:
            error = TooManyRequests(message, hint=hint)
            error.retry_after = RETRY_SECONDS
            raise error

    def _begin_next(self) -> None:
        """Start waiting requests while a thread is free, from each queue in rotation."""
        for queue in list(self._waiting):
            turns = deque(turn for turn in self._waiting[queue] if not turn.done())  # drop cancelled requests
            self._waiting[queue] = turns
            if turns and self._free and self._may_begin(queue):
                self._free -= 1
                self._running[queue] += 1
                turns.popleft().set_result(None)
                # The queue with the last turn goes to the end, so that queues alternate.
                self._waiting.move_to_end(queue)
            if not turns:
                del self._waiting[queue]

    def _may_begin(self, queue: CallerQueue) -> bool:
        if queue.known:
            return self._running[queue] < self._each
        return all(other.known for other, count in self._running.items() if count)
