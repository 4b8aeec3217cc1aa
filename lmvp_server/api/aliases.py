"""Handlers of aliases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from lmvp.core.schemas import MoveAlias
from lmvp_server.api.base import READING, Handler
from lmvp_server.services import access


class Aliases(Handler):
    """`…/{model}/aliases`."""

    in_public = READING

    async def get(self, project: str, model: str) -> None:
        """List the aliases of a model."""
        self.answer(await self.run(self.services.aliases.of_model, self.caller, project, model))


class Alias(Handler):
    """`…/{model}/aliases/{alias}`."""

    needs: ClassVar[Mapping[str, str]] = {"PUT": access.ALIAS}
    of_model: ClassVar[bool] = True
    in_public = READING

    async def get(self, project: str, model: str, alias: str) -> None:
        """Return one alias."""
        self.answer(await self.run(self.services.aliases.alias, self.caller, project, model, alias))

    async def put(self, project: str, model: str, alias: str) -> None:
        """Point an alias at a version."""
        revision = self.read(MoveAlias).revision
        self.answer(await self.run(self.services.aliases.move, self.caller, project, model, alias, revision))

    async def delete(self, project: str, model: str, alias: str) -> None:
        """Remove an alias."""
        await self.run(self.services.aliases.remove, self.caller, project, model, alias)
        self.set_status(204)
        self.finish()
