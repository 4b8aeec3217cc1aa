"""Errors of handlers: exceptions as LMVP's errors, in responses and in the log."""

from __future__ import annotations

import logging
from typing import Any

from tornado.web import Finish, HTTPError, RequestHandler

from lmvp.core.files import storage_error
from lmvp.core.schemas import ErrorBody
from lmvp.errors import AccessDenied, InvalidRequest, LmvpError, NotFound, ServerError
from lmvp_server.http.queues import ServerStopping

log = logging.getLogger("lmvp_server")


def log_failure(handler: RequestHandler, typ: Any, value: Any, tb: Any) -> None:
    """Log the exception that stopped a request, unless it is the caller's mistake or the server stops."""
    if isinstance(value, (HTTPError, Finish, ServerStopping)):
        return
    error, request = as_lmvp(500, value), handler.request
    if isinstance(error, ServerError):
        log.error("%s %s failed", request.method, request.path, exc_info=(typ, value, tb))
    elif error.http_status >= 500:
        log.error("%s %s failed: %s", request.method, request.path, error.message)


def error_body(error: BaseException) -> ErrorBody:
    """Return the error fields for a response that has already begun."""
    known = as_lmvp(500, error)
    return ErrorBody(code=known.code, message=known.message, hint=known.hint)


def as_lmvp(status: int, error: BaseException | None) -> LmvpError:
    """Convert an exception to an LmvpError with a message that is safe to send."""
    if isinstance(error, LmvpError):
        return error
    if isinstance(error, OSError) and (failed := storage_error(error, "the server")) is not None:
        return failed
    if isinstance(error, HTTPError) and status == 405:
        return _MethodNotAllowed("this route has no such method", hint="docs/api.md lists the methods")
    if isinstance(error, HTTPError) and status in _REASONS:
        kind, message = _REASONS[status]
        return kind(message)
    if isinstance(error, HTTPError) and status < 500:
        return InvalidRequest(error.log_message or error.reason or "bad request")
    return ServerError("the server failed; this is a bug of ours", hint="its log says more")


_REASONS: dict[int, tuple[type[LmvpError], str]] = {
    403: (AccessDenied, "this is no file that the server gives"),
    404: (NotFound, "there is no such file"),
}
"""Error classes and messages for the statuses of Tornado's `StaticFileHandler`."""


class _MethodNotAllowed(InvalidRequest):
    code = "method_not_allowed"
    http_status = 405
