"""Which `Host` a request may name.

A web page can make a browser send requests to a name of its own that points to 127.0.0.1 (DNS rebinding). Such a
request names that host, so a server that only this machine reaches answers to the names of this machine alone.
"""

from __future__ import annotations

import re

from tornado.httputil import HTTPServerRequest

from lmvp_server.settings import is_loopback

_HOST = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<name>[^:\[\]]+))(?::[0-9]{0,5})?")


def foreign_host(request: HTTPServerRequest, local: bool) -> bool:
    """Tell whether a server that is `local` must refuse a request for the host that it names."""
    return local and not _is_here(request.host)


def _is_here(host: str) -> bool:
    match = _HOST.fullmatch(host)
    return match is not None and is_loopback(match["six"] or match["name"])
