"""Connections of the HTTP server: their bytes, and the time since their last progress."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import sys
from enum import Enum
from typing import Any

from tornado.httputil import HTTPInputError
from tornado.iostream import IOStream, UnsatisfiableReadError

from lmvp.errors import TooLarge
from lmvp_server.http.buffers import Buffers
from lmvp_server.http.error_responses import (
    TORNADO_BAD_REQUEST,
    TORNADO_CONTINUE,
    error_response,
    malformed_response,
)
from lmvp_server.http.limits import HEADER_LIMIT, Limits
from lmvp_server.http.lingering import LingeringConnections
from lmvp_server.http.queues import CallerQueue

_logger = logging.getLogger("lmvp_server")


class Phase(Enum):
    """The phase of a request-response exchange."""

    HEADERS = "headers"
    IDLE = "idle"
    BODY = "body"
    WORKING = "working"
    SENDING = "sending"


class CountingStream(IOStream):
    """A stream that counts its bytes, to distinguish slow from stopped clients, and that lingers when it closes."""

    received = 0
    sent = 0
    known = False
    """Whether the current request has valid credentials."""
    connection: ClientConnection | None = None
    lingering: LingeringConnections | None = None
    buffers: Buffers | None = None
    queue = CallerQueue("", known=False)
    """The caller whose memory limit includes the bytes of the current request and response."""
    written = 0
    _held = 0
    _held_by = queue
    is_refused = False
    """Whether the request was malformed or its head too long, so that unread bytes can follow."""

    def read_from_fd(self, buf: bytearray | memoryview) -> int | None:
        """Read, and count the bytes. Tornado calls this."""
        count = super().read_from_fd(buf)
        self.received += count or 0
        return count

    def write_to_fd(self, data: memoryview) -> int:
        """Write, and count the bytes. Tornado calls this."""
        try:
            count = super().write_to_fd(data)
        finally:
            del data  # as in Tornado: a traceback must not reference the buffer
        self.sent += count
        if self._held and self.sent >= self.written:  # Tornado frees a buffer after its last byte is sent
            self._release()
        return count

    def write(self, data: bytes | memoryview) -> asyncio.Future[None]:
        """Queue bytes for sending; replace two responses of Tornado."""
        if data == TORNADO_BAD_REQUEST:  # detected here, where Tornado handles the error
            return self._refuse(malformed_response(sys.exc_info()[1]))
        if data == TORNADO_CONTINUE and self.connection is not None:
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
            self._held_by = self.queue
        self._held += size
        self.buffers.add(self._held_by, size)

    def _release(self) -> None:
        if self.buffers is not None and self._held:
            self.buffers.remove(self._held_by, self._held)
        self._held = 0

    def close(self, exc_info: Any = False) -> None:
        """Close the stream; answer a request whose head is too long."""
        if isinstance(exc_info, UnsatisfiableReadError) and not self.closed() and self.connection is not None:
            self._refuse(self._too_long_answer()).add_done_callback(lambda sent: sent.exception())
        super().close(exc_info)

    def close_fd(self) -> None:
        """Close the socket, or let it linger. Tornado calls this."""
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
            return malformed_response(HTTPInputError("invalid chunk size"))
        line = self._read_buffer.find(b"\n")
        # Without a line end, or with a very long first line, the URI is the reason.
        is_uri = line < 0 or line > HEADER_LIMIT // 2
        noun = "request line" if is_uri else "request head"
        _logger.info("%s from %s is longer than %d kB", noun, connection and connection.address, HEADER_LIMIT >> 10)
        if is_uri:
            message = f"the request line makes the head of this request longer than {HEADER_LIMIT:,} bytes"
            return error_response(414, "URI Too Long", TooLarge.code, message, "shorten the path or the query")
        message = f"the head of this request is longer than {HEADER_LIMIT:,} bytes"
        hint = "send fewer or shorter headers; a browser sends less after its cookies for this host are deleted"
        return error_response(431, "Request Header Fields Too Large", TooLarge.code, message, hint)


class ClientConnection:
    """An open connection, with the time since its last progress."""

    def __init__(self, stream: CountingStream, address: str, at: float) -> None:
        self.stream, self.address = stream, address
        self.busy, self.requests = False, 0
        self.is_prepared = self.has_body = False
        self.begun_at = at
        self.phase, self.since = Phase.HEADERS, at
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
            or phase is Phase.WORKING
            or (phase is Phase.BODY and stream.received - self._received >= body_bytes)
            or (phase is Phase.SENDING and stream.sent > self._sent)
        ):
            self.phase, self.since = phase, at
            self._received, self._sent = stream.received, stream.sent

    def _current(self) -> Phase:
        if not self.busy:
            # The first request is expected at once; later ones can idle until their first byte.
            begun = self.requests < 2 or self.stream.received > self._received_at_start
            return Phase.HEADERS if begun else Phase.IDLE
        if self.stream.writing():
            return Phase.SENDING
        # Between two pieces of a body, the stream can be paused, which must not restart the clock.
        return Phase.BODY if self.stream.reading() or self.is_unknown_body else Phase.WORKING


def set_caller(connection: object, holder: str | None, address: str) -> None:
    """Set the caller of the current request of a connection. Handlers call this.

    Parameters
    ----------
    holder : str or None
        The account, or `OPERATOR`; None for a request without valid credentials.
    address : str
        The IP address of the client; behind a proxy, the address that the proxy reports.
    """
    stream = stream_of(connection)
    if isinstance(stream, CountingStream):
        stream.known = holder is not None
        stream.queue = (
            CallerQueue(network_of_peer((address,)), known=False) if holder is None else CallerQueue(holder, known=True)
        )


def buffers_of(connection: object) -> tuple[Buffers, CallerQueue] | None:
    """Return the memory limits, and the caller to whom the bytes of a connection count."""
    stream = stream_of(connection)
    if isinstance(stream, CountingStream) and stream.buffers is not None:
        return stream.buffers, stream.queue
    return None


def stream_of(connection: object) -> object:
    """Return the stream of a connection of Tornado, or None."""
    return getattr(connection, "stream", None)


def network_of_peer(address: Any) -> str:
    """Return the address that the limits use; for IPv6 the /64 network, because a client has all its addresses.

    Examples
    --------
    >>> network_of_peer(("192.0.2.7", 50000)), network_of_peer(("2001:db8::1:2", 50000, 0, 0))
    ('192.0.2.7', '2001:db8::/64')
    """
    try:
        found = ipaddress.ip_address(str(address[0]).partition("%")[0])
    except (ValueError, IndexError):
        return ""
    if found.version == 6:
        return str(found.ipv4_mapped or ipaddress.ip_network((int(found), 64), strict=False))
    return str(found)
