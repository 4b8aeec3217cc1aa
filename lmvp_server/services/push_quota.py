"""Limits of open pushes: their number per account on the disk, and the bytes that they may bring.

An open push pins its chunks until it is committed or expires, so an account without a limit could fill the disk with
data that belongs to no version. The bodies on the disk are the only source: the entries in memory are compared with
them at each use.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from threading import Lock

import msgspec

from lmvp.errors import Conflict, TooLarge
from lmvp.render import numbers
from lmvp_server.stores.base import ChunkStore

LIFETIME = 24 * 3600.0
"""Seconds after its last request for which a push is kept."""
IDLE = 3600.0
"""Seconds after its last request from which a push makes room for another one of its account."""


@dataclass(frozen=True, slots=True)
class PushLimits:
    """The limits of the open pushes of one account; the server's operator has none.

    Attributes
    ----------
    count : int
    size : int
        Bytes of the chunks that the project lacked when the pushes began, and of their manifests.
    """

    count: int = 200
    size: int = 1 << 40


class _Head(msgspec.Struct):
    """The fields of a staged body that count here. Bodies of 9d7a6ec lack both."""

    by: str | None = None
    reserved: int = 0


class PushQuota:
    """Counts the open pushes of each account."""

    def __init__(self, chunks: ChunkStore, limits: PushLimits) -> None:
        self._chunks, self.limits = chunks, limits
        self._entries: dict[tuple[str, str], _Head] = {}
        self._lock = Lock()

    def stage(self, space: str, push: str, data: bytes, by: str | None, size: int) -> list[tuple[str, str]]:
        """Write the body of an open push if the account has room for it; return the pushes that expired for it.

        Parameters
        ----------
        by : str or None
            The id of the account.
        size : int
            The bytes that the push reserves.

        Raises
        ------
        Conflict
            If the account has as many open pushes as it may.
        TooLarge
            If all its open pushes would bring more bytes than they may.
        """
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
        for key in sorted(own, key=self._touched):
            if time.time() - self._touched(key) < IDLE or self._has_room(own, size):
                break
            self._chunks.touch(*key, at=0.0)  # the next sweep deletes it with its chunks
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
                f"the open pushes of this account would bring {numbers.size(reserved)}; "
                f"the limit is {numbers.size(self.limits.size)}",
                hint=f"{hint}; the server's operator raises the limit with `lmvp server --open-push-bytes`",
            )

    def _touched(self, key: tuple[str, str]) -> float:
        try:
            return self._chunks.staged(*key)[1]
        except KeyError:  # committed in this moment
            return 0.0

    def _refresh(self) -> None:
        """Compare the entries with the bodies on the disk: sweeps, commits and other processes change them."""
        found = {(space, push) for space in self._chunks.projects() for push in self._chunks.pushes(space)}
        self._entries = {key: one for key, one in self._entries.items() if key in found}
        for key in found - self._entries.keys():
            try:
                data, touched = self._chunks.staged(*key)
            except KeyError:
                continue
            self._entries[key] = msgspec.json.decode(data, type=_Head) if time.time() - touched <= LIFETIME else _Head()
