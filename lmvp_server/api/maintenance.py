"""Handlers of maintenance: storage usage, pruning, garbage collection, compaction and verification (fsck)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from lmvp.core.schemas import Check, Collect, Prune
from lmvp_server.api.base import Handler
from lmvp_server.services import access


class ServerUsage(Handler):
    """`/usage`."""

    async def get(self) -> None:
        """Return the storage usage of all projects."""
        self.answer(await self.run_long(self.services.usage.of_server, self.caller))


class ProjectUsage(Handler):
    """`/projects/{project}/usage`."""

    async def get(self, project: str) -> None:
        """Return the storage usage of the models of a project."""
        self.answer(await self.run_long(self.services.usage.of_project, self.caller, project))


class ModelUsage(Handler):
    """`…/{model}/usage`."""

    async def get(self, project: str, model: str) -> None:
        """Return the storage usage of the versions of a model."""
        self.answer(await self.run_long(self.services.usage.of_model, self.caller, project, model))


class Pruning(Handler):
    """`…/{model}/prune`."""

    needs: ClassVar[Mapping[str, str]] = {"POST": access.MAINTAIN}
    of_model: ClassVar[bool] = True

    async def post(self, project: str, model: str) -> None:
        """Delete the versions that a retention rule does not keep, or only list them."""
        asked = self.read(Prune)
        prune = self.services.retention.prune
        work = lambda _: prune(self.caller, project, model, asked)  # noqa: E731
        await self.answer_slowly(work, access.MAINTAIN, project)


class Garbage(Handler):
    """`/gc`."""

    needs: ClassVar[Mapping[str, str]] = {"POST": access.ADMIN}

    async def post(self) -> None:
        """Delete unreferenced data; if requested, also the removed objects in the trash."""
        asked = self.read(Collect)
        collect = self.services.purging.collect
        await self.answer_slowly(lambda _: collect(self.caller, removed=asked.removed))


class Compaction(Handler):
    """`/compact`."""

    async def post(self) -> None:
        """Compact all chunks now, instead of when the server is idle."""
        await self.answer_slowly(lambda _: self.services.upkeep.compact(self.caller))


class Proof(Handler):
    """`/fsck`."""

    needs: ClassVar[Mapping[str, str]] = {"POST": access.ADMIN}

    async def post(self) -> None:
        """Verify all digests; with `repair`, set damaged data aside."""
        asked = self.read(Check)
        check = self.services.checking.check
        await self.answer_slowly(lambda tell: check(self.caller, asked.repair, tell, asked.heads))
