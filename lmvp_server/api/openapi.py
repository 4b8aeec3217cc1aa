"""Handler of the OpenAPI document."""

from __future__ import annotations

from lmvp_server.api.base import Handler


class OpenApi(Handler):
    """`/openapi.json`."""

    async def get(self) -> None:
        """Return the OpenAPI document."""
        self.answer(await self.run(self.settings["openapi"]))
