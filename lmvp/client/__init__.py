"""`Client`: every verb of LMVP as a method, over HTTP, for one server."""

from lmvp.client.models import Client

__all__ = ["Client"]
