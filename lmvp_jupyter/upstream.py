"""The connection of a Jupyter server to the LMVP server to which it forwards requests.

It is the server that the kernels use: the one in `LMVP_URL` or of the last login, otherwise the local server.
"""

from __future__ import annotations

import hmac
import os
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from secrets import token_bytes
from threading import Lock
from urllib.parse import unquote, urljoin, urlsplit

from lmvp import config, local
from lmvp.core.schemas.base import API_HEADER
from lmvp.errors import LmvpError, NotAuthenticated, ServerUnavailable

CONNECT_TIMEOUT = 10.0
"""Seconds to wait for a connection."""
PATIENCE = 60.0
"""Seconds to wait for data. A stream of events sends data more often."""
THREADS = 64
"""Maximum number of requests at once. Each open page of the console occupies one for its stream of events."""


class Exchange:
    """A request to the server and its response. The event loop can abort it while a thread waits for data."""

    def __init__(self) -> None:
        self.url = ""
        self.is_aborted = False
        self.response: HTTPResponse | None = None
        self._socket: socket.socket | None = None
        self._lock = Lock()

    def open(self, url: str, found: local.Local | None = None) -> HTTPConnection:
        """Connect to the server.

        Parameters
        ----------
        url : str
            The address of the server.
        found : Local, optional
            The local server. The connection then begins with a check that this server, and no other process, answers.

        Raises
        ------
        OSError
            If the server is unreachable or another process answers, or the exchange was aborted.
        """
        place = urlsplit(url)
        kind = HTTPSConnection if place.scheme == "https" else HTTPConnection
        connection = kind(place.hostname or "", place.port, timeout=CONNECT_TIMEOUT)
        connection.auto_open = 0  # a new connection would skip the check of the local server
        connection.connect()
        try:
            with self._lock:
                self.url, self._socket = url, connection.sock
                if self.is_aborted:
                    raise ConnectionAbortedError  # noqa: TRY301 - closed below, like every connection that fails
            if found is not None:
                local.prove(connection.sock, found)
            connection.sock.settimeout(PATIENCE)
        except BaseException:
            connection.close()
            raise
        return connection

    def read(self, size: int) -> bytes:
        """Return the next bytes of the body, at most `size`, as soon as they arrive; empty at the end."""
        return self.response.read1(size) if self.response is not None else b""

    def abort(self) -> None:
        """Abort the request. A reading thread gets the end of the body; `close` would wait for that thread."""
        with self._lock:
            self.is_aborted = True
            if self._socket is not None:
                with suppress(OSError):
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket. No thread may read at the same time."""
        if self.response is not None:
            self.response.close()
        if self._socket is not None:
            self._socket.close()


class Upstream:
    """Sends requests to the server, in threads, so that they do not block Jupyter's event loop."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(THREADS, thread_name_prefix="lmvp-proxy")
        self._key = token_bytes(32)

    def form_token(self, user: str) -> str:
        """Return the form token of a Jupyter user. It differs for each Jupyter process and LMVP server."""
        text = f"{config.server_url() or 'local'}\n{user}"
        return hmac.new(self._key, text.encode(), "sha256").hexdigest()

    def ask(self, exchange: Exchange, method: str, target: str, headers: Mapping[str, str], body: bytes) -> None:
        """Send a request and return when the head of the response has arrived.

        Parameters
        ----------
        exchange : Exchange
            Receives the response.
        method, target : str
            HTTP method, and path with query.
        headers : mapping
            Headers to send, without the token, which this adds.
        body : bytes

        Raises
        ------
        LmvpError
            If no token is stored for the server, or the local server cannot be started.
        OSError, HTTPException
            If the server is unreachable.
        """
        try:
            self._send(exchange, method, target, headers, body)
        except (OSError, HTTPException):
            if exchange.is_aborted or config.server_url() is not None:
                raise
            # The local server can have stopped since. Find it at its new address, or start it.
            local.forget(local.connection())
            self._send(exchange, method, target, headers, body)

    def check(self, exchange: Exchange) -> None:
        """Check that the server is reachable and accepts the stored token.

        Raises
        ------
        NotAuthenticated
            If the server does not accept the token.
        LmvpError
            If the server is unreachable, cannot be started, or does not respond like an LMVP server.
        """
        name = config.server_url() or "the LMVP server of this machine"
        try:
            self.ask(exchange, "GET", "/api/v1/me", {"Accept": "application/json"}, b"")
            response = exchange.response
            status = response.status if response is not None and response.getheader(API_HEADER) else 0
        except LmvpError:  # before the next clause, because some are also OSErrors
            raise
        except (OSError, HTTPException) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            hint = "check that it runs, or use another server: `lmvp login URL` in a terminal of Jupyter"
            raise ServerUnavailable(f"{name} does not answer: {reason}", hint=hint) from None
        if status == HTTPStatus.UNAUTHORIZED:
            login = f"run `lmvp login {name}` in a terminal of Jupyter"
            is_stated = os.environ.get("LMVP_URL") and os.environ.get("LMVP_TOKEN")
            hint = "set `LMVP_TOKEN` to a valid token, or unset it, and start Jupyter again" if is_stated else login
            raise NotAuthenticated(f"{name} does not accept the stored token", hint=hint)
        if status != HTTPStatus.OK:
            answer = f"answers with status {status}" if status else "does not answer as an LMVP server"
            raise ServerUnavailable(f"{name} {answer}", hint="`lmvp status` in a terminal of Jupyter shows its state")

    def _send(self, exchange: Exchange, method: str, target: str, headers: Mapping[str, str], body: bytes) -> None:
        url, token, found = self._address()
        connection = exchange.open(url, found)
        try:
            connection.request(
                method,
                urlsplit(url).path.rstrip("/") + target,
                body or None,
                {**headers, "Authorization": f"Bearer {token}"},
            )
            exchange.response = connection.getresponse()
        except BaseException:
            connection.close()
            raise

    def _address(self) -> tuple[str, str, local.Local | None]:
        """Return URL and token of the current server, and the record of the local server.

        Each request reads them again, so that a login takes effect without a restart of Jupyter.
        """
        url = config.server_url()
        if url is None:
            found = local.connection()
            return found.url, found.token, found
        token = config.token_for(url)
        if token is None:
            hint = f"run `lmvp login {url}` in a terminal of Jupyter"
            raise ServerUnavailable(f"no token is stored for {url}", hint=hint)
        return url, token, None

    def close(self) -> None:
        """Stop the threads without waiting for them."""
        self.pool.shutdown(wait=False, cancel_futures=True)


def within(location: str, url: str, asked: str, prefix: str) -> str:
    """Return the target of a redirect below the prefix. A redirect to another server leads to the first page instead.

    Parameters
    ----------
    location : str
        The header `Location` of the redirect.
    url : str
        The address of the server that sent it.
    asked : str
        The path of the request, to which `location` is relative.
    prefix : str
        The path of the console in Jupyter, without a slash at the end.

    Examples
    --------
    >>> within("p/digits", "http://h", "/", "/lmvp"), within("//evil.example", "http://h", "/", "/lmvp")
    ('/lmvp/p/digits', '/lmvp/')
    >>> within("/lmvp/%2e%2e/files/x", "http://h", "/", "/lmvp")
    '/lmvp/'
    """
    ours = urlsplit(url)
    try:
        place = urlsplit(urljoin(f"{ours.scheme}://{ours.netloc}{asked}", location))
    except ValueError:
        return f"{prefix}/"
    if (place.scheme, place.netloc) != (ours.scheme, ours.netloc) or not is_plain_path(place.path or "/"):
        return f"{prefix}/"
    path = place.path or "/"
    below = path if path.startswith(f"{prefix}/") else f"{prefix}{path}"
    return below + (f"?{place.query}" if place.query else "")


def is_plain_path(path: str) -> bool:
    """Return whether a quoted path stays below its prefix: without `..`, another host or control characters.

    The unquoted path is checked, since a server behind the proxy can unquote it.

    Examples
    --------
    >>> [is_plain_path(path) for path in ("/p/a%2Fb", "/p/%2e%2e/x", "/p/..%5cx", "//evil.example", "/a%0d%0ab")]
    [True, False, False, False, False]
    """
    plain = unquote(path).replace("\\", "/")
    is_text = path.isascii() and path.isprintable() and " " not in path and plain.isprintable()
    return is_text and not plain.startswith("//") and not {".", ".."} & set(plain.split("/"))
