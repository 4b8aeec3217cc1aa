"""Listening sockets, and the stable ports of embedded servers."""

from __future__ import annotations

import hashlib
import os
import socket
from contextlib import suppress
from pathlib import Path

from tornado.netutil import bind_sockets

from lmvp.errors import InvalidArgument


def bind(host: str, port: int) -> list[socket.socket]:
    """Return listening sockets.

    Raises
    ------
    InvalidArgument
        If the address does not exist here, the port is in use, or it needs more rights.
    """
    hint = "--port 0 takes a free port; --host 127.0.0.1 listens to this machine alone"
    if not 0 <= port < 1 << 16:
        raise InvalidArgument(f"cannot listen on port {port}: ports end at 65535", hint=hint)
    try:
        return bind_sockets(port, address=host)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InvalidArgument(f"cannot listen on port {port} of {host}: {reason}", hint=hint) from error


PORTS = range(11_000, 20_000)
"""Ports of embedded servers.

They are below the ephemeral ports of operating systems, and exclude the ports that browsers block
(https://fetch.spec.whatwg.org/#port-blocking).
"""
_STABLE = 3


def stable_ports(data: Path) -> list[int]:
    """Return the ports that the embedded server of a data folder tries before any free one.

    They depend only on the path of the folder. Bookmarks and open tabs therefore survive a restart, and the servers of
    two folders or two users do not compete for a port.

    Examples
    --------
    >>> stable_ports(Path("/home/ada/lmvp")) == stable_ports(Path("/home/ada/lmvp")), len(stable_ports(Path("/x")))
    (True, 3)
    """
    digest = hashlib.sha256(os.fsencode(os.path.realpath(data))).digest()
    # Several candidates, because the first port can be in use.
    numbers = (int.from_bytes(digest[at : at + 4], "big") for at in range(0, 4 * _STABLE, 4))
    return [PORTS[number % len(PORTS)] for number in numbers]


def bind_stable(host: str, data: Path) -> list[socket.socket]:
    """Return listening sockets on a stable port of the data folder if one is free, otherwise on any free port."""
    for port in stable_ports(data):
        with suppress(InvalidArgument):
            return bind(host, port)
    return bind(host, 0)


def url_of(sockets: list[socket.socket]) -> str:
    """Return the URL by which this machine reaches the server of these sockets."""
    host, port = sockets[0].getsockname()[:2]
    # The wildcard address is not a valid destination on all systems.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - the reverse of binding to all
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
