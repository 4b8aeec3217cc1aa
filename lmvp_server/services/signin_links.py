"""One-time sign-in links. `lmvp open` creates one with its token, and a browser redeems it for a session.

A code is redeemed with POST, so that a preview or prefetch of the link does not use it up. The session has the rights
of the token that created the link, and ends with that token.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass, replace

from lmvp.core.schemas import NewSignInLink, SignInLink
from lmvp.errors import AccessDenied, Conflict, NotAuthenticated
from lmvp_server.services import access
from lmvp_server.services.access import Caller
from lmvp_server.services.audit import event
from lmvp_server.services.catalog import SERVER
from lmvp_server.services.rate_limit import Throttle
from lmvp_server.services.sessions import Credentials, Sessions, session_id
from lmvp_server.stores.base import Change, ConcurrentChange, Delete, Put, Record, RecordStore

LIFE = 300.0
"""The lifetime of a link in seconds: enough to copy it from a terminal on another machine."""
OFTEN, MINUTE = 30, 60.0  # links of an account in a window of seconds
_TABLE = "signin_links"
_AGAIN = "`lmvp open` makes another link"


@dataclass(frozen=True, slots=True)
class Redeemed:
    """The result of a redeemed link.

    Attributes
    ----------
    secret : str
        The secret of the new session. Empty if the browser keeps its session.
    page : str
        The page to open, relative to the first page.
    """

    secret: str
    page: str


class OtherAccount(Conflict):
    """The browser is signed in as another account, and the user has not confirmed the change.

    Without this check, an attacker could send a link that signs the reader in to the attacker's account.
    """

    def __init__(self, now: str, then: str) -> None:
        super().__init__(f"this browser is signed in as {now}, and the link is for {then}")
        self.then = then


class SignInLinks:
    """Use cases of sign-in links. Only the digest of a code is stored."""

    def __init__(self, records: RecordStore, credentials: Credentials, sessions: Sessions) -> None:
        self._records, self._credentials, self._sessions = records, credentials, sessions
        self._made = Throttle(OFTEN, MINUTE, "sign-in links of this account")

    def create(self, caller: Caller, asked: NewSignInLink) -> SignInLink:
        """Create a link for the caller's token. Only this answer contains its code.

        Raises
        ------
        AccessDenied
            If the caller has no token.
        TooManyRequests
            If the account created too many links.
        """
        access.require(caller, access.ENTER)
        if caller.credential.partition(":")[0] not in {"token", "own"}:
            raise AccessDenied("a sign-in link needs a token", hint="`lmvp login URL` gets one")
        self._made.count(caller.holder)
        code, at = secrets.token_urlsafe(32), time.time()
        data = {
            "user": caller.holder,
            "generation": caller.generation,
            "name": caller.name,
            "token": caller.credential,
            "page": asked.page,
            "ends": at + LIFE,
            "used": False,
            "session": "",
        }
        changes: list[Change] = [Put(_TABLE, _digest(code), data, expect=0)]
        changes += [Delete(_TABLE, one.id) for one in self._records.find(SERVER, _TABLE) if one.data["ends"] < at]
        entry = event(caller.name, "session.link", asked.page or "the first page")
        self._records.commit(SERVER, changes, [entry], check=access.still(caller, access.ENTER))
        return SignInLink(code=code, expires_in=int(LIFE))

    def redeem(
        self, code: str, current: Caller, session: str, address: str, operator: str, *, change: bool = False
    ) -> Redeemed:
        """Redeem a link for a session. This works once.

        A second use ends the session that the first one opened, except when the same browser loads the link again:
        one of the two browsers is not the user's (compare RFC 6749, section 4.1.2, for OAuth codes).

        Parameters
        ----------
        code : str
            The code of the link.
        current : Caller
            The caller of the browser's session, or an anonymous one.
        session : str
            The secret of that session.
        address : str
            The address of the browser.
        operator : str
            The name of the server's operator.
        change : bool, default False
            Sign in although the browser is signed in as another account.

        Raises
        ------
        NotAuthenticated
            If the link has expired or was used, or its token has ended.
        OtherAccount
            If the browser is signed in as another account and `change` is False. The link can still be used.
        """
        found = self._records.get(SERVER, _TABLE, _digest(code))
        if found is None or found.data["ends"] < time.time():
            raise NotAuthenticated("this link has expired, or was used", hint=_AGAIN)
        if found.data["used"]:
            return self._used_again(found, session)
        by = self._maker(found, operator)
        if by is None:
            raise NotAuthenticated("the token that made this link has ended", hint=f"{_AGAIN}, after `lmvp login URL`")
        if current.known and current.holder != by.holder and not change:
            raise OtherAccount(current.name, by.name)
        # Keep a session that has all rights: the token's session can have fewer rights or end earlier.
        stays = current.known and current.holder == by.holder and current.scope == "admin" and not current.only
        secret = "" if stays else secrets.token_urlsafe(32)
        used = {**found.data, "used": True, "session": session_id(secret) if secret else ""}
        mark = Put(_TABLE, found.id, used, expect=found.rev)
        try:  # one commit: only one of two browsers gets the session, and a second use finds which session to end
            if secret:
                self._sessions.open_for_token(by, address, secret, [mark])
            else:
                self._records.commit(SERVER, [mark])
        except ConcurrentChange:
            used_now = self._records.get(SERVER, _TABLE, found.id)
            return self._used_again(used_now or found, session)
        return Redeemed(secret, found.data["page"])

    def _used_again(self, found: Record, session: str) -> Redeemed:
        begun = found.data["session"]
        if begun and session and session_id(session) == begun:
            return Redeemed("", found.data["page"])
        if begun and self._records.get(SERVER, "sessions", begun) is not None:
            entry = event(found.data["name"], "session.end", "a session whose sign-in link was used twice")
            self._records.commit(SERVER, [Delete("sessions", begun)], [entry])
        raise NotAuthenticated("this link was used; the session that it began has ended", hint=_AGAIN)

    def _maker(self, found: Record, operator: str) -> Caller | None:
        """Return the caller whose token created a link, with its current rights; None if the token has ended."""
        data, kind = found.data, found.data["token"].partition(":")[0]
        if kind == "own":
            if self._sessions.operator_credential not in {"", data["token"]}:
                return None
            return Caller(operator, is_operator=True, scope="admin", credential=data["token"])
        # `again` compares holder and generation. Scope and roles come from the current token.
        then = Caller(data["name"], scope="read", credential=data["token"], generation=data["generation"])
        holder = {"owner": True} if data["user"] == access.OPERATOR else {"user": data["user"]}
        return self._credentials.again(replace(then, **holder), operator)


def _digest(code: str) -> str:
    """Return the digest of a code. 256 random bits need no salt, no slow hash and no limit of attempts."""
    return hashlib.sha256(code.encode()).hexdigest()
