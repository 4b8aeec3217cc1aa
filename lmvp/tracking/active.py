"""`ActiveRun`: what a training loop logs to. Costs microseconds, needs no server, and loses nothing to a kill."""

from __future__ import annotations

import os
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec

from lmvp import hints
from lmvp.errors import InvalidArgument, LmvpError, ServerUnavailable, UserError
from lmvp.redaction import redact
from lmvp.tracking import active_runs, provenance
from lmvp.tracking.frames import AUTO, END, POINTS, START, UPDATE
from lmvp.tracking.numbers import floats, step_of, time_of
from lmvp.tracking.outcome import Task, how_it_ended
from lmvp.tracking.pulse import Pulse
from lmvp.tracking.reading import Run
from lmvp.tracking.records import NewRun, RunEnd, RunRecord, RunUpdate
from lmvp.tracking.said import Said, encoded, readable, reason
from lmvp.tracking.sender import Sender, ways_out
from lmvp.tracking.target import Target, journals
from lmvp.tracking.writer import Writer, encode, packer

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from lmvp.client import Client
    from lmvp.records import Version
    from lmvp.tracking.journal import Journal

_now = time.time
_QUICK = 10_000
_PATIENCE, _WITHOUT_ANSWER, _FACTS = 5.0, 1.0, 3.0
_ERROR_LIMIT = 2000
"""Characters of the reason for which a run ended."""
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

    def __init__(
        self,
        client: Client,
        new: NewRun,
        target: Target,
        cell: str | None = None,
        execution: int = 0,
        task: Task | None = None,
    ) -> None:
        super().__init__(client, _record(new, target))
        self._target, self._new, self._cell, self._execution = target, new, cell, execution
        self._task = task or Task(None)
        self._folder = journals() / new.run
        self._ended = False
        self._at_end: list[Callable[[], None]] = []
        self._began = time.monotonic()
        self._epoch = new.epoch
        self._threads: tuple[Sender, Pulse, provenance.Capture] | None = None
        self._params = Said(self, "params", new.params)
        self._tags = Said(self, "tags", new.tags)
        self._summary = Said(self, "summary", {})
        self._writer = self._main = Writer(self._folder, _start_frame(new), target=target)
        self._main.journal.successor = self._after_end
        _living.add(self)

    def begin(self, *, system: float, capture: bool) -> None:
        """Start the threads that ship and measure."""
        if self._epoch:
            self._main.begin(self._epoch)
        sender = self._new_sender(self._main)
        pulse = Pulse(self._sync, self._measure, system)
        facts = provenance.Capture(code=capture, begun=lambda: self._logged, tell=self._tell_facts)
        self._threads = sender, pulse, facts
        self._sender = sender
        for thread in self._threads:
            thread.start()
        active_runs.begin(self)

    def _sync(self) -> None:
        self._main.journal.sync()
        self.is_abandoned()  # it is asked early, so that the variables of the function are released

    @property
    def task(self) -> Task:
        """The function that began it."""
        return self._task

    def is_abandoned(self) -> bool:
        """Return whether the function that began it was left by an exception, and nothing was logged afterwards."""
        if self._task.look() and not self._abandoned:
            self._abandoned, self._logged = True, False
        return self._abandoned and not self._logged

    def _new_sender(self, writer: Writer) -> Sender:
        connect = _connector(self._target, self._client)
        return Sender(self.project, self.id, self._folder, writer.journal, connect, self._main.id)

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
            raised, whatever it is given, and whatever the server and the disk do.
        """
        try:
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
                writer.journal.append(packer(len(numbers) // 3)(POINTS, at, *numbers))
            else:
                writer.points(floats(values), number, at)
            if not self._logged:  # to set it each time would cost a call of `__setattr__`
                self._logged = True
            sender = self._sender
            if sender is not None and sender.idle:
                sender.wake()
        except InvalidArgument:
            raise
        except Exception as error:
            raise _unreadable("log()", error) from error

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
        with readable("log_batch()"):
            parts = batches(steps, values, at)
        writer = self._writer or self._join()
        for key, points in parts.items():
            writer.batch(key, points, one_time=one_time)
        self._logged = True
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

    # -- its record

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
        """Send new `params`, `tags`, `summary` or `environment` to the server."""
        if self._closed:  # its journal is delivered and closed; the server takes the change, or refuses it
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

    def _tell_facts(self, facts: dict[str, Any]) -> None:
        """Send the facts about the run, which are redacted already."""
        if not self._told_end:
            self._main.note(UPDATE, RunUpdate(environment=facts))
            self._wake()

    def _measure(self, seconds: float) -> None:
        from lmvp.tracking.system import System

        if not hasattr(self, "_system"):
            self._system, self._measured = System(), seconds
        values = self._system.sample(seconds - self._measured)
        self._measured = seconds
        if values and self._writer is not None:
            self._writer.points(values, int(seconds), _now(), late=False)
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
        error = str(error)[:_ERROR_LIMIT]
        took = time.monotonic() - self._began
        self._record = msgspec.structs.replace(self._record, status=status, error=error, duration=took)
        if self._threads is None:  # a writer of a run that another process began
            if self._writer is not None:
                self._writer.close()
            return
        sender, pulse, facts = self._threads
        try:
            facts.finish(_FACTS)
        finally:  # also where Ctrl-C, or a signal handler that raises, ends the wait
            self._told_end = True
            end = RunEnd(status=status, ended_at=datetime.now(timezone.utc), error=redact(error))  # type: ignore[arg-type]
            self._main.note(END, end)
            self._main.journal.seal()
            active_runs.end(self)
            pulse.close()
        for call in self._at_end:
            with suppress(Exception):  # a picture is never worth a training
                call()
        self._deliver(sender, self._main)

    def _deliver(self, sender: Sender, writer: Writer) -> None:
        """Ship the rest, and close; what the server does not take is delivered later."""
        from lmvp.tracking import leftovers

        delivered = False
        try:
            delivered = sender.deliver(_PATIENCE, _WITHOUT_ANSWER, _progress(self.name, time.monotonic()))
        finally:
            sender.close()
            if delivered:
                sender.join(2.0)
            writer.close()
            if delivered and sender.has_all():
                leftovers.forget(self._folder, sender.delivered)
                self._closed = True
                with suppress(LmvpError):  # metrics and environment as the server has them
                    self._record = self._client.run_record(self.project, self.id)
            elif not delivered:
                _print(_kept(self.name, self.id, sender.trouble))
                leftovers.deliver_later(self._folder)

    # -- after the end

    def _after_end(self) -> Journal | None:
        """Return the journal of what is logged after the end; say once that the run has ended."""
        late, before = self._late, self._writer
        if late is None:
            if before is None:
                return None
            late = Writer(self._folder, _start_frame(NewRun(run=self.id, joins=True)), before.names, self._target)
            if self._epoch:
                late.begin(self._epoch)
            with _joining:
                if self._late is not None:  # a signal handler, or another thread, was quicker
                    late.close()
                    return self._late.journal
                self._late = late
            _warn_of_end(self.name)
            if self._threads is not None:  # else the process that began the run delivers it
                active_runs.keep(self)
                self._sender = sender = self._new_sender(late)
                with suppress(RuntimeError):  # the interpreter is shutting down: the next process delivers it
                    sender.start()
        return late.journal

    def deliver_late(self) -> None:
        """Deliver what was logged after the end, when the process ends."""
        if self._late is not None and self._sender is not None and not self._late.journal.sealed:
            self._late.journal.seal()
            self._deliver(self._sender, self._late)

    _late: Writer | None = None
    _logged = _abandoned = False
    _task = Task(None)

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
            start = _start_frame(NewRun(run=self.id, joins=True))
            writer = Writer(self._folder, start, target=self._target)
            if self._epoch:
                writer.begin(self._epoch)
            writer.journal.successor = self._after_end
            atexit.register(writer.journal.sync)
            if self._writer is None:  # else a signal handler did the same meanwhile
                self._writer = writer
        return self._writer

    def forked(self) -> None:
        """Be one writer more, in a process that was forked off."""
        if self._writer is not None:
            self._writer.abandon()
        if self._late is not None:
            self._late.abandon()
        self._writer = self._sender = self._late = None
        self._threads = None

    def __getstate__(self) -> dict[str, Any]:
        return {"record": self._record, "new": self._new, "target": self._target, "epoch": self._epoch}

    def __setstate__(self, state: dict[str, Any]) -> None:
        from lmvp.client import Client

        self.__dict__.update(_client=Client(state["target"].url), _record=state["record"], _new=state["new"])
        self.__dict__.update(
            _target=state["target"], _epoch=state["epoch"], _folder=journals() / self.id, _cell=None, _execution=0
        )
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

    @property
    def execution(self) -> int:
        """The execution of the cell that began it: a later one has a greater number."""
        return self._execution

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
        from lmvp.render.words import one_line

        return one_line(f"<ActiveRun {self.project}/{self.name} {self.id[:8]} {self.status}>")


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
    return bytes([START]) + encode(msgspec.structs.replace(new, params=encoded(new.params)))


def _unreadable(name: str, error: Exception) -> InvalidArgument:
    return InvalidArgument(f"{name} cannot read what it was given: {reason(error)}")


def _kept(name: str, run: str, trouble: LmvpError | None) -> str:
    """Return the message about a run that ends before the server has all of it."""
    why = f" ({trouble.message})" if trouble else ""
    kept = f"lmvp: the run {name} is kept on this machine, for the server does not take it{why}; "
    if isinstance(trouble, UserError) and not isinstance(trouble, ServerUnavailable):
        return kept + ways_out(trouble, run)
    return kept + (
        "it is delivered when the server answers again, by this process or by the next one that starts a run; "
        "`lmvp sync` delivers it at once"
    )


def _warn_of_end(name: str) -> None:
    with suppress(Exception):  # where warnings are errors: `log` never fails
        warnings.warn(
            f"the run {name} has ended: what is logged to it now is kept and delivered, but its status stays; "
            "`lmvp.start_run(resume=run)` goes on with it",
            stacklevel=6,
        )


def _print(text: str) -> None:
    """Print to standard error, also in a signal handler that has interrupted another `print`."""
    from lmvp.render.words import printable

    text = printable(hints.translated(text, hints.reader(hints.SHELL)))
    try:
        print(text, file=sys.stderr)
    except (RuntimeError, OSError, ValueError, AttributeError):
        with suppress(OSError):
            os.write(2, f"{text}\n".encode())


def _connector(target: Target, client: Any) -> Callable[[], Any]:
    token = getattr(client, "_token", None)
    return lambda: target.connection(token)


def _progress(name: str, began: float) -> Callable[[int, int], None]:
    """Return a function that prints once a second how far a long delivery is."""
    told = [began + 1.0]

    def tell(done: int, total: int) -> None:
        if time.monotonic() > told[0]:
            told[0] = time.monotonic() + 1.0
            far = f"the server has {done / 1e6:,.1f} of {total / 1e6:,.1f} MB"
            _print(f"lmvp: {name}: {far}; Ctrl-C leaves the rest for later")

    return tell


_living: weakref.WeakSet[ActiveRun] = weakref.WeakSet()
_joining = threading.RLock()  # re-entrant, for signal handlers


def _in_child() -> None:
    global _joining
    _joining = threading.RLock()
    active_runs.forget_all()
    for run in list(_living):
        run.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
