"""Handlers of pushes in several requests."""

from __future__ import annotations

import asyncio
from typing import Any

from lmvp.core import schemas
from lmvp.core.chunk_frames import BATCH_LIMIT, Frame, FrameReader
from lmvp.core.manifest import MANIFEST_LIMIT
from lmvp.errors import InvalidRequest, LmvpError
from lmvp_server.api.base import Handler
from lmvp_server.api.route import JSON_LIMIT, Route
from lmvp_server.services import access
from lmvp_server.services.pushes import right_of

IN_HAND = 5
"""Maximum number of frames that the server hashes and writes at once, over all requests.

Each request also reads one frame. Together, this bounds the memory.
"""


class PushesHandler(
    Handler,
    path="/projects/{project}/models/{model}/pushes",
    routes=(
        Route(
            "POST",
            "Start a push and return its missing chunks.",
            schemas.Push,
            request=schemas.NewPush,
            status=201,
            right=access.WRITE,
            admission=access.PROPOSE,
            creates_project=True,  # The manifest, and the record with its message, metrics and environment.
            body_limit=MANIFEST_LIMIT + 2 * JSON_LIMIT,
            note='A proposal needs the role contributor. See "A push".',
        ),
    ),
):
    """The pushes to a model."""

    async def post(self, project: str, model: str) -> None:
        """Start a push and return its missing chunks."""
        body = await self.run(self.read, schemas.NewPush)
        self.answer(await self.run(self.services.pushes.begin, self.caller, project, model, body), 201)


class PushHandler(
    Handler,
    path="/projects/{project}/models/{model}/pushes/{push}",
    routes=(
        Route(
            "GET",
            "Return the state of a push and its missing chunks.",
            schemas.Push,
            right=access.PROPOSE,
            call=lambda services, caller, given: services.pushes.status(caller, given.project, given.model, given.push),
        ),
    ),
):
    """One push."""


class PushChunksHandler(
    Handler,
    path="/projects/{project}/models/{model}/pushes/{push}/chunks",
    routes=(
        Route(
            "PUT",
            "Store chunk frames of a push and return the number of missing chunks.",
            schemas.Received,
            request=bytes,
            right=access.PROPOSE,
            admission="",  # `prepare` finds the push
            body_limit=BATCH_LIMIT + JSON_LIMIT,
            note="At most 16 MiB of frames.",
        ),
    ),
):
    """The chunks of a push. Frames are hashed and written while the next ones arrive."""

    def initialize(self) -> None:
        """Initialize the state of a request."""
        super().initialize()
        self._frames, self._tasks = FrameReader(), list[asyncio.Task[None]]()
        self._error: LmvpError | None = None

    async def prepare(self) -> None:
        """Find the push before its bytes arrive."""
        super().prepare()
        project, model, push = self.path_args
        self._push = await self.run(self.services.pushes.resume, self.caller, project, model, push)

    async def data_received(self, chunk: bytes) -> None:
        """Process the next bytes. Wait while too many frames are in progress, which slows the client down."""
        self._received += len(chunk)
        if self.is_refused() or self._error is not None or not self.hold_body(len(chunk)):
            return
        try:
            await self.recheck(right_of(self._push.body), self.path_args[0], space=self._push.place.space)
            for frame, payload in self._frames.feed(chunk):
                # Tornado reads no further bytes while this waits, so TCP slows the client down.
                await self.settings["in_hand"].acquire()
                task = asyncio.create_task(self._keep(frame, payload))
                # If the body is truncated, `put` is never called, and asyncio would log the exception as never
                # retrieved.
                task.add_done_callback(lambda done: done.cancelled() or done.exception())
                self._tasks.append(task)
            self.release()
            # Only the unfinished frame stays in memory. It must be accepted, because its bytes are already here.
            self.hold(self._frames.buffered, required=False)
        except LmvpError as error:  # `put` sends it: Tornado would only log an exception here
            self._error = error

    async def _keep(self, frame: Frame, payload: Any) -> None:
        try:
            await self.run(self.services.pushes.receive, self._push, frame, payload)
        finally:
            self.settings["in_hand"].release()

    async def put(self, *_: str) -> None:
        """Store chunk frames of a push and return the number of missing chunks."""
        await self._settled()
        # The frames before it are stored, so the client repeats only the rest.
        if not self._frames.between:
            raise InvalidRequest("the last frame is cut short")
        self.answer(schemas.Received(missing_count=len(self._push.missing)))

    async def _settled(self) -> None:
        """Wait for all frames, then raise the exception of the first one that failed."""
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
        if self._error is not None:
            raise self._error


class CommitHandler(
    Handler,
    path="/projects/{project}/models/{model}/pushes/{push}/commit",
    routes=(
        Route(
            "POST",
            "Commit a push as a version, or as a contribution if it was started as a proposal.",
            schemas.Version,
            status=201,
            right=access.PROPOSE,
        ),
    ),
):
    """The end of a push."""

    async def post(self, project: str, model: str, push: str) -> None:
        """Commit a push as a version, or as a contribution if it was started as a proposal."""
        # The verification can take long, so it is a separate step before the commit.
        found = await self.run(self.services.pushes.to_verify, self.caller, project, model, push)
        if found is not None:
            await self.verify_tensors(found)
        self.answer(await self.run(self.services.pushes.commit, self.caller, project, model, push), 201)
