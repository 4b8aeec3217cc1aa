"""Passwords: their hashes, their rate limit, and the record of failed attempts.

A failed attempt delays the next one by the same pair of account and address, twice as long each time. It never locks
the account: a correct password from another address always works.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from functools import cache
from threading import Lock
from typing import Any

from lmvp.errors import InvalidArgument, NotAuthenticated, ProofRequired
from lmvp_server.services.access import Caller
from lmvp_server.services.catalog import SERVER
from lmvp_server.services.events import event
from lmvp_server.services.throttle import Backoff, Throttle, network_of
from lmvp_server.stores.base import Record, RecordStore

PASSWORD_LEAST, PASSWORD_MOST = 10, 200
"""Characters of a password; NIST SP 800-63B asks for length, and for no rules about kinds of characters."""
FREE, LONGEST = 5, 300.0
"""Failures of a pair of account and address without a delay, and the longest delay in seconds."""
BY_ADDRESS, WHILE = 60, 300.0
"""Failures from one address in a window of seconds, over all accounts."""
_PROOF = "account:"
"""Begins what stands for the address where the caller is known already."""
QUIET = 60.0
"""Seconds between two events about failures of one pair of account and address."""
PER_HOUR, _PAIRS = 120, 1000
"""The most events about failures in an hour, and the most pairs that are counted in memory."""


class Passwords:
    """Checks passwords, for logins and for changes of an account."""

    def __init__(self, records: RecordStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._records = records
        self._pairs = Backoff(FREE, LONGEST, "wrong passwords for this account from this address")
        self._addresses = Throttle(BY_ADDRESS, WHILE, "wrong passwords from this address")
        self._failures = Failures(records, clock)

    def login(self, name: str, password: str, address: str) -> Record:
        """Return the account of a name and a password.

        Raises
        ------
        NotAuthenticated
            If name and password do not match; the message does not say which of them is wrong.
        TooManyRequests
            After too many failures of this pair of account and address, or from the address.
        """
        account = self._verified(name, password, network_of(address))
        if account is None:
            raise NotAuthenticated("name and password do not match")
        return account

    def prove(self, caller: Caller, account: Record, password: str) -> None:
        """Check that a change of an account is made by its holder: by the password, or a sign-in of the last minutes.

        Parameters
        ----------
        account : Record
            The account of the caller.

        Raises
        ------
        ProofRequired
            If there is neither.
        """
        if password:
            # Not the address: a stolen token must not delay logins by its owner. Not the credential either: a token
            # that makes others would begin anew with each.
            if self._verified(account.data["name"], password, f"{_PROOF}{account.id}") is None:
                raise ProofRequired("the current password does not match", hint="an admin can set a new one")
            return
        if caller.is_fresh:
            return
        minutes = "a sign-in within the last ten minutes"
        raise ProofRequired(
            f"this change needs the current password of {account.data['name']!r}, or {minutes}",
            hint="send `current_password`; or sign out of the console and in again",
        )

    def verify(self, name: str, password: str) -> Record | None:
        """Return the account of a name and a password; None, after the same time, if they do not match."""
        found = self._records.find(SERVER, "users", {"key": name.lower()}, limit=1)
        kept = str(found[0].data.get("password") or "") if found else ""
        fits = _fits(kept or _nobodys(), password) and bool(kept)
        return found[0] if fits and found[0].data.get("disabled") is False else None

    def failed(self, address: str) -> None:
        """Record a sign-in that failed without a password: by a token, or at a provider."""
        self._failures.add("", network_of(address))

    def report(self) -> None:
        """Write the failures that no event has told yet."""
        self._failures.report()

    def _verified(self, name: str, password: str, origin: str) -> Record | None:
        key = f"{name[:200].lower()}\n{origin}"
        self._addresses.count(origin)
        try:
            self._pairs.attempt(key)
        except BaseException:
            self._addresses.take_back(origin)
            raise
        account = self.verify(name, password)
        if account is None:
            self._failures.add(self._known_name(name), origin)
            return None
        self._addresses.take_back(origin)
        self._pairs.succeed(key)
        return account

    def _known_name(self, name: str) -> str:
        """Return the name of an account; empty if there is none, since people type passwords into the wrong field."""
        found = self._records.find(SERVER, "users", {"key": name.lower()}, limit=1)
        return str(found[0].data["name"]) if found else ""


class Failures:
    """Records failed attempts as events: at most one a minute for each pair, with a count, and so many in an hour."""

    def __init__(self, records: RecordStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._records, self._clock = records, clock
        self._counts: dict[tuple[str, str], int] = {}
        self._written: dict[tuple[str, str], float] = {}
        self._hour = (0.0, 0)
        self._lock = Lock()

    def add(self, account: str, origin: str) -> None:
        """Count a failure; write what is due.

        Parameters
        ----------
        account : str
            The name of an account; empty if there is none of the name that was given.
        origin : str
            An address, or the credential that sent the request.
        """
        pair = (account, origin.partition(":")[0] if origin.startswith(_PROOF) else origin)
        with self._lock:
            if pair not in self._counts and len(self._counts) >= _PAIRS:
                pair = (account, "other addresses")
            self._counts[pair] = self._counts.get(pair, 0) + 1
        self.report(QUIET)

    def report(self, quiet: float = 0.0) -> None:
        """Write an event for each pair whose last event is at least `quiet` seconds old."""
        entries = []
        with self._lock:
            at = self._clock()
            self._written = {pair: then for pair, then in self._written.items() if at - then < QUIET}
            since, written = self._hour
            if not since or at - since >= 3600.0:
                since, written = at, 0
            for pair in [one for one in self._counts if one not in self._written or not quiet]:
                if written >= PER_HOUR:
                    break
                written += 1
                account, origin = pair
                self._written[pair] = at
                after = {"from": origin, "count": self._counts.pop(pair)}
                entries.append(event("anonymous", "session.fail", account or "no such account", None, after))
            self._hour = since, written
        if entries:
            self._records.commit(SERVER, [], entries)


def check_password(password: str) -> None:
    """Check the length of a new password.

    Raises
    ------
    InvalidArgument
        If it is too short or too long.
    """
    if not PASSWORD_LEAST <= len(password) <= PASSWORD_MOST:
        raise InvalidArgument(f"a password has {PASSWORD_LEAST} to {PASSWORD_MOST} characters")


def hashed(password: str) -> str:
    """Return the argon2id hash of a new password."""
    check_password(password)
    return str(_hasher().hash(password))


def _hasher() -> Any:
    from argon2 import PasswordHasher  # needed seldom, and never by an embedded server

    return PasswordHasher()


@cache
def _nobodys() -> str:
    """Return a hash that no password fits, so that an account that does not exist takes as long as any other."""
    return str(_hasher().hash(secrets.token_hex(32)))


def _fits(kept: str, password: str) -> bool:
    from argon2.exceptions import Argon2Error, InvalidHashError

    try:
        return bool(_hasher().verify(kept, password[:PASSWORD_MOST]))
    except (Argon2Error, InvalidHashError):
        return False
