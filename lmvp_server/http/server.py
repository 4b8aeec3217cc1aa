"""The HTTP server: it accepts connections within limits.

A connection costs a file descriptor, and a client without a token can open any number. The server therefore limits
connections, in total and per address, closes those that make it wait too long, and closes one when a new one needs its
place. The address with the most connections loses one first: a connection without a request, then a request of an
unknown caller with an unfinished body, then a response to an unknown caller. Requests with valid credentials, and
requests that the server has not begun to answer, are never closed for this reason.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.ioloop import IOLoop

from lmvp_server.http.buffers import Buffers
from lmvp_server.http.connections import ClientConnection, CountingStream, Phase, network_of_peer, stream_of
from lmvp_server.http.error_responses import REQUEST_TIMEOUT, UNAVAILABLE
from lmvp_server.http.limits import BODY_LIMIT, CHUNK_SIZE, HEADER_LIMIT, Limits
from lmvp_server.http.lingering import LingeringConnections
from lmvp_server.http.queues import CallerQueue

_logger = logging.getLogger("lmvp_server")

_AT_ONCE = 128
"""Number of connections that are accepted before the event loop does other work."""
_PAUSE = 1.0
"""Seconds without accepting after a failure; shorter if a connection closes."""
_LOG_INTERVAL = 60.0

# Headers that Tornado trusts, but that proxies forward from clients; see `_Watched.headers_received`.
_IGNORED_HEADERS = ("X-Real-Ip", "X-Scheme")


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
        self._open: dict[object, ClientConnection] = {}
        self._by_address: Counter[str] = Counter()
        self._resuming: asyncio.TimerHandle | None = None
        self._sweeping: asyncio.TimerHandle | None = None
        self._failures, self._logged_at = 0, float("-inf")
        self._lingering = LingeringConnections(self._limits)
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
        network = network_of_peer(address)
        if self._by_address[network] >= self._limits.per_address:
            self._note_failure(f"all {self._limits.per_address} connections of {network} are in use")
            # An address at its limit can only displace its own connections.
            if not self._make_room(network):
                with connection, suppress(OSError):
                    connection.send(UNAVAILABLE)
                return
        stream = CountingStream(connection, max_buffer_size=self.max_buffer_size, read_chunk_size=self.read_chunk_size)
        self._open[stream] = stream.connection = ClientConnection(stream, network, self._now())
        stream.lingering = self._lingering
        stream.buffers, stream.queue = self.buffers, CallerQueue(network, known=False)
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
            self._refuse(found, UNAVAILABLE)
        else:  # an idle connection expects no response
            self._close(found)
        return True

    def _limit_unknown_bodies(self, address: str) -> None:
        # Unfinished bodies hold memory, and callers without credentials can send them slowly.
        bodies = [one for one in self._open.values() if one.address == address and one.is_unknown_body]
        if len(bodies) > self._limits.unknown_bodies:
            self._note_failure(f"{address} has more than {self._limits.unknown_bodies} unfinished bodies without login")
            self._refuse(min(bodies, key=lambda one: one.begun_at), UNAVAILABLE)

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
            Phase.HEADERS: limits.header_seconds,
            Phase.IDLE: limits.idle_seconds,
            Phase.BODY: limits.body_seconds,
            Phase.SENDING: limits.sending_seconds,
            # The server works; the client is not late.
            Phase.WORKING: float("inf"),
        }
        for one in list(self._open.values()):
            one.update(at, limits)
            unknown_body = one.phase is Phase.BODY and one.is_unknown_body
            if at - one.since >= (limits.unknown_body_seconds if unknown_body else seconds[one.phase]):
                self._time_out(one)
            elif one.reads_slowly(at, limits):
                _logger.info("%s reads an answer too slowly; %d bytes are unsent", one.address, one.stream.unsent)
                self._close(one)
        self._sweeping = None
        if self._open:
            self._sweep_later()

    def _time_out(self, connection: ClientConnection) -> None:
        if connection.phase in (Phase.HEADERS, Phase.BODY):
            self._refuse(connection, REQUEST_TIMEOUT)
        else:
            self._close(connection)

    def _refuse(self, connection: ClientConnection, answer: bytes) -> None:
        """Close a connection. First send a response, unless a part of one is sent already."""
        if not connection.is_answered and not connection.stream.writing():
            connection.stream.write(answer).add_done_callback(lambda sent: sent.exception())
        self._close(connection)

    def _close(self, connection: ClientConnection) -> None:
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
        stream = stream_of(server_conn)
        if isinstance(stream, CountingStream) and stream.closed():
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
        self._forget(stream_of(server_conn))
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
        found = self._open.get(stream_of(connection))
        if found is not None:
            found.busy, found.begun_at = True, self._now()
            # An invalid length counts as a body; Tornado refuses it.
            found.has_body = "Transfer-Encoding" in headers or headers.get("Content-Length", "0") != "0"
            found.update(self._now(), self._limits)
        self._on_use()

    def end_prepare(self, connection: object) -> None:
        """Record that the handler has checked the credentials of the request."""
        found = self._open.get(stream_of(connection))
        if found is not None:
            found.is_prepared = True
            if found.is_unknown_body:
                self._limit_unknown_bodies(found.address)

    def end_body(self, connection: object) -> None:
        """Record that the body of the request has arrived."""
        found = self._open.get(stream_of(connection))
        if found is not None:
            found.has_body = False

    def _end(self, connection: object) -> None:
        if connection in self._busy:
            self._busy.discard(connection)
            self._on_use()


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
