"""The HTTP server, knowing which of its connections are in the middle of a request."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
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
from tornado.netutil import bind_sockets

from lmvp.errors import InvalidArgument

CHUNK_SIZE = 1 << 20
BODY_LIMIT = 1 << 30
HEADER_LIMIT = 64 << 10
IDLE_CONNECTION = 3600.0


class CountingServer(HTTPServer):
    """An HTTP server that can be asked whether a request is in flight, and that ends without cutting one off.

    Counted is what the connection does, not what handlers say: a handler whose client went away may never finish.
    """

    def initialize(self, *args: Any, **options: Any) -> None:
        """Begin; `on_use` is called when a request begins and when it ends. Tornado calls this for `__init__`."""
        self._on_use: Callable[[], None] = options.pop("on_use")
        self._busy: set[object] = set()
        super().initialize(*args, **options)

    @property
    def in_flight(self) -> int:
        """How many requests have begun and not ended."""
        return len(self._busy)

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        """Begin the next request of a connection, which means that the one before has ended. Tornado calls this."""
        self._end(server_conn)
        return _Watched(super().start_request(server_conn, request_conn), lambda: self._begin(server_conn))

    def on_close(self, server_conn: object) -> None:
        """Forget a connection that is gone. Tornado calls this."""
        self._end(server_conn)
        super().on_close(server_conn)

    async def drain(self, seconds: float, hurry: asyncio.Event) -> None:
        """Take no more requests, and wait until those in flight have ended, the time is over or `hurry` is set."""
        self.stop()
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            for connection in self._connections - self._busy:
                connection.stream.close()
            if not self._busy or hurry.is_set() or asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(0.02)
        await self.close_all_connections()

    def _begin(self, connection: object) -> None:
        self._busy.add(connection)
        self._on_use()

    def _end(self, connection: object) -> None:
        if connection in self._busy:
            self._busy.discard(connection)
            self._on_use()


class _Watched(HTTPMessageDelegate):
    """Passes a request on, and says when its headers are there."""

    def __init__(self, inner: HTTPMessageDelegate, begin: Callable[[], None]) -> None:
        self._inner = inner
        self._begin = begin

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        self._begin()
        return self._inner.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return self._inner.data_received(chunk)

    def finish(self) -> None:
        self._inner.finish()

    def on_connection_close(self) -> None:
        self._inner.on_connection_close()


def make_server(
    application: HTTPServerConnectionDelegate, on_use: Callable[[], None], *, behind_proxy: bool = False
) -> CountingServer:
    """Return a server for the application, with our limits; it listens to nothing yet.

    Parameters
    ----------
    behind_proxy : bool
        Whether to believe `X-Forwarded-For` and `X-Forwarded-Proto`.
    """
    return CountingServer(
        application,
        on_use=on_use,
        chunk_size=CHUNK_SIZE,
        max_body_size=BODY_LIMIT,
        max_header_size=HEADER_LIMIT,
        idle_connection_timeout=IDLE_CONNECTION,
        xheaders=behind_proxy,
    )


def bind(host: str, port: int) -> list[socket.socket]:
    """Return listening sockets.

    Raises
    ------
    InvalidArgument
        If there is no such address here, or the port is taken or needs more rights.
    """
    hint = "--port 0 takes a free port; --host 127.0.0.1 listens to this machine alone"
    if not 0 <= port < 1 << 16:
        raise InvalidArgument(f"cannot listen on port {port}: ports end at 65535", hint=hint)
    try:
        return bind_sockets(port, address=host)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InvalidArgument(f"cannot listen on port {port} of {host}: {reason}", hint=hint) from error


def url_of(sockets: list[socket.socket]) -> str:
    """Return the URL under which this machine itself reaches one who listens there."""
    host, port = sockets[0].getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - the reverse of binding to all
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
