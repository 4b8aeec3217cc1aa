"""The page of one's own account: tokens, password, sessions."""

from __future__ import annotations

from typing import ClassVar

from lmvp.errors import InvalidArgument
from lmvp.records import MakeToken, UserChange
from lmvp_server.handlers.console.base import ConsolePage, Fields, Shown
from lmvp_server.services.paging import Page

TOKENS = 1000


class Account(ConsolePage):
    """`/account`."""

    acts: ClassVar[frozenset[str]] = frozenset({"make_token", "revoke", "set_password", "leave_all"})

    def initialize(self) -> None:
        """Begin a request."""
        super().initialize()
        self._made = ""

    def look(self) -> Shown:  # type: ignore[override]
        """Return who one is, and one's tokens."""
        me = self.services.users.me(self.caller)
        found = self.services.tokens.every(self.caller, Page(TOKENS))["items"]
        name = me.name if self.caller.user else ""
        own = [one for one in found if one.user == name]
        return "account.html", {"me": me, "tokens": own, "made": self._made, "server": self.address_of_server()}

    def make_token(self, fields: Fields) -> str:
        """Make a token; its secret is shown this once."""
        days = fields.get("days", "").strip()
        if days and not (days.isascii() and days.isdigit() and len(days) < 6):
            raise InvalidArgument(f"{days[:20]!r} is no number of days", hint="90, or nothing: it does not expire")
        asked = MakeToken(
            name=fields.get("name", "").strip(),
            expires_days=int(days) if days else None,
            scope=fields.get("scope", ""),
            project=fields.get("project", "").strip(),
        )
        self._made = self.services.tokens.create(self.caller, asked).token
        return ""

    def revoke(self, fields: Fields) -> str:
        """Let a token be worth nothing."""
        self.services.tokens.revoke(self.caller, fields.get("token", ""))
        return "account"

    def set_password(self, fields: Fields) -> str:
        """Change one's password; who knows the old one may."""
        users, me = self.services.users, self.services.users.me(self.caller)
        if users.verify(me.name, fields.get("old", "")) is None:
            raise InvalidArgument("the old password is another one", hint="an admin can set a new one")
        users.change(self.caller, me.name, UserChange(password=fields.get("new", "")))
        return "login"

    def leave_all(self, _fields: Fields) -> str:
        """Sign out everywhere."""
        self.services.sessions.end_all(self.caller)
        return "login"

    async def done(self, where: str, place: tuple[str, ...]) -> None:
        """Show a token that was made: it cannot be asked for again."""
        if self._made:
            await self._draw(place)
        else:
            await super().done(where, place)
