"""Tokens: creation, lookup by secret, listing and revocation. Only the digest of a secret is stored.

A token has the rights of its holder, an account or the operator, within its scope. The record names the holder. A
record without a holder grants nothing.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import time
from datetime import datetime, timedelta, timezone
from functools import partial
from shlex import quote
from threading import Lock

from lmvp.core.schemas import MakeToken, NewToken, TokenRecord
from lmvp.errors import AccessDenied, Conflict, InvalidArgument, NotFound
from lmvp_server.services import access
from lmvp_server.services.access import OPERATOR, Caller
from lmvp_server.services.catalog import SERVER, Catalog
from lmvp_server.services.clock import now
from lmvp_server.services.paging import Page
from lmvp_server.services.users import Users
from lmvp_server.stores.base import Change, Delete, Document, Put, Record, RecordStore

log = logging.getLogger("lmvp_server")

PREFIX = "lmvp_"
NAME_LIMIT = 100
LIMIT = 1000
"""The maximum number of tokens of one account."""
_NOTED = 3600.0
"""Minimum seconds between two updates of a token's time of last use."""


class Tokens:
    """Use cases of tokens."""

    def __init__(self, records: RecordStore, catalog: Catalog, users: Users) -> None:
        self._records, self._catalog, self._users = records, catalog, users
        # All tokens in memory (digest -> id, expiry), because every request looks one up.
        self._known: dict[str, tuple[str, float]] | None = None
        self._noted: dict[str, float] = {}
        self._lock = Lock()

    def create(self, caller: Caller, asked: MakeToken) -> NewToken:
        """Create a token. Only this answer contains its secret.

        Raises
        ------
        InvalidArgument
            If name or scope are invalid, or the days are not from 1 to 3,650.
        AccessDenied
            If the token would have more rights than the caller's token, or is for another account.
        ProofRequired
            If the caller's session is older than `access.FRESH` and the password is missing or wrong.
        Conflict
            If the account is disabled, or has `LIMIT` tokens that have not expired.
        """
        access.require(caller, access.GRANT)
        name, days, scope = asked.name, asked.expires_days, asked.scope or access.LEAST_SCOPE
        if scope not in access.SCOPES:
            raise InvalidArgument(f"no scope {scope[:40]!r}", hint=f"there are {', '.join(access.SCOPES)}")
        # A token must not create one with more rights.
        if not access.SCOPES[scope] <= access.SCOPES[caller.scope]:
            raise AccessDenied(f"a token for scope {caller.scope!r} makes none for {scope!r}")
        if not name.strip() or len(name) > NAME_LIMIT or not name.isprintable():
            raise InvalidArgument(f"the name {name[:60]!r}: 1 to {NAME_LIMIT} printable characters")
        if days is not None and not 1 <= days <= 3650:
            raise InvalidArgument(f"expires_days={days}: from 1 to 3,650")
        owner = self._owner(caller, asked.user)
        # A token for another person gives the admin access as this person, so it always needs the admin's password.
        if owner is not None and owner.id != caller.user and not _is_service(owner):
            self._users.prove(caller, asked.current_password)
        else:
            self.prove(caller, asked.current_password)
        home = self._catalog.find_project(caller, asked.project) if asked.project else None
        return self._insert(caller, owner, name, days, scope, home)

    def prove(self, caller: Caller, password: str) -> None:
        """Verify the password that a session needs to create a token or approve a login.

        Raises
        ------
        ProofRequired
            If the session is older than `access.FRESH` and the password is missing or wrong. Otherwise a stolen session
            could create a token that outlives it.
        """
        if caller.credential.startswith("session:"):
            self._users.prove(caller, password)

    @staticmethod
    def must_prove(caller: Caller) -> bool:
        """Whether the caller needs the password to create a token for itself."""
        return caller.credential.startswith("session:") and not (caller.is_operator or caller.is_fresh)

    def create_for_device(self, caller: Caller, name: str, scope: str) -> NewToken:
        """Create a token for a client whose login the caller approved; see `Devices`."""
        access.require(caller, access.GRANT)
        return self._insert(caller, self._owner(caller, ""), name, None, scope, None)

    def _insert(
        self, caller: Caller, owner: Record | None, name: str, days: int | None, scope: str, home: Record | None
    ) -> NewToken:
        secret, id_ = PREFIX + secrets.token_urlsafe(32), secrets.token_hex(4)
        ends = None if days is None else (datetime.now(timezone.utc) + timedelta(days=days)).isoformat()
        data: Document = {
            "user": owner.id if owner else caller.holder,
            # The generation at authentication: a token that was revoked meanwhile must not create a valid one.
            "generation": caller.generation if owner is None or owner.id == caller.user else Users.generation(owner),
            "scope": scope,
            "project": home.id if home else "",
            "name": name,
            "digest": _digest(secret),
            "created_at": now(),
            "expires_at": ends,
            "used_at": None,
        }
        event = {"at": now(), "who": caller.name, "action": "token.create", "what": f"{name} ({id_})"}
        entry = {**event, "before": None, "after": None}
        expired = self._make_room(data["user"], owner.data["name"] if owner else caller.name)
        changes: list[Change] = [*(Delete("tokens", one.id) for one in expired), Put("tokens", id_, data, None)]

        def check() -> None:
            self._check(caller, owner)
            if not expired:  # otherwise the commit itself deletes expired tokens
                self._make_room(data["user"], owner.data["name"] if owner else caller.name)

        self._records.commit(SERVER, changes, [entry], check=check)
        with self._lock:
            if self._known is not None:
                self._known[data["digest"]] = (id_, _end(Record(id=id_, seq=0, rev=1, data=data)))
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

    def _make_room(self, holder: str, name: str) -> list[Record]:
        """Return the expired tokens to delete if the holder has the maximum number of tokens.

        Raises
        ------
        Conflict
            If the holder has the maximum number and none is expired.
        """
        if self._records.count(SERVER, "tokens", {"user": holder}) < LIMIT:
            return []
        at = time.time()
        expired = [one for one in self._records.find(SERVER, "tokens", {"user": holder}) if _end(one) < at]
        if not expired:
            raise Conflict(
                f"{name!r} has {LIMIT:,} tokens, the most of an account", hint="`lmvp tokens revoke ID` revokes one"
            )
        return expired

    def _check(self, caller: Caller, owner: Record | None) -> None:
        """Check at the commit that the caller can still create a token for the account."""
        found = access.current(caller)
        access.require(found, access.GRANT)
        if owner is None or owner.id == found.user:
            return
        access.require(found, access.ADMIN)
        account = self._users.active(owner.id)
        if account is None or Users.generation(account) != Users.generation(owner):
            raise Conflict(f"{owner.data['name']!r} was disabled, or its password was changed", hint="try again")

    def _owner(self, caller: Caller, name: str) -> Record | None:
        """Return the account of a new token; None for the operator's own token."""
        if caller.is_operator and not name:
            return None
        if name and not (caller.user and self._users.is_named(caller.user, name)):
            access.require(caller, access.ADMIN)
            account = self._users.find(name)
            active = self._users.active(account.id)
            if active is None:
                raise Conflict(
                    f"{account.data['name']!r} is disabled",
                    hint=f"`lmvp users enable {account.data['name']}` enables it",
                )
            return active
        own = self._users.active(caller.user)
        if own is None:
            raise AccessDenied("this account is disabled or deleted", hint="ask an admin of the server")
        return own

    def find(self, secret: str) -> Record | None:
        """Return the record of a token by its secret; None if the token is unknown, expired or revoked."""
        digest = _digest(secret)
        known = self._digests().get(digest)
        if known is None or known[1] < time.time():
            return None
        self._note(known[0])
        token = self._records.get(SERVER, "tokens", known[0])
        if token is None:  # deleted by a change of its account
            self._digests().pop(digest, None)
        return token

    def caller(self, secret: str, operator: str) -> Caller | None:
        """Return the caller of a token; None if it is unknown or expired, or its holder has no rights.

        Parameters
        ----------
        secret : str
            The secret of the token.
        operator : str
            The name of the server's operator.
        """
        token = self.find(secret)
        return self._speaks_for(token, operator) if token else None

    def again(self, token: str, operator: str) -> Caller | None:
        """Return the current caller of a token, given its id."""
        record = self._records.get(SERVER, "tokens", token)
        if record is None or _end(record) < time.time():
            return None
        return self._speaks_for(record, operator)

    def _speaks_for(self, token: Record, operator: str) -> Caller | None:
        data, scope, only = token.data, token.data.get("scope"), token.data.get("project")
        if not isinstance(only, str):  # a token for all projects has an empty text; anything else is invalid
            return None
        return self._users.caller(
            data,
            operator,
            scope=scope if scope in access.SCOPES else access.LEAST_SCOPE,
            only=only,
            credential=f"token:{token.id}",
            again=partial(self.again, token.id, operator),
        )

    def warn_of_ended(self) -> None:
        """Log each token without a holder. An earlier release gave such tokens every right."""
        for one in self._records.find(SERVER, "tokens"):
            if not one.data.get("user"):
                name = one.data.get("name", "")
                log.warning(
                    "the token %r (%s) names no account and grants nothing; make another one with "
                    "`lmvp tokens create %s --scope SCOPE`, and remove this one with `lmvp tokens revoke %s`",
                    name, one.id, quote(name), one.id,
                )  # fmt: skip

    def every(self, caller: Caller, page: Page) -> Document:
        """List the caller's tokens, without secrets. Admins get all tokens."""
        access.require(caller, access.GRANT)
        where = None if caller.may(access.ADMIN) else {"user": caller.holder}
        tokens = self._records.find(SERVER, "tokens", where)
        first = page.cursor or 0
        more = str(first + page.limit) if len(tokens) > first + page.limit else None
        return {"items": [self._shown(one) for one in tokens[first:][: page.limit]], "next": more, "total": len(tokens)}

    def revoke(self, caller: Caller, token: str) -> None:
        """Revoke a token.

        Raises
        ------
        NotFound
            If the caller has no token with this id.
        """
        access.require(caller, access.GRANT)
        record = self._records.get(SERVER, "tokens", token)
        if record is None or not (caller.may(access.ADMIN) or record.data.get("user") == caller.holder):
            raise NotFound(f"no token {token[:40]!r}", hint="`lmvp tokens` lists them by their ids")
        event = {"at": now(), "who": caller.name, "action": "token.revoke", "what": f"{record.data['name']} ({token})"}
        entry = {**event, "before": None, "after": None}
        right = access.GRANT if record.data.get("user") == caller.holder else access.ADMIN
        self._records.commit(SERVER, [Delete("tokens", token)], [entry], check=access.still(caller, right))
        self._digests().pop(record.data["digest"], None)

    def _shown(self, record: Record) -> TokenRecord:
        data = record.data
        holder = data.get("user") or ""
        user = self._records.get(SERVER, "users", holder) if holder else None
        home = self._records.get(SERVER, "projects", data.get("project", ""))
        return TokenRecord(
            id=record.id,
            name=data["name"],
            created_at=datetime.fromisoformat(data["created_at"].replace("Z", "+00:00")),
            expires_at=_time(data["expires_at"]),
            used_at=_time(data["used_at"]),
            user=user.data["name"] if user else "",
            scope=data["scope"] if data.get("scope") in access.SCOPES else access.LEAST_SCOPE,
            project=home.data["name"] if home else "",
            ended=self._ended(record),
        )

    def _ended(self, record: Record) -> str:
        """Return the reason why a token grants nothing, or an empty text if it is valid."""
        data, holder = record.data, record.data.get("user")
        if not holder:
            return "names no account"
        if _end(record) < time.time():
            return "expired"
        if data.get("project") and self._records.get(SERVER, "projects", data["project"]) is None:
            return "project removed"
        if holder == OPERATOR:
            current = self._users.operator_generation == data.get("generation", 0)
            return "" if current else "the server's own token was replaced"
        account = self._users.active(holder)
        if account is None:
            return "account disabled or deleted"
        return "" if Users.generation(account) == data.get("generation", 0) else "ended by a change of the account"

    def _digests(self) -> dict[str, tuple[str, float]]:
        """Return ids and expiry times of all tokens by digest. Read once, then updated with each token."""
        known = self._known
        if known is not None:
            return known
        with self._lock:  # a token that is created meanwhile is added after this
            if self._known is None:
                tokens = self._records.find(SERVER, "tokens")
                self._known = {one.data["digest"]: (one.id, _end(one)) for one in tokens}
            return self._known

    def _note(self, token: str) -> None:
        with self._lock:
            # A commit for each request would be too slow.
            if time.monotonic() - self._noted.get(token, -_NOTED) < _NOTED:
                return
            self._noted[token] = time.monotonic()
        self._records.update(SERVER, "tokens", token, lambda data: {**data, "used_at": now()})


def _digest(secret: str) -> str:
    """Return the digest of a secret. 256 random bits need no salt and no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _is_service(account: Record) -> bool:
    """Whether an account is a service account: without password and provider, only with tokens that admins create."""
    return not (account.data.get("password") or account.data.get("openid"))


def _end(record: Record) -> float:
    ends = _time(record.data["expires_at"])
    return ends.timestamp() if ends else float("inf")


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None
