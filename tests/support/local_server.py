"""The server of a test's data folder in a thread of the test process.

Starting a server process costs a second of processor time; most tests need a server, but not its process. The server is
the real one: it listens, writes `server.json` and proves its identity, so that child processes of a test find it too.
"""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from support.ports import reserved_port

from lmvp import local
from lmvp_server.app import App
from lmvp_server.settings import Settings


class ThreadServer:
    """A server in a thread: `start()`, then `stop()`."""

    def __init__(self, settings: Settings) -> None:
        self.app = App(settings)
        self.error: BaseException | None = None
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._run, daemon=True, name="lmvp-test-server")

    def start(self) -> None:
        """Start the thread; return when the server listens, or raise the error of its start."""
        self._thread.start()
        assert self._ready.wait(60), "the server did not start"
        if self.error is not None:
            self._thread.join()
            raise self.error

    def stop(self) -> None:
        """End the server as SIGTERM does, and wait for its thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self.app.end)
        self._thread.join(60)
        assert not self._thread.is_alive(), "the server did not end"

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            await self.app.start()
        except BaseException as error:
            self.error = error
            return
        finally:
            self._ready.set()
        try:
            await self.app.run()
        finally:
            await self.app.stop()


class LocalServers:
    """The servers that `lmvp.local` starts during a test, in threads instead of processes."""

    def __init__(self) -> None:
        self._servers: dict[Path, ThreadServer] = {}
        self._stop_process = local.stop

    def launch(self, home: Path) -> local.Local:
        """Stand in for `local._launch`."""
        server = ThreadServer(Settings(home, embedded=True))
        server.start()
        self._servers[home] = server
        found = local.find(home)
        assert found is not None, "the server of this test does not answer"
        return found

    def stop(self, home: Path | None = None) -> bool:
        """Stand in for `local.stop`; the server of a child process is ended as usual."""
        folder = local.server_file.data_home() if home is None else home
        server = self._servers.pop(folder, None)
        if server is None:
            return self._stop_process(home)
        known = local._known.get(folder)
        if known is not None:
            local.forget(known)
        was_running = server.is_running
        server.stop()
        return was_running

    def close(self) -> None:
        """End all servers."""
        for home in list(self._servers):
            self.stop(home)


class SharedServer:
    """A shared server in a thread, with the interface of `real_server.Server` as far as a thread has it.

    Its port stays reserved after `kill`, so that the server can be started again.
    """

    def __init__(self, data: Path) -> None:
        self.data = data
        self.port = reserved_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._server: ThreadServer | None = None

    def start(self) -> str:
        """Start the server and return the token of its operator."""
        self._server = ThreadServer(Settings(self.data, port=self.port))
        self._server.start()
        return (self.data / "token").read_text().strip()

    def kill(self) -> None:
        """End the server; unlike a process, it finishes its requests first."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    end = kill
