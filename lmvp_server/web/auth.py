"""Handlers of sign-in and sign-out: login form, sign-in links, logout and invitations."""

from __future__ import annotations

from lmvp.errors import AccessDenied, LmvpError, NotAuthenticated
from lmvp_server.http.peers import is_other_user
from lmvp_server.services.sessions import INVITATION
from lmvp_server.services.signin_links import OtherAccount
from lmvp_server.web.base_page import WebPage, within


class LoginPage(WebPage):
    """`/login`."""

    async def get(self) -> None:
        """Show the login form."""
        self._ask(self.get_query_argument("next", "."))

    async def post(self) -> None:
        """Start a session, with name and password or with a token that has all rights of its account."""
        fields = self.form()
        name, after = fields.get("name", "").strip(), fields.get("next", ".")
        try:
            run = self.run if fields.get("token", "").strip() else self.run_password
            secret = await run(self._begin, name, fields)
        except LmvpError as error:
            self.set_error_status(error)
            self._ask(after, name=name, wrong=f"{error.message}.".capitalize(), token=bool(fields.get("token")))
        else:
            self.enter(secret)
            self.go(after)

    def _begin(self, name: str, fields: dict[str, str]) -> str:
        sessions, token = self.services.sessions, fields.get("token", "").strip()
        if not token:
            return sessions.begin(name, fields.get("password", ""), self.address)
        try:
            return sessions.open_by_token(self.caller_of(token), self.address)
        except NotAuthenticated:
            # An invalid token counts as a failed sign-in of the address, which limits guessing.
            self.services.passwords.failed(self.address)
            raise

    def _ask(self, after: str, *, name: str = "", wrong: str = "", token: bool = False) -> None:
        # Without accounts, only the operator can sign in, with a token.
        accounts = bool(self.services.users.any())
        self.show(
            "login.html",
            after=within(after),
            name=name,
            wrong=wrong,
            by_token=token or not accounts,
        )


class SignInLinkPage(WebPage):
    """`/open`: the page of a sign-in link.

    The code is in the fragment of the URL (after `#`), which browsers do not send. It is therefore in no log and no
    `Referer`. A script of the page sends it by POST, which a prefetch of the link does not do.
    """

    async def get(self) -> None:
        """Show the form that the script fills in."""
        self._ask()

    async def post(self) -> None:
        """Start the session of a sign-in link."""
        fields = self.form()
        # `change` confirms that the session can switch to another account.
        code, change = fields.get("code", "").strip()[:200], bool(fields.get("change"))
        # On a shared machine, the link of the embedded server must not sign in another local user.
        if is_other_user(self.request, self.settings["server"]):
            raise AccessDenied("this server belongs to another user of this machine")
        redeem, operator = self.services.signin_links.redeem, self.settings["owner"]
        current = self.caller if self._by_session else self._nobody()
        try:
            done = await self.run(lambda: redeem(code, current, self.session, self.address, operator, change=change))
        except OtherAccount as error:
            self.set_status(error.http_status)
            self._ask(code=code, other=error)
        except LmvpError as error:
            self.set_error_status(error)
            self._ask(wrong=error)
        else:
            if done.secret:
                self.enter(done.secret)
            self.go(done.page or ".")

    def _ask(self, *, code: str = "", wrong: LmvpError | None = None, other: OtherAccount | None = None) -> None:
        self.show("open.html", code=code, wrong=wrong, other=other)


class LogoutPage(WebPage):
    """`/logout`."""

    async def post(self) -> None:
        """Close the session; with `everywhere`, close all sessions of the account."""
        fields = self.form()
        if fields.get("everywhere") and self.caller.known:
            await self.run(self.services.sessions.end_all, self.caller)
        elif self.session:
            await self.run(self.services.sessions.end, self.session, self.caller.name)
        self.leave()
        self.go("login")


class JoinPage(WebPage):
    """`/join`: the page of an invitation."""

    async def get(self) -> None:
        """Show the invitation."""
        await self._ask(self.get_query_argument("code", "")[:100])

    async def post(self) -> None:
        """Accept the invitation with the signed-in account, or create an account and start its session."""
        fields = self.form()
        code, name = fields.get("code", "")[:100], fields.get("name", "").strip()
        if fields.get("as_me"):
            await self._join_as_me(code)
            return
        try:
            accept = self.services.invitations.accept
            password, operator = fields.get("password", ""), self.settings["owner"]
            account = await self.run_password(accept, code, name, password, self.address, operator)
            secret = await self.run(self.services.sessions.open, account, self.address, INVITATION)
        except LmvpError as error:
            self.set_error_status(error)
            await self._ask(code, name=name, wrong=str(error))
        else:
            self.enter(secret)
            self.go(".")

    async def _join_as_me(self, code: str) -> None:
        try:
            await self.run(self.services.invitations.accept_as, self.caller, code, self.address)
        except LmvpError as error:
            self.set_status(error.http_status)
            await self._ask(code, wrong=str(error))
        else:
            self.go(".")

    async def _ask(self, code: str, *, name: str = "", wrong: str = "") -> None:
        found = None
        try:
            found = await self.run(self.services.invitations.look, code, self.address)
        except LmvpError as error:
            self.set_status(error.http_status)
            wrong = f"{error.message}: {error.hint}"
        self.show("join.html", code=code, invitation=found, name=name, wrong=wrong)
