"""Transfer of journals to the server: the acknowledged offset of each journal, and its next request."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from lmvp.connection import Connection
from lmvp.core.run_frames import SHIPMENT_LIMIT, whole_size, within_epochs
from lmvp.core.schemas.runs import Applied
from lmvp.errors import Conflict, NotFound
from lmvp.tracking.journal import read_file

# Seconds until a request fails.
TIMEOUT: Final = 30.0
_HEADERS = {"Content-Type": "application/x-lmvp-journal"}
Read = Callable[[int, int], bytes]


class Shipment:
    """The transfer of one writer's journal.

    Parameters
    ----------
    read : callable
        Takes an offset and a limit in bytes; returns whole frames from the offset on.
    """

    def __init__(self, path: str, read: Read) -> None:
        self._path, self._read = path, read
        self.sent = 0

    def ship(self, connection: Connection, timeout: float = TIMEOUT) -> int:
        """Send the next part of the journal; return the number of bytes sent.

        Raises
        ------
        LmvpError
            If the server refuses the request; `ServerUnavailable` if it does not answer.
        """
        data = within_epochs(self._read(self.sent, SHIPMENT_LIMIT))
        if not data:
            return 0
        try:
            self.sent = self._put(connection, data, timeout)
        # The server has another offset, or a restored server lacks the run. `ask` sets the offset, and the next call
        # sends from there.
        except (Conflict, NotFound):
            if not self.ask(connection, timeout):
                raise
        return len(data)

    def ask(self, connection: Connection, timeout: float = TIMEOUT) -> bool:
        """Read the applied offset from the server and continue there; return whether it differs from the local one.

        A server that was restored from a backup has less than it acknowledged: points, or the run itself, are missing.
        The journal is then sent again from the server's offset. Its first frame creates the run.
        """
        applied = connection.once("GET", self._path, Applied, timeout=timeout).applied
        before, self.sent = self.sent, applied
        return applied != before

    def beat(self, connection: Connection) -> None:
        """Send a heartbeat; its answer shows whether the server has less than it acknowledged."""
        self.sent = min(self.sent, self._put(connection, b"", TIMEOUT))

    def _put(self, connection: Connection, data: bytes, timeout: float) -> int:
        query = {"from": self.sent}
        answer = connection.once("PUT", self._path, Applied, timeout=timeout, query=query, data=data, headers=_HEADERS)
        return answer.applied


def writer_path(project: str, run: str, writer: str) -> str:
    """Return the path of a writer in the API."""
    return f"/projects/{project}/runs/{run}/writers/{writer}"


def file_reader(path: Path) -> Read:
    """Return a function that reads whole frames of another process's journal."""

    def read(start: int, limit: int) -> bytes:
        with suppress(FileNotFoundError):
            data = read_file(path, start, limit)
            return data[: whole_size(data)]
        return b""

    return read
