"""Limits of connections, and of the open files of the process."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

from lmvp_server.http.buffers import BufferLimits

CHUNK_SIZE = 1 << 20
BODY_LIMIT = 1 << 30
HEADER_LIMIT = 64 << 10

DESCRIPTORS = 65_536
"""Maximum number of open files that the server requests; the hard limit of some systems is a billion."""
CONNECTIONS = 4096
"""Maximum number of connections, even with more descriptors, because each can hold `HEADER_LIMIT` bytes."""
FEWEST_CONNECTIONS = 8


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of connections.

    Attributes
    ----------
    connections : int
        Maximum number of connections.
    per_address : int
        Maximum number of connections of one address (of one /64 network for IPv6).
    unknown_bodies : int
        Maximum number of unfinished bodies without valid credentials from one address. One more closes the oldest.
    header_seconds : float
        Time for the head of a request, from its first byte; for the first request, from the connection.
    idle_seconds : float
        Time between two requests of a connection. It is longer than the 60 s for which nginx keeps a connection to the
        server, because nginx answers 502 if the server closes first.
    body_seconds, body_bytes : float, int
        A body must bring this number of bytes in each period of this number of seconds. The total time has no limit, so
        that a large push over a slow connection succeeds.
    unknown_body_seconds, unknown_body_bytes : float, int
        The same for bodies without valid credentials. A body of at most this size has this time in total.
    sending_seconds : float
        Time in which a client must read some bytes of a response.
    reading_seconds, reading_bytes, reading_rest : float, int, int
        A client must read this number of bytes of a response in each period, while at least `reading_rest` bytes wait
        for it. A stream without news has no waiting bytes, so it can be silent for any time.
    buffers : BufferLimits
        Limits for bodies and unread responses in memory.
    lingering, lingering_per_address : int
        Maximum number of lingering connections, in total and of one address. One more closes without lingering.
    lingering_seconds, lingering_idle_seconds : float
        Time that a connection lingers, in total and without a byte.
    lingering_bytes : int
        Maximum number of bytes that are read and discarded per connection.
    """

    connections: int = CONNECTIONS
    per_address: int = CONNECTIONS // 2
    unknown_bodies: int = CONNECTIONS // 8
    header_seconds: float = 30.0
    idle_seconds: float = 75.0
    body_seconds: float = 60.0
    body_bytes: int = 64 << 10
    unknown_body_seconds: float = 30.0
    unknown_body_bytes: int = 480 << 10
    sending_seconds: float = 300.0
    reading_seconds: float = 30.0
    reading_bytes: int = 480 << 10
    reading_rest: int = 64 << 10
    lingering: int = CONNECTIONS // 16
    lingering_per_address: int = CONNECTIONS // 64
    lingering_seconds: float = 10.0
    lingering_idle_seconds: float = 2.0
    lingering_bytes: int = 32 << 20
    buffers: BufferLimits = field(default_factory=BufferLimits)

    @classmethod
    def of_process(cls, *, behind_proxy: bool = False) -> Limits:
        """Return the limits for the descriptors of this process. Half of the descriptors are for files.

        Behind a proxy, all connections come from one address. That address can therefore have all connections, and half
        of them for bodies without valid credentials.
        """
        connections = min(CONNECTIONS, max(FEWEST_CONNECTIONS, _descriptors() // 2))
        lingering = max(2, connections // 16)
        if behind_proxy:
            return cls(connections, connections, connections // 2, lingering=lingering, lingering_per_address=lingering)
        return cls(
            connections,
            max(FEWEST_CONNECTIONS, connections // 2),
            max(2, connections // 8),
            lingering=lingering,
            lingering_per_address=max(2, lingering // 4),
        )


def raise_descriptor_limit() -> None:
    """Raise the soft limit of open files to the hard limit, at most to `DESCRIPTORS`."""
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # macOS reports a hard limit that its kernel does not accept
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _descriptors() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return DESCRIPTORS
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return DESCRIPTORS if soft == resource.RLIM_INFINITY else soft
