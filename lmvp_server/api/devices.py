"""Routes of device login."""

from __future__ import annotations

from functools import partial

from lmvp.core import schemas
from lmvp_server.api.base import Handler
from lmvp_server.api.route import ANYONE, Route
from lmvp_server.services import access


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
