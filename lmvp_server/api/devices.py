"""Handlers of device login, and its page."""

from __future__ import annotations

from functools import partial
from typing import Any

from lmvp.core import schemas
from lmvp.errors import LmvpError, NotAuthenticated
from lmvp_server.api.base import Handler
from lmvp_server.api.route import ANYONE, Route
from lmvp_server.services import access
from lmvp_server.web.base_page import Page

SCOPES = tuple(access.SCOPES)
"""In order of increasing rights."""


class DeviceCodesHandler(
    Handler,
    path="/device/code",
    routes=(
        Route(
            "POST",
            "Start a device login and return its code.",
            schemas.DeviceCode,
            request=schemas.AskCode,
            right=ANYONE,
            body_limit=4096,
            note='The default scope is `write`. See "Login by a code".',
        ),
    ),
):
    """The codes of device logins."""

    async def post(self) -> None:
        """Start a device login and return its code."""
        # The code is shown with the client's name and address, so that a user can recognize the request.
        asked, address = self.read(schemas.AskCode), self.request.remote_ip or ""
        page = f"{self.address_of_server()}/device"
        self.answer(await self.run(self.services.devices.begin, asked.client_name, address, page, asked.scope))


class DeviceTokensHandler(
    Handler,
    path="/device/token",
    routes=(
        Route(
            "POST",
            "Return the token of an approved device login.",
            schemas.DeviceToken,
            request=schemas.AskToken,
            right=ANYONE,
            body_limit=4096,
            note="400 `authorization_pending`, `slow_down` or `expired_token`; 403 `access_denied`.",
        ),
    ),
):
    """The tokens of device logins."""

    async def post(self) -> None:
        """Return the token of an approved device login."""
        operator = self.settings["owner"]
        self.answer(await self.run(self.services.devices.token, self.read(schemas.AskToken).device_code, operator))


class DeviceDecisionsHandler(
    Handler,
    path="/device/decision",
    routes=(
        Route(
            "POST",
            "Approve or deny a device login.",
            schemas.DeviceDecision,
            request=schemas.Decide,
            right=access.GRANT,
            admission=access.ENTER,
            note='`scope` is at most the requested one, and required for `admin`. See "Changes of an account".',
        ),
    ),
):
    """Decisions on device logins."""

    async def post(self) -> None:
        """Approve or deny a device login."""
        # Hashing the current password is expensive, so it runs in the queue for passwords.
        asked, address = self.read(schemas.Decide), self.request.remote_ip or ""
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
