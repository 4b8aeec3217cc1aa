"""The console at `<base_url>/lmvp/` of a Jupyter server, for users who cannot reach the port of the LMVP server.

A reverse proxy to one LMVP server: the one that the kernels of this Jupyter server use. It acts there as the account
of the token that the user of this Jupyter server has stored, whichever Jupyter user sends the request, so access to
`/lmvp` is access to that account: Jupyter's authorizer decides on it, as the resource `lmvp`.

The proxy adds the token on the server's side of the connection. It forwards only the headers that are listed here: no
token, cookie or login of Jupyter reaches the LMVP server, except the cookie of the theme. The console's forms carry a
token of the proxy, which counts below `/lmvp` only: Jupyter's own XSRF token would open all of Jupyter to a hostile
server.

The responses share the origin of Jupyter, where a script could run code in a kernel. The proxy therefore adds a
content security policy of its own to that of the server: pages load, send and submit only below `/lmvp`, and show no
frames. It serves the scripts of the console from this installation, and passes no script of the server on.

`<base_url>/api/lmvp/console` is the route of JupyterLab's launcher tile (labextension/). It lies outside of the proxy's
folder, where pages of the LMVP server cannot send requests.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from hmac import compare_digest
from http.client import HTTPException, HTTPResponse
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler, JupyterHandler
from jupyter_server.extension.application import ExtensionApp
from tornado.httputil import HTTPInputError, parse_body_arguments
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, StaticFileHandler, authenticated, stream_request_body

from lmvp.errors import LmvpError, ServerUnavailable
from lmvp_jupyter.upstream import Exchange, Upstream, is_plain_path, within

PREFIX = "lmvp"
BODY_LIMIT = 64 << 20
"""Bytes of a request at most; kernels connect to the LMVP server itself."""
PIECE = 1 << 16

ASKED = ("Accept", "Accept-Encoding", "Accept-Language", "Cache-Control", "Content-Type", "If-Match",
         "If-Modified-Since", "If-None-Match", "If-Range", "Last-Event-ID", "Range")  # fmt: skip
ANSWERED = ("Accept-Ranges", "Allow", "Cache-Control", "Content-Disposition", "Content-Encoding", "Content-Range",
            "Content-Type", "ETag", "Last-Modified", "Retry-After", "Vary", "LMVP-API")  # fmt: skip
"""Headers that are forwarded, either way; all others are not."""

CSP = (
    "default-src {place}; script-src {place}static/; style-src {place} 'unsafe-inline'; img-src {place} data:; "
    "object-src 'none'; frame-src 'none'; child-src 'none'; worker-src 'none'; base-uri 'none'; "
    "form-action {place}; frame-ancestors 'self'"
)
"""The policy of all responses. It holds besides the server's own, so the stricter one counts.

`place` is the console's own path. Jupyter's other paths have the same origin: files of its user, which a page must not
load as scripts, and routes that change something, to which it must not submit a form.
"""

THEME, THEMES = "lmvp_theme", ("light", "dark", "system")
"""The only cookie that is forwarded."""

OURS = ("token", "_xsrf")
"""Arguments of a URL that are Jupyter's own."""

_READING = ("GET", "HEAD", "OPTIONS")
_NO_BODY = (204, 304)
_SCRIPT = re.compile(r"(?:java|ecma|live|j)script", re.IGNORECASE)
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_HOST = re.compile(r"[A-Za-z0-9.-]+(?::[0-9]{1,5})?")
"""A host that a content security policy can name; it cannot name an IPv6 address."""


class _Closed(JupyterHandler):
    """A handler that answers nothing without Jupyter's login."""

    auth_resource = "lmvp"

    @property
    def prefix(self) -> str:
        """The path below which the console is, without a slash at its end."""
        return f"{self.base_url}{PREFIX}"

    async def prepare(self, **options: Any) -> None:
        """Refuse a request before its body is read, if its head tells enough."""
        refused: Any = super().prepare(**options)
        if refused is not None:
            await refused
        if self.current_user is None:
            if self.request.method not in {"GET", "HEAD"}:  # for those, `authenticated` redirects to the login
                raise HTTPError(403)
        elif not is_plain_path(self.request.path[len(self.prefix) :] or "/"):
            raise HTTPError(400, reason="a path that leads nowhere")


@stream_request_body
class Proxy(_Closed):
    """Everything below `<base_url>/lmvp/`, except the static files."""

    def initialize(self) -> None:
        """Begin a request."""
        self._body: list[bytes] = []
        self._received = 0
        self._is_read = self._has_form_token = False
        self._exchange = Exchange()

    @property
    def upstream(self) -> Upstream:
        """The LMVP server."""
        found: Upstream = self.settings["lmvp_upstream"]
        return found

    async def prepare(self, **options: Any) -> None:
        """Refuse a body that is too long before it is read."""
        await super().prepare(**options)
        length = self.request.headers.get("Content-Length", "0")
        if length.isdigit() and int(length) > BODY_LIMIT:
            raise _too_long()

    def data_received(self, chunk: bytes) -> None:
        """Keep the body as far as the limit; the rest is read and dropped, so that the response can be sent."""
        self._received += len(chunk)
        if self._received <= BODY_LIMIT:
            self._body.append(chunk)
        else:
            self._body.clear()

    def check_xsrf_cookie(self) -> None:
        """Check Jupyter's XSRF token in a header, or the form token in the body, once the body is there.

        Jupyter's token does not count in the body, which is forwarded.
        """
        if self._is_read and not self._has_form_token:
            super().check_xsrf_cookie()

    @property
    def form_token(self) -> str:
        """The token of the console's forms: bound to this Jupyter server, its user and the LMVP server.

        It replaces Jupyter's XSRF token, which the LMVP server must not learn. The LMVP server learns this one, and can
        forge nothing but requests to itself with it.
        """
        return self.upstream.form_token(getattr(self.current_user, "username", ""))

    def _place(self, folder: str = "") -> str:
        """Return the source in a content security policy that stands for a folder of the console.

        The host is the one that the browser sees, also behind another proxy: Jupyter's checks of origins need it, too.
        """
        host = self.request.host
        path = quote(f"{self.prefix}/{folder}", safe="/%:@!$&()*+=~")
        return f"{host}{path}" if _HOST.fullmatch(host) else "'self'"

    def _read_body(self) -> bytes:
        """Return the body of a request that may be forwarded."""
        if self._received > BODY_LIMIT:
            raise _too_long()
        body = b"".join(self._body)
        if self.request.method not in _READING:
            found: dict[str, list[bytes]] = {}
            with suppress(HTTPInputError):  # a malformed form has no token in it
                parse_body_arguments(self.request.headers.get("Content-Type", ""), body, found, {})
            given = found.get("_xsrf", [b""])[-1]
            self._has_form_token = self.current_user is not None and compare_digest(given, self.form_token.encode())
            self._is_read = True
            self.check_xsrf_cookie()
        return body

    async def _forward(self) -> None:
        body, target = self._read_body(), self._target()
        headers = {name: self.request.headers[name] for name in ASKED if name in self.request.headers}
        headers["X-Forwarded-Prefix"] = self.prefix
        headers["X-Forwarded-Xsrf"] = self.form_token
        _ = self.xsrf_token  # sets Jupyter's cookie, for scripts that send its value in a header
        if self.get_cookie(THEME) in THEMES:
            headers["Cookie"] = f"{THEME}={self.get_cookie(THEME)}"
        try:
            asked = self._exchange, self.request.method, target, headers, body
            await self._in_thread(self.upstream.ask, *asked)
            response = self._exchange.response
            assert response is not None
            length = self._pass_head(response, target)
            await self._pass_body(response.status, length)
        except (LmvpError, OSError, HTTPException, ValueError) as error:
            self._unreachable(error)
        finally:
            self._exchange.close()

    def _target(self) -> str:
        """Return the path and query for the server: the path as it came, still quoted."""
        path = self.request.path[len(self.prefix) :] or "/"
        query = [(key, value) for key, value in parse_qsl(self.request.query, True) if key not in OURS]
        return f"{path}?{urlencode(query)}" if query else path

    def _pass_head(self, response: HTTPResponse, asked: str) -> int | None:
        """Set status and headers; return the length of the body, if it is known.

        Raises
        ------
        ValueError
            If the server sent something that HTTP does not allow.
        """
        if not 200 <= response.status < 600:
            raise ValueError("an impossible status")
        headers = {name: response.getheader(name) for name in ANSWERED}
        location = response.getheader("Location")
        if location is not None:
            headers["Location"] = within(location, self._exchange.url, asked, self.prefix)
        if _SCRIPT.search(headers["Content-Type"] or ""):
            headers["Content-Type"] = "text/plain; charset=utf-8"
        own = CSP.replace("{place}static/", self._place("static/")).replace("{place}", self._place())
        policies = response.getheader("Content-Security-Policy"), self.content_security_policy, own
        headers["Content-Security-Policy"] = ", ".join(policy for policy in policies if policy)
        known = {name: value for name, value in headers.items() if value is not None}
        if not all(_VALUE.fullmatch(value) for value in known.values()):
            raise ValueError("a header with control characters")
        self.set_status(response.status)
        self.clear_header("Content-Type")
        for name, value in known.items():
            self.set_header(name, value)
        length = response.getheader("Content-Length") or ""
        if not (length.isascii() and length.isdigit()) or response.chunked or response.status in _NO_BODY:
            return None
        self.set_header("Content-Length", str(int(length)))
        return int(length)

    async def _pass_body(self, status: int, length: int | None) -> None:
        if self.request.method == "HEAD" or status in _NO_BODY:
            return
        sent = 0
        async for piece in self._pieces():
            sent += len(piece)
            if length is not None and sent > length:
                break
            self.write(piece)
            try:
                await self.flush()
            except StreamClosedError:
                return
        if length is not None and sent != length:  # the browser must see that it is not whole
            self._exchange.abort()
            with suppress(StreamClosedError):
                self.detach().close()

    async def _pieces(self) -> AsyncIterator[bytes]:
        """Yield pieces of the body as they come: events must not wait for one another."""
        with suppress(OSError, HTTPException, ValueError):  # cut off: by the server, or by `on_connection_close`
            while piece := await self._in_thread(self._exchange.read, PIECE):
                yield piece

    async def _in_thread(self, work: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.upstream.pool, work, *arguments)

    def _unreachable(self, error: Exception) -> None:
        self.log.warning("the LMVP server cannot be reached: %s", type(error).__name__)
        words = error.message if isinstance(error, LmvpError) else "the LMVP server does not answer as it should"
        hint = getattr(error, "hint", None) or "the next request looks for it again"
        self.set_status(502)
        self.finish({"error": {"code": ServerUnavailable.code, "message": words, "hint": hint}})

    def on_connection_close(self) -> None:
        """End the request to the server when the browser has closed the connection."""
        super().on_connection_close()
        self._exchange.abort()

    def compute_etag(self) -> None:
        """Leave ETags to the server."""

    @authenticated
    @authorized
    async def get(self, *_: str) -> None:
        """Forward the request."""
        await self._forward()

    @authenticated
    @authorized
    async def head(self, *_: str) -> None:
        """Forward the request."""
        await self._forward()

    @authenticated
    @authorized
    async def post(self, *_: str) -> None:
        """Forward the request."""
        await self._forward()

    @authenticated
    @authorized
    async def put(self, *_: str) -> None:
        """Forward the request."""
        await self._forward()

    @authenticated
    @authorized
    async def patch(self, *_: str) -> None:
        """Forward the request."""
        await self._forward()

    @authenticated
    @authorized
    async def delete(self, *_: str) -> None:
        """Forward the request."""
        await self._forward()

    @authenticated
    @authorized
    async def options(self, *_: str) -> None:
        """Allow no other origin."""
        self.set_status(204)


def _too_long() -> HTTPError:
    return HTTPError(413, reason=f"more than {BODY_LIMIT >> 20} MiB go to the LMVP server itself")


class StaticFile(_Closed, StaticFileHandler):
    """`<base_url>/lmvp/static/…`: styles and scripts of this installation, never of the server."""

    def decode_argument(self, value: bytes, name: str | None = None) -> str:  # noqa: ARG002 - as Tornado calls it
        """Read the name of a file; one that is not UTF-8 is not found, where Jupyter's error page would fail."""
        return value.decode("utf-8", "replace")

    @authenticated
    @authorized
    async def get(self, path: str) -> None:  # type: ignore[override]
        """Send a file."""
        await StaticFileHandler.get(self, path)

    @authenticated
    @authorized
    async def head(self, path: str) -> None:  # type: ignore[override]
        """Send the head of a file."""
        await StaticFileHandler.get(self, path, include_body=False)


class Door(JupyterHandler):
    """`<base_url>/lmvp`, without its slash: links are relative to the folder of the console."""

    @authenticated
    def get(self) -> None:
        """Redirect to the folder of the console."""
        self.redirect(f"{self.base_url}{PREFIX}/")


class ConsoleAddress(APIHandler):
    """`<base_url>/api/lmvp/console`: the address of the console, once it can be shown.

    Jupyter's login and XSRF token protect it. The address holds no secret: the proxy signs in at the LMVP server.
    """

    auth_resource = "lmvp"

    def initialize(self) -> None:
        """Begin a request."""
        self._exchange = Exchange()

    def on_connection_close(self) -> None:
        """End the request to the server when the browser has closed the connection."""
        super().on_connection_close()
        self._exchange.abort()

    @authenticated
    @authorized("read")  # type: ignore[untyped-decorator]
    async def post(self) -> None:
        """Check the LMVP server and its token, and send the address; POST, because it may start the server."""
        upstream: Upstream = self.settings["lmvp_upstream"]
        try:
            await asyncio.get_running_loop().run_in_executor(upstream.pool, upstream.check, self._exchange)
        except LmvpError as error:
            self.log.warning("LMVP's console cannot be opened: %s", type(error).__name__)
            self.set_status(502)
            self.finish({"error": {"code": error.code, "message": error.message, "hint": error.hint}})
        else:
            self.finish({"url": f"{self.base_url}{PREFIX}/"})
        finally:
            self._exchange.close()


class LmvpExtension(ExtensionApp):
    """The extension that a Jupyter server loads."""

    name = "lmvp"
    extension_url = f"/{PREFIX}/"
    load_other_extensions = True

    def initialize_settings(self) -> None:
        """Keep the connection to the LMVP server."""
        self.settings["lmvp_upstream"] = Upstream()

    def initialize_handlers(self) -> None:
        """Add the routes below `<base_url>/lmvp`."""
        static = {"path": str(files("lmvp_server") / "static")}
        self.handlers.extend(
            [
                (rf"/{PREFIX}/static/(.*)", StaticFile, static),
                (rf"/{PREFIX}/.*", Proxy),
                (rf"/{PREFIX}", Door),
                (rf"/api/{PREFIX}/console", ConsoleAddress),
            ]
        )

    async def stop_extension(self) -> None:
        """Release the threads."""
        self.settings["lmvp_upstream"].close()
