"""Sessions of the console: begun with a name and a password, or a token; of their secret only the digest is kept."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time

from lmvp.errors import NotAuthenticated
from lmvp_server.services.access import Caller
from lmvp_server.services.catalog import SERVER
from lmvp_server.services.clock import now
from lmvp_server.services.events import event
from lmvp_server.services.throttle import Throttle
from lmvp_server.services.users import Users
from lmvp_server.stores.base import Delete, Put, RecordStore

LIFE = 14 * 86400.0
"""Seconds that a session lasts."""
BY_NAME, BY_ADDRESS, WHILE = 10, 60, 300.0
"""Logins that fail for an account, and from an address, within so many seconds, before there must be a pause."""


class Sessions:
    """The use cases around sessions."""

    def __init__(self, records: RecordStore, users: Users) -> None:
        self._records, self._users = records, users
        self._by_name = Throttle(BY_NAME, WHILE, "logins for this name")
        self._by_address = Throttle(BY_ADDRESS, WHILE, "logins from this address")

    def begin(self, name: str, password: str, address: str) -> str:
        """Return the secret of a new session.

        Raises
        ------
        NotAuthenticated
            If name and password do not match; no word on which of them is wrong.
        TooManyRequests
            If too many logins failed, for the account or from the address.
        """
        key = name[:200].lower()
        self._by_address.count(address)
        self._by_name.count(key)
        account = self._users.verify(name, password)
        if account is None:
            raise NotAuthenticated("name and password do not match")
        self._by_name.forget(key)
        return self.open(account.id, account.data["name"], address)

    def open(self, user: str, name: str, address: str) -> str:
        """Return the secret of a new session of an account, which has proved itself; of none: of whoever runs this."""
        secret = secrets.token_urlsafe(32)
        data = {"user": user, "created_at": now(), "ends": time.time() + LIFE, "address": address}
        entry = event(name, "session.begin", address)
        old = [Delete("sessions", one.id) for one in self._records.find(SERVER, "sessions", {"user": user})
               if one.data["ends"] < time.time()]  # fmt: skip
        self._records.commit(SERVER, [Put("sessions", _digest(secret), data, expect=0), *old], [entry])
        return secret

    def caller(self, secret: str, runs_it: str) -> Caller | None:
        """Return whose session this is; None if it has ended, or the account is disabled."""
        found = self._records.get(SERVER, "sessions", _digest(secret))
        if found is None or found.data["ends"] < time.time():
            return None
        if not found.data["user"]:
            return Caller(runs_it, owner=True)
        account = self._users.active(found.data["user"])
        if account is None:
            return None
        return Caller(account.data["name"], user=account.id, admin=account.data["admin"])

    def end(self, secret: str) -> None:
        """End a session."""
        self._records.commit(SERVER, [Delete("sessions", _digest(secret))])

    def end_all(self, caller: Caller) -> int:
        """End all sessions of whoever asks; give how many there were."""
        found = self._records.find(SERVER, "sessions", {"user": caller.user})
        entry = event(caller.name, "session.end", f"{len(found)} sessions")
        self._records.commit(SERVER, [Delete("sessions", one.id) for one in found], [entry])
        return len(found)


def xsrf_token(secret: str) -> str:
    """Return what the forms of a session carry, so that no other site can send them: bound to it, and not its secret.

    It is another one each time: the same bytes under a mask, so that a compressed page does not tell them by its size.

    Examples
    --------
    >>> token = xsrf_token("a")
    >>> len(token), is_xsrf_token(token, "a"), is_xsrf_token(token, "b"), xsrf_token("a") == token
    (128, True, False, False)
    """
    mask = secrets.token_bytes(32)
    return mask.hex() + _masked(_proof(secret), mask).hex()


def is_xsrf_token(given: str, secret: str) -> bool:
    """Whether a form carries what the forms of that session do."""
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
