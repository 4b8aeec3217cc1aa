"""Lingering connections.

If the server closes a connection before it has read the complete request, the system resets the connection and the
client can lose the response. Such a connection lingers: the server closes only its sending side, and reads and discards
the rest.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from contextlib import suppress

from lmvp_server.http.limits import Limits

_LINGER_BUFFER = 256 << 10
_LINGER_RATE = 64 << 20
"""Bytes per second that the server reads and discards, for all lingering connections; about 1 % of a CPU core."""
_LINGER_BURST = 0.1


class LingeringConnections:
    """Connections that got their response while the client still sends. Their bytes are read and discarded.

    Limits of count, time, bytes and rate bound the cost, so that a client gains nothing by being refused.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._tasks: set[asyncio.Task[None]] = set()
        self._by_address: Counter[str] = Counter()
        self._buffer = bytearray(0)
        self._next_read = 0.0
        self.dropped = 0
        """Number of bytes that were read and discarded."""

    def __len__(self) -> int:
        return len(self._tasks)

    def take(self, connection: socket.socket, address: str) -> bool:
        """Take over the socket of a connection; return False if too many linger or the connection is closed."""
        limits = self._limits
        if len(self._tasks) >= limits.lingering or self._by_address[address] >= limits.lingering_per_address:
            return False
        try:
            connection.shutdown(socket.SHUT_WR)
        except OSError:  # the client closed or reset it
            return False
        task = asyncio.get_running_loop().create_task(self._linger(connection))
        self._tasks.add(task)
        self._by_address[address] += 1
        task.add_done_callback(lambda done: self._end(done, connection, address))
        return True

    async def stop(self) -> None:
        """Close all lingering connections."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _end(self, task: asyncio.Task[None], connection: socket.socket, address: str) -> None:
        connection.close()
        self._tasks.discard(task)
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]
        if not self._tasks:
            self._buffer = bytearray(0)

    async def _linger(self, connection: socket.socket) -> None:
        with suppress(asyncio.TimeoutError, OSError):
            await self._drop(connection)

    async def _drop(self, connection: socket.socket) -> None:
        """Read until the client closes, a limit is reached, or it sends nothing for too long."""
        loop = asyncio.get_running_loop()
        # A deadline, not an outer `wait_for`: before Python 3.12, an inner `wait_for` can swallow the cancellation by
        # an outer one, and the connection would linger for as long as its client sends.
        deadline = loop.time() + self._limits.lingering_seconds
        # The connections share one buffer, because the bytes are not used.
        if not self._buffer:
            self._buffer = bytearray(_LINGER_BUFFER)
        buffer, remaining = self._buffer, self._limits.lingering_bytes
        while remaining > 0 and loop.time() < deadline:
            reading = loop.sock_recv_into(connection, buffer)
            patience = min(self._limits.lingering_idle_seconds, deadline - loop.time())
            count = await asyncio.wait_for(reading, patience)
            if not count:
                return
            remaining -= count
            self.dropped += count
            # A token bucket over all lingering connections limits the CPU time for discarding.
            self._next_read = max(self._next_read, loop.time()) + count / _LINGER_RATE
            await asyncio.sleep(max(0.0, self._next_read - loop.time() - _LINGER_BURST))
