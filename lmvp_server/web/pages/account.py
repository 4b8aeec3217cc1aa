"""The page of the caller's account: tokens, connected identities, password and sessions."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import msgspec

from lmvp.core.sanitize import short
from lmvp.core.schemas import Ended, MakeToken, UserChange
from lmvp.errors import InvalidArgument
from lmvp_server.services.access import LEAST_SCOPE, SCOPES
from lmvp_server.services.paging import Page
from lmvp_server.web.pages.base import ConsolePage, Fields, PageContext

TOKENS = 1000


class AccountPage(ConsolePage):
    """`/account`."""

    actions: ClassVar[frozenset[str]] = frozenset({"make_token", "revoke", "disconnect", "set_password", "leave_all"})

    def initialize(self) -> None:
        """Initialize the state of a request."""
        super().initialize()
        self._made = ""
        self._session = ""
        self._said = ""

    def context(self) -> PageContext:  # type: ignore[override]
        """Return the account, its tokens and its identities."""
        me = self.services.users.me(self.caller)
        found = self.services.tokens.every(self.caller, Page(TOKENS))["items"]
        name = me.name if self.caller.user else ""
        own = [one for one in found if one.user == name]
        identities = self.services.identities.every(self.caller, Page(TOKENS), name)["items"] if name else []
        return "account.html", {
            "me": me,
            "tokens": own,
            "identities": identities,
            "short": short,
            "made": self._made,
            "said": self._said,
            "must_prove": not (self.caller.is_operator or self.caller.is_fresh),
            "scopes": tuple(SCOPES),
            "least": LEAST_SCOPE,
            "server": self.address_of_server(),
        }

    def make_token(self, fields: Fields) -> str:
        """Create a token. Only this response shows its secret."""
        days = fields.get("days", "").strip()
        if days and not (days.isascii() and days.isdigit() and len(days) < 6):
            raise InvalidArgument(f"{days[:20]!r} is not a number of days", hint="90, or nothing: it does not expire")
        asked = MakeToken(
            name=fields.get("name", "").strip(),
            expires_days=int(days) if days else None,
            scope=fields.get("scope", ""),
            project=fields.get("project", "").strip(),
            current_password=fields.get("old", ""),
        )
        self._made = self.services.tokens.create(self.caller, asked).token
        return ""

    def revoke(self, fields: Fields) -> str:
        """Revoke a token."""
        self.services.tokens.revoke(self.caller, fields.get("token", ""))
        return "account"

    def disconnect(self, fields: Fields) -> str:
        """Disconnect an identity. If the session was started with it, the session continues under a new secret."""
        identities = self.services.identities
        identities.disconnect(self.caller, fields.get("identity", ""), self.issuer, fields.get("old", ""))
        # The identity's sessions are closed, possibly including this one.
        if self._by_session and self.services.sessions.caller(self.session, self.settings["owner"]) is None:
            self._session = self.services.sessions.renew(self.caller, self.address)
        return "account"

    def set_password(self, fields: Fields) -> str:
        """Change the password of the account. This session continues under a new secret; all others are closed."""
        users, caller = self.services.users, self.caller  # read once: the change closes the caller's session
        given = UserChange(
            password=fields.get("new", ""),
            current_password=fields.get("old", ""),
            keep_tokens=fields.get("keep_tokens") == "1",
            keep_identities=fields.get("keep_identities") == "1",
        )
        changed = users.change(caller, users.me(caller).name, given)
        if self._by_session:
            self._session = self.services.sessions.renew(caller, self.address)
        ended = changed.ended or Ended()
        if self._by_session:  # this session was replaced, not closed
            ended = msgspec.structs.replace(ended, sessions=max(ended.sessions - 1, 0))
        self._said = f"Your password is changed. Ended: {ended}."
        return "account"

    def leave_all(self, _fields: Fields) -> str:
        """Close all sessions of the account."""
        self.services.sessions.end_all(self.caller)
        return "login"

    async def done(self, where: str, place: tuple[str, ...]) -> None:
        """Show a new token, which is shown only once, or the result of a password change."""
        if self._session:
            self.enter(self._session)
            found = self.services.sessions.caller(self._session, self.settings["owner"])
            if found is not None:
                self.caller = replace(found, roles=self.services.roles)
        if self._made or self._said:
            await self._draw(place)
        else:
            await super().done(where, place)
