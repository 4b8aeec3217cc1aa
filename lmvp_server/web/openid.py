"""Pages of the sign-in with OpenID Connect: the redirect to the provider, and the return from it."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from lmvp.errors import AccessDenied, LmvpError, NotAuthenticated, NotFound
from lmvp_server.services import access
from lmvp_server.services.sessions import PROVIDER
from lmvp_server.web.base_page import WebPage, within

if TYPE_CHECKING:
    from lmvp_server.services.access import Caller
    from lmvp_server.services.identities import Identity
    from lmvp_server.web.openid_client import Begun, OpenId

_COOKIE = "lmvp_openid"
"""Name of the cookie that binds a sign-in to the browser that started it."""


class _OpenIdPage(WebPage):
    @property
    def openid(self) -> OpenId:
        """The client of the OpenID provider."""
        found: OpenId | None = self.settings["openid"]
        if found is None:
            raise NotFound("this server has no OpenID provider", hint="`lmvp server --openid ISSUER` configures one")
        return found

    @property
    def back(self) -> str:
        """The redirect URI of the provider. It is below `--public-url`, if that is set."""
        known = self.settings["server"].public_url or f"{self.request.protocol}://{self.request.host}"
        return f"{known}/openid-back"

    def refuse(self, error: LmvpError, after: str = ".") -> None:
        """Show the login page with the error, so that the user can sign in another way."""
        self.set_status(error.http_status)
        hint = f": {error.hint}" if error.hint else ""
        wrong = f"{error.message}{hint}."
        self.show("login.html", after=within(after), name="", wrong=wrong[:1].upper() + wrong[1:], by_token=False)


class OpenIdBeginPage(_OpenIdPage):
    """`/openid`."""

    async def get(self) -> None:
        """Redirect a browser to the provider; with `connect`, to connect the account of its session."""
        given = self.get_query_argument("connect", "")
        if given and not (self.caller.user and self.is_ours({"_xsrf": given})):
            raise AccessDenied("this link is not from a page of your session", hint="load the page again")
        if given:
            access.require(self.caller, access.ACCOUNT)
        # A connected identity is a permanent way to sign in, so a stolen session must not be able to add one.
        if given and not self.caller.is_fresh:
            raise AccessDenied(
                "connecting a provider needs a sign-in within the last ten minutes", hint="sign out, and in again"
            )
        # The cookie must match at the return, so that nobody can complete a sign-in in the browser of another user.
        browser, after = secrets.token_urlsafe(32), within(self.get_query_argument("next", "."))
        try:
            url = await self.openid.run(self._begin, browser, after, self.caller if given else None)
        except LmvpError as error:
            self.refuse(error, after)
            return
        self.set_cookie(self.cookie_name(_COOKIE), browser, max_age=600, **self.cookie_options())
        self.redirect(url, status=303)

    def _begin(self, browser: str, after: str, caller: Caller | None) -> str:
        code = self.get_query_argument("code", "")[:100]
        return self.openid.begin(browser, self.back, address=self.address, after=after, invitation=code, caller=caller)


class OpenIdReturnPage(_OpenIdPage):
    """`/openid-back`."""

    async def get(self) -> None:
        """Start a session of the user whom the provider authenticated."""
        browser = self.get_cookie(self.cookie_name(_COOKIE), "") or ""
        # A sign-in can be completed only once.
        self.clear_cookie(self.cookie_name(_COOKIE), **self.cookie_options())
        answer = {name: self.get_query_argument(name) for name in ("state", "code", "iss") if name in self._asked()}
        try:
            begun, identity = await self.openid.run(self.openid.end, browser, answer)
            secret = await self.run(self._enter, begun, identity)
        except LmvpError as error:
            if isinstance(error, NotAuthenticated):
                await self.run(self.services.passwords.failed, self.address)
            self.refuse(error)
        else:
            self.enter(secret)
            self.go(begun.after)

    def _asked(self) -> set[str]:
        return set(self.request.query_arguments)

    def _enter(self, begun: Begun, identity: Identity) -> str:
        identities, operator = self.services.identities, self.settings["owner"]
        if begun.caller is not None:
            # The session can have ended, or changed to another account, while the user was at the provider.
            if self.caller.user != begun.caller.user:
                raise NotAuthenticated("the session that began to connect its account has ended", hint="log in again")
            account = identities.connect(begun.caller, identity, operator)
        else:
            # An unknown identity needs an invitation, unless the operator allows sign-up.
            free = self.openid.provider.sign_up
            account = identities.account(identity) or identities.sign_up(
                identity, begun.invitation, self.address, operator, free=free
            )
        return self.services.sessions.open(account, self.address, PROVIDER, identity.id)
