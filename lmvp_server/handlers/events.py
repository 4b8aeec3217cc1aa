"""Events: who did what to what."""

from __future__ import annotations

from lmvp_server.handlers.base import Handler, as_json
from lmvp_server.services.audit import EVERYTHING, Filter


class ServerEvents(Handler):
    """`/events`."""

    async def get(self) -> None:
        """List the events of the server, newest first; `who`, `action`, `what`, `since` and `until` filter them."""
        of_server, wanted = as_json(self.services.audit.of_server), _wanted(self)
        run = self.run_long if wanted == EVERYTHING else self.run_costly  # a filter may read the whole log
        self.answer(await run(of_server, self.caller, self.page(), wanted))


class ProjectEvents(Handler):
    """`/projects/{project}/events`."""

    async def get(self, project: str) -> None:
        """List the events of a project, newest first; filtered as those of the server."""
        of_project, wanted = as_json(self.services.audit.of_project), _wanted(self)
        run = self.run_long if wanted == EVERYTHING else self.run_costly
        self.answer(await run(of_project, self.caller, project, self.page(), wanted))


class Heads(Handler):
    """`/events/heads`."""

    async def get(self) -> None:
        """Return the head of each log, to be kept elsewhere."""
        self.answer(await self.run(self.services.audit.heads, self.caller))


def _wanted(handler: Handler) -> Filter:
    names = ("who", "action", "what", "since", "until")
    return Filter(**{name: handler.get_query_argument(name, "")[:300] for name in names})
