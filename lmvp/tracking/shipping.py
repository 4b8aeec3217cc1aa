"""Bringing journals to the server: what of which was acknowledged, and what comes next."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from lmvp.connection import Connection
from lmvp.errors import Conflict, NotFound
from lmvp.tracking.frames import SHIPMENT_LIMIT, whole_size, within_epochs
from lmvp.tracking.journal import read_file
from lmvp.tracking.records import Applied

TIMEOUT: Final = 30.0
_HEADERS = {"Content-Type": "application/x-lmvp-journal"}
Read = Callable[[int, int], bytes]


class Shipment:
    """The journal of one writer on its way.

    Parameters
    ----------
    read : callable
        Gets an offset and a limit; returns whole frames from there on.
    """

    def __init__(self, path: str, read: Read) -> None:
        self._path, self._read = path, read
        self.sent = 0

    def ship(self, connection: Connection, timeout: float = TIMEOUT) -> int:
        """Send what is new, a part of it if it is long; return how many bytes were acknowledged.

        Raises
        ------
        LmvpError
            What the server said; `ServerUnavailable` if it said nothing.
        """
        data = within_epochs(self._read(self.sent, SHIPMENT_LIMIT))
        if not data:
            return 0
        try:
            self.sent = self._put(connection, data, timeout)
        except (Conflict, NotFound):
            if not self.ask(connection, timeout):
                raise
        return len(data)

    def ask(self, connection: Connection, timeout: float = TIMEOUT) -> bool:
        """Ask how far the journal is applied, and go on from there; return whether that is another place.

        A server that was restored from a backup has less than it acknowledged: points, or the run itself, are missing.
        Then the journal is sent again from the place that the server names. Its first frame makes the run.
        """
        applied = connection.once("GET", self._path, Applied, timeout=timeout).applied
        before, self.sent = self.sent, applied
        return applied != before

    def beat(self, connection: Connection) -> None:
        """Send a sign of life; learn from the answer if the server has less than it acknowledged."""
        self.sent = min(self.sent, self._put(connection, b"", TIMEOUT))

    def _put(self, connection: Connection, data: bytes, timeout: float) -> int:
        query = {"from": self.sent}
        answer = connection.once("PUT", self._path, Applied, timeout=timeout, query=query, data=data, headers=_HEADERS)
        return answer.applied


def writer_path(project: str, run: str, writer: str) -> str:
    """Return the path of a writer in the API."""
    return f"/projects/{project}/runs/{run}/writers/{writer}"


def file_reader(path: Path) -> Read:
    """Return what reads whole frames of a journal that another process writes or wrote."""

    def read(start: int, limit: int) -> bytes:
        with suppress(FileNotFoundError):
            data = read_file(path, start, limit)
            return data[: whole_size(data)]
        return b""

    return read
