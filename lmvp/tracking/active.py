"""`ActiveRun`: what a training loop logs to. Costs microseconds, needs no server, and loses nothing to a kill."""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec

from lmvp.errors import InvalidArgument, LmvpError, ServerUnavailable
from lmvp.redaction import redact
from lmvp.tracking import active_runs, provenance
from lmvp.tracking.frames import AUTO, END, POINTS, START, UPDATE
from lmvp.tracking.numbers import floats, step_of, time_of
from lmvp.tracking.outcome import how_it_ended
from lmvp.tracking.pulse import Pulse
from lmvp.tracking.reading import Run
from lmvp.tracking.records import NewRun, RunEnd, RunRecord, RunUpdate
from lmvp.tracking.said import Said
from lmvp.tracking.sender import Sender
from lmvp.tracking.target import Target, journals
from lmvp.tracking.writer import Writer, packer

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from lmvp.client import Client
    from lmvp.records import Version

_now = time.time
_QUICK = 10_000
_PATIENCE, _WITHOUT_ANSWER, _FACTS = 5.0, 1.0, 3.0
SYSTEM_EVERY = 15.0
"""Seconds between two samples of the machine."""


class ActiveRun(Run):
    """A run that this process logs to; made by `lmvp.start_run`.

    As a context manager it ends with its block: `finished`, `failed` where an exception leaves it, `killed` where it is
    interrupted. Without one, `finish` ends it, or the end of the process.

    Examples
    --------
    >>> with lmvp.start_run("digits", params={"lr": 1e-3}) as run:  # doctest: +SKIP
    ...     run.log({"train/loss": 0.5}, step=0)
    """

    def __init__(self, client: Client, new: NewRun, target: Target, cell: str | None = None) -> None:
        super().__init__(client, _record(new, target))
        self._target, self._new, self._cell = target, new, cell
        self._folder = journals() / new.run
        self._ended = False
        self._at_end: list[Callable[[], None]] = []
        self._began = time.monotonic()
        self._epoch = new.epoch
        self._threads: tuple[Sender, Pulse] | None = None
        self._params = Said(self, "params", new.params)
        self._tags = Said(self, "tags", new.tags)
        self._summary = Said(self, "summary", {})
        self._writer = self._main = Writer(self._folder, _start_frame(new))
        _living.add(self)

    def begin(self, *, system: float, capture: bool) -> None:
        """Start the threads that ship and measure."""
        journal = self._main.journal
        if self._epoch:
            self._main.begin(self._epoch)
        self._target.write(self._folder)
        connect = _connector(self._target, self._client)
        sender = Sender(self.project, self.id, self._folder, journal, connect)
        pulse = Pulse(journal.sync, lambda: self._tell_facts(capture), self._measure, system)
        self._threads = sender, pulse
        self._sender = sender
        sender.start()
        pulse.start()
        active_runs.begin(self)

    # -- logging

    def log(self, values: Mapping[str, Any], step: int | None = None, time: float | datetime | None = None) -> None:
        """Log some numbers at a step.

        Parameters
        ----------
        values : mapping of str to number
            Numbers of Python, numpy or torch; NaN and infinities too. A nested mapping `{"a": {"b": 1}}` logs `a/b`.
        step : int, optional
            Any, in any order; at one key and step the last one counts. Without it, each key's greatest step + 1.
        time : float or datetime, optional
            Seconds since 1970; now if not given.

        Raises
        ------
        InvalidArgument
            If a value is no number, or the step no integer: nothing of this call is logged then. Nothing else is ever
            raised, whatever the server and the disk do.
        """
        writer = self._writer
        if writer is None:
            writer = self._join()
        number = step if type(step) is int and -0x7FFFFFFFFFFFFFFF <= step <= 0x7FFFFFFFFFFFFFFE else step_of(step)
        at = _now() if time is None else time_of(time)
        keys, numbers = writer.keys, list[Any]()
        quick = type(values) is dict and len(values) <= _QUICK
        for key, value in values.items() if quick else ():
            if type(value) is not float or key not in keys:
                quick = False
                break
            numbers += keys[key], number, value
        if quick and numbers:
            writer.journal.append(packer(len(values))(POINTS, at, *numbers))
        else:
            writer.points(floats(values), number, at)
        sender = self._sender
        if sender is not None and sender.idle:
            sender.wake()

    def log_batch(
        self, steps: Any, values: Mapping[str, Any], time: float | datetime | npt.ArrayLike | None = None
    ) -> None:
        """Log many points of some keys at once.

        Parameters
        ----------
        steps : array of int, shape (n,), optional
            One for each value; None: each key's greatest step + 1, and on.
        values : mapping of str to array, shape (n,)
            One column for each key.
        time : float, datetime or array of float, optional
            Seconds since 1970, one for all or one for each; now if not given.

        Raises
        ------
        InvalidArgument
            If the arrays are not of one length, or no numbers. Nothing is logged then.

        Examples
        --------
        >>> run.log_batch(range(3), {"loss": [0.5, 0.4, 0.3]})  # doctest: +SKIP
        """
        from lmvp.tracking.batches import batches

        one_time = time is None or isinstance(time, (int, float, datetime))
        at: Any = _now() if time is None else time_of(time) if one_time else time
        parts = batches(steps, values, at)
        writer = self._writer or self._join()
        for key, points in parts.items():
            writer.batch(key, points, one_time=one_time)
        self._wake()

    def rewind(self, step: int) -> None:
        """Take back what was logged above a step: it is as if it had never been.

        For a run that goes on from a checkpoint: what the earlier attempt logged after it no longer counts, also where
        it arrives later. Metrics that begin with `system/` stay. The rewind stands in the project's events.
        """
        number = step_of(step)
        if number == AUTO:
            raise InvalidArgument("rewind() takes the step of the checkpoint")
        self._epoch = next_epoch(self._epoch)
        (self._writer or self._join()).begin(self._epoch, number)
        self._wake()

    def update(self, model: str, obj: Any, **options: Any) -> Version:
        """Publish a version that knows this run; `model` is in the run's project. See `lmvp.update`."""
        name = model if "/" in model else f"{self.project}/{model}"
        return self._client.update(name, obj, run=self.id, **options)  # type: ignore[attr-defined,no-any-return]

    # -- what is said of it

    @property
    def status(self) -> Any:
        """`running` until it ends."""
        return self._record.status

    @property
    def params(self) -> MutableMapping[str, Any]:
        """What it is made with; `run.params["lr"] = 0.1` says more."""
        return self._params

    @property
    def tags(self) -> MutableMapping[str, Any]:
        """Words for it; `del run.tags["gpu"]` takes one away."""
        return self._tags

    @property
    def summary(self) -> MutableMapping[str, Any]:
        """What it comes to, beside the last values of its metrics: `run.summary["best"] = 0.97`."""
        return self._summary

    def say(self, **said: Any) -> None:
        """Tell the server what is new of `params`, `tags`, `summary` or `environment`."""
        if self._closed:  # its journal is closed; the server takes the change, or refuses it
            super().amend(**said)
            return
        writer = self._writer or self._join()
        writer.note(UPDATE, RunUpdate(**{key: redact(value) for key, value in said.items()}))
        self._wake()

    def amend(self, **changes: Any) -> ActiveRun:
        """Change name, notes, params, tags or summary; see `Client.amend_run`."""
        for field in ("params", "tags", "summary"):
            getattr(self, field).update(changes.pop(field, None) or {})
        if changes:
            self.say(**changes)
            self._record = msgspec.structs.replace(self._record, **{key: redact(changes[key]) for key in changes})
        return self

    def _tell_facts(self, capture: bool) -> None:
        facts = provenance.facts(provenance.executed_cells(), capture=capture)
        if not self._told_end:
            self.say(environment=facts)

    def _measure(self, seconds: float) -> None:
        from lmvp.tracking.system import System

        if not hasattr(self, "_system"):
            self._system, self._measured = System(), seconds
        values = self._system.sample(seconds - self._measured)
        self._measured = seconds
        if values and self._writer is not None:
            self._writer.points(values, int(seconds), _now())
            self._wake()

    # -- reading

    def refresh(self) -> ActiveRun:
        """Deliver what was logged, and ask the server what it knows."""
        self.flush()
        super().refresh()
        return self

    def history(self, keys: Any = None) -> dict[str, npt.NDArray[np.void]]:
        """Deliver what was logged, and return every point; see `Run.history`."""
        self.flush()
        return super().history(keys)

    def keys(self) -> Any:
        """Deliver what was logged, and return what is known of each metric."""
        self.flush()
        return super().keys()

    def flush(self, timeout: float = 30.0) -> None:
        """Wait until the server has all that was logged so far.

        Raises
        ------
        ServerUnavailable
            If it does not take it: nothing is lost, it is sent later.
        """
        sender = self._sender
        if sender is None or sender.deliver(timeout, timeout / 3):
            return
        why = f": {sender.trouble.message}" if sender.trouble else ""
        raise ServerUnavailable(
            f"the metrics of {self.name} are not all with the server yet{why}", hint="nothing is lost; try again later"
        )

    # -- the end

    def finish(self, status: str = "finished", error: str = "") -> None:
        """End the run, and wait a moment for the server to have all of it.

        What the server does not take in that moment stays on this machine: `lmvp sync`, and the next start of a run,
        deliver it.

        Parameters
        ----------
        status : str
            `finished`, `failed` or `killed`.
        error : str
            Why.
        """
        if status not in ("finished", "failed", "killed"):
            raise InvalidArgument(f"status={status!r}: finished, failed or killed")
        if self._ended:
            return
        self._ended = True
        took = time.monotonic() - self._began
        self._record = msgspec.structs.replace(self._record, status=status, error=error, duration=took)
        if self._threads is None:  # a writer of a run that another process began
            if self._writer is not None:
                self._writer = self._writer.ended()
            return
        self._threads[1].wait_for_first(_FACTS)
        self._told_end = True
        end = RunEnd(status=status, ended_at=datetime.now(timezone.utc), error=redact(error))  # type: ignore[arg-type]
        self._main.note(END, end)
        active_runs.end(self)
        for call in self._at_end:
            with suppress(Exception):  # a picture is never worth a training
                call()
        self._deliver(*self._threads)

    def _deliver(self, sender: Sender, pulse: Pulse) -> None:
        """Ship the rest, and close."""
        from lmvp.tracking.leftovers import forget

        pulse.close()
        delivered = sender.deliver(_PATIENCE, _WITHOUT_ANSWER, _progress(self.name))
        sender.close()
        sender.join(2.0)
        self._writer = self._main.ended()
        self._closed = True
        if delivered and sender.has_all():
            forget(self._folder)
            with suppress(LmvpError):  # metrics and environment as the server has them
                self._record = self._client.run_record(self.project, self.id)
        elif not delivered and not sender.gone:
            why = f" ({sender.trouble.message})" if sender.trouble else ""
            print(
                f"lmvp: the run {self.name} is kept on this machine, for the server does not take it{why}; "
                "`lmvp sync` delivers it",
                file=sys.stderr,
            )

    def __enter__(self) -> ActiveRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish(*how_it_ended(error))

    # -- several processes

    def _join(self) -> Writer:
        """Begin a journal of this process's own: it is a child of the one that began the run."""
        import atexit

        with _joining:
            if self._writer is not None:
                return self._writer
            writer = Writer(self._folder, _start_frame(NewRun(run=self.id, joins=True)))
            if self._epoch:
                writer.begin(self._epoch)
            atexit.register(writer.journal.sync)
            self._writer = writer
        return writer

    def forked(self) -> None:
        """Be one writer more, in a process that was forked off."""
        if self._writer is not None:
            self._writer.abandon()
        self._writer = self._sender = None
        self._threads = None

    def __getstate__(self) -> dict[str, Any]:
        return {"record": self._record, "new": self._new, "target": self._target, "epoch": self._epoch}

    def __setstate__(self, state: dict[str, Any]) -> None:
        from lmvp.client import Client

        self.__dict__.update(_client=Client(state["target"].url), _record=state["record"], _new=state["new"])
        self.__dict__.update(_target=state["target"], _epoch=state["epoch"], _folder=journals() / self.id, _cell=None)
        self.__dict__.update(
            _ended=False, _at_end=[], _began=time.monotonic(), _threads=None, _writer=None, _sender=None
        )
        for name in ("params", "tags", "summary"):
            setattr(self, f"_{name}", Said(self, name, getattr(self._record, name)))
        _living.add(self)

    _told_end = _closed = False
    _sender: Sender | None = None
    _writer: Writer | None

    def _wake(self) -> None:
        if self._sender is not None and self._sender.idle:
            self._sender.wake()

    # -- for others

    @property
    def folder(self) -> Path:
        """Where the journals of this run are."""
        return self._folder

    @property
    def cell(self) -> str | None:
        """The cell that began it."""
        return self._cell

    def on_end(self, call: Callable[[], None]) -> None:
        """Call a function when the run ends, in the thread that ends it, before what is left is delivered."""
        self._at_end.append(call)

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._ended

    def is_of(self, project: str, url: str) -> bool:
        """Whether it is in this project on this server."""
        if project != self.project or self._ended:
            return False
        with suppress(LmvpError):
            return bool(self._client.url == url)
        return False

    @property
    def record(self) -> RunRecord:
        """What is known of it here, or what the server said at the last `refresh`."""
        if not self._ended:
            took = time.monotonic() - self._began
            self._record = msgspec.structs.replace(self._record, duration=max(took, self._record.duration))
        return self._record

    def __repr__(self) -> str:
        return f"<ActiveRun {self.project}/{self.name} {self.id[:8]} {self.status}>"


def next_epoch(epoch: int) -> int:
    """Return the next epoch: see docs/runs.md."""
    return max(int(_now() * 1000), epoch + 1)


def _record(new: NewRun, target: Target) -> RunRecord:
    at = new.started_at or datetime.now(timezone.utc)
    return RunRecord(
        id=new.run,
        project=target.project,
        name=new.name,
        status="running",
        created_at=at,
        author=new.author,
        params=dict(new.params),
        tags=dict(new.tags),
        epoch=new.epoch,
    )


def _start_frame(new: NewRun) -> bytes:
    return bytes([START]) + msgspec.json.encode(new)


def _connector(target: Target, client: Any) -> Callable[[], Any]:
    token = getattr(client, "_token", None)
    return lambda: target.connection(token)


def _progress(name: str) -> Callable[[int, int], None]:
    """Return what tells how far a long delivery is, once a second."""
    told = [time.monotonic() + 1.0]

    def tell(done: int, total: int) -> None:
        if time.monotonic() > told[0]:
            told[0] = time.monotonic() + 1.0
            print(f"lmvp: {name}: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB delivered", file=sys.stderr)

    return tell


_living: weakref.WeakSet[ActiveRun] = weakref.WeakSet()
_joining = threading.Lock()


def _in_child() -> None:
    global _joining
    _joining = threading.Lock()
    for run in list(_living):
        run.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
