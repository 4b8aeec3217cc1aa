"""Memory limit for request bodies and for responses that clients have not read.

A body can have up to 51 MB and a response up to 70 MB, and a client without an account can open thousands of
connections. The limit applies to the sum in the process, for each caller, and for all callers without an account
together, so that they cannot block callers with an account.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from lmvp.errors import TooManyRequests
from lmvp_server.http.queues import RETRY_SECONDS, CallerQueue
from lmvp_server.services.access import OPERATOR

ANSWERED_ALWAYS = 16 << 10
"""Responses up to this size in bytes are sent even above the limit: an error must always arrive."""


@dataclass(frozen=True, slots=True)
class BufferLimits:
    """Memory limits in bytes.

    Attributes
    ----------
    total : int
        For all callers.
    account : int
        For one account. The operator of the server has only the total limit.
    anonymous : int
        For all callers without an account.
    address : int
        For one IP address without an account (for IPv6, one /64 network).
    """

    total: int = 512 << 20
    account: int = 256 << 20
    anonymous: int = 192 << 20
    address: int = 64 << 20


class Buffers:
    """The bytes in memory for each caller. Only the event loop uses it, so it needs no lock.

    Examples
    --------
    >>> buffers, ada = Buffers(BufferLimits(total=10, account=6)), CallerQueue("u1", known=True)
    >>> buffers.add(ada, 4)
    >>> buffers.has_room(ada, 2), buffers.has_room(ada, 3), buffers.has_room(CallerQueue("u2", known=True), 7)
    (True, False, False)
    """

    def __init__(self, limits: BufferLimits) -> None:
        self._limits = limits
        self._by_queue: Counter[CallerQueue] = Counter()
        self.total = self.anonymous = 0
        self.refused = 0
        """Number of refused bodies and responses."""

    def of(self, queue: CallerQueue) -> int:
        """Return the bytes of a caller."""
        return self._by_queue[queue]

    def has_room(self, queue: CallerQueue, size: int) -> bool:
        """Return whether a caller can hold more bytes. The first body or response of a caller can exceed its limit."""
        limits, own = self._limits, self._by_queue[queue]
        if self.total + size > limits.total:
            return False
        if queue.known:
            return queue.name == OPERATOR or own == 0 or own + size <= limits.account
        return self.anonymous + size <= limits.anonymous and (own == 0 or own + size <= limits.address)

    def require(self, queue: CallerQueue, size: int) -> None:
        """Check that a caller can hold more bytes.

        Raises
        ------
        TooManyRequests
            If not. The error states when the client can retry.
        """
        if self.has_room(queue, size):
            return
        self.refused += 1
        error = TooManyRequests(
            f"{size:,} more bytes of requests or answers of this caller find no room in the memory of the server",
            hint=f"read the answers that are under way, and try again in {RETRY_SECONDS} seconds",
        )
        error.retry_after = RETRY_SECONDS
        raise error

    def add(self, queue: CallerQueue, size: int) -> None:
        """Add bytes to those of a caller."""
        self._by_queue[queue] += size
        self.total += size
        self.anonymous += 0 if queue.known else size

    def remove(self, queue: CallerQueue, size: int) -> None:
        """Remove bytes from those of a caller."""
        self._by_queue[queue] -= size
        self.total -= size
        self.anonymous -= 0 if queue.known else size
        # Remove empty entries, otherwise the dict would grow with each address.
        if not self._by_queue[queue]:
            del self._by_queue[queue]
