"""Handlers of contributions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from lmvp.core.schemas import Words
from lmvp_server.api.base import READING, Handler
from lmvp_server.api.query import PAGE, Parameter, Text
from lmvp_server.services import access
from lmvp_server.services.contributions import STATUSES

STATUS: Text[str] = Text(
    name="status", description="Only contributions of this status. Without it: all.", choices=STATUSES
)


class ProjectContributions(Handler):
    """`/projects/{project}/contributions`."""

    queries: ClassVar[Mapping[str, tuple[Parameter[Any], ...]]] = {"GET": (*PAGE, STATUS)}
    in_public = READING

    async def get(self, project: str) -> None:
        """List the contributions to a project."""
        status = self.query(STATUS)
        of_project = self.services.contributions.of_project
        self.answer(await self.run_long(of_project, self.caller, project, self.page(), status))


class Contribution(Handler):
    """`…/{model}/contributions/{number}`."""

    in_public = READING

    async def get(self, project: str, model: str, number: str) -> None:
        """Return one contribution."""
        self.answer(await self.run(self.services.contributions.one, self.caller, project, model, number))


class Accept(Handler):
    """`…/contributions/{number}/accept`."""

    async def post(self, project: str, model: str, number: str) -> None:
        """Accept a contribution as the next version."""
        self.answer(await self.run(self.services.contributions.accept, self.caller, project, model, number))


class Decline(Handler):
    """`…/contributions/{number}/decline`."""

    needs: ClassVar[Mapping[str, str]] = {"POST": access.READ}
    of_model: ClassVar[bool] = True

    async def post(self, project: str, model: str, number: str) -> None:
        """Decline a contribution with a reason."""
        words = self.read(Words).words
        self.answer(await self.run(self.services.contributions.decline, self.caller, project, model, number, words))


class Withdraw(Handler):
    """`…/contributions/{number}/withdraw`."""

    async def post(self, project: str, model: str, number: str) -> None:
        """Withdraw a contribution of the caller."""
        self.answer(await self.run(self.services.contributions.withdraw, self.caller, project, model, number))


class Comments(Handler):
    """`…/contributions/{number}/comments`."""

    needs: ClassVar[Mapping[str, str]] = {"POST": access.READ}
    of_model: ClassVar[bool] = True

    async def post(self, project: str, model: str, number: str) -> None:
        """Add a comment to a contribution."""
        words = self.read(Words).words
        self.answer(await self.run(self.services.contributions.comment, self.caller, project, model, number, words))
