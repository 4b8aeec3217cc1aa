"""The console at `<base_url>/lmvp/` of a Jupyter server, behind its login: for who cannot reach the server's own port.

A reverse proxy. It finds or starts the server that kernels use too, adds its token on this side of the browser, and
passes on what a console needs, and nothing of Jupyter's: no token, no cookie but that of the theme, no header that is
not on a list. Only the mark against forgery goes along, for the forms of the console to carry: Jupyter looks for it
before it passes them on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.extension.application import ExtensionApp
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, authenticated

from lmvp.errors import LmvpError
from lmvp_jupyter.upstream import Upstream

PREFIX = "lmvp"
BODY_LIMIT = 64 << 20
"""Bytes of a request that goes through a browser at most; kernels speak to the server itself."""
PIECE = 1 << 16

ASKED = ("Accept", "Accept-Encoding", "Accept-Language", "Cache-Control", "Content-Type", "If-Match",
         "If-Modified-Since", "If-None-Match", "If-Range", "Last-Event-ID", "Range")  # fmt: skip
ANSWERED = ("Accept-Ranges", "Allow", "Cache-Control", "Content-Disposition", "Content-Encoding", "Content-Length",
            "Content-Range", "Content-Security-Policy", "Content-Type", "ETag", "Last-Modified", "Retry-After", "Vary",
            "X-Content-Type-Options", "LMVP-API")  # fmt: skip
"""Headers that are passed on, either way; all others are not."""

THEME, THEMES = "lmvp_theme", ("light", "dark", "system")
"""The one cookie that is passed on: how the console looks."""

OURS = ("token", "_xsrf")
"""Arguments of a URL that are Jupyter's own."""


class Proxy(JupyterHandler):
    """Everything below `<base_url>/lmvp/`."""

    auth_resource = "lmvp"
    _answer: HTTPResponse | None = None

    @property
    def upstream(self) -> Upstream:
        """The LMVP server."""
        found: Upstream = self.settings["lmvp_upstream"]
        return found

    @property
    def prefix(self) -> str:
        """The path that the console lies under, without a slash at its end."""
        return f"{self.base_url}{PREFIX}"

    async def _forward(self) -> None:
        target = self._target()
        if len(self.request.body) > BODY_LIMIT:
            raise HTTPError(413, reason=f"more than {BODY_LIMIT >> 20} MiB go to the LMVP server itself")
        headers = {name: self.request.headers[name] for name in ASKED if name in self.request.headers}
        headers["X-Forwarded-Prefix"] = self.prefix
        headers["X-Forwarded-Xsrf"] = self.xsrf_token.decode()
        if self.get_cookie(THEME) in THEMES:
            headers["Cookie"] = f"{THEME}={self.get_cookie(THEME)}"
        try:
            asked = self.request.method, target, headers, self.request.body
            self._answer = await self._in_thread(self.upstream.ask, *asked)
        except (LmvpError, OSError, HTTPException) as error:
            self._unreachable(error)
            return
        self._pass_head(self._answer, target)
        async for piece in self._pieces(self._answer):
            self.write(piece)
            try:
                await self.flush()
            except StreamClosedError:
                return

    def _target(self) -> str:
        """Return path and query for the server, as they came: still quoted, and with nothing in it that climbs."""
        path = self.request.path[len(self.prefix) :] or "/"
        parts = unquote(path).replace("\\", "/").split("/")
        if any(part in (".", "..") for part in parts) or not unquote(path).isprintable():
            raise HTTPError(400, reason="a path that goes nowhere")
        query = [(key, value) for key, value in parse_qsl(self.request.query, True) if key not in OURS]
        return f"{path}?{urlencode(query)}" if query else path

    def _pass_head(self, answer: HTTPResponse, asked: str) -> None:
        self.set_status(answer.status, answer.reason)
        self.clear_header("Content-Type")
        for name in ANSWERED:
            value = answer.getheader(name)
            if value is not None:
                self.set_header(name, value)
        location = answer.getheader("Location")
        if location is not None:
            self.set_header("Location", self.upstream.within(location, asked, self.prefix))

    async def _pieces(self, answer: HTTPResponse) -> AsyncIterator[bytes]:
        """Give what comes as it comes: events must not wait for one another."""
        if self.request.method == "HEAD":
            return
        with suppress(OSError, HTTPException, ValueError):  # broken off: by the server, or by `on_connection_close`
            while piece := await self._in_thread(answer.read1, PIECE):
                yield piece

    async def _in_thread(self, work: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.upstream.pool, work, *arguments)

    def _unreachable(self, error: Exception) -> None:
        self.log.warning("the LMVP server cannot be reached: %s", type(error).__name__)
        words = error.message if isinstance(error, LmvpError) else "the LMVP server does not answer"
        hint = getattr(error, "hint", None) or "it is looked for anew with the next request"
        self.set_status(502)
        self.finish({"error": {"code": "server_unavailable", "message": words, "hint": hint}})

    def on_connection_close(self) -> None:
        """Let go of the server, too, when a browser has gone."""
        super().on_connection_close()
        if self._answer is not None:
            self._answer.close()

    def compute_etag(self) -> None:
        """Leave marks to the server."""

    @authenticated
    @authorized
    async def get(self, *_: str) -> None:
        """Pass it on."""
        await self._forward()

    @authenticated
    @authorized
    async def head(self, *_: str) -> None:
        """Pass it on."""
        await self._forward()

    @authenticated
    @authorized
    async def post(self, *_: str) -> None:
        """Pass it on."""
        await self._forward()

    @authenticated
    @authorized
    async def put(self, *_: str) -> None:
        """Pass it on."""
        await self._forward()

    @authenticated
    @authorized
    async def patch(self, *_: str) -> None:
        """Pass it on."""
        await self._forward()

    @authenticated
    @authorized
    async def delete(self, *_: str) -> None:
        """Pass it on."""
        await self._forward()

    @authenticated
    @authorized
    async def options(self, *_: str) -> None:
        """Tell no other page that it may ask."""
        self.set_status(204)


class Door(JupyterHandler):
    """`<base_url>/lmvp`, without its slash: links are relative to what lies below it."""

    @authenticated
    def get(self) -> None:
        """Go in."""
        self.redirect(f"{self.base_url}{PREFIX}/")


class LmvpExtension(ExtensionApp):
    """What a Jupyter server loads."""

    name = "lmvp"
    extension_url = f"/{PREFIX}/"
    load_other_extensions = True

    def initialize_settings(self) -> None:
        """Keep what speaks to the server."""
        self.settings["lmvp_upstream"] = Upstream()

    def initialize_handlers(self) -> None:
        """Lie below `<base_url>/lmvp/`."""
        self.handlers.extend([(rf"/{PREFIX}/(.*)", Proxy), (rf"/{PREFIX}", Door)])

    async def stop_extension(self) -> None:
        """Let go of threads."""
        self.settings["lmvp_upstream"].close()
