"""Transport adapter of `requests` that verifies the server of this machine on each new connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lmvp.local import Local, prove

if TYPE_CHECKING:
    from requests.adapters import HTTPAdapter


def proven_adapter(local: Local, **options: Any) -> HTTPAdapter:
    """Return an adapter that sends requests only over connections to the verified server.

    The verification is in `connect`, because urllib3 calls this method for every new socket: for the first request and
    for each reconnection.
    """
    from requests.adapters import HTTPAdapter
    from urllib3.connection import HTTPConnection
    from urllib3.connectionpool import HTTPConnectionPool
    from urllib3.exceptions import NewConnectionError

    class ProvenConnection(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            try:
                prove(self.sock, local)
            except OSError as error:
                self.close()
                # urllib3 ignores a reset or a broken pipe at this point, to read an early response of the peer. A
                # failed verification must not be ignored, so it is raised as an error of the connection.
                raise NewConnectionError(self, str(error) or type(error).__name__) from error
            except BaseException:
                self.close()
                raise

    class ProvenPool(HTTPConnectionPool):
        ConnectionCls = ProvenConnection

    adapter = HTTPAdapter(**options)
    adapter.poolmanager.pool_classes_by_scheme = {"http": ProvenPool}
    return adapter
