"""Metrics of runs: which there are, and curves of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import msgspec

from lmvp.connection import INCOMPLETE_HEADER
from lmvp.errors import InvalidArgument
from lmvp.tracking.records import NewPoints
from lmvp_server.handlers.base import READING, Handler, as_json
from lmvp_server.handlers.columns import COLUMNS, as_bytes
from lmvp_server.services import access
from lmvp_server.services.metrics import Asked, as_curves


class _MetricsHandler(Handler):
    """Says in a header of the answer which runs lack points because a file is damaged."""

    async def state_incomplete(self, project: str, runs: list[str]) -> None:
        missing = await self.run_public(self.services.metrics.incomplete, self.caller, project, runs)
        if missing:
            self.set_header(INCOMPLETE_HEADER, missing.encode("ascii", "replace").decode())


class RunMetrics(_MetricsHandler):
    """`…/runs/{run}/metrics`."""

    needs: ClassVar[Mapping[str, str]] = {"POST": access.LOG}
    in_public = READING

    async def get(self, project: str, run: str) -> None:
        """List the metrics of a run."""
        prefix = self.get_query_argument("prefix", "")
        await self.state_incomplete(project, [run])
        keys = as_json(self.services.metrics.keys)
        self.answer(await self.run_public(keys, self.caller, project, run, prefix, self.page()))

    async def post(self, project: str, run: str) -> None:
        """Take in some points."""
        given = self.read(NewPoints)
        self.answer(await self.run(self.services.metrics.add, self.caller, project, run, given), 201)


class Curves(_MetricsHandler):
    """`/projects/{project}/metrics`."""

    in_public = READING

    async def get(self, project: str) -> None:
        """Return curves of several runs and keys, as many points as a picture has room for."""
        await self.state_incomplete(project, self.get_query_arguments("run"))
        binary = COLUMNS in self.request.headers.get("Accept", "") or self.get_query_argument("format", "") == "columns"
        data = await self.run_long(self._curves, project, binary)
        self.send(data, COLUMNS if binary else "application/json")

    def _curves(self, project: str, binary: bool) -> bytes:
        asked = Asked(
            tuple(self.get_query_arguments("run")),
            tuple(self.get_query_arguments("key", strip=False)),
            int(self._number("points") or 1000),
            self._number("from"),
            self._number("to"),
            self.get_query_argument("axis", "step"),
        )
        if not asked.runs:
            raise InvalidArgument("no run is named", hint="run=ID, as often as there are runs")
        curves = self.services.metrics.curves(self.caller, project, asked)
        return as_bytes(curves) if binary else msgspec.json.encode(as_curves(curves))

    def _number(self, name: str) -> float | None:
        text = self.get_query_argument(name, None)
        if text is None:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InvalidArgument(f"{name}={text[:40]!r} is not a number")
        return value
