"""Delivery of webhook events: in order for each webhook, one at a time, with retries."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any
from urllib.parse import urlsplit

from tornado.httpclient import HTTPError, HTTPRequest
from tornado.netutil import Resolver
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from lmvp.core.files import storage_error
from lmvp.errors import LmvpError
from lmvp_server.services.webhook_allowlist import WebhookAllowlist
from lmvp_server.services.webhooks import FIRST_WAIT, GONE, Delivery, Webhooks

_logger = logging.getLogger("lmvp_server")

TICK = 0.5
"""Seconds between two checks for events to send."""
LONGEST_TICK = 60.0
"""Maximum pause while the checks fail. The pause doubles up to it, because a full disk can last long."""
TIMEOUT = 15.0
AT_ONCE = 16
_ANSWER_LIMIT = 64 << 10


class CheckingResolver(Resolver):
    """A resolver that refuses addresses to which webhooks are not allowed.

    Tornado connects to the addresses that it returns, so a second DNS answer cannot bypass the check (DNS rebinding).
    """

    def initialize(self, allowlist: WebhookAllowlist) -> None:
        """Store the allowed targets."""
        self._allowlist = allowlist

    async def resolve(
        self, host: str, port: int, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[tuple[int, Any]]:
        """Return the addresses of a host.

        Raises
        ------
        AccessDenied
            If one of them is not allowed. A name with both kinds of addresses is suspicious.
        OSError
            If the host has no address.
        """
        self._allowlist.check_host(host)
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        for *_, address in found:
            self._allowlist.check_address(str(address[0]))
        return [(each[0], each[4]) for each in found]


class Notifier:
    """Sends events to webhooks after `start`, if the server allows any target."""

    def __init__(self, webhooks: Webhooks, allowlist: WebhookAllowlist) -> None:
        self._webhooks, self._allowlist = webhooks, allowlist
        self._client: SimpleAsyncHTTPClient | None = None
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the checks for events to send."""
        if self._allowlist:
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Cancel the current deliveries; they are repeated after the next start."""
        tasks = [task for task in (self._task, *self._under_way.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._client is not None:
            self._client.close()

    async def _run(self) -> None:
        pause = TICK
        while True:
            try:
                room = AT_ONCE - len(self._under_way)
                due = await asyncio.to_thread(self._webhooks.due, frozenset(self._under_way))
                for delivery in due[: max(0, room)]:
                    self._under_way[delivery.hook] = asyncio.create_task(self._deliver(delivery))
                pause = TICK
            except Exception as error:  # noqa: BLE001 - webhooks must not stop the server
                _log_failure("the search for events to send to webhooks failed", error)
                pause = min(2 * pause, LONGEST_TICK)
            await asyncio.sleep(pause)

    async def _deliver(self, delivery: Delivery) -> None:
        """Send an event and, while deliveries succeed, the following ones."""
        following: Delivery | None = delivery
        try:
            while following is not None:
                status, why = await self.send(following)
                if not 200 <= status < 300:
                    _logger.info("a webhook to %s failed: %s", urlsplit(following.url).hostname, why)
                    await asyncio.to_thread(self._webhooks.failed, following, why, gone=status == GONE)
                    return
                following = await asyncio.to_thread(self._webhooks.arrived, following)
        except Exception as error:  # noqa: BLE001 - it is logged
            _log_failure("a webhook could not be sent", error)
            await asyncio.sleep(FIRST_WAIT)  # e.g. a full disk: without the pause, the event would be sent repeatedly
        finally:
            self._under_way.pop(delivery.hook, None)

    async def send(self, delivery: Delivery) -> tuple[int, str]:
        """Send an event once; return the HTTP status (0 without a response) and the reason of a failure."""
        try:
            self._allowlist.check_url(delivery.url)
            request = HTTPRequest(
                delivery.url,
                method="POST",
                headers=delivery.headers(),
                body=delivery.body,
                # A redirect could lead to an address that is not allowed.
                follow_redirects=False,
                connect_timeout=TIMEOUT,
                request_timeout=TIMEOUT,
                decompress_response=False,
            )
            answer = await self._sender().fetch(request, raise_error=False)
        except LmvpError as error:
            return 0, error.message
        except (HTTPError, OSError, ValueError) as error:
            return 0, _told(error)
        if answer.code == 599:  # Tornado's status if there is no response
            return 0, _told(answer.error)
        return answer.code, "" if 200 <= answer.code < 300 else f"it answered {answer.code}"

    def _sender(self) -> SimpleAsyncHTTPClient:
        if self._client is None:
            self._client = SimpleAsyncHTTPClient(
                force_instance=True,
                resolver=CheckingResolver(allowlist=self._allowlist),
                # Some more than AT_ONCE, for test events from the console and the API.
                max_clients=AT_ONCE + 4,
                max_body_size=_ANSWER_LIMIT,
                max_header_size=_ANSWER_LIMIT,
            )
        return self._client


def _log_failure(what: str, error: Exception) -> None:
    """Log a storage error in one line, and any other error, which is a bug, with its traceback."""
    known = storage_error(error, "the server") if isinstance(error, OSError) else None
    if isinstance(error, LmvpError):
        known = error
    if known is None:
        _logger.error(what, exc_info=error)
    else:
        _logger.error("%s: %s", what, known.message)


def _told(error: BaseException | None) -> str:
    """Describe why a delivery failed, without any text of the other side."""
    if isinstance(error, LmvpError):
        return error.message
    known = {"Timeout": "it did not answer in time", "refused": "the connection was refused"}
    return next((said for word, said in known.items() if word in str(error)), "no connection, or no answer of HTTP")
