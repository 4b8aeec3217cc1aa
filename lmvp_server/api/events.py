"""Handlers of the audit log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from lmvp_server.api.base import Handler, as_json
from lmvp_server.api.query import PAGE, Parameter, Text
from lmvp_server.services.audit import EVERYTHING, Filter

_CUT = 300
"""Maximum length of a filter in characters; the rest is ignored."""
FILTERS: tuple[Text[str], ...] = (
    Text(name="who", description="Only events of this user."),
    Text(name="action", description="Only events whose action begins with this text, as `alias.`."),
    Text(name="what", description="Only events whose object begins with this text, as `digits/mlp@`."),
    Text(name="since", description="Only events since this time, as `2026-11-26` or `2026-11-26T12:00`, in UTC."),
    Text(name="until", description="Only events up to this time."),
)


class ServerEvents(Handler):
    """`/events`."""

    queries: ClassVar[Mapping[str, tuple[Parameter[Any], ...]]] = {"GET": (*PAGE, *FILTERS)}

    async def get(self) -> None:
        """List the events of the server, newest first; filter by `who`, `action`, `what`, `since` and `until`."""
        of_server, wanted = as_json(self.services.audit.of_server), _wanted(self)
        run = self.run_long if wanted == EVERYTHING else self.run_costly  # a filter can read the complete log
        self.answer(await run(of_server, self.caller, self.page(), wanted))


class ProjectEvents(Handler):
    """`/projects/{project}/events`."""

    queries: ClassVar[Mapping[str, tuple[Parameter[Any], ...]]] = {"GET": (*PAGE, *FILTERS)}

    async def get(self, project: str) -> None:
        """List the events of a project, newest first; filter as for the server."""
        of_project, wanted = as_json(self.services.audit.of_project), _wanted(self)
        run = self.run_long if wanted == EVERYTHING else self.run_costly
        self.answer(await run(of_project, self.caller, project, self.page(), wanted))


class Heads(Handler):
    """`/events/heads`."""

    async def get(self) -> None:
        """Return the head of each audit log.

        A copy of the heads that is stored elsewhere shows later whether the log was changed.
        """
        self.answer(await self.run(self.services.audit.heads, self.caller))


def _wanted(handler: Handler) -> Filter:
    return Filter(**{parameter.name: handler.query(parameter)[:_CUT] for parameter in FILTERS})
