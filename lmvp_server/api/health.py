"""Handler of health checks. They also verify that the server is the one of `server.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec

import lmvp
from lmvp.core.schemas import Health
from lmvp.core.server_file import proof
from lmvp_server.api.base import Handler
from lmvp_server.api.query import Parameter, Text

API = 1
"""Version of the HTTP API, the `1` of `/api/v1`."""

NONCE: Text[str] = Text(
    name="nonce",
    description="A random text, new for each request; the answer then has `proof` and `bound`.",
    pattern="[0-9a-f]{16,128}",
    rule="a nonce of 16 to 128 hex digits in lower case",
)


class HealthHandler(Handler):
    """`GET health?nonce=…`: requires no token. A proof is valid for its nonce only, so it cannot be replayed."""

    queries: ClassVar[Mapping[str, tuple[Parameter[Any], ...]]] = {"GET": (NONCE,)}
    open_to_all = True

    def get(self) -> None:
        """Return the health of the server."""
        server = self.settings["server"]
        nonce = self.query(NONCE)
        token, instance = server.token, server.instance
        health = Health(status="ok", version=lmvp.__version__, api=API, instance=instance)
        # The proof shows that this server knows its token, without sending the token.
        if nonce:
            proved = {"proof": proof(token, nonce), "bound": proof(token, nonce, instance)}
            health = msgspec.structs.replace(health, **proved)
        self.answer(health)
