"""Which `Host` a request may name.

A web page can make a browser send requests to a name of its own that points to 127.0.0.1 (DNS rebinding). Such a
request names that host, so a server that listens on loopback answers to the names of this machine alone, and to the one
that a proxy before it is known by.
"""

from __future__ import annotations

from tornado.httputil import HTTPServerRequest

from lmvp_server.settings import Settings


def foreign_host(request: HTTPServerRequest, settings: Settings) -> bool:
    """Tell whether a server must refuse a request for the host that it names."""
    return not settings.answers_to(request.host)
