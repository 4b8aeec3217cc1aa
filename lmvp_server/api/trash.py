"""Routes of the trash."""

from __future__ import annotations

from lmvp.core import schemas
from lmvp_server.api.base import Handler
from lmvp_server.api.route import Route
from lmvp_server.services import access


class TrashHandler(
    Handler,
    path="/removed",
    routes=(
        Route(
            "GET",
            "List the removed objects that the caller can restore.",
            schemas.RemovedItem,
            many=True,
            right=access.ENTER,
            call=lambda services, caller, _: services.trash.items(caller),
        ),
    ),
):
    """The removed objects of all projects."""


class ProjectTrashHandler(
    Handler,
    path="/projects/{project}/removed",
    routes=(
        Route(
            "GET",
            "List the removed objects of a project that the caller can restore.",
            schemas.RemovedItem,
            many=True,
            right=access.MAINTAIN,
            call=lambda services, caller, given: services.trash.items_of_project(caller, given.project),
        ),
    ),
):
    """The removed objects of a project."""


class ProjectUndeleteHandler(
    Handler,
    path="/projects/{project}/undelete",
    routes=(
        Route(
            "POST",
            "Restore a removed project; the caller must have removed it or be an admin.",
            schemas.Project,
            right=access.ENTER,
            note="An account can restore a project that it removed and owns. 409 if a new project has its name.",
            call=lambda services, caller, given: services.trash.restore_project(caller, given.project),
        ),
    ),
):
    """Restoration of a project."""


class ModelUndeleteHandler(
    Handler,
    path="/projects/{project}/models/{model}/undelete",
    routes=(
        Route(
            "POST",
            "Restore a removed model with its versions.",
            schemas.Model,
            right=access.MAINTAIN,
            call=lambda services, caller, given: services.trash.restore_model(caller, given.project, given.model),
        ),
    ),
):
    """Restoration of a model."""


class VersionUndeleteHandler(
    Handler,
    path="/projects/{project}/models/{model}/versions/{revision}/undelete",
    routes=(
        Route(
            "POST",
            "Restore a removed version.",
            schemas.Version,
            right=access.MAINTAIN,
            call=lambda services, caller, given: services.trash.restore_version(
                caller, given.project, given.model, given.revision
            ),
        ),
    ),
):
    """Restoration of a version."""
