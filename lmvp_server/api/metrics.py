"""Handlers of metrics: the metrics of a run, and curves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import msgspec
from tornado.iostream import StreamClosedError

from lmvp.core.schemas import runs
from lmvp.core.schemas.base import INCOMPLETE_HEADER
from lmvp.errors import InvalidArgument
from lmvp_server.api.base import Handler, as_json
from lmvp_server.api.columns import COLUMNS, as_bytes
from lmvp_server.api.query import (
    KEYS,
    PAGE,
    RUNS,
    Number,
    Text,
    Whole,
)
from lmvp_server.api.route import Cost, Route
from lmvp_server.services import access
from lmvp_server.services.metrics import POINTS_DEFAULT, POINTS_LIMIT, CurveQuery, Drawn, as_curves

PREFIX: Text[str] = Text(name="prefix", description="Only metrics whose key begins with this text.")
POINTS: Whole[int] = Whole(
    name="points",
    description="The greatest number of points of a curve; longer curves are outlines.",
    default=POINTS_DEFAULT,
    least=1,
    most=POINTS_LIMIT,
)
FROM = Number(name="from", description="The first value of the axis.")
TO = Number(name="to", description="The last value of the axis.")
AXIS: Text[str] = Text(
    name="axis", description="`step`, `time` (seconds since 1970), or the key of another metric.", default="step"
)
FORMAT: Text[str] = Text(
    name="format",
    description="The form of the answer; `columns` as docs/api.md, Columns.",
    default="json",
    choices=("json", "columns"),
)
_HEAD, _TAIL = b'{"curves":[', b"]}"


def _as_items(curves: Iterable[Drawn]) -> bytes:
    """Encode curves as the items of a JSON array."""
    return b",".join(msgspec.json.encode(curve) for curve in as_curves(curves).curves)


class _MetricsHandler(Handler):
    """Base class of handlers that report, in a header, the runs that lack points because a file is damaged."""

    async def state_incomplete(self, project: str, runs: tuple[str, ...]) -> None:
        missing = await self.run_public(self.services.metrics.incomplete, self.caller, project, runs)
        if missing:
            self.set_header(INCOMPLETE_HEADER, missing.encode("ascii", "replace").decode())


class RunMetricsHandler(
    _MetricsHandler,
    path="/projects/{project}/runs/{run}/metrics",
    routes=(
        Route(
            "GET",
            "List the metrics of a run.",
            runs.KeyRecord,
            many=True,
            cost=Cost.PUBLIC,
            right=access.READ,
            public=True,
            query=(*PAGE, PREFIX),
            note="A header `LMVP-Incomplete` states why points are missing, if a file is damaged.",
        ),
        Route(
            "POST",
            "Add points to a run.",
            runs.Applied,
            request=runs.NewPoints,
            status=201,
            right=access.LOG,
            note="For small scripts. Without a `step`, a repeated request adds the points again. "
            "Runs of other accounts need the role maintainer.",
            call=lambda services, caller, given: services.metrics.add(caller, given.project, given.run, given.body),
        ),
    ),
):
    """The metrics of a run."""

    async def get(self, project: str, run: str) -> None:
        """List the metrics of a run."""
        prefix = self.query(PREFIX)
        await self.state_incomplete(project, (run,))
        keys = as_json(self.services.metrics.keys)
        self.answer(await self.run_public(keys, self.caller, project, run, prefix, self.page()))


class CurvesHandler(
    _MetricsHandler,
    path="/projects/{project}/metrics",
    routes=(
        Route(
            "GET",
            "Return curves of several runs and keys, downsampled to the resolution of a plot.",
            runs.Curves,
            cost=Cost.LONG,
            right=access.READ,
            public=True,
            query=(RUNS, KEYS, POINTS, FROM, TO, AXIS, FORMAT),
            note="A header `LMVP-Incomplete` states which runs lack points, if a file is damaged.",
        ),
    ),
):
    """Curves of runs."""

    async def get(self, project: str) -> None:
        """Return curves of several runs and keys, downsampled to the resolution of a plot."""
        await self.state_incomplete(project, self.query(RUNS))
        binary = self.query(FORMAT) == "columns" or COLUMNS in self.request.headers.get("Accept", "")
        batches = await self.run_long(self.services.metrics.batches, self.caller, project, self._asked())
        encode = as_bytes if binary else _as_items
        content_type = COLUMNS if binary else "application/json"
        # A single batch is sent with a length; several are streamed, so that they need not fit into memory together.
        first = await self.run_long(self._encode, project, encode, batches[0])
        if len(batches) == 1:
            self.send(first if binary else b"".join([_HEAD, first, _TAIL]), content_type)
            return
        self.set_header("Content-Type", content_type)
        try:
            await self._stream(first, [partial(self._encode, project, encode, make) for make in batches[1:]], binary)
        except StreamClosedError:  # the client disconnected
            pass
        except Exception as error:
            if not self.has_begun:
                raise
            self.log_exception(type(error), error, error.__traceback__)
            self.break_off()

    async def _stream(self, piece: bytes, rest: Sequence[Callable[[], bytes]], binary: bool) -> None:
        """Send the batches. A batch is created after the client has read the previous one, which bounds the memory."""
        await self.wait_for_room(len(piece))
        self.write(piece if binary else _HEAD + piece)
        await self.flush()
        for make in rest:
            await self.wait_for_room(len(piece))
            piece = await self.run_long(make)
            self.write(piece if binary else b"," + piece)
            await self.flush()
        self.finish(None if binary else _TAIL)

    def _encode(
        self, project: str, encode: Callable[[Iterable[Drawn]], bytes], make: Callable[[], list[Drawn]]
    ) -> bytes:
        self.expire_caller()  # this can have waited for a thread or for the client
        self.services.catalog.find_project(self.caller, project)
        return encode(make())

    def _asked(self) -> CurveQuery:
        asked = CurveQuery(
            self.query(RUNS), self.query(KEYS), self.query(POINTS), self.query(FROM), self.query(TO), self.query(AXIS)
        )
        if not asked.runs:
            raise InvalidArgument("no run is named", hint="run=ID, as often as there are runs")
        return asked
