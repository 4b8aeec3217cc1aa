"""`start_run`, which starts a run without waiting for the server."""

from __future__ import annotations

import atexit
import os
import secrets
import shlex
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from types import TracebackType
from typing import Any, Final
from urllib.parse import quote

from lmvp import config, hints
from lmvp.core.environment import user
from lmvp.core.marimo import watch_in_marimo
from lmvp.core.references import check_name
from lmvp.core.run_fields import stored_fields
from lmvp.core.sanitize import printable
from lmvp.core.schemas.runs import NewRun
from lmvp.core.validation import Params
from lmvp.errors import InvalidArgument, LmvpError, NotFound, ServerUnavailable
from lmvp.tracking import active_run, provenance, unsent
from lmvp.tracking.active_run import SYSTEM_EVERY, ActiveRun, RunClient, _record, next_attempt
from lmvp.tracking.destination import Target, journals
from lmvp.tracking.status import Exit, Task, how_it_ended
from lmvp.views.runs import Run

Watcher = Callable[[ActiveRun], object]
_watchers: list[Watcher] = []
_exit: Exit | None = None


def start_run(
    client: RunClient,
    project: str | None = None,
    *,
    name: str | None = None,
    params: Params | None = None,
    tags: Mapping[str, str] | None = None,
    resume: str | Run | None = None,
    system_metrics: bool | float = True,
    capture: bool | None = None,
    all_ranks: bool = False,
    create: bool = False,
    plot: bool = True,
) -> ActiveRun:
    """Start a run; see `lmvp.start_run`."""
    _check_name(name)
    project_name = check_name(project or _project_of(resume) or client.project, "project name")
    if rank() > 0 and not all_ranks:
        return NullRun(client, project_name, name or "")
    cell, execution = provenance.this_cell(), provenance.this_execution()
    _end_earlier(cell, execution)
    url = config.server_url(client.fixed_url)
    new = _resumed(client, project_name, resume) if resume is not None else {"run": secrets.token_hex(16), "epoch": 0}
    start = NewRun(
        **{"name": name or random_name(), **new},
        params=stored_fields("params", params),
        tags=stored_fields("tags", tags),
        started_at=datetime.now(timezone.utc),
        author=user(),
        environment=provenance.first_facts(),
        create=create,
    )
    run = ActiveRun(client, start, Target(project_name, url, start.name), cell, execution, Task.current())
    every = SYSTEM_EVERY if system_metrics is True else float(system_metrics)
    _prepare()
    run.begin(system=every, capture=(url is None) if capture is None else capture)
    if name is not None and name != start.name:  # the resumed run has another name, so rename it
        run.name = name
    _tell_address(run, url)
    if plot and not _watchers:
        _tell_of_curves()
    for watch in _watchers if plot else ():
        watch(run)
    if plot and hints.in_marimo():
        watch_in_marimo(run)
    return run


def _tell_address(run: ActiveRun, url: str | None) -> None:
    """Print the address of the run's page; an error of the output stream is ignored."""
    with suppress(OSError, ValueError, AttributeError):  # the stream is closed or missing
        name = f"{run.project}/{run.name}"
        address = _run_address(run.project, run.id, url)
        command = f"`lmvp open {shlex.quote(name)}`"
        where = f"{address} ({command} opens it signed in)" if address else f"{command} opens its page"
        # Notebooks show stderr in red, like a warning.
        line = hints.translated(f"run {name}: {where}", hints.reader(hints.SHELL))
        print(printable(line), file=sys.stdout if hints.in_notebook() else sys.stderr, flush=True)


def _run_address(project: str, run: str, url: str | None) -> str:
    """Return the URL of the page of a run (`url` None: on the server of this machine); empty if it is not known yet.

    This function sends no request, because the start of a run must not wait for the server.
    """
    if url is None:
        from lmvp.core import server_file

        published = server_file.read(server_file.data_home())
        url = published.url if published is not None and published.here and not published.rebooted else ""
    return f"{url}/p/{quote(project, safe='')}/-/runs/{quote(run, safe='')}" if url else ""


def _tell_of_curves() -> None:
    """Print once, in a notebook without the extension, how to show curves."""
    if _told or not hints.in_notebook():
        return
    _told.append(True)
    with suppress(OSError, ValueError, AttributeError):  # the stream is closed or missing
        print("curves of runs appear below their cells after `%load_ext lmvp_jupyter`", flush=True)


_told: list[bool] = []
"""Not empty after this process has printed how to show curves."""


def on_start(watch: Watcher) -> Callable[[], None]:
    """Call `watch` with each run that starts; return a function that cancels it."""
    _watchers.append(watch)
    return lambda: _watchers.remove(watch)


def _check_name(name: Any) -> None:
    if name is not None and not (isinstance(name, str) and name.strip() and name.isprintable() and len(name) <= 250):
        raise InvalidArgument(f"name={name!r:.80}: 1 to 250 printable characters")


def _project_of(resume: str | Run | None) -> str | None:
    return resume.project if isinstance(resume, Run) else None


def _resumed(client: RunClient, project: str, resume: str | Run) -> dict[str, Any]:
    """Return the id, name and attempt of a run that is resumed."""
    record = resume.record if isinstance(resume, Run) else None
    # The earlier object ends first, so that its journal is sealed before the next attempt starts.
    if isinstance(resume, ActiveRun):
        resume.finish()
    run = resume.id if isinstance(resume, Run) else str(resume)
    try:
        record = client.run_record(project, run)
    except ServerUnavailable:
        if record is None:
            run, name = _left_here(run)
            return {"run": run, "name": name, "epoch": next_attempt(0), "resume": True}
    except NotFound:
        # A run that was started without a connection exists only in its journal; its delivery creates it.
        if record is None or not (journals() / run).is_dir():
            raise
    return {"run": record.id, "name": record.name, "epoch": next_attempt(record.epoch), "resume": True}


def _left_here(run: str) -> tuple[str, str]:
    """Return the id and name of a run with journals on this machine."""
    for folder in journals().glob("*"):
        target = Target.read(folder)
        if target and (folder.name == run or target.name == run or (len(run) >= 6 and folder.name.startswith(run))):
            return folder.name, target.name
    if len(run) == 32 and all(digit in "0123456789abcdef" for digit in run):
        return run, ""
    raise ServerUnavailable(
        f"the server does not answer, and this machine does not know the run {run[:80]!r}",
        hint="resume it by its id of 32 digits, or when the server is back",
    )


def _end_earlier(cell: str | None, execution: int) -> None:
    """End the runs that an earlier execution of this cell started; those of the same execution stay open."""
    for run in active_run.every():
        # docs/runs.md, "Notebooks": runs of one execution stay open side by side.
        if cell is not None and run.cell == cell and run.execution < execution:
            run.finish()


def _prepare() -> None:
    """Once in a process: register the handlers that end its runs, and deliver unsent journals of other processes."""
    global _exit
    if _exit is not None:
        return
    _exit = Exit()
    atexit.register(_end_all)
    if (process := sys.modules.get("multiprocessing.process")) is not None and process.parent_process() is not None:
        from multiprocessing.util import Finalize

        Finalize(None, _end_all, exitpriority=_FIRST)  # a process of multiprocessing exits without calling atexit
    if not _hooked:
        _hook()
    threading.Thread(target=_deliver_leftovers, name="lmvp-leftovers", daemon=True).start()


# Priority of the finalizer: runs end before the finalizers of other modules.
_FIRST = 1_000
_hooked: list[bool] = []


def _hook() -> None:
    _hooked.append(True)
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        for run in active_run.every():
            run.finish(*how_it_ended(error))
        before(kind, error, trace)

    sys.excepthook = hook


def _end_all() -> None:
    """End the runs that are still active when the process ends."""
    error = sys.exc_info()[1]  # set if multiprocessing ends a process whose function raised
    for run in active_run.every():
        run.finish(*(how_it_ended(error) if error is not None else _how_it_ends(run)))
    for run in active_run.undelivered():
        run.deliver_late()


def _how_it_ends(run: ActiveRun) -> tuple[str, str]:
    return ("finished", "") if _exit is None else _exit.how_it_ended(run.task, run.is_abandoned())


def _in_child() -> None:
    """Reset the registration, so that a forked process that starts a run registers its handlers."""
    global _exit
    if _exit is not None:
        atexit.unregister(_end_all)
    _exit = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def _deliver_leftovers() -> None:
    try:
        unsent.deliver()
    except (LmvpError, OSError):
        import logging

        logging.getLogger("lmvp").debug("the journals of other runs wait", exc_info=True)


_ADJECTIVES: Final = """
    amber bold brave bright brisk calm clear cool crisp dapper deep eager early fair fleet fond free fresh gentle glad
    grand green happy hardy jolly keen kind lively lucid lucky mellow merry mild neat nimble noble patient plain proud
    quick quiet rapid ready rosy rustic serene sharp silent silver sleek smart snowy solid spry steady still sunny
    swift tidy tranquil vivid warm wide wise witty young
"""
_ANIMALS: Final = """
    adder badger bee beetle bison bittern crane crow curlew deer dove duck eagle egret elk falcon finch fox frog gecko
    goose grouse gull hare hawk heron ibis jackdaw jay kestrel kite lark linnet lynx magpie marten mole moth newt
    nightjar osprey otter owl pike plover quail raven robin rook salmon seal shrew skylark snipe sparrow stoat stork
    swallow swan swift tern thrush toad trout vole wagtail weasel wigeon wren
"""


def random_name() -> str:
    """Return a random name for a run.

    Examples
    --------
    >>> len(random_name().split("-"))
    3
    """
    return f"{secrets.choice(_ADJECTIVES.split())}-{secrets.choice(_ANIMALS.split())}-{1 + secrets.randbelow(99)}"


# Set by torchrun, Slurm, Open MPI and MPICH. LOCAL_RANK is last, because it is unique only within one machine.
_RANK_VARIABLES = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "LOCAL_RANK")


def rank() -> int:
    """Return the rank of this process; 0 if it trains alone.

    `torch.distributed` takes precedence, if it is initialized. Otherwise the environment variables of launchers count.

    Examples
    --------
    >>> rank()
    0
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank())
    for name in _RANK_VARIABLES:
        value = os.environ.get(name, "")
        if value.isascii() and value.isdigit():
            return int(value)
    return 0


class NullRun(ActiveRun):
    """An `ActiveRun` that accepts all calls and stores nothing."""

    def __init__(self, client: Any, project: str, name: str) -> None:

        # `super().__init__` would create a journal, so only the fields that properties read are set.
        self._client, self._record = client, _record(NewRun(run="0" * 32, name=name), Target(project))
        for name in ("params", "tags", "summary"):
            setattr(self, f"_{name}", {})
        self._ended, self._cell, self._at_end = False, None, []
        self._began = time.monotonic()

    def log(self, values: Any, step: Any = None, time: Any = None) -> None:
        """Do nothing."""

    def log_batch(self, steps: Any, values: Any, time: Any = None) -> None:
        """Do nothing."""

    def rewind(self, step: int) -> None:
        """Do nothing."""

    def flush(self, timeout: float = 30.0) -> None:
        """Return at once."""

    def update(self, model: str, obj: Any, **options: Any) -> Any:
        """Publish nothing; return None."""

    def finish(self, status: str = "finished", error: str = "") -> None:  # noqa: ARG002
        """Mark the run as ended."""
        self._ended = True

    def history(self, keys: Any = None) -> Any:  # noqa: ARG002
        """Return an empty dict."""
        return {}
