"""Detection of the local user whose process sent a request.

Browsers send a cookie to all ports of a host. After the embedded server has stopped, another user of the machine can
open its port, and an open browser tab then sends that user its session cookie. The embedded server therefore accepts
sessions and sign-in links only from processes of the same user or of root. This works only on Linux, where the system
has the information.
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
"""Column numbers in the table: https://www.kernel.org/doc/html/latest/networking/proc_net_tcp.html."""


def is_other_user(request: HTTPServerRequest, settings: Settings) -> bool:
    """Return whether a request to an embedded server comes from a process of another user of this machine."""
    if not settings.embedded:
        return False
    stream = getattr(request.connection, "stream", None)
    connection = getattr(stream, "socket", None)
    if connection is None:
        return False
    known = vars(stream).get("peer_uid")
    if known is None:  # looked up once per connection, because the scan of the table takes long
        known = vars(stream)["peer_uid"] = _uid_of_peer(connection)
    return known not in {-1, 0, os.getuid()}


def _uid_of_peer(connection: socket.socket) -> int:
    """Return the user id of the process at the other end of a connection; -1 if it is unknown."""
    try:
        ends = _written(connection.getpeername()), _written(connection.getsockname())
        with _TABLE.open() as table:
            for line in table:
                columns = line.split()
                if (columns[_LOCAL], columns[_REMOTE]) == ends:
                    return int(columns[_UID])
    except (OSError, ValueError, IndexError):  # not Linux, not IPv4, or the client disconnected
        pass
    return -1


def _written(address: tuple[str, int]) -> str:
    """Format an address as in the table, in the byte order of the machine."""
    host, port = address
    return f"{int.from_bytes(socket.inet_aton(host), sys.byteorder):08X}:{port:04X}"
