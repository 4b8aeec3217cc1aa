"""Responses to requests that reach no handler: malformed, too long, too slow, or without room."""

from __future__ import annotations

import re

import msgspec
from tornado.httputil import HTTPInputError

from lmvp.core.schemas import ErrorBody
from lmvp.errors import InvalidRequest, TooLarge
from lmvp_server.http.limits import BODY_LIMIT

_QUOTED = re.compile("[:'\"]")
TORNADO_BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\n\r\n"
"""Tornado's response to a malformed request, which `connections.CountingStream` replaces."""
TORNADO_CONTINUE = b"HTTP/1.1 100 (Continue)\r\n\r\n"
REQUEST_TIMEOUT = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"


def error_response(status: int, reason: str, code: str, message: str, hint: str) -> bytes:
    """Return an error response for a request that reaches no handler. The connection closes after it."""
    body = msgspec.json.encode({"error": ErrorBody(code=code, message=message, hint=hint)})
    head = (
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def malformed_response(error: BaseException | None) -> bytes:
    """Return the response to a malformed HTTP request.

    The reason is cut before the header that Tornado quotes, because it can contain a token.
    """
    reason = _QUOTED.split(str(error) if isinstance(error, HTTPInputError) else "")[0].strip()
    if reason in ("Content-Length too long", "chunked body too large"):
        message = f"the body is longer than {BODY_LIMIT:,} bytes"
        return error_response(413, "Content Too Large", TooLarge.code, message, "send less in one request")
    message = f"this is not a valid HTTP/1.1 request: {reason}" if reason else "this is not a valid HTTP/1.1 request"
    return error_response(400, "Bad Request", InvalidRequest.code, message, "correct the client or the proxy before it")
