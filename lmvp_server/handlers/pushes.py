"""Pushes that come in several requests."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, ClassVar

from lmvp.errors import InvalidRequest, LmvpError
from lmvp.records import NewPush, Received
from lmvp.storage.frames import BATCH_LIMIT, Frame, FrameReader
from lmvp.storage.manifest import MANIFEST_LIMIT
from lmvp_server.handlers.base import JSON_LIMIT, Handler
from lmvp_server.services import access
from lmvp_server.services.pushes import right_of

IN_HAND = 5
"""Frames that the server hashes and writes at once, over all requests: with one being read per request, this bounds
memory."""


class Pushes(Handler):
    """`…/{model}/pushes`."""

    needs: ClassVar[Mapping[str, str]] = {"POST": access.PROPOSE}
    makes_project: ClassVar[frozenset[str]] = frozenset({"POST"})
    body_limit = MANIFEST_LIMIT + 2 * JSON_LIMIT

    async def post(self, project: str, model: str) -> None:
        """Begin a push."""
        body = await self.run(self.read, NewPush)
        self.answer(await self.run(self.services.pushes.begin, self.caller, project, model, body), 201)


class Push(Handler):
    """`…/pushes/{push}`."""

    async def get(self, project: str, model: str, push: str) -> None:
        """Tell what a push still lacks."""
        self.answer(await self.run(self.services.pushes.status, self.caller, project, model, push))


class Chunks(Handler):
    """`…/pushes/{push}/chunks`: frames are hashed and written while the next ones come."""

    body_limit = BATCH_LIMIT + JSON_LIMIT

    def initialize(self) -> None:
        """Begin a request."""
        super().initialize()
        self._frames, self._tasks = FrameReader(), list[asyncio.Task[None]]()
        self._error: LmvpError | None = None

    async def prepare(self) -> None:
        """Find the push before its bytes come."""
        super().prepare()
        project, model, push = self.path_args
        self._push = await self.run(self.services.pushes.resume, self.caller, project, model, push)

    async def data_received(self, chunk: bytes) -> None:
        """Take the next bytes; wait while too many frames are in hand."""
        self._received += len(chunk)
        if self.is_refused() or self._error is not None or not self.hold_body(len(chunk)):
            return
        try:
            await self.recheck(right_of(self._push.body), self.path_args[0], space=self._push.place.space)
            for frame, payload in self._frames.feed(chunk):
                await self.settings["in_hand"].acquire()
                task = asyncio.create_task(self._keep(frame, payload))
                # a body that is cut off never reaches `put`: asyncio would log the error of the task as unhandled
                task.add_done_callback(lambda done: done.cancelled() or done.exception())
                self._tasks.append(task)
            self.release()
            self.hold(self._frames.buffered, required=False)
        except LmvpError as error:  # `put` answers it: Tornado only logs what this raises
            self._error = error

    async def _keep(self, frame: Frame, payload: Any) -> None:
        try:
            await self.run(self.services.pushes.receive, self._push, frame, payload)
        finally:
            self.settings["in_hand"].release()

    async def put(self, *_: str) -> None:
        """Answer when all frames of the request are kept."""
        await self._settled()
        if not self._frames.between:
            raise InvalidRequest("the last frame is cut short")
        self.answer(Received(missing_count=len(self._push.missing)))

    async def _settled(self) -> None:
        """Wait for all frames, then raise what the first failing one raised."""
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
        if self._error is not None:
            raise self._error


class Commit(Handler):
    """`…/pushes/{push}/commit`."""

    async def post(self, project: str, model: str, push: str) -> None:
        """Turn a push into a version."""
        found = await self.run(self.services.pushes.to_verify, self.caller, project, model, push)
        if found is not None:
            await self.verify_tensors(found)
        self.answer(await self.run(self.services.pushes.commit, self.caller, project, model, push), 201)
