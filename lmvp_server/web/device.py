"""The page for entering the code of a device login."""

from __future__ import annotations

from functools import partial
from typing import Any

from lmvp.errors import LmvpError, NotAuthenticated
from lmvp_server.services import access
from lmvp_server.web.base_page import WebPage

SCOPES = tuple(access.SCOPES)
"""In order of increasing rights."""


class DevicePage(WebPage):
    """`/device`: the page for entering a device code. A decision needs a session or a token."""

    body_limit = 4096

    async def get(self) -> None:
        """Show the form for a device code, or the client that waits for a decision about this code."""
        await self._page(self.get_query_argument("code", "")[:40])

    async def post(self) -> None:
        """Approve or deny the login for a device code."""
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
