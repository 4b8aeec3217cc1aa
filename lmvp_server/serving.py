"""The HTTP server: listening sockets, connections and their limits.

A connection costs a file descriptor, and a client without a token can open any number. The server therefore limits
connections, in total and per address, closes those that make it wait too long, and closes one when a new one needs its
place. The address with the most connections loses one first: a connection without a request, then a request of an
unknown caller with an unfinished body, then a response to an unknown caller. Requests with valid credentials, and
requests that the server has not begun to answer, are never closed for this reason.

If the server closes a connection before it has read the complete request, the system resets the connection and the
client can lose the response. Such a connection lingers: the server closes only its sending side, and reads and discards
the rest.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import ipaddress
import logging
import os
import re
import socket
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import msgspec
from tornado.httpserver import HTTPServer
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPInputError,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream, UnsatisfiableReadError
from tornado.netutil import bind_sockets

from lmvp.core.schemas import ErrorBody
from lmvp.errors import InvalidArgument, InvalidRequest, TooLarge
from lmvp_server.buffers import BufferLimits, Buffers
from lmvp_server.costly import Lane

_logger = logging.getLogger("lmvp_server")

CHUNK_SIZE = 1 << 20
BODY_LIMIT = 1 << 30
HEADER_LIMIT = 64 << 10

DESCRIPTORS = 65_536
"""Maximum number of open files that the server requests; the hard limit of some systems is a billion."""
CONNECTIONS = 4096
"""Maximum number of connections, even with more descriptors, because each can hold `HEADER_LIMIT` bytes."""
FEWEST_CONNECTIONS = 8

_AT_ONCE = 128
"""Number of connections that are accepted before the event loop does other work."""
_PAUSE = 1.0
"""Seconds without accepting after a failure; shorter if a connection closes."""
_LOG_INTERVAL = 60.0
_LINGER_BUFFER = 256 << 10
_LINGER_RATE = 64 << 20
"""Bytes per second that the server reads and discards, for all lingering connections; about 1 % of a CPU core."""
_LINGER_BURST = 0.1

# Headers that Tornado trusts, but that proxies forward from clients; see `_Watched.headers_received`.
_IGNORED_HEADERS = ("X-Real-Ip", "X-Scheme")
_QUOTED = re.compile("[:'\"]")
_TORNADO_BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\n\r\n"
"""Tornado's response to a malformed request, which `_CountingStream` replaces."""
_TORNADO_CONTINUE = b"HTTP/1.1 100 (Continue)\r\n\r\n"
_REQUEST_TIMEOUT = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of connections.

    Attributes
    ----------
    connections : int
        Maximum number of connections.
    per_address : int
        Maximum number of connections of one address (of one /64 network for IPv6).
    unknown_bodies : int
        Maximum number of unfinished bodies without valid credentials from one address. One more closes the oldest.
    header_seconds : float
        Time for the head of a request, from its first byte; for the first request, from the connection.
    idle_seconds : float
        Time between two requests of a connection. It is longer than the 60 s for which nginx keeps a connection to the
        server, because nginx answers 502 if the server closes first.
    body_seconds, body_bytes : float, int
        A body must bring this number of bytes in each period of this number of seconds. The total time has no limit, so
        that a large push over a slow connection succeeds.
    unknown_body_seconds, unknown_body_bytes : float, int
        The same for bodies without valid credentials. A body of at most this size has this time in total.
    sending_seconds : float
        Time in which a client must read some bytes of a response.
    reading_seconds, reading_bytes, reading_rest : float, int, int
        A client must read this number of bytes of a response in each period, while at least `reading_rest` bytes wait
        for it. A stream without news has no waiting bytes, so it can be silent for any time.
    buffers : BufferLimits
        Limits for bodies and unread responses in memory.
    lingering, lingering_per_address : int
        Maximum number of lingering connections, in total and of one address. One more closes without lingering.
    lingering_seconds, lingering_idle_seconds : float
        Time that a connection lingers, in total and without a byte.
    lingering_bytes : int
        Maximum number of bytes that are read and discarded per connection.
    """

    connections: int = CONNECTIONS
    per_address: int = CONNECTIONS // 2
    unknown_bodies: int = CONNECTIONS // 8
    header_seconds: float = 30.0
    idle_seconds: float = 75.0
    body_seconds: float = 60.0
    body_bytes: int = 64 << 10
    unknown_body_seconds: float = 30.0
    unknown_body_bytes: int = 480 << 10
    sending_seconds: float = 300.0
    reading_seconds: float = 30.0
    reading_bytes: int = 480 << 10
    reading_rest: int = 64 << 10
    lingering: int = CONNECTIONS // 16
    lingering_per_address: int = CONNECTIONS // 64
    lingering_seconds: float = 10.0
    lingering_idle_seconds: float = 2.0
    lingering_bytes: int = 32 << 20
    buffers: BufferLimits = field(default_factory=BufferLimits)

    @classmethod
    def of_process(cls, *, behind_proxy: bool = False) -> Limits:
        """Return the limits for the descriptors of this process. Half of the descriptors are for files.

        Behind a proxy, all connections come from one address. That address can therefore have all connections, and half
        of them for bodies without valid credentials.
        """
        connections = min(CONNECTIONS, max(FEWEST_CONNECTIONS, _descriptors() // 2))
        lingering = max(2, connections // 16)
        if behind_proxy:
            return cls(connections, connections, connections // 2, lingering=lingering, lingering_per_address=lingering)
        return cls(
            connections,
            max(FEWEST_CONNECTIONS, connections // 2),
            max(2, connections // 8),
            lingering=lingering,
            lingering_per_address=max(2, lingering // 4),
        )


def raise_descriptor_limit() -> None:
    """Raise the soft limit of open files to the hard limit, at most to `DESCRIPTORS`."""
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # macOS reports a hard limit that its kernel does not accept
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _descriptors() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return DESCRIPTORS
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return DESCRIPTORS if soft == resource.RLIM_INFINITY else soft


class _Phase(Enum):
    """The phase of a request-response exchange."""

    HEADERS = "headers"
    IDLE = "idle"
    BODY = "body"
    WORKING = "working"
    SENDING = "sending"


def _error_answer(status: int, reason: str, code: str, message: str, hint: str) -> bytes:
    """Return an error response for a request that reaches no handler. The connection closes after it."""
    body = msgspec.json.encode({"error": ErrorBody(code=code, message=message, hint=hint)})
    head = (
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def _malformed_answer(error: BaseException | None) -> bytes:
    """Return the response to a malformed HTTP request.

    The reason is cut before the header that Tornado quotes, because it can contain a token.
    """
    reason = _QUOTED.split(str(error) if isinstance(error, HTTPInputError) else "")[0].strip()
    if reason in ("Content-Length too long", "chunked body too large"):
        message = f"the body is longer than {BODY_LIMIT:,} bytes"
        return _error_answer(413, "Content Too Large", TooLarge.code, message, "send less in one request")
    message = f"this is not a valid HTTP/1.1 request: {reason}" if reason else "this is not a valid HTTP/1.1 request"
    return _error_answer(400, "Bad Request", InvalidRequest.code, message, "correct the client or the proxy before it")


class _CountingStream(IOStream):
    """A stream that counts its bytes, to distinguish slow from stopped clients, and that lingers when it closes."""

    received = 0
    sent = 0
    known = False
    """Whether the current request has valid credentials."""
    connection: _Connection | None = None
    lingering: _Lingering | None = None
    buffers: Buffers | None = None
    lane = Lane("", known=False)
    """The caller whose memory limit includes the bytes of the current request and response."""
    written = 0
    _held = 0
    _held_by = lane
    is_refused = False
    """Whether the request was malformed or its head too long, so that unread bytes can follow."""

    def read_from_fd(self, buf: bytearray | memoryview) -> int | None:
        count = super().read_from_fd(buf)
        self.received += count or 0
        return count

    def write_to_fd(self, data: memoryview) -> int:
        try:
            count = super().write_to_fd(data)
        finally:
            del data  # as in Tornado: a traceback must not reference the buffer
        self.sent += count
        if self._held and self.sent >= self.written:  # Tornado frees a buffer after its last byte is sent
            self._release()
        return count

    def write(self, data: bytes | memoryview) -> asyncio.Future[None]:
        if data == _TORNADO_BAD_REQUEST:  # detected here, where Tornado handles the error
            return self._refuse(_malformed_answer(sys.exc_info()[1]))
        if data == _TORNADO_CONTINUE and self.connection is not None:
            self.connection.note_interim(len(data))
        if self.closed():
            return super().write(data)
        self._hold(len(data))
        return super().write(data)

    @property
    def unsent(self) -> int:
        """Number of bytes that wait for the client."""
        return self.written - self.sent

    def _hold(self, size: int) -> None:
        self.written += size
        if self.buffers is None:
            return
        # Bytes count for the caller of the first unsent byte, until all bytes are sent.
        if not self._held:
            self._held_by = self.lane
        self._held += size
        self.buffers.add(self._held_by, size)

    def _release(self) -> None:
        if self.buffers is not None and self._held:
            self.buffers.remove(self._held_by, self._held)
        self._held = 0

    def close(self, exc_info: Any = False) -> None:
        if isinstance(exc_info, UnsatisfiableReadError) and not self.closed() and self.connection is not None:
            self._refuse(self._too_long_answer()).add_done_callback(lambda sent: sent.exception())
        super().close(exc_info)

    def close_fd(self) -> None:
        self._release()
        connection, lingering = self.connection, self.lingering
        if (
            connection is not None
            and lingering is not None
            and connection.may_linger
            and (self.error is None or isinstance(self.error, UnsatisfiableReadError))
            and lingering.take(self.socket, connection.address)
        ):
            self.socket = None  # type: ignore[assignment]  # as in Tornado
            return
        super().close_fd()

    def _refuse(self, answer: bytes) -> asyncio.Future[None]:
        """Respond to a request that cannot be read, unless a part of a response is sent."""
        connection = self.connection
        # An error in the middle of a response would look like a part of it.
        if connection is None or connection.is_answered or self.writing():
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            done.set_result(None)
            return done
        self.is_refused = True
        self._hold(len(answer))
        return super().write(answer)

    def _too_long_answer(self) -> bytes:
        """Return the response if Tornado found no end of the head, or of a line of a chunked body."""
        connection = self.connection
        # The head was complete, so the invalid line is in a chunked body.
        if connection is not None and connection.busy:
            _logger.info("invalid chunk of a body from %s", connection.address)
            return _malformed_answer(HTTPInputError("invalid chunk size"))
        line = self._read_buffer.find(b"\n")
        # Without a line end, or with a very long first line, the URI is the reason.
        is_uri = line < 0 or line > HEADER_LIMIT // 2
        noun = "request line" if is_uri else "request head"
        _logger.info("%s from %s is longer than %d kB", noun, connection and connection.address, HEADER_LIMIT >> 10)
        if is_uri:
            message = f"the request line makes the head of this request longer than {HEADER_LIMIT:,} bytes"
            return _error_answer(414, "URI Too Long", TooLarge.code, message, "shorten the path or the query")
        message = f"the head of this request is longer than {HEADER_LIMIT:,} bytes"
        hint = "send fewer or shorter headers; a browser sends less after its cookies for this host are deleted"
        return _error_answer(431, "Request Header Fields Too Large", TooLarge.code, message, hint)


class _Lingering:
    """Connections that got their response while the client still sends. Their bytes are read and discarded.

    Limits of count, time, bytes and rate bound the cost, so that a client gains nothing by being refused.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._tasks: set[asyncio.Task[None]] = set()
        self._by_address: Counter[str] = Counter()
        self._buffer = bytearray(0)
        self._next_read = 0.0
        self.dropped = 0
        """Number of bytes that were read and discarded."""

    def __len__(self) -> int:
        return len(self._tasks)

    def take(self, connection: socket.socket, address: str) -> bool:
        """Take over the socket of a connection; return False if too many linger or the connection is closed."""
        limits = self._limits
        if len(self._tasks) >= limits.lingering or self._by_address[address] >= limits.lingering_per_address:
            return False
        try:
            connection.shutdown(socket.SHUT_WR)
        except OSError:  # the client closed or reset it
            return False
        task = asyncio.get_running_loop().create_task(self._linger(connection))
        self._tasks.add(task)
        self._by_address[address] += 1
        task.add_done_callback(lambda done: self._end(done, connection, address))
        return True

    async def stop(self) -> None:
        """Close all lingering connections."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _end(self, task: asyncio.Task[None], connection: socket.socket, address: str) -> None:
        connection.close()
        self._tasks.discard(task)
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]
        if not self._tasks:
            self._buffer = bytearray(0)

    async def _linger(self, connection: socket.socket) -> None:
        with suppress(asyncio.TimeoutError, OSError):
            await asyncio.wait_for(self._drop(connection), self._limits.lingering_seconds)

    async def _drop(self, connection: socket.socket) -> None:
        """Read until the client closes, its byte limit is reached, or it sends nothing for too long."""
        loop = asyncio.get_running_loop()
        # The connections share one buffer, because the bytes are not used.
        if not self._buffer:
            self._buffer = bytearray(_LINGER_BUFFER)
        buffer, remaining = self._buffer, self._limits.lingering_bytes
        while remaining > 0:
            reading = loop.sock_recv_into(connection, buffer)
            count = await asyncio.wait_for(reading, self._limits.lingering_idle_seconds)
            if not count:
                return
            remaining -= count
            self.dropped += count
            # A token bucket over all lingering connections limits the CPU time for discarding.
            self._next_read = max(self._next_read, loop.time()) + count / _LINGER_RATE
            await asyncio.sleep(max(0.0, self._next_read - loop.time() - _LINGER_BURST))


class _Connection:
    """An open connection, with the time since its last progress."""

    def __init__(self, stream: _CountingStream, address: str, at: float) -> None:
        self.stream, self.address = stream, address
        self.busy, self.requests = False, 0
        self.is_prepared = self.has_body = False
        self.begun_at = at
        self.phase, self.since = _Phase.HEADERS, at
        self._received = self._sent = 0
        self._received_at_start = self._sent_at_start = 0
        self._read_since, self._read_from = at, 0

    def expect_request(self, at: float, limits: Limits) -> None:
        """Reset the state for the next request of the connection."""
        self.busy, self.requests = False, self.requests + 1
        self.is_prepared = self.has_body = self.stream.known = False
        self._received_at_start, self._sent_at_start = self.stream.received, self.stream.sent
        self.update(at, limits)

    @property
    def is_answered(self) -> bool:
        """Whether a part of the response to the current request is sent."""
        return self.stream.sent > self._sent_at_start

    @property
    def may_linger(self) -> bool:
        """Whether the request is answered and more of it can arrive."""
        return self.is_answered and (self.stream.is_refused or (self.busy and self.has_body))

    def note_interim(self, size: int) -> None:
        """Record an interim response (100 Continue), which does not count as a response."""
        self._sent_at_start += size

    @property
    def is_unknown_body(self) -> bool:
        """Whether the body of the current request is unfinished and the request has no valid credentials."""
        return self.busy and self.has_body and self.is_prepared and not self.stream.known

    @property
    def right_to_stay(self) -> int | None:
        """The priority for closing the connection to free its place, lowest first; None if it must stay open."""
        if not self.busy:
            return 0
        if self.is_unknown_body:
            return 1
        if self.is_prepared and not self.stream.known and (self.is_answered or self.stream.writing()):
            return 2
        return None

    def reads_slowly(self, at: float, limits: Limits) -> bool:
        """Return whether the client read too few bytes of a response in a period, although enough were waiting."""
        stream = self.stream
        if stream.unsent < limits.reading_rest or stream.sent - self._read_from >= limits.reading_bytes:
            self._read_since, self._read_from = at, stream.sent
        return at - self._read_since >= limits.reading_seconds

    def update(self, at: float, limits: Limits) -> None:
        """Restart the clock if the phase has changed or has brought enough bytes."""
        phase, stream = self._current(), self.stream
        body_bytes = limits.unknown_body_bytes if self.is_unknown_body else limits.body_bytes
        if (
            phase is not self.phase
            or phase is _Phase.WORKING
            or (phase is _Phase.BODY and stream.received - self._received >= body_bytes)
            or (phase is _Phase.SENDING and stream.sent > self._sent)
        ):
            self.phase, self.since = phase, at
            self._received, self._sent = stream.received, stream.sent

    def _current(self) -> _Phase:
        if not self.busy:
            # The first request is expected at once; later ones can idle until their first byte.
            begun = self.requests < 2 or self.stream.received > self._received_at_start
            return _Phase.HEADERS if begun else _Phase.IDLE
        if self.stream.writing():
            return _Phase.SENDING
        # Between two pieces of a body, the stream can be paused, which must not restart the clock.
        return _Phase.BODY if self.stream.reading() or self.is_unknown_body else _Phase.WORKING


class CountingServer(HTTPServer):
    """An HTTP server that reports whether a request is in progress, and stops without aborting one.

    A request is in progress from its headers until the next request of its connection, regardless of its handler: a
    handler whose client disconnected can run forever.
    """

    def initialize(self, *args: Any, **options: Any) -> None:
        """Initialize the server; `on_use` is called at the start and the end of a request."""
        self._on_use: Callable[[], None] = options.pop("on_use")
        self._limits: Limits = options.pop("limits")
        self._busy: set[object] = set()
        self._listening: list[socket.socket] = []
        self._open: dict[object, _Connection] = {}
        self._by_address: Counter[str] = Counter()
        self._resuming: asyncio.TimerHandle | None = None
        self._sweeping: asyncio.TimerHandle | None = None
        self._failures, self._logged_at = 0, float("-inf")
        self._lingering = _Lingering(self._limits)
        self.buffers = Buffers(self._limits.buffers)
        super().initialize(*args, **options)

    # -- accepting

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        """Accept connections on listening sockets.

        Tornado's accept loop raises the errors of `accept` and is called again at once, so it spins when no descriptors
        are left. This one pauses instead.
        """
        for each in sockets:
            each.setblocking(False)
            self._listening.append(each)
            if self._resuming is None:
                IOLoop.current().add_handler(each, self._accept, IOLoop.READ)

    def stop(self) -> None:
        """Stop accepting connections."""
        if self._resuming is None:
            for each in self._listening:
                IOLoop.current().remove_handler(each)
        else:
            self._resuming.cancel()
        for each in self._listening:
            each.close()
        self._listening.clear()
        super().stop()

    def _accept(self, listening: socket.socket, _events: int) -> None:
        for count in range(_AT_ONCE):
            if len(self._open) >= self._limits.connections:
                if count:  # another connection need not be waiting; if one is, this is called again
                    return
                self._note_failure(f"all {self._limits.connections} connections are in use")
                if not self._make_room():
                    self._pause()
                    return
            try:
                connection, address = listening.accept()
            except BlockingIOError:
                return
            # The client closed the connection before it was accepted.
            except ConnectionAbortedError:
                continue
            except OSError as error:
                self._note_failure(f"{error.strerror or error}; `ulimit -n` sets how many files a process may open")
                # Without file descriptors, closing a connection helps; for other errors, only waiting does.
                if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._make_room():
                    self._pause()
                    return
            else:
                self._serve(connection, address)

    def _serve(self, connection: socket.socket, address: Any) -> None:
        network = _network(address)
        if self._by_address[network] >= self._limits.per_address:
            self._note_failure(f"all {self._limits.per_address} connections of {network} are in use")
            # An address at its limit can only displace its own connections.
            if not self._make_room(network):
                with connection, suppress(OSError):
                    connection.send(_UNAVAILABLE)
                return
        stream = _CountingStream(connection, max_buffer_size=self.max_buffer_size, read_chunk_size=self.read_chunk_size)
        self._open[stream] = stream.connection = _Connection(stream, network, self._now())
        stream.lingering = self._lingering
        stream.buffers, stream.lane = self.buffers, Lane(network, known=False)
        self._by_address[network] += 1
        if self._sweeping is None:
            self._sweep_later()
        self.handle_stream(stream, address)

    def _make_room(self, address: str | None = None) -> bool:
        """Close the connection with the lowest priority, of one address or of all.

        The address with the most connections comes first. Otherwise, clients at few addresses could close a new
        connection of another address before its request arrives.
        """
        ranked = [
            ((-self._by_address[one.address], right, one.begun_at if one.busy else one.since), one)
            for one in self._open.values()
            if address in (None, one.address) and (right := one.right_to_stay) is not None
        ]
        if not ranked:
            return False
        found = min(ranked, key=lambda pair: pair[0])[1]
        if found.busy:
            found.stream.lingering = None  # its descriptor is needed now
            self._refuse(found, _UNAVAILABLE)
        else:  # an idle connection expects no response
            self._close(found)
        return True

    def _limit_unknown_bodies(self, address: str) -> None:
        # Unfinished bodies hold memory, and callers without credentials can send them slowly.
        bodies = [one for one in self._open.values() if one.address == address and one.is_unknown_body]
        if len(bodies) > self._limits.unknown_bodies:
            self._note_failure(f"{address} has more than {self._limits.unknown_bodies} unfinished bodies without login")
            self._refuse(min(bodies, key=lambda one: one.begun_at), _UNAVAILABLE)

    def _note_failure(self, why: str) -> None:
        """Count a refused connection, and log the count once a minute."""
        self._failures += 1
        if self._now() - self._logged_at >= _LOG_INTERVAL:
            _logger.warning("%d connections found no room since the last such line: %s", self._failures, why)
            self._failures, self._logged_at = 0, self._now()

    def _pause(self) -> None:
        """Stop accepting for a moment, because `accept` would fail again at once."""
        for each in self._listening:
            IOLoop.current().remove_handler(each)
        self._resuming = asyncio.get_running_loop().call_later(_PAUSE, self._resume)

    def _resume(self) -> None:
        if self._resuming is not None:
            self._resuming.cancel()
            self._resuming = None
            for each in self._listening:
                IOLoop.current().add_handler(each, self._accept, IOLoop.READ)

    # -- connections that make the server wait

    def _sweep_later(self) -> None:
        limits = self._limits
        shortest = min(
            limits.header_seconds,
            limits.idle_seconds,
            limits.body_seconds,
            limits.unknown_body_seconds,
            limits.sending_seconds,
            limits.reading_seconds,
        )
        # A quarter of the shortest limit, so that limits are exceeded by at most 25 %, but at most every 5 s.
        self._sweeping = asyncio.get_running_loop().call_later(min(shortest / 4, 5.0), self._sweep)

    def _sweep(self) -> None:
        at, limits = self._now(), self._limits
        seconds = {
            _Phase.HEADERS: limits.header_seconds,
            _Phase.IDLE: limits.idle_seconds,
            _Phase.BODY: limits.body_seconds,
            _Phase.SENDING: limits.sending_seconds,
            # The server works; the client is not late.
            _Phase.WORKING: float("inf"),
        }
        for one in list(self._open.values()):
            one.update(at, limits)
            unknown_body = one.phase is _Phase.BODY and one.is_unknown_body
            if at - one.since >= (limits.unknown_body_seconds if unknown_body else seconds[one.phase]):
                self._time_out(one)
            elif one.reads_slowly(at, limits):
                _logger.info("%s reads an answer too slowly; %d bytes are unsent", one.address, one.stream.unsent)
                self._close(one)
        self._sweeping = None
        if self._open:
            self._sweep_later()

    def _time_out(self, connection: _Connection) -> None:
        if connection.phase in (_Phase.HEADERS, _Phase.BODY):
            self._refuse(connection, _REQUEST_TIMEOUT)
        else:
            self._close(connection)

    def _refuse(self, connection: _Connection, answer: bytes) -> None:
        """Close a connection. First send a response, unless a part of one is sent already."""
        if not connection.is_answered and not connection.stream.writing():
            connection.stream.write(answer).add_done_callback(lambda sent: sent.exception())
        self._close(connection)

    def _close(self, connection: _Connection) -> None:
        self._forget(connection.stream)
        connection.stream.close()

    def _forget(self, stream: object) -> None:
        gone = self._open.pop(stream, None)
        if gone is not None:
            self._by_address[gone.address] -= 1
            if not self._by_address[gone.address]:
                del self._by_address[gone.address]
            self._resume()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    # -- requests

    @property
    def in_flight(self) -> int:
        """Number of requests in progress."""
        return len(self._busy)

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        """Start the next request of a connection, which finishes the previous one. Tornado calls this."""
        self._end(server_conn)
        stream = _stream_of(server_conn)
        if isinstance(stream, _CountingStream) and stream.closed():
            # Tornado parses the pipelined requests of a closed connection, too. Without this, they would fill the
            # queues with work whose answers nobody reads. The base class of delegates ignores a request.
            return HTTPMessageDelegate()
        found = self._open.get(stream)
        if found is not None:
            found.expect_request(self._now(), self._limits)
        return _Watched(super().start_request(server_conn, request_conn), self, server_conn)

    def on_close(self, server_conn: object) -> None:
        """Remove a closed connection. Tornado calls this."""
        self._end(server_conn)
        self._forget(_stream_of(server_conn))
        super().on_close(server_conn)

    async def drain(self, seconds: float, hurry: asyncio.Event) -> None:
        """Accept no more requests, and wait until the current ones finish, the time is over or `hurry` is set."""
        self.stop()
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            # Connections without a request are closed at once; new ones cannot arrive.
            for connection in self._connections - self._busy:
                connection.stream.close()
            if not self._busy or hurry.is_set() or asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(0.02)
        await self.close_all_connections()
        await self._lingering.stop()
        if self._sweeping is not None:
            self._sweeping.cancel()

    def begin(self, connection: object, headers: HTTPHeaders) -> None:
        """Record that the headers of a request have arrived."""
        self._busy.add(connection)
        found = self._open.get(_stream_of(connection))
        if found is not None:
            found.busy, found.begun_at = True, self._now()
            # An invalid length counts as a body; Tornado refuses it.
            found.has_body = "Transfer-Encoding" in headers or headers.get("Content-Length", "0") != "0"
            found.update(self._now(), self._limits)
        self._on_use()

    def end_prepare(self, connection: object) -> None:
        """Record that the handler has checked the credentials of the request."""
        found = self._open.get(_stream_of(connection))
        if found is not None:
            found.is_prepared = True
            if found.is_unknown_body:
                self._limit_unknown_bodies(found.address)

    def end_body(self, connection: object) -> None:
        """Record that the body of the request has arrived."""
        found = self._open.get(_stream_of(connection))
        if found is not None:
            found.has_body = False

    def _end(self, connection: object) -> None:
        if connection in self._busy:
            self._busy.discard(connection)
            self._on_use()


def set_caller(connection: object, holder: str | None, address: str) -> None:
    """Set the caller of the current request of a connection. Handlers call this.

    Parameters
    ----------
    holder : str or None
        The account, or `OPERATOR`; None for a request without valid credentials.
    address : str
        The IP address of the client; behind a proxy, the address that the proxy reports.
    """
    stream = _stream_of(connection)
    if isinstance(stream, _CountingStream):
        stream.known = holder is not None
        stream.lane = Lane(_network((address,)), known=False) if holder is None else Lane(holder, known=True)


def buffers_of(connection: object) -> tuple[Buffers, Lane] | None:
    """Return the memory limits, and the caller to whom the bytes of a connection count."""
    stream = _stream_of(connection)
    if isinstance(stream, _CountingStream) and stream.buffers is not None:
        return stream.buffers, stream.lane
    return None


def _stream_of(connection: object) -> object:
    return getattr(connection, "stream", None)


def _network(address: Any) -> str:
    """Return the address that the limits use; for IPv6 the /64 network, because a client has all its addresses.

    Examples
    --------
    >>> _network(("192.0.2.7", 50000)), _network(("2001:db8::1:2", 50000, 0, 0))
    ('192.0.2.7', '2001:db8::/64')
    """
    try:
        found = ipaddress.ip_address(str(address[0]).partition("%")[0])
    except (ValueError, IndexError):
        return ""
    if found.version == 6:
        return str(found.ipv4_mapped or ipaddress.ip_network((int(found), 64), strict=False))
    return str(found)


class _Watched(HTTPMessageDelegate):
    """Forwards a request to Tornado, and records its progress."""

    def __init__(self, inner: HTTPMessageDelegate, server: CountingServer, connection: object) -> None:
        self._inner, self._server, self._connection = inner, server, connection

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        # Tornado prefers these two headers to X-Forwarded-For and X-Forwarded-Proto. Proxies forward them from clients,
        # which could then choose their address and scheme.
        for name in _IGNORED_HEADERS:
            headers.pop(name, None)
        self._server.begin(self._connection, headers)
        prepared = self._inner.headers_received(start_line, headers)
        if prepared is not None:
            return self._end_prepare(prepared)
        self._server.end_prepare(self._connection)
        return None

    async def _end_prepare(self, prepared: Awaitable[None]) -> None:
        await prepared
        self._server.end_prepare(self._connection)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return self._inner.data_received(chunk)

    def finish(self) -> None:
        self._server.end_body(self._connection)
        self._inner.finish()

    def on_connection_close(self) -> None:
        self._inner.on_connection_close()


def make_server(
    application: HTTPServerConnectionDelegate,
    on_use: Callable[[], None],
    *,
    behind_proxy: bool = False,
    limits: Limits | None = None,
) -> CountingServer:
    """Return a server for the application with its limits. It does not listen yet.

    Parameters
    ----------
    behind_proxy : bool
        Whether to use the last entry of `X-Forwarded-For` and of `X-Forwarded-Proto`, which the proxy adds, as the
        client's address and scheme. All other headers about the client are ignored.
    limits : Limits, optional
        The limits of connections. The default depends on the file descriptors of this process.
    """
    limits = limits or Limits.of_process(behind_proxy=behind_proxy)
    return CountingServer(
        application,
        on_use=on_use,
        limits=limits,
        chunk_size=CHUNK_SIZE,
        max_body_size=BODY_LIMIT,
        max_header_size=HEADER_LIMIT,
        idle_connection_timeout=2 * (limits.idle_seconds + limits.header_seconds),  # Tornado's timeout comes after ours
        xheaders=behind_proxy,
    )


def bind(host: str, port: int) -> list[socket.socket]:
    """Return listening sockets.

    Raises
    ------
    InvalidArgument
        If the address does not exist here, the port is in use, or it needs more rights.
    """
    hint = "--port 0 takes a free port; --host 127.0.0.1 listens to this machine alone"
    if not 0 <= port < 1 << 16:
        raise InvalidArgument(f"cannot listen on port {port}: ports end at 65535", hint=hint)
    try:
        return bind_sockets(port, address=host)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InvalidArgument(f"cannot listen on port {port} of {host}: {reason}", hint=hint) from error


PORTS = range(11_000, 20_000)
"""Ports of embedded servers.

They are below the ephemeral ports of operating systems, and exclude the ports that browsers block
(https://fetch.spec.whatwg.org/#port-blocking).
"""
_STABLE = 3


def stable_ports(data: Path) -> list[int]:
    """Return the ports that the embedded server of a data folder tries before any free one.

    They depend only on the path of the folder. Bookmarks and open tabs therefore survive a restart, and the servers of
    two folders or two users do not compete for a port.

    Examples
    --------
    >>> stable_ports(Path("/home/ada/lmvp")) == stable_ports(Path("/home/ada/lmvp")), len(stable_ports(Path("/x")))
    (True, 3)
    """
    digest = hashlib.sha256(os.fsencode(os.path.realpath(data))).digest()
    # Several candidates, because the first port can be in use.
    numbers = (int.from_bytes(digest[at : at + 4], "big") for at in range(0, 4 * _STABLE, 4))
    return [PORTS[number % len(PORTS)] for number in numbers]


def bind_stable(host: str, data: Path) -> list[socket.socket]:
    """Return listening sockets on a stable port of the data folder if one is free, otherwise on any free port."""
    for port in stable_ports(data):
        with suppress(InvalidArgument):
            return bind(host, port)
    return bind(host, 0)


def url_of(sockets: list[socket.socket]) -> str:
    """Return the URL by which this machine reaches the server of these sockets."""
    host, port = sockets[0].getsockname()[:2]
    # The wildcard address is not a valid destination on all systems.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - the reverse of binding to all
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
