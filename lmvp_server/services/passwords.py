"""Passwords: hashes, rate limits, and events about failed attempts.

A failed attempt delays the next attempt of the same account and address, each time twice as long. It never locks the
account: a correct password from another address always works.
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
from lmvp_server.services.audit import event
from lmvp_server.services.catalog import SERVER
from lmvp_server.services.rate_limit import Backoff, Throttle, network_of
from lmvp_server.stores.base import Record, RecordStore

PASSWORD_LEAST, PASSWORD_MOST = 10, 200
"""Length of a password in characters. NIST SP 800-63B recommends length over rules about kinds of characters."""
FREE, LONGEST = 5, 300.0
"""Failed attempts of an account and address without a delay, and the longest delay in seconds."""
BY_ADDRESS, WHILE = 60, 300.0
"""Failed attempts from one address in a window of seconds, over all accounts."""
_PROOF = "account:"
"""The prefix of the key that replaces the address when a signed-in caller confirms a password."""
QUIET = 60.0
"""Minimum seconds between two events about failed attempts of one account and address."""
PER_HOUR, _PAIRS = 120, 1000
"""The maximum number of events about failed attempts in an hour, and of pairs that are counted in memory."""


class Passwords:
    """Password checks for logins and for changes of an account, with rate limits."""

    def __init__(self, records: RecordStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._records = records
        self._pairs = Backoff(FREE, LONGEST, "wrong passwords for this account from this address")
        self._addresses = Throttle(BY_ADDRESS, WHILE, "wrong passwords from this address")
        self._failures = Failures(records, clock)

    def login(self, name: str, password: str, address: str) -> Record:
        """Verify the name and password of an account and return it.

        Raises
        ------
        NotAuthenticated
            If name and password do not match. The message does not state which of them is wrong.
        TooManyRequests
            After too many failed attempts of this account and address, or of the address.
        """
        account = self._verified(name, password, network_of(address))
        if account is None:
            raise NotAuthenticated("name and password do not match")
        return account

    def prove(self, caller: Caller, account: Record, password: str) -> None:
        """Verify that the holder of an account requests a change of it: by password, or by a recent sign-in.

        Parameters
        ----------
        caller : Caller
            The caller.
        account : Record
            The account of the caller.
        password : str
            The current password, or an empty text.

        Raises
        ------
        ProofRequired
            If the password is wrong, or is missing and the last sign-in is not recent.
        """
        if password:
            # The rate limit does not use the address, because a stolen token must not delay logins of its owner. It
            # does not use the credential either, because a token that creates tokens would get a new limit with each.
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
        """Verify a name and password. Return the account, or None after the same time if they do not match."""
        accounts = self._records.find(SERVER, "users", {"key": name.lower()}, limit=1)
        kept = str(accounts[0].data.get("password") or "") if accounts else ""
        fits = _fits(kept or _nobodys(), password) and bool(kept)
        return accounts[0] if fits and accounts[0].data.get("disabled") is False else None

    def failed(self, address: str) -> None:
        """Record a failed sign-in without a password: with a token or at an identity provider."""
        self._failures.add("", network_of(address))

    def report(self) -> None:
        """Write the events for all counted failures."""
        self._failures.report()

    def _verified(self, name: str, password: str, origin: str) -> Record | None:
        key = f"{name[:200].lower()}\n{origin}"
        # Count before the check, so that parallel attempts cannot exceed the limit. Successes are subtracted again.
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
        """Return the name of an account, or an empty text: a text that is not a name can be a mistyped password."""
        accounts = self._records.find(SERVER, "users", {"key": name.lower()}, limit=1)
        return str(accounts[0].data["name"]) if accounts else ""


class Failures:
    """Events about failed attempts: for each pair at most one per minute, with a count, and `PER_HOUR` in an hour."""

    def __init__(self, records: RecordStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._records, self._clock = records, clock
        self._counts: dict[tuple[str, str], int] = {}
        self._written: dict[tuple[str, str], float] = {}
        self._hour = (0.0, 0)
        self._lock = Lock()

    def add(self, account: str, origin: str) -> None:
        """Count a failed attempt and write the events that are due.

        Parameters
        ----------
        account : str
            The name of an account. Empty if the given name has no account.
        origin : str
            The address, or the credential that sent the request.
        """
        pair = (account, origin.partition(":")[0] if origin.startswith(_PROOF) else origin)
        with self._lock:
            # Bounds the memory while an attacker uses many addresses.
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
        If the password is too short or too long.
    """
    if not PASSWORD_LEAST <= len(password) <= PASSWORD_MOST:
        raise InvalidArgument(f"a password has {PASSWORD_LEAST} to {PASSWORD_MOST} characters")


def hashed(password: str) -> str:
    """Return the argon2id hash of a new password."""
    check_password(password)
    return str(_hasher().hash(password))


def _hasher() -> Any:
    from argon2 import PasswordHasher  # imported on first use: an embedded server never needs it

    return PasswordHasher()


@cache
def _nobodys() -> str:
    """Return a hash that matches no password, so that checking an unknown account takes the same time."""
    return str(_hasher().hash(secrets.token_hex(32)))


def _fits(kept: str, password: str) -> bool:
    from argon2.exceptions import Argon2Error, InvalidHashError

    try:
        # Truncated, so that a very long input costs no more than a valid password.
        return bool(_hasher().verify(kept, password[:PASSWORD_MOST]))
    except (Argon2Error, InvalidHashError):
        return False
