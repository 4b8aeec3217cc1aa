"""Handlers of device login, its page, tokens and OpenID identities."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from lmvp.core.schemas import (
    AskCode,
    AskToken,
    Decide,
    Disconnect,
    MakeToken,
)
from lmvp.errors import LmvpError, NotAuthenticated
from lmvp_server.api.base import Handler
from lmvp_server.api.query import PAGE, Parameter, Text
from lmvp_server.services import access
from lmvp_server.web.base_page import Page

SCOPES = tuple(access.SCOPES)
"""In order of increasing rights."""


class DeviceCodes(Handler):
    """`/device/code`."""

    open_to_all = True
    body_limit = 4096

    async def post(self) -> None:
        """Start a device login and return its code."""
        # The code is shown with the client's name and address, so that a user can recognize the request.
        asked, address = self.read(AskCode), self.request.remote_ip or ""
        page = f"{self.address_of_server()}/device"
        self.answer(await self.run(self.services.devices.begin, asked.client_name, address, page, asked.scope))


class DeviceTokens(Handler):
    """`/device/token`."""

    open_to_all = True
    body_limit = 4096

    async def post(self) -> None:
        """Return the token of an approved device login."""
        operator = self.settings["owner"]
        self.answer(await self.run(self.services.devices.token, self.read(AskToken).device_code, operator))


class DeviceDecisions(Handler):
    """`/device/decision`."""

    needs: ClassVar[Mapping[str, str]] = {"POST": access.ENTER}

    async def post(self) -> None:
        """Approve or deny a device login."""
        # Hashing the current password is expensive, so it runs in the queue for passwords.
        asked, address = self.read(Decide), self.request.remote_ip or ""
        decide = partial(self.services.devices.decide, approve=asked.approve, scope=asked.scope)
        run = self.run_password if asked.current_password else self.run
        proven = partial(decide, password=asked.current_password)
        self.answer(await run(proven, self.caller, asked.user_code, address))


class DevicePage(Page):
    """`/device`: the page for entering a device code. A decision needs a session or a token."""

    body_limit = 4096

    async def get(self) -> None:
        """Show the form for a code, or the client that waits under a code."""
        await self._page(self.get_query_argument("code", "")[:40])

    async def post(self) -> None:
        """Approve or deny the device login of a code."""
        fields = self.form()
        code, token, verdict, scope = (fields.get(name, "") for name in ("code", "token", "verdict", "scope"))
        password = fields.get("old", "")
        run = self.run_password if password else self.run
        try:
            caller = self.caller if self.caller.known else self.caller_of(token.strip())
            decide = partial(self.services.devices.decide, approve=verdict == "approve", scope=scope, password=password)
            done = await run(decide, caller, code, self.address)
        except NotAuthenticated:
            self.set_status(403)
            await self._page(code, wrong="This token is not known here.")
        except LmvpError as error:
            self.set_error_status(error)
            await self._page(code, wrong=str(error))
        else:
            self._show(done=done)

    async def _page(self, code: str, wrong: str = "") -> None:
        grant = None
        if code:
            try:
                grant = await self.run(self.services.devices.look, code, self.address)
            except LmvpError as error:
                wrong = wrong or (f"{error.message}: {error.hint}" if error.hint else error.message)
        self._show(code=code, grant=grant, wrong=wrong)

    def _show(self, **known: Any) -> None:
        must_prove = self.services.tokens.must_prove(self.caller)
        fields = {"code": "", "grant": None, "wrong": "", "done": None, "known": self.caller.known, **known}
        fields["must_prove"] = must_prove
        grant = fields["grant"]
        # The user can reduce the scope that the client requests, but not extend it.
        scopes = SCOPES[: SCOPES.index(grant.scope) + 1] if grant else ()
        self.show("device.html", scopes=scopes, **fields)


class TokenList(Handler):
    """`/tokens`."""

    queries: ClassVar[Mapping[str, tuple[Parameter[Any], ...]]] = {"GET": PAGE}
    needs: ClassVar[Mapping[str, str]] = {"POST": access.GRANT}

    async def get(self) -> None:
        """List tokens."""
        self.answer(await self.run(self.services.tokens.every, self.caller, self.page()))

    async def post(self) -> None:
        """Create a token."""
        # Creating a token can require the current password, so that an unattended session is not sufficient.
        asked = self.read(MakeToken)
        run = self.run_password if asked.current_password else self.run
        self.answer(await run(self.services.tokens.create, self.caller, asked), 201)


class Token(Handler):
    """`/tokens/{token}`."""

    async def delete(self, token: str) -> None:
        """Revoke a token."""
        await self.run(self.services.tokens.revoke, self.caller, token)
        self.set_status(204)
        self.finish()


USER: Text[str] = Text(name="user", description="For admins: only the identities of this account.")


class IdentityList(Handler):
    """`/identities`."""

    queries: ClassVar[Mapping[str, tuple[Parameter[Any], ...]]] = {"GET": (*PAGE, USER)}

    async def get(self) -> None:
        """List the OpenID identities of the caller's account; for admins, of all accounts."""
        user = self.query(USER)
        self.answer(await self.run(self.services.identities.every, self.caller, self.page(), user))


class Identity(Handler):
    """`/identities/{identity}`."""

    async def delete(self, identity: str) -> None:
        """Disconnect an identity from its account."""
        given = self.read(Disconnect) if self.has_body else Disconnect()
        disconnect, password = self.services.identities.disconnect, given.current_password
        run = self.run_password if password else self.run
        await run(disconnect, self.caller, identity, self.issuer, password)
        self.set_status(204)
        self.finish()
