"""Login with a device code (RFC 8628): a client without a token waits until a signed-in user approves or denies it.

An approval is valid only as long as the approver's account and the token or session that approved are valid.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from threading import Lock

from lmvp.core.schemas import DeviceCode, DeviceDecision, DeviceToken
from lmvp.errors import (
    AccessDenied,
    AuthorizationPending,
    ExpiredCode,
    InvalidArgument,
    NotFound,
    SlowDown,
    TooManyRequests,
)
from lmvp_server.services import access
from lmvp_server.services.access import Caller
from lmvp_server.services.audit import event
from lmvp_server.services.catalog import SERVER
from lmvp_server.services.rate_limit import Throttle, network_of
from lmvp_server.services.sessions import Credentials
from lmvp_server.services.tokens import NAME_LIMIT, Tokens
from lmvp_server.stores.base import RecordStore

LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
"""The letters of codes: without vowels, so that a code is not a word, and without letters that look like others (RFC
8628, section 6.1)."""

LIFE, INTERVAL, SLOWER = 600.0, 5, 5
"""Seconds: the lifetime of a code, the polling interval, and its increase for a client that polls too often (RFC 8628,
section 3.5)."""

OFTEN, MINUTE = 10, 60.0
"""Logins that an address can start, and wrong codes that it can try, per number of seconds."""

MOST, MOST_OF_ADDRESS = 1000, 20
"""Logins that can wait at once: in total, which limits the memory, and per address, so that one cannot block others."""


@dataclass
class Grant:
    """A login that waits for a decision, or for its client to fetch the token.

    Attributes
    ----------
    device_code : str
        The secret with which the client polls.
    user_code : str
        The code that the user enters.
    client : str
        The name that the client states. The server does not check it.
    address : str
        The address of the client.
    scope : str
        The scope that the client requests; after the approval, the scope of its token.
    ends : float
        When the code expires, in seconds of the monotonic clock.
    interval : int
        Seconds between two polls.
    asked : float
        The time of the last poll, in seconds of the monotonic clock.
    approved : bool or None
        The decision; None before it.
    by : Caller or None
        The approver, with its rights at the time of the approval.
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
    """Use cases of logins with a device code. Pending logins are in memory: a restart of the server drops them."""

    def __init__(self, records: RecordStore, tokens: Tokens, credentials: Credentials) -> None:
        self._records, self._tokens, self._credentials = records, tokens, credentials
        self._grants: dict[str, Grant] = {}
        self._begun = Throttle(OFTEN, MINUTE, "logins begun from this address")
        self._wrong = Throttle(OFTEN, MINUTE, "wrong codes from this address")
        self._lock = Lock()

    def begin(self, client: str, address: str, page: str, scope: str = access.LOGIN_SCOPE) -> DeviceCode:
        """Start a login, and return its codes.

        Parameters
        ----------
        client : str
            The name that the client states. The server does not check it.
        address : str
            The address of the client, for the limits and the audit log.
        page : str
            The URL of the page where the user enters the code.
        scope : str, default "write"
            The scope of the requested token.

        Raises
        ------
        InvalidArgument
            If there is no such scope.
        TooManyRequests
            If too many logins wait, or this address started too many.
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
        """Create and return the token of an approved client. This works once.

        Parameters
        ----------
        device_code : str
            The secret of the client.
        operator : str
            The name of the server's operator.

        Raises
        ------
        AuthorizationPending
            If there is no decision yet.
        SlowDown
            If there is no decision yet, and the client polls too often.
        AccessDenied
            If the login was denied, or the approver has lost the right since.
        ExpiredCode
            If the code has expired, or the token was fetched already.
        """
        with self._lock:
            self._forget_old()
            key, grant = self._of_device(device_code)
            if grant.approved is None:
                raise self._not_yet(grant)
            del self._grants[key]  # under the lock, so that two requests cannot both get a token
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
        """Return the login that waits for a decision under a code.

        Raises
        ------
        NotFound
            If there is no such login.
        TooManyRequests
            After too many wrong codes from this address.
        """
        # Users type codes in small letters, with spaces or without the dash.
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
        approve : bool
            True to approve, False to deny.
        scope : str, default ""
            The scope to approve, at most the requested one. Empty approves the requested scope, except `admin`, which
            must be stated.
        password : str, default ""
            The caller's password, for the proof that an approval needs; see `Tokens.prove`.

        Raises
        ------
        InvalidArgument
            If there is no such scope, the client requests less, or it requests `admin` and `scope` is empty.
        AccessDenied
            If the caller cannot create tokens, or not of this scope.
        ProofRequired
            If an approval lacks its proof. The login then still waits for a decision.
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
            # Under the lock, and before the decision takes effect: without an event, there must not be a token.
            self._records.commit(SERVER, [], [event(caller.name, action, grant.client, None, after)])
            grant.scope, grant.by, grant.approved = scope if approve else grant.scope, caller, approve
        return DeviceDecision(
            client_name=grant.client, address=grant.address, approved=approve, scope=scope if approve else ""
        )

    def _of_device(self, device_code: str) -> tuple[str, Grant]:
        # Compared in constant time, because the device code is a secret.
        for key, grant in self._grants.items():
            if secrets.compare_digest(grant.device_code.encode(), device_code.encode()):
                return key, grant
        raise ExpiredCode("this login has expired, or was used", hint="`lmvp login URL` begins again")

    def _not_yet(self, grant: Grant) -> AuthorizationPending:
        asked, grant.asked = grant.asked, time.monotonic()
        if grant.asked - asked < grant.interval - 0.5:  # half a second of tolerance for delays on the network
            grant.interval += SLOWER
            return SlowDown(f"asked too often; every {grant.interval} seconds is enough")
        return AuthorizationPending("nobody has decided yet")

    def _forget_old(self) -> None:
        at = time.monotonic()
        for key in [key for key, grant in self._grants.items() if grant.ends < at]:
            del self._grants[key]


def _covers(caller: Caller, scope: str) -> bool:
    """Return whether the caller's scope allows all rights of another scope."""
    return access.SCOPES[scope] <= access.SCOPES[caller.scope]


def _approved(grant: Grant, scope: str) -> str:
    """Return the scope that an approval grants."""
    if scope and scope not in access.SCOPES:
        raise InvalidArgument(f"no scope {scope[:40]!r}", hint=f"there are {', '.join(access.SCOPES)}")
    if not scope and grant.scope == "admin":
        raise InvalidArgument(
            f"{grant.client!r} asks for all rights of your account", hint="name the scope: `write`, or `admin`"
        )
    if scope and not access.SCOPES[scope] <= access.SCOPES[grant.scope]:
        raise InvalidArgument(f"{grant.client!r} asks for scope {grant.scope!r} only", hint=f"approve {grant.scope!r}")
    return scope or grant.scope
