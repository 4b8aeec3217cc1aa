"""Events: who did what to what."""

from __future__ import annotations

from lmvp_server.handlers.base import Handler, as_json
from lmvp_server.services.audit import Filter


class ServerEvents(Handler):
    """`/events`."""

    async def get(self) -> None:
        """List the events of the server, newest first; `who`, `action`, `what`, `since` and `until` filter them."""
        of_server = as_json(self.services.audit.of_server)
        self.answer(await self.run_long(of_server, self.caller, self.page(), _wanted(self)))


class ProjectEvents(Handler):
    """`/projects/{project}/events`."""

    async def get(self, project: str) -> None:
        """List the events of a project, newest first; filtered as those of the server."""
        of_project = self.services.audit.of_project
        self.answer(await self.run_long(as_json(of_project), self.caller, project, self.page(), _wanted(self)))


class Heads(Handler):
    """`/events/heads`."""

    async def get(self) -> None:
        """Return the head of each log, to be kept elsewhere."""
        self.answer(await self.run(self.services.audit.heads, self.caller))


def _wanted(handler: Handler) -> Filter:
    names = ("who", "action", "what", "since", "until")
    return Filter(**{name: handler.get_query_argument(name, "")[:300] for name in names})
