"""Sessions of the console. Only the digest of a session's secret is stored.

A session belongs to an account or to the operator, and records the way of signing in. A session that was opened with a
token has the rights of the token and ends with it.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from lmvp.errors import NotAuthenticated
from lmvp_server.services import access
from lmvp_server.services.access import OPERATOR, Caller, Roles
from lmvp_server.services.audit import event
from lmvp_server.services.catalog import SERVER
from lmvp_server.services.clock import now
from lmvp_server.services.passwords import Passwords
from lmvp_server.services.tokens import Tokens
from lmvp_server.services.users import Users
from lmvp_server.stores.base import Change, Delete, Document, Put, Record, RecordStore

log = logging.getLogger("lmvp_server")

LIFE = 14 * 86400.0
"""The lifetime of a session in seconds."""
PASSWORD, PROVIDER, INVITATION, TOKEN = "password", "provider", "invitation", "token"
"""The ways to sign in. All except a token show that the user is present."""


class Sessions:
    """Use cases of sessions."""

    def __init__(self, records: RecordStore, users: Users, tokens: Tokens, passwords: Passwords) -> None:
        self._records, self._users, self._tokens, self._passwords = records, users, tokens, passwords
        self.operator_credential = ""
        """The name of the server's own token (see `own_credential`). Sessions that a replaced own token opened are
        invalid. Empty for an embedded server, which gets a new token at each start.
        """

    def begin(self, name: str, password: str, address: str) -> str:
        """Sign in with name and password, and return the secret of a new session.

        Raises
        ------
        NotAuthenticated
            If name and password do not match. The message does not state which of them is wrong.
        TooManyRequests
            After too many failed attempts; see `Passwords`.
        """
        return self.open(self._passwords.login(name, password, address), address, PASSWORD)

    def open(self, account: Record, address: str, proof: str, identity: str = "") -> str:
        """Open a session for an account that has signed in, and return its secret.

        Parameters
        ----------
        account : Record
            The account.
        address : str
            The address of the browser.
        proof : str
            The way of signing in, for example `PASSWORD`.
        identity : str, optional
            The id of the provider's identity that signed in. The session ends when the identity is disconnected.
        """
        generation = self._users.generation(account)
        name, began = str(account.data["name"]), f"identity:{identity}" if identity else ""
        return self._open(account.id, name, address, proof, generation, began, partial(self._check, account))

    def _check(self, account: Record) -> None:
        """Check at the commit that the account is active and that its grants were not revoked meanwhile."""
        found = self._users.active(account.id)
        if found is None or self._users.generation(found) != self._users.generation(account):
            raise _ended()

    def open_by_token(self, caller: Caller, address: str) -> str:
        """Open a session for the caller's token, and return its secret. The session ends with the token.

        Raises
        ------
        NotAuthenticated
            If the token is limited to a scope or project: a session has all rights of its account.
        """
        # `admin` is the scope without limits; `only` limits a token to one project.
        if caller.scope != "admin" or caller.only:
            raise NotAuthenticated(
                "this token passes on a part of the rights of its account only; `lmvp open` signs in with these"
            )
        return self.open_for_token(caller, address)

    def open_for_token(self, caller: Caller, address: str, secret: str = "", also: Sequence[Change] = ()) -> str:
        """Open a session with the rights of the caller's token, and return its secret. The session ends with the token.

        Parameters
        ----------
        secret : str, optional
            The secret to use. Default: a new one.
        also : sequence of changes
            Changes to commit together with the session.

        Raises
        ------
        ConcurrentChange
            If one of these changes expects another revision.
        """
        check = partial(access.current, caller)
        holder, began = caller.holder, caller.credential
        return self._open(holder, caller.name, address, TOKEN, caller.generation, began, check, secret, also)

    def renew(self, caller: Caller, address: str) -> str:
        """Return a new session secret for a caller whose account has just ended all its sessions.

        Raises
        ------
        NotAuthenticated
            If the account is disabled or deleted, or another change has revoked its sessions since.
        """
        account = self._users.active(caller.user)
        # A new password raises the generation by 1, a disconnected identity does not. A greater difference is a
        # revocation.
        if account is None or self._users.generation(account) - caller.generation not in (0, 1):
            raise _ended()
        return self.open(account, address, PASSWORD)

    def _open(
        self,
        holder: str,
        name: str,
        address: str,
        proof: str,
        generation: int,
        token: str,
        check: Callable[[], object],
        secret: str = "",
        also: Sequence[Change] = (),
    ) -> str:
        secret, at = secret or secrets.token_urlsafe(32), time.time()
        data = {
            "user": holder,
            "generation": generation,
            "proof": proof,
            "token": token,
            "created_at": now(),
            "began": at,
            "ends": at + LIFE,
            "address": address,
        }
        entry = event(name, "session.begin", address)
        # Each new session deletes the expired sessions of its account, so that they do not accumulate.
        old = [Delete("sessions", one.id) for one in self._records.find(SERVER, "sessions", {"user": holder})
               if one.data["ends"] < at]  # fmt: skip
        changes: list[Change] = [Put("sessions", _digest(secret), data, expect=0), *old, *also]
        self._records.commit(SERVER, changes, [entry], check=check)
        return secret

    def caller(self, secret: str, operator: str) -> Caller | None:
        """Return the caller of a session; None if the session has ended or its holder has no rights.

        Parameters
        ----------
        secret : str
            The secret of the session.
        operator : str
            The name of the server's operator.
        """
        return self.again(_digest(secret), operator)

    def again(self, session: str, operator: str) -> Caller | None:
        """Return the current caller of a session, given the id of its record."""
        record = self._records.get(SERVER, "sessions", session)
        if record is None or record.data["ends"] < time.time():
            return None
        data = record.data
        kind, _, token = str(data.get("token", "")).partition(":")
        scope, only = "admin", ""
        if kind == "token":
            by = self._tokens.again(token, operator)
            if by is None:
                return None
            scope, only = by.scope, by.only  # the session must not have more rights than the token
        if kind == "identity" and not self._is_connected(token, data):
            return None
        if kind == "own" and self.operator_credential not in {"", data["token"]}:
            return None
        return self._users.caller(
            data,
            operator,
            scope=scope,
            only=only,
            credential=f"session:{record.id}",
            again=partial(self.again, session, operator),
            signed_in_at=0.0 if data.get("proof", TOKEN) == TOKEN else float(data.get("began", 0.0)),
        )

    def _is_connected(self, identity: str, session: Document) -> bool:
        """Whether the identity that opened a session still belongs to the account of the session."""
        record = self._records.get(SERVER, "identities", identity)
        return record is not None and all(
            record.data.get(name, 0) == session.get(name, 0) for name in ("user", "generation")
        )

    def end(self, secret: str, by: str = OPERATOR) -> None:
        """End a session if it exists.

        Parameters
        ----------
        by : str
            The author of the event.
        """
        session = self._records.get(SERVER, "sessions", _digest(secret))
        if session is not None:
            entry = event(by, "session.end", "1 session")
            self._records.commit(SERVER, [Delete("sessions", session.id)], [entry])

    def end_all(self, caller: Caller) -> int:
        """End all sessions of the caller and return their number."""
        access.require(caller, access.ACCOUNT)
        sessions = self._records.find(SERVER, "sessions", {"user": caller.holder})
        entry = event(caller.name, "session.end", f"{len(sessions)} sessions")
        check = access.still(caller, access.ACCOUNT)
        self._records.commit(SERVER, [Delete("sessions", one.id) for one in sessions], [entry], check=check)
        return len(sessions)

    def end_without_holder(self) -> None:
        """Delete sessions without an account. An earlier release gave them every right."""
        found = [one for one in self._records.find(SERVER, "sessions") if not one.data.get("user")]
        if not found:
            return
        log.warning("%d sessions named no account and have ended; sign in again", len(found))
        changes: list[Change] = [Delete("sessions", one.id) for one in found]
        self._records.commit(SERVER, changes, [event(OPERATOR, "session.end", f"{len(found)} sessions of no account")])


def _ended() -> NotAuthenticated:
    return NotAuthenticated("this account was disabled, or its password was changed", hint="sign in again")


def session_id(secret: str) -> str:
    """Return the id of the record of a session, given its secret."""
    return _digest(secret)


def own_credential(token: str) -> str:
    """Return a name for the server's own token that does not reveal it."""
    return f"own:{_digest(token)[:32]}"


def xsrf_token(secret: str) -> str:
    """Return the token that the forms of a session contain, so that other sites cannot submit them (XSRF).

    The token is derived from the secret, but does not reveal it. It is masked with random bytes, so that it differs
    each time: the size of a compressed page would otherwise reveal it (BREACH).

    Examples
    --------
    >>> token = xsrf_token("a")
    >>> len(token), is_xsrf_token(token, "a"), is_xsrf_token(token, "b"), xsrf_token("a") == token
    (128, True, False, False)
    """
    mask = secrets.token_bytes(32)
    return mask.hex() + _masked(_proof(secret), mask).hex()


def is_xsrf_token(given: str, secret: str) -> bool:
    """Whether a form contains a valid token of the session."""
    if not re.fullmatch("[0-9a-f]{128}", given):
        return False
    mask, masked = bytes.fromhex(given[:64]), bytes.fromhex(given[64:])
    return hmac.compare_digest(_masked(masked, mask), _proof(secret))


def _proof(secret: str) -> bytes:
    return hmac.new(secret.encode(), b"lmvp xsrf", hashlib.sha256).digest()


def _masked(data: bytes, mask: bytes) -> bytes:
    return bytes(one ^ other for one, other in zip(data, mask, strict=True))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


class Credentials:
    """Looks up the current rights of the caller of an earlier request, for approvals, streams and other long work."""

    def __init__(self, users: Users, tokens: Tokens, sessions: Sessions, roles: Roles) -> None:
        self._users, self._tokens, self._sessions, self._roles = users, tokens, sessions, roles

    def again(self, caller: Caller, operator: str) -> Caller | None:
        """Return the caller with its current rights; None if its credential has ended.

        The account must be the same and active, its grants must not have ended since (`Users.generation`), and the
        token or session must still be valid. The credentials of the server's own token and of anonymous callers do
        not end.

        Parameters
        ----------
        caller : Caller
            The caller at the time of the earlier request.
        operator : str
            The name of the server's operator.

        Returns
        -------
        Caller or None
            The same caller with its current rights.
        """
        kind, _, id_ = caller.credential.partition(":")
        if kind == "token":
            found = self._tokens.again(id_, operator)
        elif kind == "session":
            found = self._sessions.again(id_, operator)
        elif caller.user:
            grant = {"user": caller.user, "generation": caller.generation}
            found = self._users.caller(grant, operator, scope=caller.scope, only=caller.only)
        else:
            return caller
        # A higher generation means that all earlier grants of the account have ended.
        same = found is not None and (found.holder, found.generation) == (caller.holder, caller.generation)
        return replace(found, roles=self._roles) if found is not None and same else None
