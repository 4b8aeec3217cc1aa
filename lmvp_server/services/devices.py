"""Login by a code, after RFC 8628: a client without a token waits until somebody who has one decides about it."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from threading import Lock

from lmvp.errors import AccessDenied, AuthorizationPending, ExpiredCode, NotFound, SlowDown, TooManyRequests
from lmvp.records import DeviceCode, DeviceDecision, DeviceToken, MakeToken
from lmvp_server.services import access
from lmvp_server.services.access import Caller
from lmvp_server.services.throttle import Throttle
from lmvp_server.services.tokens import NAME_LIMIT, Tokens

LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
"""Without vowels, so that no code is a word, and without letters that look like others (RFC 8628, section 6.1)."""
LIFE, INTERVAL, SLOWER = 600.0, 5, 5
MOST, OFTEN, MINUTE = 100, 10, 60.0


@dataclass
class Grant:
    """A client that waits."""

    device_code: str = field(repr=False)
    user_code: str
    client: str
    address: str
    ends: float
    interval: int = INTERVAL
    asked: float = 0.0
    approved: bool | None = None
    by: Caller | None = None


class Devices:
    """The use cases around logins by a code. Grants live in memory: a restart forgets them."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._grants: dict[str, Grant] = {}
        self._begun = Throttle(OFTEN, MINUTE, "logins begun from this address")
        self._wrong = Throttle(OFTEN, MINUTE, "wrong codes from this address")
        self._lock = Lock()

    def begin(self, client: str, address: str, page: str) -> DeviceCode:
        """Let a client wait.

        Parameters
        ----------
        client : str
            What it calls itself; nobody vouches for that.
        page : str
            Where codes are typed in.

        Raises
        ------
        TooManyRequests
            If this address, or everybody together, began too many.
        """
        with self._lock:
            self._forget_old()
            self._begun.count(address)
            if len(self._grants) >= MOST:
                raise TooManyRequests("too many clients wait for a decision", hint="try again in some minutes")
            code = "".join(secrets.choice(LETTERS) for _ in range(8))
            name = "".join(letter for letter in client if letter.isprintable())[:NAME_LIMIT].strip() or "a client"
            grant = Grant(secrets.token_urlsafe(32), f"{code[:4]}-{code[4:]}", name, address, time.monotonic() + LIFE)
            self._grants[code] = grant
        return DeviceCode(
            device_code=grant.device_code,
            user_code=grant.user_code,
            verification_uri=page,
            verification_uri_complete=f"{page}?code={grant.user_code}",
            expires_in=int(LIFE),
            interval=INTERVAL,
        )

    def token(self, device_code: str) -> DeviceToken:
        """Return the token of a client that was approved, once.

        Raises
        ------
        AuthorizationPending, SlowDown
            If nobody has decided yet.
        AccessDenied
            If it was denied.
        ExpiredCode
            If it is too late, or the token was fetched already.
        """
        with self._lock:
            self._forget_old()
            key, grant = self._of_device(device_code)
            if grant.approved is None:
                raise self._not_yet(grant)
            del self._grants[key]
        if not grant.approved or grant.by is None:
            raise AccessDenied("this login was denied")
        made = self._tokens.create(grant.by, MakeToken(name=grant.client))
        return DeviceToken(access_token=made.token, name=made.name)

    def look(self, user_code: str, address: str) -> Grant:
        """Return who waits under a code.

        Raises
        ------
        NotFound
            If nobody does.
        TooManyRequests
            After too many wrong codes.
        """
        key = "".join(letter for letter in user_code.upper() if letter in LETTERS)
        with self._lock:
            self._forget_old()
            grant = self._grants.get(key)
            if grant is None or grant.approved is not None:
                self._wrong.count(address)
                raise NotFound(f"no login waits under {user_code[:20]!r}", hint="codes live for ten minutes, and once")
            return grant

    def decide(self, caller: Caller, user_code: str, address: str, *, approve: bool) -> DeviceDecision:
        """Approve or deny a client."""
        access.require(caller, access.GRANT)
        grant = self.look(user_code, address)
        grant.by, grant.approved = caller, approve
        return DeviceDecision(client_name=grant.client, address=grant.address, approved=approve)

    def _of_device(self, device_code: str) -> tuple[str, Grant]:
        for key, grant in self._grants.items():
            if secrets.compare_digest(grant.device_code.encode(), device_code.encode()):
                return key, grant
        raise ExpiredCode("this login has expired, or was used", hint="begin again: lmvp login URL")

    def _not_yet(self, grant: Grant) -> AuthorizationPending:
        asked, grant.asked = grant.asked, time.monotonic()
        if grant.asked - asked < grant.interval - 0.5:
            grant.interval += SLOWER
            return SlowDown(f"asked too often; every {grant.interval} seconds is enough")
        return AuthorizationPending("nobody has decided yet")

    def _forget_old(self) -> None:
        at = time.monotonic()
        for key in [key for key, grant in self._grants.items() if grant.ends < at]:
            del self._grants[key]
