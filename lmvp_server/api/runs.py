"""Handlers of runs and of the journals that their writers send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec

from lmvp.core.api_version import INCOMPLETE_HEADER
from lmvp.core.run_frames import SHIPMENT_LIMIT
from lmvp.core.schemas.runs import NewRun, RunEnd, RunUpdate
from lmvp_server.api.base import READING, Handler
from lmvp_server.api.query import (
    NOW,
    ORDER,
    PAGE,
    WHERE,
    Parameter,
    Whole,
)
from lmvp_server.services import access

OFFSET: Whole[int] = Whole(
    name="from", description="The offset in bytes of the body in the journal of the writer.", default=0
)


class Runs(Handler):
    """`/projects/{project}/runs`."""

    queries: ClassVar[Mapping[str, tuple[Parameter[Any], ...]]] = {"GET": (*PAGE, WHERE, ORDER)}
    needs: ClassVar[Mapping[str, str]] = {"POST": access.LOG}
    makes_project: ClassVar[frozenset[str]] = frozenset({"POST"})
    in_public = READING
    # The environment of a run can contain the code of a notebook.
    body_limit = 4 << 20

    async def get(self, project: str) -> None:
        """List the runs of a project, newest first; `where` filters them, `order` sorts them."""
        where, order = self.query(WHERE), self.query(ORDER)
        # A filter or an order reads all runs of the project.
        run = self.run_long if where or order else self.run_public
        data, missing = await run(self._listed, self.caller, project, self.page(), where, order)
        if missing:
            self.set_header(INCOMPLETE_HEADER, missing.encode("ascii", "replace").decode())
        self.answer(data)

    def _listed(self, *args: Any) -> tuple[bytes, str]:
        listed, missing = self.services.runs.of_project(*args)
        return msgspec.json.encode(listed), missing

    async def post(self, project: str) -> None:
        """Start a run, or resume it if it exists."""
        run, made = await self.run(self.services.runs.start, self.caller, project, self.read(NewRun))
        self.answer(run, 201 if made else 200)


class Run(Handler):
    """`…/runs/{run}`."""

    queries: ClassVar[Mapping[str, tuple[Parameter[Any], ...]]] = {"DELETE": (NOW,)}
    needs: ClassVar[Mapping[str, str]] = {"PATCH": access.LOG}
    in_public = READING

    async def get(self, project: str, run: str) -> None:
        """Return one run."""
        self.answer(await self.run_public(self.services.runs.run, self.caller, project, run))

    async def patch(self, project: str, run: str) -> None:
        """Update the name, tags, notes, summary or other fields of a run."""
        given = self.read(RunUpdate)
        self.answer(await self.run(self.services.runs.amend, self.caller, project, run, given))

    async def delete(self, project: str, run: str) -> None:
        """Remove a run and its points; with `now=1`, permanently."""
        for_good = self.query(NOW)
        await self.run(lambda: self.services.runs.remove(self.caller, project, run, for_good=for_good))
        self.set_status(204)
        self.finish()


class Undelete(Handler):
    """`…/runs/{run}/undelete`."""

    async def post(self, project: str, run: str) -> None:
        """Restore a removed run."""
        self.answer(await self.run(self.services.runs.restore, self.caller, project, run))


class End(Handler):
    """`…/runs/{run}/end`."""

    needs: ClassVar[Mapping[str, str]] = {"POST": access.LOG}

    async def post(self, project: str, run: str) -> None:
        """Set the final status of a run whose process cannot report it."""
        self.answer(await self.run(self.services.runs.end, self.caller, project, run, self.read(RunEnd)))


class Writer(Handler):
    """`…/runs/{run}/writers/{writer}`."""

    queries: ClassVar[Mapping[str, tuple[Parameter[Any], ...]]] = {"PUT": (OFFSET,)}
    needs: ClassVar[Mapping[str, str]] = {"PUT": access.LOG}
    makes_project: ClassVar[frozenset[str]] = frozenset({"PUT"})
    # A body has one shipment of the sender, plus its frame headers.
    body_limit = SHIPMENT_LIMIT + (1 << 20)

    async def get(self, project: str, run: str, writer: str) -> None:
        """Return the offset in bytes up to which a writer's journal is applied."""
        self.answer(await self.run(self.services.intake.applied, self.caller, project, run, writer))

    async def put(self, project: str, run: str, writer: str) -> None:
        """Apply frames of a writer's journal."""
        start = self.query(OFFSET)
        # The offset makes repeated requests harmless: bytes that are already applied are skipped.
        data = b"".join(self._body)
        self.answer(await self.run(self.services.intake.ingest, self.caller, project, run, writer, start, data))
