"""Limits of open pushes for each account: their number, and the bytes that they can upload.

The chunks of an open push cannot be deleted until it is committed or expires. Without a limit, an account could fill
the disk with data that belongs to no version. The bodies of the pushes on disk are the source of truth; the entries in
memory are compared with them at each use.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from threading import Lock

import msgspec

from lmvp.core import number_format
from lmvp.errors import Conflict, TooLarge
from lmvp_server.stores.base import ChunkStore

LIFETIME = 24 * 3600.0
"""Seconds after its last request until a push expires."""
IDLE = 3600.0
"""Seconds after its last request from which a push can be expired for another push of the same account."""


@dataclass(frozen=True, slots=True)
class PushLimits:
    """The limits of the open pushes of one account. They do not apply to the operator.

    Attributes
    ----------
    count : int
        The maximum number of open pushes.
    size : int
        The maximum bytes of all open pushes: chunks that the project lacked at their start, and manifests.
    """

    count: int = 200
    size: int = 1 << 40


class _Head(msgspec.Struct):
    """The fields of a staged body that the limits need. Bodies written by commit 9d7a6ec lack both."""

    by: str | None = None
    reserved: int = 0


class PushQuota:
    """The open pushes of each account and their limits."""

    def __init__(self, chunks: ChunkStore, limits: PushLimits) -> None:
        self._chunks, self.limits = chunks, limits
        self._entries: dict[tuple[str, str], _Head] = {}
        self._lock = Lock()

    def stage(self, space: str, push: str, data: bytes, by: str | None, size: int) -> list[tuple[str, str]]:
        """Store the body of an open push if the limits allow it, and return the pushes that were expired for it.

        Parameters
        ----------
        space, push : str
            The ids of the project and the push.
        data : bytes
            The body.
        by : str or None
            The id of the account. Empty for the operator, who has no limits.
        size : int
            The bytes that the push reserves.

        Raises
        ------
        Conflict
            If the account has the maximum number of open pushes.
        TooLarge
            If the open pushes of the account would exceed the maximum bytes.
        """
        # The lock covers check and write, so that two pushes cannot both use the last free bytes.
        with self._lock:
            expired = self._make_room(space, push, by, size) if by else []
            self._chunks.stage(space, push, data)
            self._entries[space, push] = _Head(by, size)
        return expired

    def _make_room(self, space: str, push: str, by: str, size: int) -> list[tuple[str, str]]:
        self._refresh()
        own = {key: one for key, one in self._entries.items() if one.by == by and key != (space, push)}
        expired: list[tuple[str, str]] = []
        if self._has_room(own, size):
            return expired
        # Oldest first, until the new push fits.
        for key in sorted(own, key=self._touched):
            if time.time() - self._touched(key) < IDLE or self._has_room(own, size):
                break
            self._chunks.touch(*key, at=0.0)  # marks it as expired: the next gc deletes it with its chunks
            del own[key]
            self._entries[key] = _Head()
            expired.append(key)
        self._require_room(own, size)
        return expired

    def _has_room(self, own: dict[tuple[str, str], _Head], size: int) -> bool:
        reserved = sum(one.reserved for one in own.values())
        return len(own) < self.limits.count and reserved + size <= self.limits.size

    def _require_room(self, own: dict[tuple[str, str], _Head], size: int) -> None:
        hint = "finish the open pushes, or wait: one without a request for an hour makes room"
        if len(own) >= self.limits.count:
            raise Conflict(
                f"this account has {len(own)} open pushes; the limit is {self.limits.count}",
                hint=f"{hint}; the server's operator raises the limit with `lmvp server --open-pushes`",
            )
        reserved = sum(one.reserved for one in own.values()) + size
        if reserved > self.limits.size:
            raise TooLarge(
                f"the open pushes of this account would bring {number_format.size(reserved)}; "
                f"the limit is {number_format.size(self.limits.size)}",
                hint=f"{hint}; the server's operator raises the limit with `lmvp server --open-push-bytes`",
            )

    def _touched(self, key: tuple[str, str]) -> float:
        try:
            return self._chunks.staged(*key)[1]
        except KeyError:  # committed at the same time
            return 0.0

    def _refresh(self) -> None:
        """Compare the entries with the bodies on disk, which gc, commits and other processes change."""
        found = {(space, push) for space in self._chunks.projects() for push in self._chunks.pushes(space)}
        self._entries = {key: one for key, one in self._entries.items() if key in found}
        for key in found - self._entries.keys():
            try:
                data, touched = self._chunks.staged(*key)
            except KeyError:
                continue
            self._entries[key] = msgspec.json.decode(data, type=_Head) if time.time() - touched <= LIFETIME else _Head()
