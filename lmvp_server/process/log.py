"""The log of the server: failures, slow requests, start and stop. It never contains headers, bodies or tokens."""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from pathlib import Path

from tornado.web import RequestHandler

from lmvp.core import files
from lmvp.core.server_file import LOG
from lmvp_server.settings import Settings

SLOW = 2.0
"""Requests that take longer, in seconds, are logged."""

OFTEN, PERIOD = 10, 60.0
"""Number of lines that pass in this number of seconds, for one code line and type of exception."""

_access = logging.getLogger("lmvp_server.access")


class _PrivateFileHandler(RotatingFileHandler):
    """A file handler that creates files with mode 0600, because paths in them name projects and models."""

    def _open(self) -> io.TextIOWrapper:
        return io.TextIOWrapper(files.append(Path(self.baseFilename)), encoding="utf-8", write_through=True)


class Repetitions(logging.Filter):
    """A filter that passes `OFTEN` lines of each code line per period, and counts the others.

    The next line after the period states the count. A repeated failure, for example because of a full disk or a client
    in a loop, must not fill the disk with log lines.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._seen: dict[tuple[str, int, str, type | None], list[float]] = {}  # start of the period, passed, suppressed

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to write a line."""
        kind = record.exc_info[0] if record.exc_info else None
        key = (record.pathname, record.lineno, record.levelname, kind)
        now = self._clock()
        # The keys are places in the code, so the dict stays small.
        known = self._seen.setdefault(key, [now, 0, 0])
        if now - known[0] >= PERIOD:
            if known[2]:
                record.msg = f"{record.getMessage()} ({int(known[2])} lines like this one were left out before it)"
                record.args = ()
            known[:] = [now, 0, 0]
        passes = known[1] < OFTEN
        known[1 if passes else 2] += 1
        return passes


def configure(settings: Settings) -> None:
    """Log to standard error; an embedded server logs to a small file in its data folder."""
    handler: logging.Handler = logging.StreamHandler()
    if settings.embedded:
        handler = _PrivateFileHandler(settings.data / LOG, maxBytes=1 << 20, backupCount=1, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(Repetitions())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    logging.getLogger("tornado.general").addFilter(without_the_request)


def without_the_request(record: logging.LogRecord) -> bool:
    """Shorten a message of Tornado that quotes a malformed request, because a quoted header can contain a token.

    A line about an incomplete head is dropped: `lmvp_server.http.connections` logs it with the address.
    """
    if str(record.msg).startswith("Unsatisfiable read"):
        return False
    if isinstance(record.args, tuple) and str(record.msg).startswith("Malformed HTTP message from %s"):
        record.msg, record.args = "Malformed HTTP message from %s", record.args[:1]
    return True


def log_request(handler: RequestHandler) -> None:
    """Log a failed or slow request with its path, but without its query. Tornado calls this as `log_function`."""
    status, seconds = handler.get_status(), handler.request.request_time()
    if status >= 500:
        _access.error("%d %s %s %.3f s", status, handler.request.method, handler.request.path, seconds)
    elif seconds > SLOW:
        _access.info("%d %s %s %.3f s", status, handler.request.method, handler.request.path, seconds)
