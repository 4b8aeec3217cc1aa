"""Live stream of new metric points as server-sent events (SSE), with at most ten events per second and reader.

The next event is sent only when the last one has been sent. Each reader has a cursor for each run, so all points that
arrive while a reader is slow become one event. Sealed points cannot be streamed; the event `reset` then asks the client
to load the curves again.

Readers with the same runs and cursors share one encoded event, which does not depend on their rights. The rights of
each reader are therefore checked before each event and every few seconds. A reader that loses them gets the event
`end`.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import msgspec
from tornado.iostream import StreamClosedError

from lmvp.errors import InvalidArgument, LmvpError, TooManyRequests
from lmvp_server.api.base import RECHECK, Handler
from lmvp_server.api.body import is_number
from lmvp_server.api.errors import error_body
from lmvp_server.api.query import (
    KEYS,
    RUNS,
    Text,
)
from lmvp_server.api.route import Cost, Route
from lmvp_server.services import Services, access
from lmvp_server.services.metrics import LIVE_LIMIT, floats

_PAUSE, _PING = 0.1, 15.0
_RUNS_LIMIT, _SHARED, _SHARED_BYTES = 50, 256, 16 << 20
_EVENT_LIMIT = 5 * LIVE_LIMIT
"""Maximum number of points in one event, over all runs. If more are new, the client loads the curves again."""

_FEW = 2000
"""Up to this number of new points, an event is encoded at once; otherwise in the queue for costly work."""

NOBODYS = 100
"""Maximum number of open streams without an account. Each stream occupies a connection."""

BEHIND: Text[str] = Text(
    name="cursor",
    description="The id of the last event that the client has: a number for each run. Without it: from now.",
    pattern="[0-9]{1,18}(,[0-9]{1,18})*",
    rule="a list of numbers, joined by commas, as an event gave them",
)


@dataclass(frozen=True, slots=True)
class StreamPosition:
    """Position of a reader: the runs that it follows, with a cursor and a status for each run."""

    space: str
    runs: tuple[str, ...]
    keys: tuple[str, ...] | None
    cursors: tuple[int, ...]
    statuses: tuple[str, ...] = ()


Step: TypeAlias = tuple[bytes, StreamPosition]
"""An event and the position after it. The event is empty if nothing is new."""


class Streams:
    """The open streams of a server. They share wake-up callbacks and encoded events."""

    def __init__(self) -> None:
        self._open: set[LiveHandler] = set()
        self._made: OrderedDict[StreamPosition, asyncio.Future[Step]] = OrderedDict()
        self._awake: dict[tuple[str, str], tuple[set[asyncio.Event], Callable[[], None]]] = {}
        self._ended = False

    def add(self, stream: LiveHandler) -> None:
        """Add a stream, until `remove`.

        Raises
        ------
        TooManyRequests
            If the stream has no account, and too many of these are open.
        """
        if stream.anonymous and sum(one.anonymous for one in self._open) >= NOBODYS:
            raise TooManyRequests("too many follow what is public, without an account", hint="try again in a while")
        self._open.add(stream)
        if self._ended:  # its request arrived on an open connection; the stream would delay the shutdown
            stream.stop()

    def remove(self, stream: LiveHandler) -> None:
        """Remove a stream."""
        self._open.discard(stream)

    def end(self) -> None:
        """Close all streams, and those that open later, because the server stops."""
        self._ended = True
        for stream in self._open:
            stream.stop()

    def wake(self, run: tuple[str, str], event: asyncio.Event, wait: Callable[..., Callable[[], None]]) -> None:
        """Set `event` when points of a run arrive, until `rest`."""
        if run not in self._awake:
            loop, events = asyncio.get_running_loop(), set[asyncio.Event]()
            # The store calls back from other threads.
            self._awake[run] = events, wait(*run, lambda: loop.call_soon_threadsafe(_set_all, events))
        self._awake[run][0].add(event)

    def rest(self, run: tuple[str, str], event: asyncio.Event) -> None:
        """Stop setting `event`. A request can name the same run several times, so this can be called repeatedly."""
        if run not in self._awake:
            return
        events, stop = self._awake[run]
        events.discard(event)
        if not events:
            del self._awake[run]
            stop()

    async def shared(
        self, place: StreamPosition, make: Callable[[StreamPosition], Awaitable[tuple[bytes, StreamPosition]]]
    ) -> tuple[bytes, StreamPosition]:
        """Return the event after a position. It is encoded once for all readers at this position."""
        found = self._made.get(place)
        # An empty result is stale as soon as points arrive, so it is created again.
        if found is None or (found.done() and (found.cancelled() or found.exception() or not found.result()[0])):
            found = self._made[place] = asyncio.ensure_future(make(place))
            # If all readers disconnect before a failure, asyncio would log the exception as never retrieved.
            found.add_done_callback(lambda done: done.cancelled() or done.exception())
            # Readers that are behind ask for old positions; a few recent events are enough for those that are up to
            # date.
            while len(self._made) > _SHARED:
                self._made.popitem(last=False)
        # A reader that disconnects must not cancel the event of the others.
        made = await asyncio.shield(found)
        while sum(map(_bytes_of, self._made.values())) > _SHARED_BYTES:
            self._made.popitem(last=False)
        return made


def _bytes_of(made: asyncio.Future[Step]) -> int:
    return len(made.result()[0]) if made.done() and not made.cancelled() and made.exception() is None else 0


def _set_all(events: set[asyncio.Event]) -> None:
    for event in events:
        event.set()


class LiveHandler(
    Handler,
    path="/projects/{project}/metrics/live",
    routes=(
        Route(
            "GET",
            "Stream new points of runs as server-sent events.",
            bytes,
            cost=Cost.PUBLIC,
            right=access.READ,
            public=True,
            query=(RUNS, KEYS, BEHIND),
            note='See "Live".',
        ),
    ),
):
    """New points of runs."""

    anonymous = False
    """Whether the reader has no account."""

    _going = True

    async def get(self, project: str) -> None:
        """Stream new points of runs as server-sent events."""
        runs, keys = self.query(RUNS), self.query(KEYS)
        if not 1 <= len(runs) <= _RUNS_LIMIT:
            raise InvalidArgument(
                f"{len(runs)} runs: name 1 to {_RUNS_LIMIT}", hint="run=ID, as often as there are runs"
            )
        self.anonymous = not self.caller.known
        place = await self.run_public(self._begin, project, list(runs), keys or None)
        self._news = asyncio.Event()
        streams: Streams = self.settings["streams"]
        streams.add(self)
        self.set_header("Content-Type", "text/event-stream")
        for run in place.runs:
            streams.wake((place.space, run), self._news, self.services.metrics.wait)
        try:
            await self._follow(streams, project, place)
        except StreamClosedError:  # the client disconnected
            pass
        finally:
            streams.remove(self)
            for run in place.runs:
                streams.rest((place.space, run), self._news)

    def _begin(self, project: str, runs: list[str], keys: tuple[str, ...] | None) -> StreamPosition:
        metrics = self.services.metrics
        space, ids = metrics.watched(self.caller, project, runs)
        # `EventSource` sends `Last-Event-ID` when it reconnects.
        given = self.query(BEHIND) or self.request.headers.get("Last-Event-ID")
        cursors = _cursors(given, len(ids)) if given else tuple(metrics.now(space, run) for run in ids)
        return StreamPosition(space, tuple(ids), keys, cursors)

    async def _follow(self, streams: Streams, project: str, place: StreamPosition) -> None:
        try:
            while self._going:
                # Clear before reading, so that points that arrive meanwhile are not missed.
                self._news.clear()
                event, place = await streams.shared(place, self._make)
                if event:
                    await self.recheck(access.READ, project, space=place.space, now=True)
                    await self.wait_for_room(len(event))
                    self.write(event)
                    await self.flush()
                    await asyncio.sleep(_PAUSE)
                else:
                    await self._wait(project, place)
        except LmvpError as error:  # the reader lost its rights, or the run was deleted
            self.write(b"event: end\ndata: " + msgspec.json.encode(error_body(error)) + b"\n\n")
        self.finish()

    async def _wait(self, project: str, place: StreamPosition) -> None:
        """Wait for new points, recheck the rights of the reader meanwhile, and send a keep-alive comment at the end."""
        for _ in range(math.ceil(_PING / RECHECK)):
            try:
                await asyncio.wait_for(self._news.wait(), RECHECK)
            except asyncio.TimeoutError:
                await self.recheck(access.READ, project, space=place.space, now=True)
            else:
                return
        # Proxies close connections without traffic; a comment keeps the connection open.
        self.write(b": still here\n\n")
        await self.flush()

    async def _make(self, place: StreamPosition) -> Step:
        step = await self.run(_next_of_few, self.services, place)
        return step if step is not None else await self.run_shared(_next, self.services, place)

    def stop(self) -> None:
        """Stop the stream after the current event."""
        self._going = False
        # The stream can be stopped before `get` has run.
        if hasattr(self, "_news"):
            self._news.set()

    def on_connection_close(self) -> None:
        """Stop the stream when the client disconnects."""
        super().on_connection_close()  # otherwise a truncated request waits for its body indefinitely
        self.stop()


def _next_of_few(services: Services, place: StreamPosition) -> Step | None:
    """Return the next event; None if more than `_FEW` points are new, because encoding then takes long."""
    now, cursors = services.metrics.now, zip(place.runs, place.cursors, strict=True)
    count = sum(max(0, now(place.space, run) - cursor) for run, cursor in cursors)
    return None if count > _FEW else _next(services, place)


def _next(services: Services, place: StreamPosition) -> Step:
    """Return the next event, which is equal for all readers, and the position after it; empty if nothing is new."""
    metrics = services.metrics
    found = [
        metrics.since(place.space, run, cursor, place.keys)
        for run, cursor in zip(place.runs, place.cursors, strict=True)
    ]
    cursors = [
        metrics.now(place.space, run) if new is None else new[0] for run, new in zip(place.runs, found, strict=True)
    ]
    statuses = tuple(services.runs.status(place.space, run) for run in place.runs)
    # The statuses are a part of the position, so that a changed status is an event too.
    behind = replace(place, cursors=tuple(cursors), statuses=statuses)
    told: dict[str, Any] = {"cursor": ",".join(map(str, cursors))}
    if statuses != place.statuses:
        told["status"] = dict(zip(place.runs, statuses, strict=True))
    points = sum(len(part) for new in found if new for part in new[1].values())
    # `since` returns None if too many points are new, or if points after the cursor are sealed.
    if points > _EVENT_LIMIT or any(new is None for new in found):
        return _sse("reset", told), behind
    told["curves"] = [
        _curve(run, key, part)
        for run, new in zip(place.runs, found, strict=True)
        for key, part in (new[1].items() if new else ())
    ]
    if not told["curves"] and "status" not in told:
        return b"", behind
    return _sse("points" if told["curves"] else "status", told), behind


def _curve(run: str, key: str, points: Any) -> dict[str, Any]:
    columns = {"steps": points.steps.tolist(), "values": floats(points.values), "times": points.times.tolist()}
    return {"run": run, "key": key, **columns}


def _sse(name: str, told: dict[str, Any]) -> bytes:
    return f"event: {name}\nid: {told['cursor']}\ndata: ".encode() + msgspec.json.encode(told) + b"\n\n"


def _cursors(given: str, count: int) -> tuple[int, ...]:
    parts = given.split(",")
    if len(parts) != count or not all(map(is_number, parts)):
        raise InvalidArgument(f"cursor={given[:60]!r}: {count} numbers, joined by commas, as an event gave them")
    return tuple(map(int, parts))
