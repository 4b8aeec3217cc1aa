"""`ActiveRun`, the run object to which a training loop logs.

`log` appends one frame to a journal on disk and returns. A sender thread delivers the journal to the server, so logging
needs no connection, and stored frames survive a kill of the process.
"""

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
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from lmvp import hints
from lmvp.core.metric_values import floats, step_of, time_of
from lmvp.core.redaction import redact
from lmvp.core.run_fields import ActiveRunFields, encoded, readable, reason
from lmvp.core.run_frames import (
    AUTO,
    END,
    POINTS,
    START,
    UPDATE,
)
from lmvp.core.schemas.runs import (
    NewRun,
    RunEnd,
    RunRecord,
    RunUpdate,
)
from lmvp.errors import InvalidArgument, LmvpError, ServerUnavailable, UserError
from lmvp.tracking import provenance
from lmvp.tracking.destination import Target, journals
from lmvp.tracking.journal import Writer, encode, packer
from lmvp.tracking.monitor import Monitor
from lmvp.tracking.sender import Sender, ways_out
from lmvp.tracking.status import Task, how_it_ended
from lmvp.views.runs import Run, RunSource

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from lmvp.core.schemas import Version
    from lmvp.tracking.journal import Journal

_now = time.time
# Larger mappings take the general path, which splits them into frames below the size limit.
_QUICK = 10_000
# Seconds that `finish` waits: without progress of the delivery, without any answer of the server, and for the thread
# that collects facts. docs/runs.md, "Delivery", states them.
_PATIENCE, _WITHOUT_ANSWER, _FACTS = 5.0, 1.0, 3.0
_MUCH = 1_000_000
"""Bytes of a delivery from which its progress is printed."""
_ERROR_LIMIT = 2000
"""Characters of the error of a run that are stored."""
SYSTEM_EVERY = 15.0
"""Seconds between two samples of the system metrics."""


class RunClient(RunSource, Protocol):
    """The methods of a client that an `ActiveRun` calls."""

    @property
    def project(self) -> str:
        """The current project."""

    @property
    def fixed_url(self) -> str | None:
        """The URL that the client was created with; None if the configuration sets it."""

    @property
    def update(self) -> Callable[..., Version]:
        """Publish a version."""


class ActiveRun(Run):
    """A run to which this process logs. `lmvp.start_run` returns it; do not create it directly.

    As a context manager, it ends the run with the block: `finished` normally, `failed` if an exception leaves the
    block, `killed` if the block is interrupted. Without a `with` block, `finish` or the end of the process ends the
    run.

    Threads, signal handlers and forked processes can log to the same object.

    Examples
    --------
    >>> with lmvp.start_run("digits", params={"lr": 1e-3}) as run:  # doctest: +SKIP
    ...     run.log({"train/loss": 0.5}, step=0)
    """

    def __init__(
        self,
        client: RunClient,
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
        self._threads: tuple[Sender, Monitor, provenance.Capture] | None = None
        self._params = ActiveRunFields(self, "params", new.params)
        self._tags = ActiveRunFields(self, "tags", new.tags)
        self._summary = ActiveRunFields(self, "summary", {})
        # `_main` has the `start` and `end` frames; in a fork, `_writer` becomes another one.
        self._writer = self._main = Writer(self._folder, _start_frame(new), target=target)
        self._main.journal.successor = self._after_end
        _living.add(self)

    def begin(self, *, system: float, capture: bool) -> None:
        """Start the threads that send frames, collect facts and sample the system."""
        if self._epoch:
            self._main.begin(self._epoch)
        sender = self._new_sender(self._main)
        pulse = Monitor(self._sync, self._measure, system)
        facts = provenance.Capture(code=capture, begun=lambda: self._logged, tell=self._tell_facts)
        self._threads = sender, pulse, facts
        self._sender = sender
        for thread in self._threads:
            thread.start()
        register(self)

    def _sync(self) -> None:
        self._main.journal.sync()
        self.is_abandoned()  # check now: it clears the frame of a function that has ended, and so frees its variables

    @property
    def task(self) -> Task:
        """The user's function that started the run."""
        return self._task

    def is_abandoned(self) -> bool:
        """Return whether an exception left the function that started the run, and nothing was logged afterwards."""
        if self._task.look() and not self._abandoned:
            # Reset once: a later `log` shows that other code still uses the run.
            self._abandoned, self._logged = True, False
        return self._abandoned and not self._logged

    def _new_sender(self, writer: Writer) -> Sender:
        connect = _connector(self._target, self._client)
        return Sender(self.project, self.id, self._folder, writer.journal, connect, self._main.id)

    # -- logging

    def log(self, values: Mapping[str, Any], step: int | None = None, time: float | datetime | None = None) -> None:
        """Log numbers at a step.

        Parameters
        ----------
        values : mapping of str to number
            Numbers of Python, numpy or torch, including NaN and infinities. A nested mapping `{"a": {"b": 1}}` logs
            `a/b`.
        step : int, optional
            An int64. Steps can be logged in any order; if a key is logged twice at one step, the last value counts.
            Default: the greatest step of each key + 1.
        time : float or datetime, optional
            Seconds since 1970. Default: now.

        Raises
        ------
        InvalidArgument
            If a value is not a number or the step is not an integer. Nothing of this call is logged then. `log` raises
            no other error, even if the server or the disk fails.

        Examples
        --------
        >>> run.log({"train/loss": 0.5, "train": {"acc": 0.9}}, step=10)  # doctest: +SKIP
        """
        try:
            writer = self._writer
            if writer is None:
                writer = self._join()
            # This is the hot path of a training loop: checks are inline, and a dict of floats under known keys becomes
            # one frame without another call. All else goes through `Writer.points`. The lower bound leaves out -2**63,
            # which is `AUTO`.
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
            if not self._logged:  # `__setattr__` of `Run` is slow, so set it only once
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
        """Log many points of one or more keys at once.

        Parameters
        ----------
        steps : array of int, shape (n,), optional
            The step of each value. If None, the points get the steps that follow the key's greatest step.
        values : mapping of str to array, shape (n,)
            The values of each key, converted to float64.
        time : float, datetime or array of float, optional
            Seconds since 1970: one time for all points, or an array of shape (n,). Default: now.

        Raises
        ------
        InvalidArgument
            If the arrays differ in length or are not numeric. Nothing is logged then.

        Examples
        --------
        >>> run.log_batch(range(3), {"loss": [0.5, 0.4, 0.3]})  # doctest: +SKIP
        """
        from lmvp.tracking.journal import columns_of

        one_time = time is None or isinstance(time, (int, float, datetime))
        at: Any = _now() if time is None else time_of(time) if one_time else time
        with readable("log_batch()"):
            parts = columns_of(steps, values, at)
        writer = self._writer or self._join()
        for key, points in parts.items():
            writer.batch(key, points, one_time=one_time)
        self._logged = True
        self._wake()

    def rewind(self, step: int) -> None:
        """Drop the points that were logged above a step.

        Use it before you continue a run from a checkpoint. Points of earlier attempts above the step no longer count,
        even if they reach the server later. Metrics under `system/` are not affected. The audit log of the project
        records the rewind.

        Parameters
        ----------
        step : int
            The step of the checkpoint, an int64. Points at this step and below stay.

        Raises
        ------
        InvalidArgument
            If the step is missing or not an integer.

        Examples
        --------
        >>> run.rewind(1000)  # doctest: +SKIP
        """
        number = step_of(step)
        if number == AUTO:
            raise InvalidArgument("rewind() takes the step of the checkpoint")
        self._epoch = next_attempt(self._epoch)
        (self._writer or self._join()).begin(self._epoch, number)
        self._wake()

    def update(self, model: str, obj: Any, **options: Any) -> Version:
        """Publish a version that is linked to this run.

        Parameters
        ----------
        model : str
            A model of the run's project, or `project/model`.
        obj : object
            The model to publish, of a supported framework, or a path.
        **options
            Further arguments of `lmvp.update`.

        Returns
        -------
        Version
            The new version.

        Examples
        --------
        >>> run.update("mlp", model, message="epoch 3", metrics={"val_acc": 0.93})  # doctest: +SKIP
        """
        name = model if "/" in model else f"{self.project}/{model}"
        return self._client.update(name, obj, run=self.id, **options)

    # -- its record

    @property
    def status(self) -> Any:
        """The status: `running` until the run ends."""
        return self._record.status

    @property
    def params(self) -> MutableMapping[str, Any]:
        """The params of the run; `run.params["lr"] = 0.1` sets one. A param cannot be removed."""
        return self._params

    @property
    def tags(self) -> MutableMapping[str, Any]:
        """The tags of the run; `run.tags["gpu"] = "a100"` sets one, `del run.tags["gpu"]` removes it."""
        return self._tags

    @property
    def summary(self) -> MutableMapping[str, Any]:
        """The values that describe the run as a whole; `run.summary["best"] = 0.97` sets one."""
        return self._summary

    def say(self, **said: Any) -> None:
        """Send changes of `params`, `tags`, `summary`, `environment`, name or notes to the server."""
        if self._closed:  # the journal is delivered and closed, so send a request instead of a frame
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
        """Send the facts about the run, which are already redacted."""
        # After the `end` frame the journal is sealed, and its content cannot change any more.
        if not self._told_end:
            self._main.note(UPDATE, RunUpdate(environment=facts))
            self._wake()

    def _measure(self, seconds: float) -> None:
        """Log the system metrics, with the seconds since the start of the run as their step."""
        from lmvp.tracking.monitor import System

        if not hasattr(self, "_system"):
            self._system, self._measured = System(), seconds
        # With `late=False` below, a sample after the end is dropped. It must not open a journal for late points.
        values = self._system.sample(seconds - self._measured)
        self._measured = seconds
        if values and self._writer is not None:
            self._writer.points(values, int(seconds), _now(), late=False)
            self._wake()

    # -- reading

    def refresh(self) -> ActiveRun:
        """Deliver the logged points, then read the record of the run from the server."""
        self.flush()
        super().refresh()
        return self

    def history(self, keys: Any = None) -> dict[str, npt.NDArray[np.void]]:
        """Deliver the logged points, then return every point; see `Run.history`."""
        self.flush()
        return super().history(keys)

    def keys(self) -> Any:
        """Deliver the logged points, then return a record of each metric; see `Run.keys`."""
        self.flush()
        return super().keys()

    def flush(self, timeout: float = 30.0) -> None:
        """Wait until the server has acknowledged everything that was logged so far.

        Parameters
        ----------
        timeout : float
            Seconds to wait without progress; a third of it if the server does not answer at all.

        Raises
        ------
        ServerUnavailable
            If the server does not acknowledge everything in this time. The points stay stored locally and are sent
            later.
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
        """End the run, and wait a few seconds for delivery.

        Frames that the server does not acknowledge in this time stay in the journal on this machine. This process
        delivers them in the background; after its end, `lmvp sync` or the next process that starts a run does. If the
        run has already ended, this does nothing.

        Parameters
        ----------
        status : {"finished", "failed", "killed"}
            The final status of the run.
        error : str
            The reason of a failure; the first 2,000 characters are stored.

        Raises
        ------
        InvalidArgument
            If `status` is another text.

        Examples
        --------
        >>> run.finish("failed", "the loss is NaN")  # doctest: +SKIP
        """
        if status not in ("finished", "failed", "killed"):
            raise InvalidArgument(f"status={status!r}: finished, failed or killed")
        if self._ended:
            return
        self._ended = True
        error = str(error)[:_ERROR_LIMIT]
        took = time.monotonic() - self._began
        self._record = msgspec.structs.replace(self._record, status=status, error=error, duration=took)
        if self._threads is None:  # this is a writer of a run that another process started and ends
            if self._writer is not None:
                self._writer.close()
            return
        sender, pulse, facts = self._threads
        try:
            facts.finish(_FACTS)
        finally:  # `end` must be in the journal even if Ctrl-C or a signal handler interrupts the wait
            self._told_end = True
            end = RunEnd(status=status, ended_at=datetime.now(timezone.utc), error=redact(error))  # type: ignore[arg-type]
            self._main.note(END, end)
            self._main.journal.seal()
            unregister(self)
            pulse.close()
        for call in self._at_end:
            with suppress(Exception):  # a failing live view must not fail the training
                call()
        self._deliver(sender, self._main)

    def _deliver(self, sender: Sender, writer: Writer) -> None:
        """Send the rest of a journal and close it; leave frames that are not acknowledged to a later delivery."""
        from lmvp.tracking import unsent

        delivered = False
        try:
            delivered = sender.deliver(_PATIENCE, _WITHOUT_ANSWER, _progress(self.name, time.monotonic()))
        finally:
            sender.close()
            if delivered:
                sender.join(2.0)
            writer.close()
            if delivered and sender.has_all():
                unsent.forget(self._folder, sender.delivered)
                self._closed = True
                with suppress(LmvpError):  # only the server has the last metrics; the local record remains if it fails
                    self._record = self._client.run_record(self.project, self.id)
            elif delivered:  # the journal of another process of the run is not delivered
                _print(_kept_of_others(self.name))
                unsent.deliver_later(self._folder)
            else:
                _print(_kept(self.name, self.id, sender.trouble))
                unsent.deliver_later(self._folder)

    # -- after the end

    def _after_end(self) -> Journal | None:
        """Return the journal for points that are logged after the end; warn once that the run has ended."""
        late, before = self._late, self._writer
        if late is None:
            if before is None:
                return None
            # The journal with the `end` frame is sealed, so late points need another one.
            late = Writer(self._folder, _start_frame(NewRun(run=self.id, joins=True)), before.names, self._target)
            if self._epoch:
                late.begin(self._epoch)
            with _joining:
                if self._late is not None:  # another thread or a signal handler created it in the meantime
                    late.close()
                    return self._late.journal
                self._late = late
            _warn_of_end(self.name)
            if self._threads is not None:  # otherwise the process that started the run delivers it
                keep_undelivered(self)
                self._sender = sender = self._new_sender(late)
                with suppress(RuntimeError):  # at interpreter shutdown, no thread starts; the next process delivers it
                    sender.start()
        return late.journal

    def deliver_late(self) -> None:
        """Deliver, at the end of the process, the points that were logged after the end of the run."""
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
        """Create the journal of this process, which did not start the run: a fork or another process."""
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
            if self._writer is None:  # the lock is re-entrant: a signal handler may have created one
                self._writer = writer
        return self._writer

    def forked(self) -> None:
        """Detach a forked process from its parent's journals, locks and threads."""
        # The descriptors are shared with the parent. Without this, the child would hold the parent's lock after its
        # end.
        if self._writer is not None:
            self._writer.abandon()
        if self._late is not None:
            self._late.abandon()
        self._writer = self._sender = self._late = None
        self._threads = None

    def __getstate__(self) -> dict[str, Any]:
        # The class of the client, because a client has an open connection and a token.
        client = type(self._client)
        return {
            "record": self._record, "new": self._new, "target": self._target, "epoch": self._epoch, "client": client,
        }  # fmt: skip

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(_client=state["client"](state["target"].url), _record=state["record"], _new=state["new"])
        self.__dict__.update(
            _target=state["target"], _epoch=state["epoch"], _folder=journals() / self.id, _cell=None, _execution=0
        )
        self.__dict__.update(
            _ended=False, _at_end=[], _began=time.monotonic(), _threads=None, _writer=None, _sender=None
        )
        for name in ("params", "tags", "summary"):
            setattr(self, f"_{name}", ActiveRunFields(self, name, getattr(self._record, name)))
        _living.add(self)

    _client: RunClient
    _told_end = _closed = False
    _sender: Sender | None = None
    _writer: Writer | None

    def _wake(self) -> None:
        if self._sender is not None and self._sender.idle:
            self._sender.wake()

    # -- for others

    @property
    def folder(self) -> Path:
        """The folder with the journals of this run."""
        return self._folder

    @property
    def cell(self) -> str | None:
        """The id of the notebook cell that started the run; None outside notebooks."""
        return self._cell

    @property
    def execution(self) -> int:
        """The number of the cell execution that started the run; later executions have greater numbers."""
        return self._execution

    def on_end(self, call: Callable[[], None]) -> None:
        """Register a function that runs when the run ends, in the ending thread, before the last delivery."""
        self._at_end.append(call)

    @property
    def ended(self) -> bool:
        """Whether the run has ended."""
        return self._ended

    def is_of(self, project: str, url: str) -> bool:
        """Return whether the run is open and belongs to this project on this server."""
        if project != self.project or self._ended:
            return False
        with suppress(LmvpError):
            return bool(self._client.url == url)
        return False

    @property
    def record(self) -> RunRecord:
        """The local record, with the fields of the server as of the last `refresh` or the delivery at the end."""
        if not self._ended:
            took = time.monotonic() - self._began
            self._record = msgspec.structs.replace(self._record, duration=max(took, self._record.duration))
        return self._record

    def __repr__(self) -> str:
        from lmvp.core.sanitize import one_line

        return one_line(f"<ActiveRun {self.project}/{self.name} {self.id[:8]} {self.status}>")


def next_attempt(epoch: int) -> int:
    """Return the number of the next attempt: docs/runs.md, "Values and attempts"."""
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
    """Return the message about a run that ends before the server has acknowledged everything."""
    why = f" ({trouble.message})" if trouble else ""
    kept = f"lmvp: the run {name} is kept on this machine, for the server does not take it{why}; "
    if isinstance(trouble, UserError) and not isinstance(trouble, ServerUnavailable):
        return kept + ways_out(trouble, run)
    return kept + (
        "it is delivered when the server answers again, by this process or by the next one that starts a run; "
        "`lmvp sync` delivers it at once"
    )


def _kept_of_others(name: str) -> str:
    """Return the message about a run of which the server lacks points that another process logged."""
    return (
        f"lmvp: points of the run {name} from another process are kept on this machine; "
        "they are delivered when that process has ended, by this process or by the next one that starts a run; "
        "`lmvp sync` delivers them at once"
    )


def _warn_of_end(name: str) -> None:
    with suppress(Exception):  # `log` must not fail where warnings are errors
        warnings.warn(
            f"the run {name} has ended: what is logged to it now is kept and delivered, but its status stays; "
            "`lmvp.start_run(resume=run)` goes on with it",
            stacklevel=6,
        )


def _print(text: str) -> None:
    """Print to standard error, even in a signal handler that has interrupted another `print`."""
    from lmvp.core.sanitize import printable

    text = printable(hints.translated(text, hints.reader(hints.SHELL)))
    try:
        # `print` raises RuntimeError on re-entrance, and `sys.stderr` can be closed or None.
        print(text, file=sys.stderr)
    except (RuntimeError, OSError, ValueError, AttributeError):
        with suppress(OSError):
            os.write(2, f"{text}\n".encode())


def _connector(target: Target, client: Any) -> Callable[[], Any]:
    token = getattr(client, "_token", None)
    return lambda: target.connection(token)


def _progress(name: str, began: float) -> Callable[[int, int], None]:
    """Return a callback that prints the progress of a long delivery once a second; nothing for less than 1 MB."""
    warned_at = [began + 1.0]

    def tell(done: int, total: int) -> None:
        # A small delivery takes long only while the server starts, and its sizes would be shown as 0.0 MB.
        if total >= _MUCH and time.monotonic() > warned_at[0]:
            warned_at[0] = time.monotonic() + 1.0
            far = f"the server has {done / 1e6:,.1f} of {total / 1e6:,.1f} MB"
            _print(f"lmvp: {name}: {far}; Ctrl-C leaves the rest for later")

    return tell


# The runs to which this process logs, newest last. Each operation on the lists is atomic. A lock would block a signal
# handler that interrupts its holder.
_runs: list[ActiveRun] = []
_undelivered: list[ActiveRun] = []


def register(run: ActiveRun) -> None:
    """Add a run, which becomes the active one."""
    _runs.append(run)


def unregister(run: ActiveRun) -> None:
    """Remove a run; the one before it becomes active again."""
    with suppress(ValueError):
        _runs.remove(run)


def active() -> ActiveRun | None:
    """Return the active run of this process, or None."""
    return next(reversed(_runs.copy()), None)


def keep_undelivered(run: ActiveRun) -> None:
    """Register an ended run that has unsent data. It is delivered when the process exits."""
    _undelivered.append(run)


def undelivered() -> list[ActiveRun]:
    """Return the ended runs that have unsent data."""
    return list(_undelivered)


def forget_undelivered() -> None:
    """Drop the parent's undelivered runs in a forked process."""
    _undelivered.clear()


def every() -> list[ActiveRun]:
    """Return all runs to which this process logs."""
    return list(_runs)


def active_in(project: str, url: str) -> str:
    """Return the id of the active run if it belongs to this project on this server, otherwise an empty text."""
    run = active()
    return run.id if run is not None and run.is_of(project, url) else ""


_living: weakref.WeakSet[ActiveRun] = weakref.WeakSet()
_joining = threading.RLock()  # re-entrant: a signal handler may interrupt its holder


def _in_child() -> None:
    global _joining
    # Another thread of the parent may have held the lock during the fork; nobody would release it here.
    _joining = threading.RLock()
    forget_undelivered()
    for run in list(_living):
        run.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
