"""New points of runs, as server-sent events: at most ten a second, and the next when the last has been sent.

Each reader has a cursor for each run, so all points that come while a reader is slow are one event; points that are
sealed meanwhile cannot be sent one by one, and a `reset` says so. Readers of the same runs with the same cursors share
one encoded event. It is made without the rights of any reader: each reader's rights are looked up, by the token or the
session of its request, before each event and every few seconds. A reader who has lost them gets an event `end`.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeAlias

import msgspec
from tornado.iostream import StreamClosedError

from lmvp.errors import InvalidArgument, LmvpError, TooManyRequests
from lmvp_server.handlers.base import READING, RECHECK, Handler, error_body, is_number
from lmvp_server.handlers.query import KEYS, RUNS, Parameter, Text
from lmvp_server.services import Services, access
from lmvp_server.services.metrics import LIVE_LIMIT, floats

_PAUSE, _PING = 0.1, 15.0
_RUNS_LIMIT, _SHARED, _SHARED_BYTES = 50, 256, 16 << 20
_EVENT_LIMIT = 5 * LIVE_LIMIT
"""Points of all runs that one event tells; where more are new, the curves are read anew instead."""

_FEW = 2000
"""New points of which an event is made at once; one of more waits in the queue for costly work."""

NOBODYS = 100
"""Streams at most that those without an account have open: each keeps a connection."""

BEHIND: Text[str] = Text(
    name="cursor",
    description="The id of the last event that the client has: a number for each run. Without it: from now.",
    pattern="[0-9]{1,18}(,[0-9]{1,18})*",
    rule="a list of numbers, joined by commas, as an event gave them",
)


@dataclass(frozen=True, slots=True)
class Place:
    """The runs that a reader follows, and how far it has read: a cursor and a status for each run."""

    space: str
    runs: tuple[str, ...]
    keys: tuple[str, ...] | None
    cursors: tuple[int, ...]
    statuses: tuple[str, ...] = ()


Step: TypeAlias = tuple[bytes, Place]
"""An event, and the place behind it; no bytes where nothing is new."""


class Streams:
    """The open streams of a server: they are woken together, and share what they are sent."""

    def __init__(self) -> None:
        self._open: set[Live] = set()
        self._made: OrderedDict[Place, asyncio.Future[Step]] = OrderedDict()
        self._awake: dict[tuple[str, str], tuple[set[asyncio.Event], Callable[[], None]]] = {}
        self._ended = False

    def add(self, stream: Live) -> None:
        """Know of a stream until `remove`.

        Raises
        ------
        TooManyRequests
            If it is of nobody, and so are too many others.
        """
        if stream.anonymous and sum(one.anonymous for one in self._open) >= NOBODYS:
            raise TooManyRequests("too many follow what is public, without an account", hint="try again in a while")
        self._open.add(stream)
        if self._ended:  # it was asked for on a connection that was still open; it would hold the server up
            stream.stop()

    def remove(self, stream: Live) -> None:
        """Forget a stream."""
        self._open.discard(stream)

    def end(self) -> None:
        """End all of them, and those that come yet: the server ends."""
        self._ended = True
        for stream in self._open:
            stream.stop()

    def wake(self, run: tuple[str, str], event: asyncio.Event, wait: Callable[..., Callable[[], None]]) -> None:
        """Set `event` whenever points of a run come, until `rest`."""
        if run not in self._awake:
            loop, events = asyncio.get_running_loop(), set[asyncio.Event]()
            self._awake[run] = events, wait(*run, lambda: loop.call_soon_threadsafe(_set_all, events))
        self._awake[run][0].add(event)

    def rest(self, run: tuple[str, str], event: asyncio.Event) -> None:
        """Set `event` no longer; a request may name the same run several times."""
        if run not in self._awake:
            return
        events, stop = self._awake[run]
        events.discard(event)
        if not events:
            del self._awake[run]
            stop()

    async def shared(
        self, place: Place, make: Callable[[Place], Awaitable[tuple[bytes, Place]]]
    ) -> tuple[bytes, Place]:
        """Return what follows a place, made once for all who stand there."""
        found = self._made.get(place)
        if found is None or (found.done() and (found.cancelled() or found.exception() or not found.result()[0])):
            found = self._made[place] = asyncio.ensure_future(make(place))
            # all readers may have gone when it fails: asyncio would log the error as unhandled
            found.add_done_callback(lambda done: done.cancelled() or done.exception())
            while len(self._made) > _SHARED:
                self._made.popitem(last=False)
        made = await asyncio.shield(found)
        while sum(map(_bytes_of, self._made.values())) > _SHARED_BYTES:
            self._made.popitem(last=False)
        return made


def _bytes_of(made: asyncio.Future[Step]) -> int:
    return len(made.result()[0]) if made.done() and not made.cancelled() and made.exception() is None else 0


def _set_all(events: set[asyncio.Event]) -> None:
    for event in events:
        event.set()


class Live(Handler):
    """`/projects/{project}/metrics/live`."""

    queries: ClassVar[Mapping[str, tuple[Parameter[Any], ...]]] = {"GET": (RUNS, KEYS, BEHIND)}
    in_public = READING
    anonymous = False
    """Whether the reader has no account."""

    _going = True

    async def get(self, project: str) -> None:
        """Send the new points of some runs, as server-sent events."""
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
        except StreamClosedError:  # the reader has gone
            pass
        finally:
            streams.remove(self)
            for run in place.runs:
                streams.rest((place.space, run), self._news)

    def _begin(self, project: str, runs: list[str], keys: tuple[str, ...] | None) -> Place:
        metrics = self.services.metrics
        space, ids = metrics.watched(self.caller, project, runs)
        given = self.query(BEHIND) or self.request.headers.get("Last-Event-ID")
        cursors = _cursors(given, len(ids)) if given else tuple(metrics.now(space, run) for run in ids)
        return Place(space, tuple(ids), keys, cursors)

    async def _follow(self, streams: Streams, project: str, place: Place) -> None:
        try:
            while self._going:
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
        except LmvpError as error:  # the reader has lost its rights, or the run is deleted
            self.write(b"event: end\ndata: " + msgspec.json.encode(error_body(error)) + b"\n\n")
        self.finish()

    async def _wait(self, project: str, place: Place) -> None:
        """Wait for news; look up the rights of the reader meanwhile, and send a comment at the end."""
        for _ in range(math.ceil(_PING / RECHECK)):
            try:
                await asyncio.wait_for(self._news.wait(), RECHECK)
            except asyncio.TimeoutError:
                await self.recheck(access.READ, project, space=place.space, now=True)
            else:
                return
        self.write(b": still here\n\n")
        await self.flush()

    async def _make(self, place: Place) -> Step:
        step = await self.run(_next_of_few, self.services, place)
        return step if step is not None else await self.run_shared(_next, self.services, place)

    def stop(self) -> None:
        """End the stream, soon."""
        self._going = False
        if hasattr(self, "_news"):
            self._news.set()

    def on_connection_close(self) -> None:
        """End the stream when its reader has gone."""
        super().on_connection_close()  # or a request that is cut off waits for its body as long as the server runs
        self.stop()


def _next_of_few(services: Services, place: Place) -> Step | None:
    """Return the next event; None if more than `_FEW` points are new: making the event takes long then."""
    now, cursors = services.metrics.now, zip(place.runs, place.cursors, strict=True)
    count = sum(max(0, now(place.space, run) - cursor) for run, cursor in cursors)
    return None if count > _FEW else _next(services, place)


def _next(services: Services, place: Place) -> Step:
    """Return the next event, and the place behind it; no bytes where nothing is new. It is the same for all readers."""
    metrics = services.metrics
    found = [
        metrics.since(place.space, run, cursor, place.keys)
        for run, cursor in zip(place.runs, place.cursors, strict=True)
    ]
    cursors = [
        metrics.now(place.space, run) if new is None else new[0] for run, new in zip(place.runs, found, strict=True)
    ]
    statuses = tuple(services.runs.status(place.space, run) for run in place.runs)
    behind = replace(place, cursors=tuple(cursors), statuses=statuses)
    told: dict[str, Any] = {"cursor": ",".join(map(str, cursors))}
    if statuses != place.statuses:
        told["status"] = dict(zip(place.runs, statuses, strict=True))
    points = sum(len(part) for new in found if new for part in new[1].values())
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
