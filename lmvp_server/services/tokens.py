"""Tokens: made, found by their secret, listed and revoked. Of a secret only its digest is kept.

A token passes on rights of its account, as far as its scope goes; one without an account is of whoever runs the server.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from datetime import datetime, timedelta, timezone
from threading import Lock

from lmvp.errors import AccessDenied, InvalidArgument, NotFound
from lmvp.records import MakeToken, NewToken, TokenRecord
from lmvp_server.services import access
from lmvp_server.services.access import Caller
from lmvp_server.services.catalog import SERVER, Catalog
from lmvp_server.services.clock import now
from lmvp_server.services.paging import Page
from lmvp_server.services.users import Users
from lmvp_server.stores.base import ConcurrentChange, Delete, Document, Put, Record, RecordStore

PREFIX = "lmvp_"
NAME_LIMIT = 100
_NOTED = 3600.0
"""Seconds between two notes of a token's use."""


class Tokens:
    """The use cases around tokens."""

    def __init__(self, records: RecordStore, catalog: Catalog, users: Users) -> None:
        self._records, self._catalog, self._users = records, catalog, users
        self._known: dict[str, tuple[str, float]] | None = None
        self._noted: dict[str, float] = {}
        self._lock = Lock()

    def create(self, caller: Caller, asked: MakeToken) -> NewToken:
        """Make a token; only this answer has its secret.

        Raises
        ------
        InvalidArgument
            If name or scope are none, or the days are not from 1 to 3,650.
        AccessDenied
            If it were to pass on more than the caller's own token does, or were for somebody else.
        """
        access.require(caller, access.GRANT)
        name, days = asked.name, asked.expires_days
        scope = asked.scope or caller.scope
        if scope not in access.SCOPES:
            raise InvalidArgument(f"no scope {scope[:40]!r}", hint=f"there are {', '.join(access.SCOPES)}")
        if not access.SCOPES[scope] <= access.SCOPES[caller.scope]:
            raise AccessDenied(f"a token for scope {caller.scope!r} makes none for {scope!r}")
        if not name.strip() or len(name) > NAME_LIMIT or not name.isprintable():
            raise InvalidArgument(f"the name {name[:60]!r}: 1 to {NAME_LIMIT} printable characters")
        if days is not None and not 1 <= days <= 3650:
            raise InvalidArgument(f"expires_days={days}: from 1 to 3,650")
        secret, id_ = PREFIX + secrets.token_urlsafe(32), secrets.token_hex(4)
        ends = None if days is None else (datetime.now(timezone.utc) + timedelta(days=days)).isoformat()
        owner = self._owner(caller, asked.user)
        home = self._catalog.find_project(caller, asked.project) if asked.project else None
        data: Document = {
            "user": owner.id if owner else "",
            "scope": scope,
            "project": home.id if home else "",
            "name": name,
            "digest": _digest(secret),
            "created_at": now(),
            "expires_at": ends,
            "used_at": None,
        }
        event = {"at": now(), "who": caller.name, "action": "token.create", "what": f"{name} ({id_})"}
        self._records.commit(SERVER, [Put("tokens", id_, data, None)], [{**event, "before": None, "after": None}])
        self._known = None
        return NewToken(
            id=id_,
            name=name,
            created_at=datetime.now(timezone.utc),
            expires_at=_time(ends),
            token=secret,
            user=owner.data["name"] if owner else "",
            scope=scope,
            project=home.data["name"] if home else "",
        )

    def _owner(self, caller: Caller, name: str) -> Record | None:
        """Return the account that a token is for; None for whoever runs the server."""
        if name and not (caller.user and self._users.is_named(caller.user, name)):
            access.require(caller, access.ADMIN)
            return self._users.find(name)
        return self._users.active(caller.user) if caller.user else None

    def find(self, secret: str) -> Record | None:
        """Return the record of a token by its secret; None if it is none, or is one no more."""
        known = self._digests().get(_digest(secret))
        if known is None or known[1] < time.time():
            return None
        self._note(known[0])
        return self._records.get(SERVER, "tokens", known[0])

    def caller(self, secret: str, runs_it: str) -> Caller | None:
        """Return whoever a token speaks for; None if it is none, or its account is disabled.

        Parameters
        ----------
        runs_it : str
            The name of whoever runs the server.
        """
        found = self.find(secret)
        if found is None:
            return None
        data = found.data
        scope, only = data.get("scope", "admin"), data.get("project", "")
        if not data.get("user"):
            return Caller(runs_it, owner=True, scope=scope, only=only)
        account = self._users.active(data["user"])
        if account is None:
            return None
        return Caller(account.data["name"], user=account.id, admin=account.data["admin"], scope=scope, only=only)

    def every(self, caller: Caller, page: Page) -> Document:
        """List the caller's own tokens, without secrets; of whoever administers the server, all."""
        access.require(caller, access.GRANT)
        all_ = caller.may(access.ADMIN)
        found = [one for one in self._records.find(SERVER, "tokens") if all_ or one.data.get("user") == caller.user]
        first = page.cursor or 0
        more = str(first + page.limit) if len(found) > first + page.limit else None
        return {"items": [self._shown(one) for one in found[first:][: page.limit]], "next": more, "total": len(found)}

    def revoke(self, caller: Caller, token: str) -> None:
        """Let a token be worth nothing.

        Raises
        ------
        NotFound
            If there is none of that id.
        """
        access.require(caller, access.GRANT)
        found = self._records.get(SERVER, "tokens", token)
        if found is None or not (caller.may(access.ADMIN) or found.data.get("user") == caller.user):
            raise NotFound(f"no token {token[:40]!r}", hint="`lmvp tokens` lists them by their ids")
        event = {"at": now(), "who": caller.name, "action": "token.revoke", "what": f"{found.data['name']} ({token})"}
        self._records.commit(SERVER, [Delete("tokens", token)], [{**event, "before": None, "after": None}])
        self._known = None

    def _shown(self, record: Record) -> TokenRecord:
        data = record.data
        user = self._records.get(SERVER, "users", data.get("user", ""))
        home = self._records.get(SERVER, "projects", data.get("project", ""))
        return TokenRecord(
            id=record.id,
            name=data["name"],
            created_at=datetime.fromisoformat(data["created_at"].replace("Z", "+00:00")),
            expires_at=_time(data["expires_at"]),
            used_at=_time(data["used_at"]),
            user=user.data["name"] if user else "",
            scope=data.get("scope", "admin"),
            project=home.data["name"] if home else "",
        )

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
