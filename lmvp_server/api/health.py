"""Routes of the server itself: its health, which also verifies that it is the one of `server.json`, and OpenAPI."""

from __future__ import annotations

import msgspec

import lmvp
from lmvp.core import schemas
from lmvp.core.server_file import proof
from lmvp_server.api.base import Handler
from lmvp_server.api.query import Text
from lmvp_server.api.route import ANYONE, Route
from lmvp_server.services import access

API = 1
"""Version of the HTTP API, the `1` of `/api/v1`."""

NONCE: Text[str] = Text(
    name="nonce",
    description="A random text, new for each request; the answer then has `proof` and `bound`.",
    pattern="[0-9a-f]{16,128}",
    rule="a nonce of 16 to 128 hex digits in lower case",
)


class HealthHandler(
    Handler,
    path="/health",
    routes=(
        Route(
            "GET",
            "Return the health of the server.",
            schemas.Health,
            right=ANYONE,
            query=(NONCE,),
            note="`proof` is HMAC-SHA256(token, nonce), `bound` HMAC-SHA256(token, nonce + space + instance).",
        ),
    ),
):
    """The health of the server. A proof is valid for its nonce only, so it cannot be replayed."""

    def get(self) -> None:
        """Return the health of the server."""
        server = self.settings["server"]
        nonce = self.query(NONCE)
        token, instance = server.token, server.instance
        health = schemas.Health(status="ok", version=lmvp.__version__, api=API, instance=instance)
        # The proof shows that this server knows its token, without sending the token.
        if nonce:
            proved = {"proof": proof(token, nonce), "bound": proof(token, nonce, instance)}
            health = msgspec.structs.replace(health, **proved)
        self.answer(health)


class OpenApiHandler(
    Handler,
    path="/openapi.json",
    routes=(Route("GET", "Return the OpenAPI document.", dict, right=access.ENTER),),
):
    """The OpenAPI document, which does not describe itself."""

    async def get(self) -> None:
        """Return the OpenAPI document."""
        self.answer(await self.run(self.settings["openapi"]))
