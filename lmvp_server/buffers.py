"""The budget for bytes in memory: request bodies, and answers that clients have not read yet.

One body has up to 51 MB and one answer up to 70 MB, and a client without an account may open thousands of connections.
The budget bounds their sum in the whole process, for each caller, and for all callers without an account together, so
that those who have one always find room.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from lmvp.errors import TooManyRequests
from lmvp_server.costly import RETRY_SECONDS, Lane
from lmvp_server.services.access import OPERATOR

ANSWERED_ALWAYS = 16 << 10
"""Bytes of an answer that is sent without room: an error must always arrive."""


@dataclass(frozen=True, slots=True)
class BufferLimits:
    """The limits of the budget, in bytes.

    Attributes
    ----------
    total : int
        Of all callers.
    account : int
        Of one account; the server's operator has no limit of its own.
    anonymous : int
        Of all callers without an account.
    address : int
        Of one address without an account (of one /64 network for IPv6).
    """

    total: int = 512 << 20
    account: int = 256 << 20
    anonymous: int = 192 << 20
    address: int = 64 << 20


class Buffers:
    """The bytes in memory, by caller. Only the event loop calls it, so that it needs no lock.

    Examples
    --------
    >>> buffers, ada = Buffers(BufferLimits(total=10, account=6)), Lane("u1", known=True)
    >>> buffers.add(ada, 4)
    >>> buffers.has_room(ada, 2), buffers.has_room(ada, 3), buffers.has_room(Lane("u2", known=True), 7)
    (True, False, False)
    """

    def __init__(self, limits: BufferLimits) -> None:
        self._limits = limits
        self._by_lane: Counter[Lane] = Counter()
        self.total = self.anonymous = 0
        self.refused = 0
        """Bodies and answers that found no room."""

    def of(self, lane: Lane) -> int:
        """Return the bytes of a caller."""
        return self._by_lane[lane]

    def has_room(self, lane: Lane, size: int) -> bool:
        """Whether a caller may hold more bytes; the first body or answer of a caller may be longer than its share."""
        limits, own = self._limits, self._by_lane[lane]
        if self.total + size > limits.total:
            return False
        if lane.known:
            return lane.name == OPERATOR or own == 0 or own + size <= limits.account
        return self.anonymous + size <= limits.anonymous and (own == 0 or own + size <= limits.address)

    def require(self, lane: Lane, size: int) -> None:
        """Check that a caller may hold more bytes.

        Raises
        ------
        TooManyRequests
            If not; it names the time after which the client tries again.
        """
        if self.has_room(lane, size):
            return
        self.refused += 1
        error = TooManyRequests(
            f"{size:,} more bytes of requests or answers of this caller find no room in the memory of the server",
            hint=f"read the answers that are under way, and try again in {RETRY_SECONDS} seconds",
        )
        error.retry_after = RETRY_SECONDS
        raise error

    def add(self, lane: Lane, size: int) -> None:
        """Count bytes that a caller holds from now on."""
        self._by_lane[lane] += size
        self.total += size
        self.anonymous += 0 if lane.known else size

    def remove(self, lane: Lane, size: int) -> None:
        """Count bytes that a caller holds no longer."""
        self._by_lane[lane] -= size
        self.total -= size
        self.anonymous -= 0 if lane.known else size
        if not self._by_lane[lane]:
            del self._by_lane[lane]
