"""Health: whether there is a server, and whether it is the one of `server.json`."""

from __future__ import annotations

import re

import msgspec

import lmvp
from lmvp.errors import InvalidRequest
from lmvp.records import Health
from lmvp.serverfile import proof
from lmvp_server.handlers.base import Handler

API = 1
"""Version of the HTTP API, the `1` of `/api/v1`."""

_NONCE = re.compile("[0-9a-f]{16,128}")


class HealthHandler(Handler):
    """`GET health?nonce=…`: open to all. The proof is worth nothing for any other nonce."""

    open_to_all = True

    def get(self) -> None:
        """Answer with a `Health`."""
        server = self.settings["server"]
        nonce = self.get_query_argument("nonce", "")
        if nonce and not _NONCE.fullmatch(nonce):
            raise InvalidRequest(
                "a nonce is 16 to 128 hex digits in lower case", hint="draw a new one for each request"
            )
        token, instance = server.token, server.instance
        health = Health(status="ok", version=lmvp.__version__, api=API, instance=instance)
        if nonce:
            proved = {"proof": proof(token, nonce), "bound": proof(token, nonce, instance)}
            health = msgspec.structs.replace(health, **proved)
        self.answer(health)
