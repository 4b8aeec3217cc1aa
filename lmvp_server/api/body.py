"""The body of a request, and the memory that the request and its response hold.

A refused request is answered before its body arrives. The operating system resets a connection that is closed with
unread bytes, so that the client can lose the response; the rest of a short body is therefore read first.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar, TypeVar

import msgspec
from tornado.iostream import StreamClosedError
from tornado.web import RequestHandler

from lmvp.errors import InvalidRequest, TooLarge, TooManyRequests
from lmvp_server.api.route import JSON_LIMIT
from lmvp_server.http.buffers import ANSWERED_ALWAYS, Buffers
from lmvp_server.http.connections import buffers_of
from lmvp_server.http.queues import CallerQueue

T = TypeVar("T")
_ROOM = 0.25
"""Seconds between two checks for free buffer memory."""

DRAINED = 1 << 20
"""Maximum size in bytes of the body of a refused request that is read before the error is sent."""


class BodyHandler(RequestHandler):
    """Base class of `Handler`: body, memory limit and early errors."""

    body_limit: ClassVar[int] = JSON_LIMIT

    def initialize(self) -> None:
        """Initialize the state of a request."""
        self._body: list[bytes] = []
        self._received = 0
        # An error that waits for the rest of a short body: status and options of `send_error`.
        self._refused: tuple[int, dict[str, Any]] | None = None
        self._has_left = False
        self._held: list[tuple[Buffers, CallerQueue, int]] = []

    def expire_caller(self) -> None:
        """Authenticate the caller again at its next use, because a part of the body arrived."""

    @property
    def has_begun(self) -> bool:
        """Whether the headers of the response are sent. After that, its status cannot change."""
        return self._headers_written

    def break_off(self) -> None:
        """Close the connection in the middle of the response. A regular end would make it look complete."""
        stream = getattr(self.request.connection, "stream", None)
        if stream is not None:
            stream.close()

    def data_received(self, chunk: bytes) -> Any:
        """Collect the body. Handlers of long bodies override this method.

        If this method raises, Tornado logs a traceback and closes the connection without a response. A body that is too
        long is therefore answered here at once; Tornado then discards the rest and closes the connection.
        """
        self._received += len(chunk)
        if self.is_refused():
            return
        self.expire_caller()
        if self._received > self.body_limit:
            self._body.clear()
            error = TooLarge(f"the body is longer than {self.body_limit:,} bytes")
            self.send_error(error.http_status, exc_info=(type(error), error, None))
        elif self.hold_body(len(chunk)):
            self._body.append(chunk)

    def hold_body(self, size: int) -> bool:
        """Count bytes of the body in the memory limit. If they do not fit, refuse the request and return False."""
        try:
            self.hold(size)
        except TooManyRequests as error:
            self._body.clear()
            self.release()
            self.send_error(error.http_status, exc_info=(type(error), error, None))
            return False
        return True

    def hold(self, size: int, *, required: bool = True) -> None:
        """Count bytes that this request holds in memory, until `release` or the end of the request.

        Raises
        ------
        TooManyRequests
            If they exceed the memory limit and `required` is set.
        """
        if (found := buffers_of(self.request.connection)) is not None:
            buffers, queue = found
            if required:
                buffers.require(queue, size)
            buffers.add(queue, size)
            self._held.append((buffers, queue, size))

    def release(self) -> None:
        """Remove the bytes of this request from the memory limit."""
        for buffers, queue, size in self._held:
            buffers.remove(queue, size)
        self._held.clear()

    def has_room(self, size: int) -> bool:
        """Return whether more bytes fit within the memory limit."""
        found = buffers_of(self.request.connection)
        return found is None or found[0].has_room(found[1], size)

    async def wait_for_room(self, size: int) -> None:
        """Wait until more bytes of a response fit within the memory limit.

        Raises
        ------
        TooManyRequests
            If they do not fit and the response has not begun.
        StreamClosedError
            If the client closes the connection.
        """
        while not self.has_room(size):
            if not self.has_begun and (found := buffers_of(self.request.connection)) is not None:
                found[0].require(found[1], size)
            if self._has_left:
                raise StreamClosedError
            await asyncio.sleep(_ROOM)

    def finish(self, chunk: str | bytes | dict[str, Any] | None = None) -> asyncio.Future[None]:
        """Send the rest of a response. A response that exceeds the memory limit is refused.

        Raises
        ------
        TooManyRequests
            If it is longer than `ANSWERED_ALWAYS` bytes and does not fit.
        """
        if isinstance(chunk, (str, bytes)) and len(chunk) > ANSWERED_ALWAYS and self.get_status() < 400:
            found = buffers_of(self.request.connection)
            if found is not None and not self.has_begun:
                found[0].require(found[1], len(chunk))
        return super().finish(chunk)

    def on_finish(self) -> None:
        """Release the body after the response is written."""
        self._body.clear()
        self.release()

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        """Send an error. If a short body is still arriving, send it after the body.

        The operating system resets a connection that is closed with unread bytes, and the client can then lose the
        response.
        """
        if self._headers_written:
            self.break_off()
            return
        if self._refused is None and 0 < self._unread() <= DRAINED:
            self._refused = status_code, kwargs
            return
        super().send_error(status_code, **kwargs)

    def is_refused(self) -> bool:
        """Return whether the request was refused before its body arrived; send the error once the body is complete."""
        if self._refused is not None and not self._unread() and not self._finished:
            status_code, options = self._refused
            super().send_error(status_code, **options)
        return self._refused is not None or self._finished

    def _unread(self) -> int:
        """Return the number of body bytes that have not arrived; 0 if the length is unknown."""
        headers = self.request.headers
        length = headers.get("Content-Length", "0")
        if "Transfer-Encoding" in headers or not is_number(length):
            return 0
        return max(0, int(length) - self._received)

    @property
    def has_body(self) -> bool:
        """Whether the request has a body."""
        return any(self._body)

    def read(self, type_: type[T]) -> T:
        """Decode the JSON body to a struct.

        Raises
        ------
        InvalidRequest
            If the body is not valid. The message names the field.
        """
        try:
            return msgspec.json.decode(b"".join(self._body), type=type_)
        except (ValueError, OverflowError, RecursionError) as error:  # msgspec's errors are subclasses of ValueError
            raise InvalidRequest(f"the body is not what this route takes: {error}") from None

    def close_if_unread(self) -> None:
        """Send `Connection: close` if the request was not read completely, because Tornado then closes the connection.

        Without the header, the client sends its next request over the closing connection and gets a reset. Until
        `prepare` returns, Tornado also counts a request without a body as incomplete.
        """
        body = self.request._body_future  # noqa: SLF001 - Tornado has no public interface for this
        if self._refused is not None or self._unread() or not body.done():
            self.set_header("Connection", "close")


def is_number(text: str) -> bool:
    """Return whether a text is a number of ASCII digits below 10**18, which `int` parses and an int64 holds.

    Examples
    --------
    >>> is_number("12"), is_number(""), is_number("\u00b2"), is_number("9" * 5000)
    (True, False, False, False)
    """
    return text.isascii() and text.isdigit() and len(text) < 19
