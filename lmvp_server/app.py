"""Life cycle of a server process.

The server acquires the lock of the data folder, opens the stores, listens, and only then writes its address to
`server.json`. On SIGTERM, on SIGINT or after a long idle time, it removes `server.json`, lets the current requests
finish and closes the stores. It releases the lock last, so that two servers never use a folder at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

import lmvp
from lmvp import hints
from lmvp.core import server_file
from lmvp.core.server_file import ServerFile
from lmvp.errors import LmvpError
from lmvp_server.data_folder import DataFolder
from lmvp_server.http import sockets
from lmvp_server.http.limits import Limits, raise_descriptor_limit
from lmvp_server.http.server import CountingServer, make_server
from lmvp_server.process import log, memory
from lmvp_server.process.idle import IdleWork
from lmvp_server.settings import Settings

if TYPE_CHECKING:
    from tornado.web import Application

    from lmvp_server.process.notifier import Notifier

_logger = logging.getLogger("lmvp_server")
_SUCCESSOR_WAITS = 15.0
"""Seconds that an embedded server waits for its predecessor to stop, which gets less time for its requests."""


class App:
    """One server in a running event loop: `await start()`, `await run()` until it is stopped, `await stop()`.

    Attributes
    ----------
    url : str
        The local URL, available after the start.
    setup : str
        The code that creates the first admin of a shared server; empty if there is an account.
    limits : Limits, optional
        The limits of connections. The default depends on the file descriptors of this process.
    """

    def __init__(self, settings: Settings, *, limits: Limits | None = None) -> None:
        self.settings, self.limits = settings, limits
        self.url = ""
        self.setup = ""
        self._stack = ExitStack()
        self._ending = asyncio.Event()
        self._hurry = asyncio.Event()
        self._server: CountingServer
        self._folder: DataFolder
        self._idle: IdleWork
        self._notifier: Notifier

    async def start(self) -> None:
        """Acquire the folder, listen, and write `server.json`. On an error, release everything."""
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise

    async def run(self) -> None:
        """Wait until `end` is called, the idle time is over, or the data folder is removed."""
        while not self._ending.is_set():
            try:
                await asyncio.wait_for(self._ending.wait(), self._tick())
            except asyncio.TimeoutError:
                await self._look_around()

    def end(self) -> None:
        """Stop the server. A second call stops it without waiting for the current requests."""
        (self._hurry if self._ending.is_set() else self._ending).set()

    async def stop(self) -> None:
        """Let the current requests finish, then close everything."""
        self._ending.set()
        grace = self.settings.grace_seconds
        self._folder.withdraw()
        self._streams.end()
        # An embedded server gets less time than its successor waits for the folder, so that the successor can start.
        await self._server.drain(min(grace, _SUCCESSOR_WAITS * 0.6) if self.settings.embedded else grace, self._hurry)
        await self._notifier.stop()
        # Closing waits for threads and the disk, so it must not block the event loop.
        await asyncio.to_thread(self._stack.close)
        _logger.info("ended")

    def _open(self) -> None:
        settings = self.settings
        patience = _SUCCESSOR_WAITS if settings.embedded else 1.0
        self._folder = self._stack.enter_context(DataFolder.open(settings.data, patience=patience))
        settings.token = settings.token or (
            secrets.token_urlsafe(32) if settings.embedded else self._folder.kept_token()
        )
        # A stable port lets bookmarks and open tabs survive a restart.
        if settings.embedded and not settings.port:
            listening = sockets.bind_stable(settings.host, settings.data)
        else:
            listening = sockets.bind(settings.host, settings.port)
        for each in listening:
            self._stack.callback(each.close)
        self._server = make_server(
            self._application(), settings.touch, behind_proxy=bool(settings.public_url), limits=self.limits
        )
        self._server.add_sockets(listening)
        self.url = sockets.url_of(listening)
        # Only now: a client that reads `server.json` must be able to connect.
        self._folder.announce(self._about())
        settings.touch()
        self._idle.start()
        self._notifier.start()
        self._stack.callback(self._idle.stop)
        _logger.info("lmvp %s serves %s at %s, pid %d", lmvp.__version__, settings.data, self.url, os.getpid())

    def _application(self) -> Application:
        from lmvp_server.routes import make_application
        from lmvp_server.services import Services
        from lmvp_server.services.sessions import own_credential

        settings = self.settings
        services = Services.open(
            settings.data,
            shared=not settings.embedded,
            keep_removed=settings.keep_removed,
            allowlist=settings.webhook_to,
            push_limits=settings.push_limits,
        )
        self._stack.callback(services.close)
        # Earlier releases left grants whose account was deleted or had lost its rights.
        services.end_grants_without_holder()
        if not settings.embedded:
            services.sessions.operator_credential = own_credential(settings.token)
            services.users.note_operator(services.sessions.operator_credential)
        self.setup = "" if self.settings.local else services.invitations.setup() or ""
        application = make_application(services, self.settings)
        application.settings["log_function"] = log.log_request
        self._streams = application.settings["streams"]
        self._notifier = application.settings["notifier"]
        self._stack.callback(application.settings["pool"].shutdown)
        for queue in ("costly", "long_reads", "comparisons", "passwords"):
            self._stack.callback(application.settings[queue].shutdown)
        self._stack.callback(application.settings["rendering"].close)
        self._idle = IdleWork(services.tidy_up, self._quiet_for, self.settings.quiet_seconds)
        return application

    def _quiet_for(self) -> float:
        return 0.0 if self._server.in_flight else self.settings.idle_for

    def _about(self) -> ServerFile:
        return ServerFile(
            url=self.url,
            token=self.settings.token,
            pid=os.getpid(),
            host=socket.gethostname(),
            boot=server_file.boot_id(),
            instance=self.settings.instance,
            version=lmvp.__version__,
            binds=True,
        )

    def _tick(self) -> float:
        idle = self.settings.idle_seconds
        # Check often enough for a short idle time.
        return server_file.HEARTBEAT if idle is None else min(server_file.HEARTBEAT, max(idle / 4, 0.05))

    async def _look_around(self) -> None:
        if not await asyncio.to_thread(self._folder.beat):
            _logger.error("the data folder %s was taken away; ending", self.settings.data)
            self._ending.set()
        elif self._is_idle():
            _logger.info("not used for %.0f s; ending", self.settings.idle_for)
            self._ending.set()

    def _is_idle(self) -> bool:
        limit = self.settings.idle_seconds
        return limit is not None and not self._server.in_flight and self.settings.idle_for >= limit


def run(settings: Settings, ready: Callable[[App], None] | None = None) -> int:
    """Run a server until it is stopped; `ready` is called when it listens. Return the exit code."""
    # Before the first thread starts: glibc creates arenas per thread.
    memory.keep_freed_memory()
    raise_descriptor_limit()
    try:
        asyncio.run(_serve(settings, ready or (lambda _: None)))
    except LmvpError as error:
        error.caller = hints.SHELL
        print(f"lmvp server: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    return 0


async def _serve(settings: Settings, ready: Callable[[App], None]) -> None:
    log.configure(settings)
    app = App(settings)
    await app.start()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, app.end)
    ready(app)
    try:
        await app.run()
    finally:
        await app.stop()
