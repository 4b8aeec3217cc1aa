"""What is new of runs, as server-sent events: at most ten a second, and the next when the last has gone.

Each reader has a cursor for each run, so whatever comes while a reader is slow is one event when it is ready; what is
sealed meanwhile cannot be told point by point, and a `reset` says so. Readers who ask for the same at the same place
share one encoding.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import msgspec
from tornado.iostream import StreamClosedError

from lmvp.errors import InvalidArgument, TooManyRequests
from lmvp_server.handlers.base import READING, Handler, is_number
from lmvp_server.services.metrics import floats

_PAUSE, _PING = 0.1, 15.0
_RUNS_LIMIT, _SHARED = 50, 256

NOBODYS = 100
"""Streams at most that those without an account have open: each keeps a connection."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a reader follows, and how far it has read: a cursor and a status for each run."""

    project: str
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
        nobodys = sum(not one.caller.known for one in self._open)
        if not stream.caller.known and nobodys >= NOBODYS:
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
            while len(self._made) > _SHARED:
                self._made.popitem(last=False)
        return await asyncio.shield(found)


def _set_all(events: set[asyncio.Event]) -> None:
    for event in events:
        event.set()


class Live(Handler):
    """`/projects/{project}/metrics/live`."""

    in_public = READING

    _going = True

    async def get(self, project: str) -> None:
        """Tell what is new of some runs, as server-sent events."""
        runs, keys = self.get_query_arguments("run"), self.get_query_arguments("key", strip=False)
        if not 1 <= len(runs) <= _RUNS_LIMIT:
            raise InvalidArgument(
                f"{len(runs)} runs: name 1 to {_RUNS_LIMIT}", hint="run=ID, as often as there are runs"
            )
        place = await self.run(self._begin, project, runs, tuple(keys) or None)
        self._news = asyncio.Event()
        streams: Streams = self.settings["streams"]
        streams.add(self)
        self.set_header("Content-Type", "text/event-stream")
        for run in place.runs:
            streams.wake((place.space, run), self._news, self.services.metrics.wait)
        try:
            await self._follow(streams, place)
        except StreamClosedError:  # whoever read has gone
            pass
        finally:
            streams.remove(self)
            for run in place.runs:
                streams.rest((place.space, run), self._news)

    def _begin(self, project: str, runs: list[str], keys: tuple[str, ...] | None) -> Place:
        metrics = self.services.metrics
        space, ids = metrics.watched(self.caller, project, runs)
        given = self.get_query_argument("cursor", None) or self.request.headers.get("Last-Event-ID")
        cursors = _cursors(given, len(ids)) if given else tuple(metrics.now(space, run) for run in ids)
        return Place(project, space, tuple(ids), keys, cursors)

    async def _follow(self, streams: Streams, place: Place) -> None:
        while self._going:
            self._news.clear()
            event, place = await streams.shared(place, self._make)
            if event:
                self.write(event)
                await self.flush()
                await asyncio.sleep(_PAUSE)
                continue
            try:
                await asyncio.wait_for(self._news.wait(), _PING)
            except asyncio.TimeoutError:
                self.write(b": still here\n\n")
                await self.flush()
        self.finish()

    async def _make(self, place: Place) -> Step:
        return await self.run(self._event, place)

    def _event(self, place: Place) -> Step:
        """Return the next event, and the place behind it; no bytes where nothing is new."""
        metrics, known = self.services.metrics, self.services.runs
        ways = list(zip(place.runs, place.cursors, strict=True))
        found = [metrics.since(place.space, run, cursor, place.keys) for run, cursor in ways]
        news = [
            metrics.now(place.space, run) if new is None else new[0] for run, new in zip(place.runs, found, strict=True)
        ]
        statuses = tuple(known.run(self.caller, place.project, run)["status"] for run in place.runs)
        behind = replace(place, cursors=tuple(news), statuses=statuses)
        told: dict[str, Any] = {"cursor": ",".join(map(str, news))}
        if statuses != place.statuses:
            told["status"] = dict(zip(place.runs, statuses, strict=True))
        if any(new is None for new in found):
            return _sse("reset", told), behind
        told["curves"] = [
            _curve(run, key, part)
            for run, new in zip(place.runs, found, strict=True)
            for key, part in (new[1].items() if new else ())
        ]
        if not told["curves"] and "status" not in told:
            return b"", behind
        return _sse("points" if told["curves"] else "status", told), behind

    def stop(self) -> None:
        """End the stream, soon."""
        self._going = False
        if hasattr(self, "_news"):
            self._news.set()

    def on_connection_close(self) -> None:
        """End the stream when its reader has gone."""
        super().on_connection_close()  # or a request that is cut off waits for its body as long as the server runs
        self.stop()


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
