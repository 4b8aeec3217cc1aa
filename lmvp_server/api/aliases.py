"""Routes of aliases."""

from __future__ import annotations

from lmvp.core import schemas
from lmvp_server.api.base import Handler
from lmvp_server.api.route import Route
from lmvp_server.services import access


class AliasesHandler(
    Handler,
    path="/projects/{project}/models/{model}/aliases",
    routes=(
        Route(
            "GET",
            "List the aliases of a model.",
            schemas.Alias,
            many=True,
            right=access.READ,
            public=True,
            call=lambda services, caller, given: services.aliases.of_model(caller, given.project, given.model),
        ),
    ),
):
    """The aliases of a model."""


class AliasHandler(
    Handler,
    path="/projects/{project}/models/{model}/aliases/{alias}",
    routes=(
        Route(
            "GET",
            "Return one alias.",
            schemas.Alias,
            right=access.READ,
            public=True,
            note="`moves` lists the past targets, oldest first.",
            call=lambda services, caller, given: services.aliases.alias(
                caller, given.project, given.model, given.alias
            ),
        ),
        Route(
            "PUT",
            "Point an alias at a version.",
            schemas.Alias,
            request=schemas.MoveAlias,
            right=access.ALIAS,
            note="A protected alias needs the role maintainer.",
            call=lambda services, caller, given: services.aliases.move(
                caller, given.project, given.model, given.alias, given.body.revision
            ),
        ),
        Route(
            "DELETE",
            "Remove an alias.",
            None,
            status=204,
            right=access.ALIAS,
            note="A protected alias needs the role maintainer.",
            call=lambda services, caller, given: services.aliases.remove(
                caller, given.project, given.model, given.alias
            ),
        ),
    ),
):
    """One alias."""
