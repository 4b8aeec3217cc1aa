"""Health: whether there is a server, and whether it is the one of `server.json`."""

from __future__ import annotations

import hmac
import re

import lmvp
from lmvp.errors import InvalidRequest
from lmvp.records import Health
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
        proof = hmac.new(server.token.encode(), nonce.encode(), "sha256").hexdigest() if nonce else ""
        self.answer(Health(status="ok", version=lmvp.__version__, api=API, instance=server.instance, proof=proof))
