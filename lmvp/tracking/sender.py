"""The thread that ships the journals of a run while it goes on, whatever the server does."""

from __future__ import annotations

import queue
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lmvp import hints, private
from lmvp.connection import Connection, pause
from lmvp.errors import LmvpError, NotFound, RunRemoved, ServerError, ServerUnavailable, UserError
from lmvp.tracking.frames import read_journal
from lmvp.tracking.journal import Journal
from lmvp.tracking.shipping import Shipment, file_reader, writer_path
from lmvp.tracking.target import files_in

_GATHER, _BEAT, _LOOK, _LONGEST = 0.1, 10.0, 1.0, 30.0
_SLOW, _PROBE = 0.5, 1.5
"""Seconds without an acknowledgement before the server is probed, and for the probe."""
_TRIES, _SOON = 2, 1.0
"""Failures in a row that end a short wait for delivery, and how short it is in seconds."""
_MUCH = 1 << 20


class Sender(threading.Thread):
    """Ships the journal of this process and those of its children.

    Parameters
    ----------
    begun_by : str, optional
        The writer whose journal makes the run on the server; that of this process if not given.

    Attributes
    ----------
    idle : bool
        Whether it sleeps until `wake`: whoever stores a frame looks here first.
    trouble : LmvpError or None
        Why the last attempt failed.
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
        self._shipments = {mine: Shipment(writer_path(project, run, mine), own.read)}
        self._mine = self._shipments[mine]
        self._begun_by = begun_by or mine
        self._news: queue.SimpleQueue[None] = queue.SimpleQueue()  # re-entrant, for signal handlers; an Event is not
        self._closing = threading.Event()
        self._hurry = 0.0
        self._looked = self._heard = self._passed = 0.0
        self.idle = self.known = False
        self.trouble: LmvpError | None = None
        self._failures = 0
        self._warned = False

    # -- for the run

    def wake(self) -> None:
        """Make it look for new frames."""
        self.idle = False
        self._news.put(None)

    @property
    def acknowledged(self) -> int:
        """Bytes of this process's journal that the server has."""
        return self._mine.sent

    @property
    def done(self) -> bool:
        """Whether all of this process's journal is with the server."""
        return self._mine.sent >= self._own.size

    def deliver(
        self, patience: float, without_answer: float, progress: Callable[[int, int], None] | None = None
    ) -> bool:
        """Wait until all is delivered; return whether it is.

        Parameters
        ----------
        patience : float
            Seconds to wait while nothing more is acknowledged.
        without_answer : float
            Seconds to wait where the server does not answer at all.
        """
        self._own.store_waiting()  # where this is a signal handler, it may have interrupted a store
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
        """Return whether the server answers a request that costs it nothing; True where its address is not known."""
        connection = self._connection
        address = connection.address if connection is not None else None
        if address is None:  # a server of this machine that is just starting
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
        """Return the names of the journals, those of children too, of which the server acknowledged every byte.

        It reads the journals. Call it while no other process can log to the run: see `leftovers.forget`.
        """
        found = {path.name for path in files_in(self._folder) if path.stem != self._own.path.stem and self._has(path)}
        return found | {self._own.path.name} if self.done else found

    def has_all(self) -> bool:
        """Tell whether all journals in the folder, those of children too, are with the server."""
        return self.done and self.delivered() >= {path.name for path in files_in(self._folder)}

    def _has(self, path: Path) -> bool:
        try:
            shipment, log = self._shipments.get(path.stem), read_journal(private.read_bytes(path))
        except FileNotFoundError:  # another process has delivered it
            return True
        return shipment is not None and not log.gaps and shipment.sent >= log.end

    def close(self) -> None:
        """End the thread, soon."""
        self._closing.set()
        self.wake()

    # -- the thread

    def run(self) -> None:
        """Ship until told to end."""
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
            except Exception as error:  # noqa: BLE001 - whatever it is, training goes on
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
            self._closing.wait(_GATHER)  # what comes now goes in the same request

    def _sleep(self, seconds: float) -> None:
        """Sleep; less where somebody waits for delivery."""
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
        self.known = self.known or self._begun_by not in self._shipments  # then it is delivered, and deleted
        places = {shipment: shipment.sent for shipment in self._shipments.values()}
        try:
            self._ship_each(self._connection)
        except NotFound:
            if not self._ask_all(self._connection):
                raise
            self._ship_each(self._connection)
        else:
            if any(shipment.sent < sent for shipment, sent in places.items()):
                self._ask_all(self._connection)
                self._ship_each(self._connection)
        self._passed = began

    def _ask_all(self, connection: Connection) -> bool:
        """Ask how far each journal is applied, as the server may be a restored one; return whether any must be resent.

        Journals that were acknowledged to the end count again as not delivered if the server lacks bytes of them.
        """
        moved = [shipment.ask(connection) for shipment in self._shipments.values()]  # each one is asked
        return any(moved)

    def _ship_each(self, connection: Connection) -> None:
        """Ship every journal; first the one that makes the run."""
        shipped = 0
        for shipment in sorted(
            self._shipments.values(), key=lambda one: one is not self._shipments.get(self._begun_by)
        ):
            if not self.known and shipment is not self._shipments[self._begun_by]:
                continue  # the journal that makes the run comes first
            sent = _MUCH
            while sent >= _MUCH and not self._closing.is_set():  # little is not sent at once: more will have come soon
                sent = shipment.ship(connection)
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
            if path.stem not in self._shipments:
                self._shipments[path.stem] = Shipment(
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
            with suppress(Warning):  # where warnings are errors, this thread goes on all the same
                warnings.warn(hints.translated(text, hints.reader(hints.SHELL)), stacklevel=2)


def ways_out(error: LmvpError, run: str) -> str:
    """State when unsent metrics are delivered, and how to delete them."""
    when = (
        "`lmvp undelete` restores the run, then they are sent"
        if isinstance(error, RunRemoved)
        else ("they are sent when the server takes them; `lmvp sync` sends them later")
    )
    return f"{when}; `lmvp sync --discard {run[:8]}` deletes them"
