"""Events."""

from __future__ import annotations

from lmvp_server.handlers.base import Handler


class ServerEvents(Handler):
    """`/events`."""

    async def get(self) -> None:
        """List the events of the server."""
        self.answer(await self.run(self.services.events.of_server, self.caller, self.page()))


class ProjectEvents(Handler):
    """`/projects/{project}/events`."""

    async def get(self, project: str) -> None:
        """List the events of a project."""
        self.answer(await self.run(self.services.events.of_project, self.caller, project, self.page()))
