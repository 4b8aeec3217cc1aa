"""Handlers of projects and models."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from lmvp.core.schemas import (
    ModelChange,
    NewModel,
    NewProject,
    ProjectChange,
)
from lmvp_server.api.base import READING, Handler
from lmvp_server.api.query import NOW, PAGE, Parameter
from lmvp_server.services import access


class Projects(Handler):
    """`/projects`."""

    queries: ClassVar[Mapping[str, tuple[Parameter[Any], ...]]] = {"GET": PAGE}
    needs: ClassVar[Mapping[str, str]] = {"POST": access.CREATE}
    in_public = READING

    async def get(self) -> None:
        """List projects."""
        self.answer(await self.run(self.services.catalog.projects, self.caller, self.page()))

    async def post(self) -> None:
        """Create a project."""
        new = self.read(NewProject)
        made = await self.run(self.services.catalog.create_project, self.caller, new.name, new.description)
        self.answer(made, 201)


class Project(Handler):
    """`/projects/{project}`."""

    queries: ClassVar[Mapping[str, tuple[Parameter[Any], ...]]] = {"DELETE": (NOW,)}
    needs: ClassVar[Mapping[str, str]] = {"PATCH": access.OWN}
    in_public = READING

    async def get(self, project: str) -> None:
        """Return one project."""
        self.answer(await self.run(self.services.catalog.project, self.caller, project))

    async def patch(self, project: str) -> None:
        """Update the description, the visibility and the default role of a project."""
        given = self.read(ProjectChange)
        self.answer(await self.run(self.services.members.change_project, self.caller, project, given))

    async def delete(self, project: str) -> None:
        """Remove a project and its contents; `now=1` deletes them permanently."""
        remove = partial(self.services.removal.project, for_good=self.query(NOW))
        self.answer(await self.run(remove, self.caller, project))


class Models(Handler):
    """`/projects/{project}/models`."""

    queries: ClassVar[Mapping[str, tuple[Parameter[Any], ...]]] = {"GET": PAGE}
    needs: ClassVar[Mapping[str, str]] = {"POST": access.WRITE}
    in_public = READING

    async def get(self, project: str) -> None:
        """List the models of a project."""
        self.answer(await self.run(self.services.catalog.models, self.caller, project, self.page()))

    async def post(self, project: str) -> None:
        """Create a model."""
        new = self.read(NewModel)
        made = await self.run(self.services.catalog.create_model, self.caller, project, new.name, new.description)
        self.answer(made, 201)


class Model(Handler):
    """`/projects/{project}/models/{model}`."""

    queries: ClassVar[Mapping[str, tuple[Parameter[Any], ...]]] = {"DELETE": (NOW,)}
    needs: ClassVar[Mapping[str, str]] = {"PATCH": access.WRITE}
    of_model: ClassVar[bool] = True
    in_public = READING

    async def get(self, project: str, model: str) -> None:
        """Return one model."""
        self.answer(await self.run(self.services.catalog.model, self.caller, project, model))

    async def patch(self, project: str, model: str) -> None:
        """Update the description, the retention rule or other settings of a model."""
        change = self.read(ModelChange)
        self.answer(await self.run(self.services.retention.change_model, self.caller, project, model, change))

    async def delete(self, project: str, model: str) -> None:
        """Remove a model and its versions; `now=1` deletes them permanently."""
        remove = partial(self.services.removal.model, for_good=self.query(NOW))
        self.answer(await self.run(remove, self.caller, project, model))
