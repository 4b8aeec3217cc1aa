"""LMVP: versions of neural networks, published and fetched with one line.

>>> import lmvp
>>> version = lmvp.update("digits/mlp", model, message="first try")  # doctest: +SKIP
>>> model = lmvp.download("digits/mlp@v1")  # doctest: +SKIP
>>> lmvp.showHistory("digits/mlp")  # doctest: +SKIP

Importing this loads nothing heavy: no framework, no server, no notebook.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmvp.client import Client
from lmvp.config import logout, set_project
from lmvp.errors import LmvpError
from lmvp.history import Diff, History
from lmvp.records import Alias, Contribution, Version
from lmvp.tracking.reading import Run, Runs
from lmvp.transfer.progress import Progress

if TYPE_CHECKING:
    from datetime import datetime

    from lmvp.archive.exporting import Exported
    from lmvp.archive.importing import Imported
    from lmvp.bisection import Bisection
    from lmvp.showing import Showing
    from lmvp.tracking.active import ActiveRun
    from lmvp.tracking.leftovers import Delivery

__version__ = "0.1.0"

__all__ = [
    "Alias",
    "Client",
    "Contribution",
    "Diff",
    "History",
    "LmvpError",
    "Run",
    "Runs",
    "Version",
    "active_run",
    "alias",
    "annotate",
    "bisect",
    "contributions",
    "diff",
    "download",
    "export_model",
    "import_model",
    "log",
    "login",
    "logout",
    "run",
    "runs",
    "set_project",
    "show",
    "showHistory",
    "show_history",
    "start_run",
    "sync",
    "update",
]


def update(
    name: str,
    obj: Any,
    *,
    message: str | None = None,
    metrics: Mapping[str, Any] | None = None,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    alias: str | Sequence[str] = (),
    parent: str | None = None,
    expect_parent: str | None = None,
    run: str | None = None,
    capture: bool | None = None,
    create: bool = False,
    propose: bool = False,
    progress: Progress = None,
) -> Version:
    """Publish a model, or a new version of it; see `Client.update`.

    Examples
    --------
    >>> version = lmvp.update("digits/mlp", {"w": weights}, message="first try")  # doctest: +SKIP
    """
    return Client().update(
        name,
        obj,
        message=message,
        metrics=metrics,
        params=params,
        tags=tags,
        alias=alias,
        parent=parent,
        expect_parent=expect_parent,
        run=run,
        capture=capture,
        create=create,
        propose=propose,
        progress=progress,
    )


def download(
    name: str,
    *,
    into: Any = None,
    to: str | Path | None = None,
    trust: Sequence[str | type] = (),
    progress: Progress = None,
) -> Any:
    """Fetch a version as the object it was, `into=` an object, or as files `to=` a folder; see `Client.download`.

    Examples
    --------
    >>> model = lmvp.download("digits/mlp@production")  # doctest: +SKIP
    """
    return Client().download(name, into=into, to=to, trust=trust, progress=progress)


def show_history(
    name: str | None = None,
    *,
    limit: int | None = 200,
    metric: str | None = None,
    where: str = "",
    order: str = "",
) -> History:
    """Return the versions of a model or a project, newest first; see `Client.show_history`.

    Examples
    --------
    >>> lmvp.showHistory("digits")  # doctest: +SKIP
    """
    return Client().show_history(name, limit=limit, metric=metric, where=where, order=order)


showHistory = show_history  # noqa: N816 - the name that users were promised


def diff(before: str, after: str, *, progress: Progress = None) -> Diff:
    """Return what changed between two versions; see `Client.diff`.

    Examples
    --------
    >>> lmvp.diff("digits/mlp@v1", "digits/mlp@v2")  # doctest: +SKIP
    """
    return Client().diff(before, after, progress=progress)


def bisect(
    name: str,
    *,
    good: str,
    bad: str = "latest",
    test: Callable[[Any], Any],
    trust: Sequence[str | type] = (),
) -> Bisection:
    """Find the first bad version of a model by testing few of them; see `Client.bisect`.

    Examples
    --------
    >>> lmvp.bisect("digits/mlp", good="v3", bad="v19", test=lambda net: accuracy(net) > 0.9)  # doctest: +SKIP
    """
    return Client().bisect(name, good=good, bad=bad, test=test, trust=trust)


def login(url: str, token: str | None = None, *, scope: str = "") -> str:
    """Make a server the one in use, in every process of this user, and get a token for it.

    Without a token, given or stored, this shows a link and a code, and waits until a user of the server approves; see
    `lmvp.signing_in.sign_in`.

    Parameters
    ----------
    url : str
        `https://models.example.org`.
    token : str, optional
        A token that exists already.
    scope : str
        The scope of a new token: `read`, `write` or `admin`. Empty: the stored token if there is one, otherwise a new
        one of scope `write`.

    Examples
    --------
    >>> lmvp.login("https://models.example.org")  # doctest: +SKIP
    """
    from lmvp.signing_in import sign_in

    return sign_in(url, token, scope=scope)


def contributions(project: str | None = None, *, status: str = "") -> list[Contribution]:
    """Return what is proposed to a project; see `Client.contributions`.

    Examples
    --------
    >>> lmvp.contributions("digits", status="proposed")  # doctest: +SKIP
    [<Contribution digits/mlp@c1 proposed>]
    """
    return Client().contributions(project, status=status)


def show(name: str) -> Showing:
    """Return all there is to say about a version: tensors, metrics, what made it; see `Client.show`.

    Examples
    --------
    >>> lmvp.show("digits/mlp@v3")  # doctest: +SKIP
    """
    return Client().show(name)


def alias(name: str, alias: str) -> Alias:
    """Let an alias stand at a version; see `Client.alias`.

    Examples
    --------
    >>> lmvp.alias("digits/mlp@v2", "production")  # doctest: +SKIP
    """
    return Client().alias(name, alias)


def export_model(
    name: str, to: str | Path, *, versions: str | Iterable[str | int] | None = None, progress: Progress = None
) -> Exported:
    """Write a model with its history to a folder or a `.tar` of plain files; see `Client.export_model`.

    Examples
    --------
    >>> lmvp.export_model("digits/mlp", "mlp-export")  # doctest: +SKIP
    """
    return Client().export_model(name, to, versions=versions, progress=progress)


def import_model(source: str | Path, name: str | None = None, *, progress: Progress = None) -> Imported:
    """Make a model of what `export_model` wrote, with its whole history; see `Client.import_model`.

    Examples
    --------
    >>> lmvp.import_model("mlp-export", "archive/mlp")  # doctest: +SKIP
    """
    return Client().import_model(source, name, progress=progress)


def start_run(
    project: str | None = None,
    *,
    name: str | None = None,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    resume: str | Run | None = None,
    system_metrics: bool | float = True,
    capture: bool | None = None,
    all_ranks: bool = False,
    create: bool = False,
    plot: bool = True,
) -> ActiveRun:
    """Begin a run, and return it at once: it needs no server to begin, nor to go on.

    Parameters
    ----------
    project : str, optional
        The current project if not given; made if it is not there.
    name : str, optional
        For people; made up if not given: `quiet-wren-44`.
    params, tags : mapping, optional
        What it is made with, numbers and words; nested ones are flattened. What looks like a secret is blotted out.
    resume : str or Run, optional
        A run that goes on: itself, its id, or its name. Its metrics go on where they were, see `ActiveRun.rewind`.
    system_metrics : bool or float
        Measure this machine too, every 15 seconds, or every so many seconds.
    capture : bool, optional
        Keep the code that made it: the cells of the notebook, or the script. By default only on this machine's server.
    all_ranks : bool
        Log in every process of several that train together; by default only the first does, and the others get a run
        that keeps nothing.
    create : bool
        Make the project on a shared server too.
    plot : bool
        Let a notebook with the extension draw its curves while it goes on.

    Returns
    -------
    ActiveRun
        To log to; ends with its `with` block, with `finish`, or with the process.

    Raises
    ------
    InvalidArgument
        If a name or a param cannot be one.
    NotFound
        If there is no such run to resume.

    Examples
    --------
    >>> with lmvp.start_run("digits", params={"lr": 1e-3}) as run:  # doctest: +SKIP
    ...     run.log({"train/loss": 0.5}, step=0)
    """
    return Client().start_run(
        project,
        name=name,
        params=params,
        tags=tags,
        resume=resume,
        system_metrics=system_metrics,
        capture=capture,
        all_ranks=all_ranks,
        create=create,
        plot=plot,
    )


def annotate(
    run: str,
    project: str | None = None,
    *,
    name: str | None = None,
    notes: str | None = None,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, str | None] | None = None,
) -> Run:
    """Rename a run, or change its notes, params and tags, also after its end; see `Client.amend_run`.

    Examples
    --------
    >>> lmvp.annotate("quiet-wren-44", "digits", name="baseline", tags={"by": "ada"})  # doctest: +SKIP
    """
    return Client().amend_run(project, run, name=name, notes=notes, params=params, tags=tags)


def active_run() -> ActiveRun | None:
    """Return the run that this process logs to; None if there is none."""
    from lmvp.tracking.active_runs import active

    return active()


def log(values: Mapping[str, Any], step: int | None = None, time: float | datetime | None = None) -> None:
    """Log some numbers to the active run; see `ActiveRun.log`.

    Raises
    ------
    NotFound
        If no run is active.
    """
    run = active_run()
    if run is None:
        from lmvp.errors import NotFound

        raise NotFound("no run is active", hint="`run = lmvp.start_run(project)` begins one")
    run.log(values, step, time)


def runs(project: str | None = None, *, where: str | None = None, limit: int | None = 200) -> Runs:
    """Return the runs of a project, newest first; see `Client.runs`.

    Examples
    --------
    >>> lmvp.runs("digits", where="metrics.val_acc > 0.9 and params.lr < 0.01")  # doctest: +SKIP
    """
    return Client().runs(project, where=where, limit=limit)


def run(name: str, project: str | None = None) -> Run:
    """Return a run of a project, by its name, its id, or six or more digits of it.

    Examples
    --------
    >>> lmvp.run("quiet-wren-44").history("train/loss")  # doctest: +SKIP
    """
    return Client().run(project, name)


def sync(*, dry_run: bool = False, force: bool = False) -> list[Delivery]:
    """Deliver the runs that wait on this machine: their process was killed, or their server did not answer.

    Parameters
    ----------
    dry_run : bool
        Only list them.
    force : bool
        Deliver also the runs of processes on other machines, which may still be running: on a file system without
        locks, this machine cannot tell.

    Returns
    -------
    list of Delivery
        What became of each.
    """
    from lmvp.tracking.leftovers import deliver

    return deliver(dry_run=dry_run, force=force)
