"""Check of the header `Host`, as a protection from DNS rebinding.

A web page can let its domain name point to 127.0.0.1, so that browsers send its requests to a local server. Such a
request has the domain name as its host. A server on loopback therefore accepts only the names of this machine and the
name of its reverse proxy.
"""

from __future__ import annotations

from tornado.httputil import HTTPServerRequest

from lmvp_server.settings import Settings


def foreign_host(request: HTTPServerRequest, settings: Settings) -> bool:
    """Return whether a server must refuse a request because of its host."""
    return not settings.answers_to(request.host)
