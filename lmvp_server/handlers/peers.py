"""The user whose process sent a request, on this machine.

Browsers send a cookie to all ports of a host. When the embedded server has ended, another user of the machine can take
its port, and a tab that is still open sends that user the cookie of its session. The embedded server therefore accepts
sessions and sign-in links only from processes of its own user, and of root, where the system tells (Linux).
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from tornado.httputil import HTTPServerRequest

from lmvp_server.settings import Settings

_TABLE = Path("/proc/net/tcp")
_LOCAL, _REMOTE, _UID = 1, 2, 7
"""Columns of the table: https://www.kernel.org/doc/html/latest/networking/proc_net_tcp.html."""


def is_other_user(request: HTTPServerRequest, settings: Settings) -> bool:
    """Tell whether a request to an embedded server comes from a process of another user of this machine."""
    if not settings.embedded:
        return False
    stream = getattr(request.connection, "stream", None)
    connection = getattr(stream, "socket", None)
    if connection is None:
        return False
    known = vars(stream).get("peer_uid")
    if known is None:  # looked up once per connection
        known = vars(stream)["peer_uid"] = _uid_of_peer(connection)
    return known not in {-1, 0, os.getuid()}


def _uid_of_peer(connection: socket.socket) -> int:
    """Return the user id of the process at the other end of a connection; -1 if the system does not tell."""
    try:
        ends = _written(connection.getpeername()), _written(connection.getsockname())
        with _TABLE.open() as table:
            for line in table:
                columns = line.split()
                if (columns[_LOCAL], columns[_REMOTE]) == ends:
                    return int(columns[_UID])
    except (OSError, ValueError, IndexError):  # no Linux, no IPv4, or the client has left
        pass
    return -1


def _written(address: tuple[str, int]) -> str:
    """Return an address as the table has it, in the byte order of the machine."""
    host, port = address
    return f"{int.from_bytes(socket.inet_aton(host), sys.byteorder):08X}:{port:04X}"
