"""Handlers of runs and of the journals that their writers send."""

from __future__ import annotations

from typing import Any

import msgspec

from lmvp.core.run_frames import REQUEST_LIMIT
from lmvp.core.schemas import runs
from lmvp.core.schemas.base import INCOMPLETE_HEADER
from lmvp_server.api.base import Handler
from lmvp_server.api.query import (
    NOW,
    ORDER,
    PAGE,
    WHERE,
    Whole,
)
from lmvp_server.api.route import Cost, Route
from lmvp_server.services import access

OFFSET: Whole[int] = Whole(
    name="from", description="The offset in bytes of the body in the journal of the writer.", default=0
)


class RunsHandler(
    Handler,
    path="/projects/{project}/runs",
    routes=(
        Route(
            "GET",
            "List the runs of a project, newest first; `where` filters them, `order` sorts them.",
            runs.RunRecord,
            many=True,
            cost=Cost.PUBLIC,
            filtered_cost=Cost.LONG,
            right=access.READ,
            public=True,
            query=(*PAGE, WHERE, ORDER),
            note='See "Filters".',
        ),
        Route(
            "POST",
            "Start a run, or resume it if it exists.",
            runs.RunRecord,
            request=runs.NewRun,
            status=201,
            right=access.LOG,
            creates_project=True,
            body_limit=4 << 20,  # the environment of a run can contain the code of a notebook
            note="200 if the run exists.",
        ),
    ),
):
    """The runs of a project."""

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
        run, made = await self.run(self.services.runs.start, self.caller, project, self.read(runs.NewRun))
        self.answer(run, 201 if made else 200)


class RunHandler(
    Handler,
    path="/projects/{project}/runs/{run}",
    routes=(
        Route(
            "GET",
            "Return one run.",
            runs.RunRecord,
            right=access.READ,
            public=True,
            cost=Cost.PUBLIC,
            note="`run` is an id, six or more digits of one, or a name, which means the newest run of that name.",
            call=lambda services, caller, given: services.runs.run(caller, given.project, given.run),
        ),
        Route(
            "PATCH",
            "Update the name, tags, notes, summary or other fields of a run.",
            runs.RunRecord,
            request=runs.RunUpdate,
            right=access.LOG,
            note="The event contains the previous state. Runs of other accounts need the role maintainer.",
            call=lambda services, caller, given: services.runs.amend(caller, given.project, given.run, given.body),
        ),
        Route(
            "DELETE",
            "Remove a run and its points; with `now=1`, permanently.",
            None,
            status=204,
            right=access.LOG,
            query=(NOW,),
            note="409 while it is running. Runs of other accounts need the role maintainer.",
            call=lambda services, caller, given: services.runs.remove(
                caller, given.project, given.run, for_good=given.now
            ),
        ),
    ),
):
    """One run."""


class RunUndeleteHandler(
    Handler,
    path="/projects/{project}/runs/{run}/undelete",
    routes=(
        Route(
            "POST",
            "Restore a removed run.",
            runs.RunRecord,
            right=access.LOG,
            note="Runs of other accounts need the role maintainer.",
            call=lambda services, caller, given: services.runs.restore(caller, given.project, given.run),
        ),
    ),
):
    """Restoration of a run."""


class RunEndHandler(
    Handler,
    path="/projects/{project}/runs/{run}/end",
    routes=(
        Route(
            "POST",
            "Set the final status of a run whose process cannot report it.",
            runs.RunRecord,
            request=runs.RunEnd,
            right=access.LOG,
            note="Runs of other accounts need the role maintainer.",
            call=lambda services, caller, given: services.runs.end(caller, given.project, given.run, given.body),
        ),
    ),
):
    """The end of a run."""


class WriterHandler(
    Handler,
    path="/projects/{project}/runs/{run}/writers/{writer}",
    routes=(
        Route(
            "GET",
            "Return the offset in bytes up to which a writer's journal is applied.",
            runs.Applied,
            right=access.READ,
            call=lambda services, caller, given: services.intake.applied(
                caller, given.project, given.run, given.writer
            ),
        ),
        Route(
            "PUT",
            "Apply frames of a writer's journal.",
            runs.Applied,
            request=bytes,
            right=access.LOG,
            query=(OFFSET,),
            creates_project=True,
            body_limit=REQUEST_LIMIT + (1 << 20),  # one shipment of the sender, and its frame headers
            note="At most 8 MiB of frames. The first frame of a journal creates the run. "
            "409 if bytes before the offset are missing; see [runs.md](runs.md). "
            "Runs of other accounts need the role maintainer.",
        ),
    ),
):
    """The journal of a writer."""

    async def put(self, project: str, run: str, writer: str) -> None:
        """Apply frames of a writer's journal."""
        start = self.query(OFFSET)
        # The offset makes repeated requests harmless: bytes that are already applied are skipped.
        data = b"".join(self._body)
        self.answer(await self.run(self.services.intake.ingest, self.caller, project, run, writer, start, data))
