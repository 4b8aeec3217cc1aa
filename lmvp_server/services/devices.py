"""Login by a code, after RFC 8628: a client without a token waits until somebody who has one decides about it.

An approval counts only as long as the approver's account, and the token or session that approved, do.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from threading import Lock

from lmvp.errors import (
    AccessDenied,
    AuthorizationPending,
    ExpiredCode,
    InvalidArgument,
    NotFound,
    SlowDown,
    TooManyRequests,
)
from lmvp.records import DeviceCode, DeviceDecision, DeviceToken
from lmvp_server.services import access
from lmvp_server.services.access import Caller
from lmvp_server.services.catalog import SERVER
from lmvp_server.services.credentials import Credentials
from lmvp_server.services.events import event
from lmvp_server.services.throttle import Throttle, network_of
from lmvp_server.services.tokens import NAME_LIMIT, Tokens
from lmvp_server.stores.base import RecordStore

LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
"""Without vowels, so that no code is a word, and without letters that look like others (RFC 8628, section 6.1)."""
LIFE, INTERVAL, SLOWER = 600.0, 5, 5
OFTEN, MINUTE = 10, 60.0
MOST, MOST_OF_ADDRESS = 1000, 20
"""Clients that wait at most: in all, so that memory is bounded, and from one address, so that none fills the list."""


@dataclass
class Grant:
    """A client that waits.

    Attributes
    ----------
    scope : str
        The scope that the client asks for, and after the approval the one that its token gets.
    by : Caller or None
        The approver, as it was when it approved.
    """

    device_code: str = field(repr=False)
    user_code: str
    client: str
    address: str
    scope: str
    ends: float
    interval: int = INTERVAL
    asked: float = 0.0
    approved: bool | None = None
    by: Caller | None = None


class Devices:
    """The use cases around logins by a code. Grants live in memory: a restart forgets them."""

    def __init__(self, records: RecordStore, tokens: Tokens, credentials: Credentials) -> None:
        self._records, self._tokens, self._credentials = records, tokens, credentials
        self._grants: dict[str, Grant] = {}
        self._begun = Throttle(OFTEN, MINUTE, "logins begun from this address")
        self._wrong = Throttle(OFTEN, MINUTE, "wrong codes from this address")
        self._lock = Lock()

    def begin(self, client: str, address: str, page: str, scope: str = access.LOGIN_SCOPE) -> DeviceCode:
        """Let a client wait.

        Parameters
        ----------
        client : str
            The name that it gives itself, which nobody has checked.
        page : str
            The URL of the page that takes codes.
        scope : str
            The scope of the token that it asks for.

        Raises
        ------
        InvalidArgument
            If there is no such scope.
        TooManyRequests
            If this address, or everybody together, began too many.
        """
        if scope not in access.SCOPES:
            raise InvalidArgument(f"no scope {scope[:40]!r}", hint=f"there are {', '.join(access.SCOPES)}")
        with self._lock:
            self._forget_old()
            self._begun.count(network_of(address))
            here = sum(network_of(one.address) == network_of(address) for one in self._grants.values())
            if here >= MOST_OF_ADDRESS or len(self._grants) >= MOST:
                raise TooManyRequests("too many clients wait for a decision", hint="try again in some minutes")
            code = "".join(secrets.choice(LETTERS) for _ in range(8))
            name = "".join(letter for letter in client if letter.isprintable())[:NAME_LIMIT].strip() or "a client"
            shown, ends = f"{code[:4]}-{code[4:]}", time.monotonic() + LIFE
            grant = Grant(secrets.token_urlsafe(32), shown, name, address, scope, ends)
            self._grants[code] = grant
        return DeviceCode(
            device_code=grant.device_code,
            user_code=grant.user_code,
            verification_uri=page,
            verification_uri_complete=f"{page}?code={grant.user_code}",
            expires_in=int(LIFE),
            interval=INTERVAL,
        )

    def token(self, device_code: str, operator: str) -> DeviceToken:
        """Return the token of a client that was approved, once.

        Parameters
        ----------
        operator : str
            The name of the server's operator.

        Raises
        ------
        AuthorizationPending, SlowDown
            If nobody has decided yet.
        AccessDenied
            If it was denied, or the approver has lost the right since.
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
        approver = self._credentials.again(grant.by, operator)
        if approver is None or not approver.may(access.GRANT) or not _covers(approver, grant.scope):
            raise AccessDenied(
                f"{grant.by.name} approved this login, and may not do so any more",
                hint="`lmvp login URL` begins again",
            )
        made = self._tokens.create_for_device(approver, grant.client, grant.scope)
        return DeviceToken(access_token=made.token, name=made.name, scope=made.scope)

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
                self._wrong.count(network_of(address))
                raise NotFound(f"no login waits under {user_code[:20]!r}", hint="codes live for ten minutes, and once")
            return grant

    def decide(
        self, caller: Caller, user_code: str, address: str, *, approve: bool, scope: str = "", password: str = ""
    ) -> DeviceDecision:
        """Approve or deny a client, and record the decision as an event.

        Parameters
        ----------
        password : str
            The caller's own password, as the proof that an approval needs; see `Tokens.prove`.
        scope : str
            The scope to approve, at most the one that the client asks for. Empty: that one, unless it is `admin`, which
            must be named.

        Raises
        ------
        InvalidArgument
            If there is no such scope, the client asks for less, or it asks for `admin` and `scope` is empty.
        AccessDenied
            If the caller may make no tokens, or none of this scope.
        ProofRequired
            If an approval lacks its proof. The code can still be decided.
        """
        access.require(caller, access.GRANT)
        grant = self.look(user_code, address)
        if approve:
            scope = _approved(grant, scope)
            if not _covers(caller, scope):
                raise AccessDenied(f"a token for scope {caller.scope!r} makes none for {scope!r}")
            self._tokens.prove(caller, password)
        with self._lock:
            if grant.approved is not None:
                raise NotFound("somebody else has decided about this login", hint="`lmvp login URL` begins again")
            after = {"address": grant.address, "scope": scope} if approve else {"address": grant.address}
            action = "device.approve" if approve else "device.deny"
            # Under the lock, and before the decision counts: a decision that cannot be recorded gives no token.
            self._records.commit(SERVER, [], [event(caller.name, action, grant.client, None, after)])
            grant.scope, grant.by, grant.approved = scope if approve else grant.scope, caller, approve
        return DeviceDecision(
            client_name=grant.client, address=grant.address, approved=approve, scope=scope if approve else ""
        )

    def _of_device(self, device_code: str) -> tuple[str, Grant]:
        for key, grant in self._grants.items():
            if secrets.compare_digest(grant.device_code.encode(), device_code.encode()):
                return key, grant
        raise ExpiredCode("this login has expired, or was used", hint="`lmvp login URL` begins again")

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


def _covers(caller: Caller, scope: str) -> bool:
    """Tell whether a caller has all rights that a token of some scope passes on."""
    return access.SCOPES[scope] <= access.SCOPES[caller.scope]


def _approved(grant: Grant, scope: str) -> str:
    """Return the scope that an approval gives a client."""
    if scope and scope not in access.SCOPES:
        raise InvalidArgument(f"no scope {scope[:40]!r}", hint=f"there are {', '.join(access.SCOPES)}")
    if not scope and grant.scope == "admin":
        raise InvalidArgument(
            f"{grant.client!r} asks for all rights of your account", hint="name the scope: `write`, or `admin`"
        )
    if scope and not access.SCOPES[scope] <= access.SCOPES[grant.scope]:
        raise InvalidArgument(f"{grant.client!r} asks for scope {grant.scope!r} only", hint=f"approve {grant.scope!r}")
    return scope or grant.scope
