"""Connections of `requests` to the server of this machine, each of which begins with a proof."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lmvp.local import Local, prove

if TYPE_CHECKING:
    from requests.adapters import HTTPAdapter


def proven_adapter(local: Local, **options: Any) -> HTTPAdapter:
    """Return an adapter that sends requests only to the server that was found.

    `connect` opens every socket of `urllib3`, for the first request as well as after a lost connection.
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
                # urllib3 passes over a reset or a broken pipe here, to read an early response
                raise NewConnectionError(self, str(error) or type(error).__name__) from error
            except BaseException:
                self.close()
                raise

    class ProvenPool(HTTPConnectionPool):
        ConnectionCls = ProvenConnection

    adapter = HTTPAdapter(**options)
    adapter.poolmanager.pool_classes_by_scheme = {"http": ProvenPool}
    return adapter
