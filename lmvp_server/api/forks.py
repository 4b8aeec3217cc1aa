"""Handlers of forks and of contributions from forks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from lmvp.core.schemas import Contribute as ContributeBody
from lmvp.core.schemas import Fork as ForkBody
from lmvp_server.api.base import Handler
from lmvp_server.services import access


class Fork(Handler):
    """`…/{model}/fork`."""

    needs: ClassVar[Mapping[str, str]] = {"POST": access.READ}
    of_model: ClassVar[bool] = True

    async def post(self, project: str, model: str) -> None:
        """Fork a model with its history to another project or name."""
        to = self.read(ForkBody).to
        self.answer(await self.run(self.services.forks.fork, self.caller, project, model, to), 201)


class Contribute(Handler):
    """`…/versions/{revision}/contribute`."""

    needs: ClassVar[Mapping[str, str]] = {"POST": access.READ}
    of_model: ClassVar[bool] = True

    async def post(self, project: str, model: str, revision: str) -> None:
        """Propose a version of a fork to the model that was forked."""
        message = self.read(ContributeBody).message
        contribute = self.services.forks.contribute
        self.answer(await self.run(contribute, self.caller, project, model, revision, message), 201)
