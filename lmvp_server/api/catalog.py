"""Routes of projects and models."""

from __future__ import annotations

from lmvp.core import schemas
from lmvp_server.api.base import Handler
from lmvp_server.api.query import NOW, PAGE
from lmvp_server.api.route import Route
from lmvp_server.services import access


class ProjectsHandler(
    Handler,
    path="/projects",
    routes=(
        Route(
            "GET",
            "List projects.",
            schemas.Project,
            many=True,
            right=access.ENTER,
            public=True,
            query=PAGE,
            note="Without a token: the public projects, or 401 if no project is public.",
            call=lambda services, caller, given: services.catalog.projects(caller, given.page),
        ),
        Route(
            "POST",
            "Create a project.",
            schemas.Project,
            request=schemas.NewProject,
            status=201,
            right=access.CREATE,
            call=lambda services, caller, given: services.catalog.create_project(
                caller, given.body.name, given.body.description
            ),
        ),
    ),
):
    """The projects of the server."""


class ProjectHandler(
    Handler,
    path="/projects/{project}",
    routes=(
        Route(
            "GET",
            "Return one project.",
            schemas.Project,
            right=access.READ,
            public=True,
            call=lambda services, caller, given: services.catalog.project(caller, given.project),
        ),
        Route(
            "PATCH",
            "Update the description, the visibility and the default role of a project.",
            schemas.Project,
            request=schemas.ProjectChange,
            right=access.OWN,
            call=lambda services, caller, given: services.members.change_project(caller, given.project, given.body),
        ),
        Route(
            "DELETE",
            "Remove a project and its contents; `now=1` deletes them permanently.",
            schemas.Removed,
            right=access.OWN,
            query=(NOW,),
            note="The response states the versions, the bytes, and the time until which they can be restored.",
            call=lambda services, caller, given: services.trash.remove_project(
                caller, given.project, for_good=given.now
            ),
        ),
    ),
):
    """One project."""


class ModelsHandler(
    Handler,
    path="/projects/{project}/models",
    routes=(
        Route(
            "GET",
            "List the models of a project.",
            schemas.Model,
            many=True,
            right=access.READ,
            public=True,
            query=PAGE,
            call=lambda services, caller, given: services.catalog.models(caller, given.project, given.page),
        ),
        Route(
            "POST",
            "Create a model.",
            schemas.Model,
            request=schemas.NewModel,
            status=201,
            right=access.WRITE,
            call=lambda services, caller, given: services.catalog.create_model(
                caller, given.project, given.body.name, given.body.description
            ),
        ),
    ),
):
    """The models of a project."""


class ModelHandler(
    Handler,
    path="/projects/{project}/models/{model}",
    routes=(
        Route(
            "GET",
            "Return one model.",
            schemas.Model,
            right=access.READ,
            public=True,
            call=lambda services, caller, given: services.catalog.model(caller, given.project, given.model),
        ),
        Route(
            "PATCH",
            "Update the description, the retention rule or other settings of a model.",
            schemas.Model,
            request=schemas.ModelChange,
            right=access.WRITE,
            call=lambda services, caller, given: services.retention.change_model(
                caller, given.project, given.model, given.body
            ),
        ),
        Route(
            "DELETE",
            "Remove a model and its versions; `now=1` deletes them permanently.",
            schemas.Removed,
            right=access.MAINTAIN,
            query=(NOW,),
            call=lambda services, caller, given: services.trash.remove_model(
                caller, given.project, given.model, for_good=given.now
            ),
        ),
    ),
):
    """One model."""
