"""The thread that sends the journals of a run to the server while the run is open."""

from __future__ import annotations

import queue
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from lmvp import hints
from lmvp.connection import Connection, pause
from lmvp.core import files
from lmvp.core.run_frames import REQUEST_LIMIT, read_journal, whole_size, within_attempts
from lmvp.core.schemas.runs import Applied
from lmvp.errors import Conflict, LmvpError, NotFound, RunRemoved, ServerError, ServerUnavailable, UserError
from lmvp.tracking.destination import files_in
from lmvp.tracking.journal import Journal, read_file

# Seconds: to gather frames for one request, between heartbeats, between checks for new journals, and the longest pause
# after failures.
_GATHER, _BEAT, _LOOK, _LONGEST = 0.1, 10.0, 1.0, 30.0
_SLOW, _PROBE = 0.5, 1.5
"""Seconds without an acknowledgement before the server is probed, and for the probe."""
_TRIES, _SOON = 2, 1.0
"""Number of failures in a row that stop a short wait for delivery, and the longest wait that counts as short, in
seconds.
"""
# A request of at least this many bytes is followed at once by the next one.
_MUCH = 1 << 20


class Sender(threading.Thread):
    """Sends the journal of this process and those of its children.

    Parameters
    ----------
    project, run : str
        The run.
    folder : Path
        The folder of the run's journals.
    own : Journal
        The journal of this process.
    connect : callable
        Returns a connection; called in the thread.
    begun_by : str, optional
        The writer whose journal creates the run on the server. Default: the writer of `own`.

    Attributes
    ----------
    idle : bool
        Whether the thread sleeps until `wake`. The code that stores a frame checks it first, because `wake` is slower.
    trouble : LmvpError or None
        The error of the last attempt.
    """

    def __init__(
        self,
        project: str,
        run: str,
        folder: Path,
        own: Journal,
        connect: Callable[[], Connection],
        begun_by: str | None = None,
    ) -> None:
        super().__init__(name=f"lmvp-{run[:8]}", daemon=True)
        self._project, self._run, self._folder, self._connect = project, run, folder, connect
        self._own = own
        self._connection: Connection | None = None
        mine = own.path.stem
        self._transfers = {mine: JournalTransfer(writer_path(project, run, mine), own.read)}
        self._mine = self._transfers[mine]
        self._begun_by = begun_by or mine
        self._news: queue.SimpleQueue[None] = queue.SimpleQueue()  # re-entrant for signal handlers; `Event` is not
        self._closing = threading.Event()
        self._hurry = 0.0
        self._looked = self._heard = self._passed = 0.0
        self.idle = self.known = False
        self.trouble: LmvpError | None = None
        self._failures = 0
        self._warned = False

    # -- for the run

    def wake(self) -> None:
        """Wake the thread, so that it sends new frames."""
        self.idle = False
        self._news.put(None)

    @property
    def acknowledged(self) -> int:
        """Bytes of this process's journal that the server has acknowledged."""
        return self._mine.sent

    @property
    def done(self) -> bool:
        """Whether the server has acknowledged the whole journal of this process."""
        return self._mine.sent >= self._own.size

    def deliver(
        self, patience: float, without_answer: float, progress: Callable[[int, int], None] | None = None
    ) -> bool:
        """Wait until the server has acknowledged everything; return whether it has.

        Parameters
        ----------
        patience : float
            Seconds to wait without progress.
        without_answer : float
            Seconds to wait if the server does not answer.
        progress : callable, optional
            Called with the acknowledged and the total number of bytes.
        """
        self._own.store_waiting()  # a signal handler that calls this may have interrupted a store
        asked = time.monotonic()
        far, since, probed = self._mine.sent, asked, False
        failures = self._failures + _TRIES
        while not (self.done and self._passed >= asked) and self.is_alive():
            self._hurry = time.monotonic() + 1
            self.wake()
            time.sleep(0.01)
            if self._mine.sent > far:
                far, since = self._mine.sent, time.monotonic()
            if progress:
                progress(far, self._own.size)
            waited = time.monotonic() - since
            if waited > patience or (self.trouble is not None and waited > without_answer):
                return False
            if self._failures >= failures and without_answer <= _SOON:
                return False
            if waited > min(_SLOW, without_answer) and not probed and self.trouble is None:
                probed = True
                if not self._answers():
                    return False
        return self.done

    def _answers(self) -> bool:
        """Return whether the server answers a cheap request; True if its address is not known yet."""
        connection = self._connection
        address = connection.address if connection is not None else None
        if address is None:  # the server of this machine is starting
            return True
        try:
            Connection(lambda: address).once("GET", "/health", dict, timeout=_PROBE)
        except ServerUnavailable as error:
            self.trouble = self.trouble or error
            return False
        except LmvpError:
            pass
        return True

    def delivered(self) -> set[str]:
        """Return the names of the journals, including those of children, of which the server acknowledged every byte.

        The journals are read from disk. Call this while no other process can log to the run; see `leftovers.forget`.
        """
        names = {path.name for path in files_in(self._folder) if path.stem != self._own.path.stem and self._has(path)}
        return names | {self._own.path.name} if self.done else names

    def has_all(self) -> bool:
        """Return whether the server has all journals in the folder, including those of children."""
        return self.done and self.delivered() >= {path.name for path in files_in(self._folder)}

    def _has(self, path: Path) -> bool:
        try:
            transfer, log = self._transfers.get(path.stem), read_journal(files.read_bytes(path))
        except FileNotFoundError:  # another process has delivered and deleted it
            return True
        return transfer is not None and not log.gaps and transfer.sent >= log.end

    def close(self) -> None:
        """Ask the thread to stop, without waiting for it."""
        self._closing.set()
        self.wake()

    # -- the thread

    def run(self) -> None:
        """Send until `close` is called."""
        failed = 0
        while not self._closing.is_set():
            try:
                self._wait(failed)
                if self._closing.is_set():
                    break
                self._ship_all()
                failed, self.trouble = 0, None
            except LmvpError as error:
                failed += 1
                self._failed(error)
            except Exception as error:  # noqa: BLE001 - no error of the delivery may stop the training
                failed += 1
                self._failed(ServerError(f"{type(error).__name__}: {error}"))

    def _wait(self, failed: int) -> None:
        if failed:
            self._sleep(max(_GATHER, min(_LONGEST, pause(failed))))
            return
        self.idle = True
        if self._more():
            self.idle = False
        else:
            try:
                self._news.get(timeout=_LOOK)
            except queue.Empty:
                self.idle = False
                return
        with suppress(queue.Empty):
            while True:
                self._news.get_nowait()
        if time.monotonic() > self._hurry:
            self._closing.wait(_GATHER)  # frames that arrive now go into the same request

    def _sleep(self, seconds: float) -> None:
        """Sleep for some seconds; only 0.2 seconds while a caller waits for delivery."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self._closing.is_set():
            if time.monotonic() < self._hurry and time.monotonic() > end - seconds + 0.2:
                return
            self._closing.wait(0.05)

    def _more(self) -> bool:
        return self._mine.sent < self._own.size

    def _ship_all(self) -> None:
        began = time.monotonic()
        if self._connection is None:
            self._connection = self._connect()
        self._find_children()
        # A journal that is not in the folder was delivered and deleted, so the run exists.
        self.known = self.known or self._begun_by not in self._transfers
        # An answer with a lower offset means that the server was restored from a backup.
        places = {transfer: transfer.sent for transfer in self._transfers.values()}
        try:
            self._ship_each(self._connection)
        except NotFound:
            if not self._ask_all(self._connection):
                raise
            self._ship_each(self._connection)
        else:
            if any(transfer.sent < sent for transfer, sent in places.items()):
                self._ask_all(self._connection)
                self._ship_each(self._connection)
        self._passed = began

    def _ask_all(self, connection: Connection) -> bool:
        """Ask for the applied offset of each journal; return whether any journal must be sent again.

        A restored server can lack bytes of journals that it had acknowledged completely. They count as not delivered
        then.
        """
        # A list, because `any` of a generator would stop at the first match.
        moved = [transfer.ask(connection) for transfer in self._transfers.values()]
        return any(moved)

    def _ship_each(self, connection: Connection) -> None:
        """Send every journal; the one that creates the run is first."""
        shipped = 0
        for transfer in sorted(
            self._transfers.values(), key=lambda each: each is not self._transfers.get(self._begun_by)
        ):
            if not self.known and transfer is not self._transfers[self._begun_by]:
                continue  # the server does not know the run yet
            sent = _MUCH
            while sent >= _MUCH and not self._closing.is_set():  # a small rest waits, to gather more frames
                sent = transfer.send_next(connection)
                self.known, shipped = self.known or sent > 0, shipped + sent
        if shipped:
            self._heard = time.monotonic()
        elif self.known and time.monotonic() - self._heard > _BEAT * 0.9:
            self._mine.beat(connection)
            self._heard = time.monotonic()

    def _find_children(self) -> None:
        if time.monotonic() - self._looked < _LOOK and time.monotonic() > self._hurry:
            return
        self._looked = time.monotonic()
        if not self._folder.is_dir():
            return
        for path in files_in(self._folder):
            if path.stem not in self._transfers:
                self._transfers[path.stem] = JournalTransfer(
                    writer_path(self._project, self._run, path.stem), file_reader(path)
                )

    def _failed(self, error: LmvpError) -> None:
        self.trouble = error
        self._failures += 1
        if isinstance(error, UserError) and not isinstance(error, ServerUnavailable):
            self._warn(f"the metrics of this run wait on this machine ({ways_out(error, self._run)}): {error}")
            self._sleep(_LONGEST)

    def _warn(self, text: str) -> None:
        if not self._warned:
            self._warned = True
            with suppress(Warning):  # the thread must continue where warnings are errors
                warnings.warn(hints.translated(text, hints.reader(hints.SHELL)), stacklevel=2)


def ways_out(error: LmvpError, run: str) -> str:
    """State when unsent metrics are delivered, and how to delete them."""
    when = (
        "`lmvp undelete` restores the run, then they are sent"
        if isinstance(error, RunRemoved)
        else ("they are sent when the server takes them; `lmvp sync` sends them later")
    )
    return f"{when}; `lmvp sync --discard {run[:8]}` deletes them"


# Seconds until a request fails.
TIMEOUT: Final = 30.0
_HEADERS = {"Content-Type": "application/x-lmvp-journal"}
Read = Callable[[int, int], bytes]


class JournalTransfer:
    """The transfer of one writer's journal.

    Parameters
    ----------
    read : callable
        Takes an offset and a limit in bytes; returns whole frames from the offset on.
    """

    def __init__(self, path: str, read: Read) -> None:
        self._path, self._read = path, read
        self.sent = 0

    def send_next(self, connection: Connection, timeout: float = TIMEOUT) -> int:
        """Send the next part of the journal; return the number of bytes sent.

        Raises
        ------
        LmvpError
            If the server refuses the request; `ServerUnavailable` if it does not answer.
        """
        data = within_attempts(self._read(self.sent, REQUEST_LIMIT))
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
