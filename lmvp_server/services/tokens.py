"""Tokens: made, found by their secret, listed and revoked. Of a secret only its digest is kept."""

from __future__ import annotations

import hashlib
import secrets
import time
from datetime import datetime, timedelta, timezone
from threading import Lock

from lmvp.errors import InvalidArgument, NotFound
from lmvp.records import NewToken, TokenRecord
from lmvp_server.services import access
from lmvp_server.services.access import Caller
from lmvp_server.services.catalog import SERVER
from lmvp_server.services.clock import now
from lmvp_server.services.paging import Page
from lmvp_server.stores.base import ConcurrentChange, Delete, Document, Put, Record, RecordStore

PREFIX = "lmvp_"
NAME_LIMIT = 100
_NOTED = 3600.0
"""Seconds between two notes of a token's use."""


class Tokens:
    """The use cases around tokens."""

    def __init__(self, records: RecordStore) -> None:
        self._records = records
        self._known: dict[str, tuple[str, float]] | None = None
        self._noted: dict[str, float] = {}
        self._lock = Lock()

    def create(self, caller: Caller, name: str, days: int | None = None) -> NewToken:
        """Make a token; only this answer has its secret.

        Raises
        ------
        InvalidArgument
            If the name is none, or the days are not from 1 to 3,650.
        """
        access.require(caller, access.OWN, "")
        if not name.strip() or len(name) > NAME_LIMIT or not name.isprintable():
            raise InvalidArgument(f"the name {name[:60]!r}: 1 to {NAME_LIMIT} printable characters")
        if days is not None and not 1 <= days <= 3650:
            raise InvalidArgument(f"expires_days={days}: from 1 to 3,650")
        secret, id_ = PREFIX + secrets.token_urlsafe(32), secrets.token_hex(4)
        ends = None if days is None else (datetime.now(timezone.utc) + timedelta(days=days)).isoformat()
        data: Document = {
            "name": name,
            "digest": _digest(secret),
            "created_at": now(),
            "expires_at": ends,
            "used_at": None,
        }
        event = {"at": now(), "who": caller.name, "action": "token.create", "what": f"{name} ({id_})"}
        self._records.commit(SERVER, [Put("tokens", id_, data, None)], [{**event, "before": None, "after": None}])
        self._known = None
        return NewToken(id=id_, name=name, created_at=datetime.now(timezone.utc), expires_at=_time(ends), token=secret)

    def find(self, secret: str) -> str | None:
        """Return the id of a token by its secret; None if it is none, or is one no more."""
        known = self._digests().get(_digest(secret))
        if known is None or known[1] < time.time():
            return None
        self._note(known[0])
        return known[0]

    def every(self, caller: Caller, page: Page) -> Document:
        """List the tokens, without secrets."""
        access.require(caller, access.OWN, "")
        found = self._records.find(SERVER, "tokens")
        first = page.cursor or 0
        more = str(first + page.limit) if len(found) > first + page.limit else None
        return {"items": [_shown(one) for one in found[first:][: page.limit]], "next": more, "total": len(found)}

    def revoke(self, caller: Caller, token: str) -> None:
        """Let a token be worth nothing.

        Raises
        ------
        NotFound
            If there is none of that id.
        """
        access.require(caller, access.OWN, "")
        found = self._records.get(SERVER, "tokens", token)
        if found is None:
            raise NotFound(f"no token {token[:40]!r}", hint="`lmvp tokens` lists them by their ids")
        event = {"at": now(), "who": caller.name, "action": "token.revoke", "what": f"{found.data['name']} ({token})"}
        self._records.commit(SERVER, [Delete("tokens", token)], [{**event, "before": None, "after": None}])
        self._known = None

    def _digests(self) -> dict[str, tuple[str, float]]:
        """Return the ids and ends of all tokens by their digests; read once, and again after each change."""
        known = self._known
        if known is None:
            found = self._records.find(SERVER, "tokens")
            known = self._known = {one.data["digest"]: (one.id, _end(one)) for one in found}
        return known

    def _note(self, token: str) -> None:
        with self._lock:
            if time.monotonic() - self._noted.get(token, -_NOTED) < _NOTED:
                return
            self._noted[token] = time.monotonic()
        found = self._records.get(SERVER, "tokens", token)
        if found is not None:
            try:
                self._records.commit(SERVER, [Put("tokens", token, {**found.data, "used_at": now()}, found.rev)])
            except ConcurrentChange:  # another use noted it
                return


def _digest(secret: str) -> str:
    """256 random bits need no salt and no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _end(record: Record) -> float:
    ends = _time(record.data["expires_at"])
    return ends.timestamp() if ends else float("inf")


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None


def _shown(record: Record) -> TokenRecord:
    data = record.data
    return TokenRecord(
        id=record.id,
        name=data["name"],
        created_at=datetime.fromisoformat(data["created_at"].replace("Z", "+00:00")),
        expires_at=_time(data["expires_at"]),
        used_at=_time(data["used_at"]),
    )
