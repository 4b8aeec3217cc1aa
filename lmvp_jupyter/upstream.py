"""The LMVP server that a Jupyter server passes requests on to: the one that its kernels use."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from urllib.parse import urljoin, urlsplit

from lmvp import config, local
from lmvp.errors import ServerUnavailable

PATIENCE = 60.0
"""Seconds that the server may be silent; a stream of events says something more often."""
THREADS = 64


class Upstream:
    """Asks the server, in threads: what waits must not hold Jupyter's loop."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(THREADS, thread_name_prefix="lmvp-proxy")

    def ask(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> HTTPResponse:
        """Send a request, and return the answer as soon as its head is there.

        Raises
        ------
        LmvpError
            If there is no server, and none can be started.
        OSError, HTTPException
            If it does not answer.
        """
        try:
            return self._send(method, target, headers, body)
        except (OSError, HTTPException):
            if config.server_url() is not None:
                raise
            local.forget(local.connection())  # it has ended since: find or start it anew
            return self._send(method, target, headers, body)

    def _send(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> HTTPResponse:
        url, token = self._address()
        place = urlsplit(url)
        kind = HTTPSConnection if place.scheme == "https" else HTTPConnection
        connection = kind(place.hostname or "", place.port, timeout=PATIENCE)
        connection.request(
            method, place.path.rstrip("/") + target, body or None, {**headers, "Authorization": f"Bearer {token}"}
        )
        return connection.getresponse()

    def _address(self) -> tuple[str, str]:
        url = config.server_url()
        if url is None:
            found = local.connection()
            return found.url, found.token
        token = config.token_for(url)
        if token is None:
            raise ServerUnavailable(f"no token is kept for {url}", hint=f"lmvp login {url}, as who runs Jupyter")
        return url, token

    def within(self, location: str, asked: str, prefix: str) -> str:
        """Return where a redirect leads, from what was asked for, below the prefix; elsewhere it leads nowhere."""
        ours = urlsplit(self._address()[0])
        place = urlsplit(urljoin(f"{ours.scheme}://{ours.netloc}{asked}", location))
        if place.netloc != ours.netloc:
            return f"{prefix}/"
        path = place.path or "/"
        below = path if path.startswith(f"{prefix}/") else f"{prefix}{path}"
        return below + (f"?{place.query}" if place.query else "")

    def close(self) -> None:
        """Let go of the threads."""
        self.pool.shutdown(wait=False, cancel_futures=True)
