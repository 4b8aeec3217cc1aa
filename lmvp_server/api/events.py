"""Routes of the audit log."""

from __future__ import annotations

from lmvp.core import schemas
from lmvp_server.api.base import Handler
from lmvp_server.api.query import PAGE, Text
from lmvp_server.api.route import Cost, Given, Route
from lmvp_server.services import access
from lmvp_server.services.audit import Filter

_FILTER_LENGTH = 300
"""Maximum length of a filter in characters; the rest is ignored."""
FILTERS: tuple[Text[str], ...] = (
    Text(name="who", description="Only events of this user."),
    Text(name="action", description="Only events whose action begins with this text, as `alias.`."),
    Text(name="what", description="Only events whose object begins with this text, as `digits/mlp@`."),
    Text(name="since", description="Only events since this time, as `2026-11-26` or `2026-11-26T12:00`, in UTC."),
    Text(name="until", description="Only events up to this time."),
)


def _filter(given: Given) -> Filter:
    return Filter(**{parameter.name: getattr(given, parameter.name)[:_FILTER_LENGTH] for parameter in FILTERS})


class ServerEventsHandler(
    Handler,
    path="/events",
    routes=(
        Route(
            "GET",
            "List the events of the server, newest first; filter by `who`, `action`, `what`, `since` and `until`.",
            schemas.Event,
            many=True,
            right=access.ADMIN,
            query=(*PAGE, *FILTERS),
            cost=Cost.LONG,
            filtered_cost=Cost.COSTLY,  # a filter can read the complete log
            call=lambda services, caller, given: services.audit.of_server(caller, given.page, _filter(given)),
        ),
    ),
):
    """The audit log of the server."""


class HeadsHandler(
    Handler,
    path="/events/heads",
    routes=(
        Route(
            "GET",
            "Return the head of each audit log.",
            schemas.Head,
            many=True,
            right=access.ADMIN,
            note="A copy of the heads that is stored elsewhere shows later whether a log was changed.",
            call=lambda services, caller, _: services.audit.heads(caller),
        ),
    ),
):
    """The newest entry of each audit log."""


class ProjectEventsHandler(
    Handler,
    path="/projects/{project}/events",
    routes=(
        Route(
            "GET",
            "List the events of a project, newest first; filter as for the server.",
            schemas.Event,
            many=True,
            right=access.READ,
            query=(*PAGE, *FILTERS),
            cost=Cost.LONG,
            filtered_cost=Cost.COSTLY,
            call=lambda services, caller, given: services.audit.of_project(
                caller, given.project, given.page, _filter(given)
            ),
        ),
    ),
):
    """The audit log of a project."""
