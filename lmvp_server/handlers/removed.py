"""What was removed and can be brought back."""

from __future__ import annotations

from lmvp_server.handlers.base import Handler


class Removed(Handler):
    """`/removed`."""

    async def get(self) -> None:
        """List what the caller can bring back."""
        self.answer(await self.run(self.services.undelete.everything, self.caller))


class ProjectRemoved(Handler):
    """`/projects/{project}/removed`."""

    async def get(self, project: str) -> None:
        """List what can be brought back in a project."""
        self.answer(await self.run(self.services.undelete.of_project, self.caller, project))


class UndeleteProject(Handler):
    """`/projects/{project}/undelete`."""

    async def post(self, project: str) -> None:
        """Bring back a project, for whoever removed it, or an admin."""
        self.answer(await self.run(self.services.undelete.project, self.caller, project))


class UndeleteModel(Handler):
    """`…/{model}/undelete`."""

    async def post(self, project: str, model: str) -> None:
        """Bring back a model with all its versions."""
        self.answer(await self.run(self.services.undelete.model, self.caller, project, model))


class UndeleteVersion(Handler):
    """`…/versions/{number}/undelete`."""

    async def post(self, project: str, model: str, revision: str) -> None:
        """Bring back a version."""
        self.answer(await self.run(self.services.undelete.version, self.caller, project, model, revision))
