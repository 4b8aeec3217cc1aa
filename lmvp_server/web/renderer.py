"""Child process that renders contributors' content. `lmvp_server.web.rendering` starts and stops it.

It has an empty environment, only one descriptor (a socket to the server), and limits of processor time and memory that
the kernel enforces. It exits when the socket is closed, which the kernel does too if the server is killed.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import signal
import struct
from collections.abc import Callable
from contextlib import suppress

from lmvp.views import model_card
from lmvp_server.web import code

OUTPUT_LIMIT = 2 << 20
"""The maximum HTML of a job in bytes."""
MEMORY_LIMIT = 512 << 20
"""The maximum address space of the process in bytes. Linux enforces it; macOS does not."""
PROCESSOR_SECONDS = 1.0
"""The maximum processor time of a job. A busy machine prolongs a job, but does not change its result."""
WALL_SECONDS = 10.0
"""The maximum wall time of a job. A job reaches it before the processor time only on a busy machine."""
HEADER = struct.Struct(">cI")
"""The header of requests and replies: a kind, and the number of bytes that follow."""
READY, DONE, TOO_LARGE, NO_MEMORY, FAILED = b"r", b"d", b"l", b"m", b"f"

RENDERERS: dict[str, Callable[[str, str], str]] = {
    "code": code.highlighted,
    "card": lambda text, _: model_card.card(text),
}
_LIBRARIES = {"code": "pygments.lexers", "card": "markdown_it"}
_SOCKET = 0  # the server passes the socket as standard input
_DESCRIPTORS = 64  # enough to import the renderers


def main() -> None:
    """Render until the server closes the socket."""
    _limit()
    _reply(READY)
    while header := _read(HEADER.size):
        _, length = HEADER.unpack(header)
        request = _read(length)
        if len(request) < length:
            return
        renderer, text, name = json.loads(request)
        importlib.import_module(_LIBRARIES[renderer])  # before the timers start, so that the first job keeps its time
        _begin()
        kind, html = _render(renderer, text, name)
        _finish()
        _reply(kind, html)


def _render(renderer: str, text: str, name: str) -> tuple[bytes, bytes]:
    try:
        html = RENDERERS[renderer](text, name).encode("utf-8", "replace")
    except MemoryError:
        return NO_MEMORY, b""
    except Exception:  # noqa: BLE001 - a lexer can fail in any way; the page then shows plain text
        return FAILED, b""
    return (DONE, html) if len(html) <= OUTPUT_LIMIT else (TOO_LARGE, b"")


def _limit() -> None:
    import resource

    limits = [
        # No core dumps, no written files, few descriptors, bounded memory.
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, _DESCRIPTORS),
        (resource.RLIMIT_AS, MEMORY_LIMIT),
    ]
    for limit, value in limits:
        with suppress(ValueError, OSError):  # macOS refuses RLIMIT_AS
            resource.setrlimit(limit, (value, value))
    # The default action of these signals terminates the process, even while a regular expression runs.
    for number in (signal.SIGPROF, signal.SIGALRM, signal.SIGXCPU):
        signal.signal(number, signal.SIG_DFL)


def _begin() -> None:
    """Start the timers of a job. Their signals terminate the process, even while a regular expression runs."""
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    # A second limit besides the timer: the kernel enforces it even if the signal of the timer is blocked.
    seconds = math.ceil(used.ru_utime + used.ru_stime + PROCESSOR_SECONDS) + 1
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    signal.setitimer(signal.ITIMER_PROF, PROCESSOR_SECONDS)
    signal.setitimer(signal.ITIMER_REAL, WALL_SECONDS)


def _finish() -> None:
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)


def _reply(kind: bytes, html: bytes = b"") -> None:
    data = memoryview(HEADER.pack(kind, len(html)) + html)
    while data:
        data = data[os.write(_SOCKET, data) :]


def _read(length: int) -> bytes:
    """Read `length` bytes, or fewer if the socket is closed."""
    parts = []
    while length and (part := os.read(_SOCKET, min(length, 1 << 20))):
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
