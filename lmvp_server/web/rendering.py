"""Rendering of untrusted code and Markdown as HTML, in worker processes that the server can terminate.

For a hostile file of some kilobytes, a lexer or a Markdown parser can take minutes (quadratic regular expressions), and
a thread cannot be stopped. Each job therefore runs in a worker process with limits for CPU time, wall time and memory.
If a job exceeds a limit, its worker is terminated and the page shows the text without formatting.

Workers start with the first job and exit after a minute without jobs, so that a server without visitors has none.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import OrderedDict, deque
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path

from lmvp_server.web.renderer import (
    DONE,
    FAILED,
    HEADER,
    MEMORY_LIMIT,
    NO_MEMORY,
    OUTPUT_LIMIT,
    PROCESSOR_SECONDS,
    READY,
    TOO_LARGE,
    WALL_SECONDS,
)

WORKERS = 2
QUEUE_LIMIT = 16
"""Maximum number of jobs that wait for a worker. If more wait, a page shows plain text at once."""
INPUT_LIMIT = 256 << 10
"""Maximum length of a job in characters."""
WAIT_SECONDS = 1.0
"""Maximum time that a page waits for a free worker."""
IDLE_SECONDS = 60.0
CACHE_BYTES = 8 << 20
CACHE_ENTRIES = 1000
_START_SECONDS = 10.0

_ROOT = str(Path(__file__).resolve().parent.parent.parent)
_BOOT = "import sys; sys.path[:] = sys.argv[1:]; sys.argv[1:] = []; from lmvp_server.web.renderer import main; main()"
_REASONS = {
    "time": f"formatting it takes more than {PROCESSOR_SECONDS:g} s of computation",
    "input": f"it is longer than {INPUT_LIMIT >> 10} kB",
    TOO_LARGE: f"with formatting it is larger than {OUTPUT_LIMIT >> 20} MB",
    NO_MEMORY: f"formatting it takes more than {MEMORY_LIMIT >> 20} MB of memory",
    FAILED: "it cannot be formatted",
    "busy": "the server is busy; load the page again to see it with formatting",
}


@dataclass(frozen=True, slots=True)
class Job:
    """A text to render.

    Attributes
    ----------
    renderer : str
        A key of `lmvp_server.web.renderer.RENDERERS`: `code` or `card`.
    text : str
        The text.
    name : str
        The name of the file, which selects the lexer.
    """

    renderer: str
    text: str
    name: str = ""

    @property
    def key(self) -> bytes:
        """The digest of everything that determines the result."""
        data = json.dumps([self.renderer, self.name, self.text])
        return hashlib.sha256(data.encode()).digest()


@dataclass(frozen=True, slots=True)
class Rendered:
    """HTML for a page, and the reason if it is plain text; the reason is empty for formatted text."""

    html: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Result:
    """The result of a job: HTML, or the reason of a failure.

    A result is `final` if another attempt would have the same result. Only final results are cached.
    """

    html: bytes = b""
    reason: str | bytes = ""
    final: bool = True


_BUSY = _Result(reason="busy", final=False)


def plain(job: Job, reason: str | bytes) -> Rendered:
    """Return a text as HTML without formatting.

    Examples
    --------
    >>> plain(Job("code", "a < b", "a.py"), "time")
    Rendered(html='a &lt; b', note='Shown as plain text: formatting it takes more than 1 s of computation.')
    """
    html = escape(job.text, quote=False)
    if job.renderer == "card":
        html = f'<p style="white-space:pre-wrap;overflow-wrap:anywhere">{html}</p>'
    return Rendered(html, f"Shown as plain text: {_REASONS[reason]}.")


class Rendering:
    """A pool of worker processes with a cache of their results.

    Each worker has a thread that waits for it, so that neither the event loop nor a request thread waits. The cache
    also stores which texts exceed the limits, so that the next view of a hostile file costs nothing.
    """

    def __init__(self, workers: int = WORKERS) -> None:
        self._limit = workers
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Job, Future[_Result]]] = deque()
        self._threads: set[threading.Thread] = set()
        self._workers: set[_Worker] = set()
        self._idle = 0
        self._closed = False
        self._pending: dict[bytes, Future[_Result]] = {}
        self._cache: OrderedDict[bytes, _Result] = OrderedDict()
        self._cached_bytes = 0
        self.started = 0
        """Number of jobs that a worker has started."""

    async def render(self, job: Job) -> Rendered:
        """Return a text as HTML: formatted, or plain if that is too expensive or no worker is free."""
        if not job.text:
            return Rendered("")
        if len(job.text) > INPUT_LIMIT:
            return plain(job, "input")
        result = await self._result(job)
        return plain(job, result.reason) if result.reason else Rendered(result.html.decode("utf-8", "replace"))

    def pids(self) -> list[int]:
        """Return the process ids of the workers."""
        with self._changed:
            return [worker.pid for worker in self._workers]

    def close(self) -> None:
        """Kill the workers and wait for their threads. Waiting jobs return plain text."""
        with self._changed:
            self._closed = True
            waiting, self._waiting = list(self._waiting), deque()
            for worker in self._workers:
                worker.kill()
            threads = list(self._threads)
            self._changed.notify_all()
        for _, future in waiting:
            future.cancel()
        for thread in threads:
            thread.join()

    async def _result(self, job: Job) -> _Result:
        key = job.key
        with self._changed:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
            # Pages with the same text share one job.
            future = self._pending.get(key) or self._enqueue(key, job)
        if future is None:
            return _BUSY
        waiter = asyncio.wrap_future(future)
        try:
            await asyncio.wait({waiter}, timeout=WAIT_SECONDS)
            if not waiter.done():
                future.cancel()  # only a waiting job; a running one stops within its limits
            return await waiter
        except (asyncio.CancelledError, CancelledError):
            if future.cancelled():
                return _BUSY
            raise

    def _enqueue(self, key: bytes, job: Job) -> Future[_Result] | None:
        """Add a job to the queue; start another worker thread if all are busy. The caller holds the lock."""
        if self._closed or len(self._waiting) >= QUEUE_LIMIT:
            return None
        future: Future[_Result] = Future()
        self._pending[key] = future
        future.add_done_callback(lambda done: self._keep(key, done))
        self._waiting.append((job, future))
        if self._idle < len(self._waiting) and len(self._threads) < self._limit:
            thread = threading.Thread(target=self._serve, name="lmvp-rendering", daemon=True)
            self._threads.add(thread)
            thread.start()
        self._changed.notify()
        return future

    def _keep(self, key: bytes, done: Future[_Result]) -> None:
        with self._changed:
            self._pending.pop(key, None)
            if done.cancelled():
                self._waiting = deque(item for item in self._waiting if item[1] is not done)
                return
            if done.exception() is not None or not done.result().final:
                return
            self._cache[key] = done.result()
            self._cached_bytes += len(done.result().html)
            # The least recently used results are removed first.
            while self._cached_bytes > CACHE_BYTES or len(self._cache) > CACHE_ENTRIES:
                _, oldest = self._cache.popitem(last=False)
                self._cached_bytes -= len(oldest.html)

    def _serve(self) -> None:
        """Pass jobs to a worker, one after the other. Stop thread and worker after `IDLE_SECONDS` without a job."""
        worker: _Worker | None = None
        try:
            while (taken := self._next()) is not None:
                job, future = taken
                if not future.set_running_or_notify_cancel():
                    continue
                try:
                    result, worker = self._run(job, worker)
                except BaseException as error:
                    future.set_exception(error)  # otherwise a waiting page would wait forever
                    raise
                future.set_result(result)
        finally:
            with self._changed:
                self._threads.discard(threading.current_thread())
            if worker is not None:
                self._end(worker)

    def _next(self) -> tuple[Job, Future[_Result]] | None:
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._waiting or self._closed, timeout=IDLE_SECONDS)
            self._idle -= 1
            if self._waiting and not self._closed:
                self.started += 1
                return self._waiting.popleft()
            self._threads.discard(threading.current_thread())  # with the lock: the next job starts a new thread
            return None

    def _run(self, job: Job, worker: _Worker | None) -> tuple[_Result, _Worker | None]:
        """Return the result of a job, and the worker for the next one.

        If a worker exits although it did not exceed a limit, another process, for example the OOM killer, can be the
        reason. The job then gets a second attempt; its failure is final.
        """
        for _ in range(2):
            try:
                worker = worker if worker is not None and worker.alive else self._start(worker)
            except OSError:  # no file descriptors or memory for another process
                return _BUSY, None
            if worker is None:
                return _BUSY, None
            result = worker.run(job)
            if result is not None and not result.reason:
                return result, worker
            if not worker.alive:
                self._end(worker)
                worker = None
            if self._closed:
                return _BUSY, worker
            if result is not None:
                return result, worker
        return _Result(reason=FAILED), None

    def _start(self, dead: _Worker | None) -> _Worker | None:
        if dead is not None:
            self._end(dead)
        worker = _Worker()
        with self._changed:
            self._workers.add(worker)
            if self._closed:
                worker.kill()
        # The start is not a part of the time limit of a job.
        if worker.wait_until_ready():
            return worker
        self._end(worker)
        return None

    def _end(self, worker: _Worker) -> None:
        with self._changed:
            self._workers.discard(worker)
        worker.end()


class _Worker:
    """A process that renders. A socket pair is its only connection to the server."""

    def __init__(self) -> None:
        self._socket, other = socket.socketpair()
        paths = [_ROOT, *(path for path in sys.path if path and Path(path).is_absolute())]
        try:
            # -I -S: the environment, the working directory and .pth files cannot add code. No preexec_fn, which can
            # deadlock in a process with threads: the worker sets its own limits.
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", "-c", _BOOT, *dict.fromkeys(paths)],
                stdin=other.fileno(),
                stdout=subprocess.DEVNULL,
                # Errors of hostile input must not fill the log.
                stderr=subprocess.DEVNULL,
                env={"LC_ALL": "C.UTF-8"},
                cwd="/",
                close_fds=True,
                start_new_session=True,
            )
        except BaseException:
            self._socket.close()
            raise
        finally:
            other.close()

    @property
    def pid(self) -> int:
        """The process id of the worker."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process is running."""
        return self._process.poll() is None

    def wait_until_ready(self) -> bool:
        """Wait until the worker has imported its modules, which does not count as time of a job."""
        try:
            kind, _ = self._receive(time.monotonic() + _START_SECONDS)
        except OSError:
            self._end_now()
            return False
        return kind == READY

    def run(self, job: Job) -> _Result | None:
        """Return the result of a job; None if the process exited although it did not exceed a limit."""
        data = json.dumps([job.renderer, job.text, job.name]).encode()
        try:
            self._socket.settimeout(WALL_SECONDS)
            self._socket.sendall(HEADER.pack(READY, len(data)) + data)
            kind, html = self._receive(time.monotonic() + WALL_SECONDS)
        except TimeoutError:
            self._end_now()
            return _Result(reason="time", final=False)  # not final: the machine can have been busy
        except OSError:
            self._end_now()
            return self._cause()
        if kind == NO_MEMORY:  # its heap is too fragmented for the next job
            self._end_now()
        return _Result(html) if kind == DONE else _Result(reason=kind)

    def kill(self) -> None:
        """Kill the process."""
        self._process.kill()

    def end(self) -> None:
        """Terminate the process and wait until it has exited."""
        self._end_now()
        self._socket.close()

    def _end_now(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        with suppress(subprocess.TimeoutExpired):  # let it exit first: its own exit status shows the reason
            self._process.wait(0.2)
        self._process.kill()
        self._process.wait()

    def _cause(self) -> _Result | None:
        code = -self._process.returncode
        # Signals of the worker's limits: CPU time (profiling timer, RLIMIT_CPU) and wall time (alarm). Wall time is not
        # final, because the machine can have been busy.
        if code in (signal.SIGPROF, signal.SIGXCPU):
            return _Result(reason="time")
        return _Result(reason="time", final=False) if code == signal.SIGALRM else None

    def _receive(self, deadline: float) -> tuple[bytes, bytes]:
        """Read a reply. A worker that violates the protocol counts as exited."""
        kind, length = HEADER.unpack(self._read(HEADER.size, deadline))
        # The worker has parsed untrusted input, so its replies are not trusted.
        if kind not in (READY, DONE, TOO_LARGE, NO_MEMORY, FAILED) or length > OUTPUT_LIMIT:
            raise ConnectionError("invalid reply of a rendering process")
        return kind, self._read(length, deadline)

    def _read(self, length: int, deadline: float) -> bytes:
        parts = []
        while length:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            part = self._socket.recv(min(length, 1 << 20))
            if not part:
                raise ConnectionResetError("a rendering process ended")
            parts.append(part)
            length -= len(part)
        return b"".join(parts)
