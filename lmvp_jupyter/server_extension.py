"""Reverse proxy for the console at `<base_url>/lmvp/` of a Jupyter server.

It is for users who cannot reach the port of the LMVP server, for example on JupyterHub. It forwards requests to the
LMVP server that the kernels of this Jupyter server use, with the token that the owner of the Jupyter server has stored.
All Jupyter users act as the account of this token, so access to `/lmvp` is access to the account. Jupyter's authorizer
grants it as the resource `lmvp`.

The proxy adds the token to forwarded requests, so that browsers do not get it. It forwards only the headers in the
lists below. No token, cookie or login of Jupyter reaches the LMVP server, except the cookie of the theme. The forms of
the console contain a token of the proxy that is valid below `/lmvp` only. With Jupyter's own XSRF token, a hostile LMVP
server could send requests to all of Jupyter.

Responses have the origin of Jupyter, where a script could run code in a kernel. The proxy therefore adds a content
security policy to that of the server: pages load resources, send requests and submit forms only below `/lmvp`, and show
no frames. The scripts of the console come from this installation; scripts of the server are not forwarded.

`<base_url>/api/lmvp/console` is the route of JupyterLab's launcher tile (labextension/). It is outside of the path of
the proxy, so that pages of the LMVP server cannot send requests to it.
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
"""Maximum size of a request, in bytes. Pushes are larger, but kernels send them to the LMVP server directly."""
PIECE = 1 << 16
"""Maximum size of a piece of a response that is forwarded at once, in bytes."""

ASKED = ("Accept", "Accept-Encoding", "Accept-Language", "Cache-Control", "Content-Type", "If-Match",
         "If-Modified-Since", "If-None-Match", "If-Range", "Last-Event-ID", "Range")  # fmt: skip
ANSWERED = ("Accept-Ranges", "Allow", "Cache-Control", "Content-Disposition", "Content-Encoding", "Content-Range",
            "Content-Type", "ETag", "Last-Modified", "Retry-After", "Vary", "LMVP-API")  # fmt: skip
"""Headers of requests and of responses that are forwarded. All other headers are dropped."""

CSP = (
    "default-src {place}; script-src {place}static/; style-src {place} 'unsafe-inline'; img-src {place} data:; "
    "object-src 'none'; frame-src 'none'; child-src 'none'; worker-src 'none'; base-uri 'none'; "
    "form-action {place}; frame-ancestors 'self'"
)
"""The content security policy of all responses. Browsers apply it in addition to the policy of the server.

`place` is the path of the console. Other paths of Jupyter have the same origin: files of the user, which a page must
not load as scripts, and routes that change data, to which it must not submit forms.
"""

THEME, THEMES = "lmvp_theme", ("light", "dark", "system")
"""The only cookie that is forwarded."""

OURS = ("token", "_xsrf")
"""Arguments of a URL that belong to Jupyter and are not forwarded."""

_READING = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing and need no form token."""
_NO_BODY = (204, 304)
"""Statuses of responses without a body."""
_SCRIPT = re.compile(r"(?:java|ecma|live|j)script", re.IGNORECASE)
"""Content types that browsers execute as scripts."""
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
"""Valid values of headers, without control characters."""
_HOST = re.compile(r"[A-Za-z0-9.-]+(?::[0-9]{1,5})?")
"""A host that can be a source in a content security policy, which does not support IPv6 addresses."""


class _Closed(JupyterHandler):
    """A handler that requires a login to Jupyter."""

    auth_resource = "lmvp"

    @property
    def prefix(self) -> str:
        """The path of the console in Jupyter, without a slash at the end."""
        return f"{self.base_url}{PREFIX}"

    async def prepare(self, **options: Any) -> None:
        """Reject a request without a login or with an invalid path, before its body is read."""
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
    """Forwards all requests below `<base_url>/lmvp/`, except those for static files."""

    def initialize(self) -> None:
        """Initialize the state of a request."""
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
        """Reject a body that is too large before it is read."""
        await super().prepare(**options)
        length = self.request.headers.get("Content-Length", "0")
        if length.isdigit() and int(length) > BODY_LIMIT:
            raise _too_long()

    def data_received(self, chunk: bytes) -> None:
        """Collect the body up to the limit. The rest is read and dropped, so that the client gets the response."""
        self._received += len(chunk)
        if self._received <= BODY_LIMIT:
            self._body.append(chunk)
        else:
            self._body.clear()

    def check_xsrf_cookie(self) -> None:
        """Check Jupyter's XSRF token in a header, or the form token in the body, after the body has been read.

        Jupyter's token is not accepted in the body, because the body is forwarded to the LMVP server.
        """
        # Tornado calls this before it reads the body; `_read_body` calls it again.
        if self._is_read and not self._has_form_token:
            super().check_xsrf_cookie()

    @property
    def form_token(self) -> str:
        """The token in the forms of the console, bound to this Jupyter server, its user and the LMVP server.

        It replaces Jupyter's XSRF token, which the LMVP server must not get. With this token, the LMVP server can only
        forge requests to itself.
        """
        return self.upstream.form_token(getattr(self.current_user, "username", ""))

    def _place(self, folder: str = "") -> str:
        """Return the source expression of a folder of the console for a content security policy.

        The host must be the one that the browser uses, also behind another proxy. Jupyter's check of origins requires
        the same.
        """
        host = self.request.host
        path = quote(f"{self.prefix}/{folder}", safe="/%:@!$&()*+=~")
        return f"{host}{path}" if _HOST.fullmatch(host) else "'self'"

    def _read_body(self) -> bytes:
        """Return the body of a request after its token has been checked.

        Raises
        ------
        HTTPError
            413 if the body is too large, 403 without a valid token.
        """
        if self._received > BODY_LIMIT:
            raise _too_long()
        body = b"".join(self._body)
        if self.request.method not in _READING:
            found: dict[str, list[bytes]] = {}
            with suppress(HTTPInputError):  # a malformed form has no valid token
                parse_body_arguments(self.request.headers.get("Content-Type", ""), body, found, {})
            given = found.get("_xsrf", [b""])[-1]
            self._has_form_token = self.current_user is not None and compare_digest(given, self.form_token.encode())
            self._is_read = True
            self.check_xsrf_cookie()
        return body

    async def _forward(self) -> None:
        """Send the request to the LMVP server and its response to the browser."""
        body, target = self._read_body(), self._target()
        headers = {name: self.request.headers[name] for name in ASKED if name in self.request.headers}
        headers["X-Forwarded-Prefix"] = self.prefix
        headers["X-Forwarded-Xsrf"] = self.form_token
        _ = self.xsrf_token  # reading it sets Jupyter's cookie, whose value scripts send in a header
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
        """Return path and query for the LMVP server. The path stays quoted, since `%2F` differs from `/`."""
        path = self.request.path[len(self.prefix) :] or "/"
        query = [(key, value) for key, value in parse_qsl(self.request.query, True) if key not in OURS]
        return f"{path}?{urlencode(query)}" if query else path

    def _pass_head(self, response: HTTPResponse, asked: str) -> int | None:
        """Set the status and the headers, and return the length of the body; None if it is unknown.

        Raises
        ------
        ValueError
            If the server sent an invalid status or header.
        """
        if not 200 <= response.status < 600:
            raise ValueError("an impossible status")
        headers = {name: response.getheader(name) for name in ANSWERED}
        location = response.getheader("Location")
        if location is not None:
            headers["Location"] = within(location, self._exchange.url, asked, self.prefix)
        # A script of the server must not run with the origin of Jupyter.
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
        """Send the body to the browser; cut the connection if its length differs from the announced one."""
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
        if length is not None and sent != length:  # otherwise the browser would treat a part as the whole
            self._exchange.abort()
            with suppress(StreamClosedError):
                self.detach().close()

    async def _pieces(self) -> AsyncIterator[bytes]:
        """Yield the pieces of the body as they arrive, so that events are not delayed."""
        # The server or `on_connection_close` can end the connection during a read.
        with suppress(OSError, HTTPException, ValueError):
            while piece := await self._in_thread(self._exchange.read, PIECE):
                yield piece

    async def _in_thread(self, work: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.upstream.pool, work, *arguments)

    def _unreachable(self, error: Exception) -> None:
        """Respond with status 502 and the error in the form of LMVP's API."""
        self.log.warning("the LMVP server cannot be reached: %s", type(error).__name__)
        words = error.message if isinstance(error, LmvpError) else "the LMVP server does not answer as it should"
        hint = getattr(error, "hint", None) or "the next request looks for it again"
        self.set_status(502)
        self.finish({"error": {"code": ServerUnavailable.code, "message": words, "hint": hint}})

    def on_connection_close(self) -> None:
        """Abort the request to the LMVP server when the browser closes the connection."""
        super().on_connection_close()
        self._exchange.abort()

    def compute_etag(self) -> None:
        """Set no ETag: the one of the LMVP server is forwarded."""

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
        """Respond without CORS headers, so that other origins have no access."""
        self.set_status(204)


def _too_long() -> HTTPError:
    return HTTPError(413, reason=f"more than {BODY_LIMIT >> 20} MiB go to the LMVP server itself")


class StaticFile(_Closed, StaticFileHandler):
    """Serves `<base_url>/lmvp/static/…`: style sheets and scripts of this installation, not of the LMVP server."""

    def decode_argument(self, value: bytes, name: str | None = None) -> str:  # noqa: ARG002 - as Tornado calls it
        """Decode the name of a file. One that is not UTF-8 is not found; Jupyter's error page would fail on it."""
        return value.decode("utf-8", "replace")

    @authenticated
    @authorized
    async def get(self, path: str) -> None:  # type: ignore[override]
        """Send a file."""
        await StaticFileHandler.get(self, path)

    @authenticated
    @authorized
    async def head(self, path: str) -> None:  # type: ignore[override]
        """Send the headers of a file."""
        await StaticFileHandler.get(self, path, include_body=False)


class Door(JupyterHandler):
    """Redirects `<base_url>/lmvp` to `<base_url>/lmvp/`, because links of the console are relative to the latter."""

    @authenticated
    def get(self) -> None:
        """Redirect to the console."""
        self.redirect(f"{self.base_url}{PREFIX}/")


class ConsoleAddress(APIHandler):
    """Serves `<base_url>/api/lmvp/console`: checks the LMVP server and returns the address of the console.

    It requires Jupyter's login and XSRF token. The address contains no secret, because the proxy adds the token.
    """

    auth_resource = "lmvp"

    def initialize(self) -> None:
        """Initialize the state of a request."""
        self._exchange = Exchange()

    def on_connection_close(self) -> None:
        """Abort the request to the LMVP server when the browser closes the connection."""
        super().on_connection_close()
        self._exchange.abort()

    @authenticated
    @authorized("read")  # type: ignore[untyped-decorator]
    async def post(self) -> None:
        """Check the LMVP server and the stored token, and send the address.

        The method is POST, because the request can start the local server.
        """
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
        """Create the connection to the LMVP server, which all handlers share."""
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
        """Stop the threads of the connection."""
        self.settings["lmvp_upstream"].close()
