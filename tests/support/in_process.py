"""A server in a thread of this process, for tests that set what no option sets."""

import asyncio
import threading

import requests

from lmvp_server.app import App
from lmvp_server.routes import API
from lmvp_server.settings import Settings

TOKEN = "t" * 43


class Served:
    """`with Served(folder) as served: served("GET", "/projects")`; options are those of `Settings`."""

    def __init__(self, data, limits=None, **options):
        self.settings = Settings(data, token=TOKEN, **options)
        self.app = App(self.settings) if limits is None else App(self.settings, limits=limits)
        self._ready, self._thread = threading.Event(), threading.Thread(target=self._run, daemon=True)
        self.error = None

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(30), "the server did not start"
        if self.error is not None:
            raise self.error
        self.url = self.app.url
        self.port = int(self.url.rpartition(":")[2])
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.app.end)
        self._thread.join(60)
        assert not self._thread.is_alive(), "the server did not end"

    def __call__(self, method, path, token=TOKEN, **options):
        headers = options.pop("headers", {}) | ({"Authorization": f"Bearer {token}"} if token else {})
        address = self.url + path.removeprefix("~") if path.startswith("~") else self.url + API + path
        return requests.request(method, address, headers=headers, timeout=30, allow_redirects=False, **options)

    @property
    def services(self):
        """The use cases, to set up a test or to look at what is kept."""
        return self.app._server.request_callback.settings["services"]

    def on_loop(self, work):
        """Call something in the thread of the event loop, and return its result."""

        async def call():
            return work()

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(30)

    def user(self, name, role="", project="p", *, admin=False, scope="admin"):
        """Make an account, with a role in a project; return a token of it."""
        made = self("POST", "/users", json={"name": name, "password": f"{name} has a long one", "admin": admin})
        assert made.ok, made.text
        if role:
            member = self("PUT", f"/projects/{project}/members/{name}", json={"role": role})
            assert member.ok, member.text
        token = self("POST", "/tokens", json={"name": f"of {name}", "user": name, "scope": scope})
        assert token.ok, token.text
        return token.json()

    def _run(self):
        async def serve():
            self.loop = asyncio.get_running_loop()
            try:
                await self.app.start()
            except BaseException as error:
                self.error = error
                raise
            finally:
                self._ready.set()
            try:
                await self.app.run()
            finally:
                await self.app.stop()

        asyncio.run(serve())
