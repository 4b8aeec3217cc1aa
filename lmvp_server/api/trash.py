"""Handlers of the trash."""

from __future__ import annotations

from lmvp_server.api.base import Handler


class Removed(Handler):
    """`/removed`."""

    async def get(self) -> None:
        """List the removed objects that the caller can restore."""
        self.answer(await self.run(self.services.undelete.everything, self.caller))


class ProjectRemoved(Handler):
    """`/projects/{project}/removed`."""

    async def get(self, project: str) -> None:
        """List the removed objects of a project that the caller can restore."""
        self.answer(await self.run(self.services.undelete.of_project, self.caller, project))


class UndeleteProject(Handler):
    """`/projects/{project}/undelete`."""

    async def post(self, project: str) -> None:
        """Restore a removed project; the caller must have removed it or be an admin."""
        self.answer(await self.run(self.services.undelete.project, self.caller, project))


class UndeleteModel(Handler):
    """`…/{model}/undelete`."""

    async def post(self, project: str, model: str) -> None:
        """Restore a removed model with its versions."""
        self.answer(await self.run(self.services.undelete.model, self.caller, project, model))


class UndeleteVersion(Handler):
    """`…/versions/{number}/undelete`."""

    async def post(self, project: str, model: str, revision: str) -> None:
        """Restore a removed version."""
        self.answer(await self.run(self.services.undelete.version, self.caller, project, model, revision))
