"""Python API of LMVP, a version control system for neural networks.

>>> import lmvp
>>> version = lmvp.push("digits/mlp", model, message="first try")  # doctest: +SKIP
>>> model = lmvp.pull("digits/mlp@v1")  # doctest: +SKIP
>>> lmvp.history("digits/mlp")  # doctest: +SKIP

Each verb of the `lmvp` command and of the `%lmvp` magic is also a function of the same name, except the verbs that run
a program (`server`, `restore`, `completion`). `update`, `download` and `showHistory` are aliases of `push`, `pull` and
`history`. A call uses the server that is configured at the time of the call (`lmvp login`, `LMVP_URL`). `Client(url)`
has the same functions as methods and always uses one server.

The import of this package loads no framework, no server and no notebook extension. `import lmvp` therefore stays fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from lmvp._calls import ClientPerCall
from lmvp.client.models import Client
from lmvp.config import logout, set_project
from lmvp.core.schemas import Alias, Contribution, Version
from lmvp.errors import (
    AccessDenied,
    AlreadyExists,
    AuthorizationPending,
    Conflict,
    DamagedFile,
    ExpiredCode,
    FileChanged,
    IntegrityError,
    InvalidArgument,
    InvalidManifest,
    InvalidName,
    InvalidReference,
    InvalidRequest,
    LmvpError,
    Mismatch,
    MissingChunks,
    MissingDependency,
    NotAuthenticated,
    NotFound,
    ProofRequired,
    ProtectedAlias,
    RunRemoved,
    ServerError,
    ServerMismatch,
    ServerUnavailable,
    SlowDown,
    StorageFailed,
    StorageFull,
    StorageReadOnly,
    TooLarge,
    TooManyRequests,
    UnknownFormat,
    Untrusted,
    UserError,
)
from lmvp.views.diff import Diff
from lmvp.views.history import History
from lmvp.views.runs import Run, Runs

if TYPE_CHECKING:
    from datetime import datetime

    from lmvp.cli.tables import Status
    from lmvp.core.validation import Params
    from lmvp.tracking.active_run import ActiveRun
    from lmvp.tracking.unsent import Delivery
    from lmvp.transfer.model_cache import Usage as CacheUsage

__version__ = "0.1.0"

# The public functions are the methods of a client. For type checkers, `_client` is one client. At run time, each call
# creates a new client, because the server or the current project can change between two calls (login, LMVP_URL).
_client = cast("Client", ClientPerCall(globals()))

# models
push = update = _client.push
pull = download = _client.pull
history = show_history = showHistory = _client.history  # noqa: N816 - `showHistory` is part of the public API
best = _client.best
show = _client.show
diff = _client.diff
bisect = _client.bisect
alias, aliases, remove_alias = _client.alias, _client.aliases, _client.remove_alias
rollback = _client.rollback
amend = _client.amend
ls, projects, models = _client.ls, _client.projects, _client.models
open = ui = _client.open  # noqa: A001 - the verb of the shell has this name
# runs
start_run = _client.start_run
runs, metrics, compare = _client.runs, _client.metrics, _client.compare
# contributions
fork, contribute, contributions = _client.fork, _client.contribute, _client.contributions
accept, decline, withdraw = _client.accept, _client.decline, _client.withdraw
comment, require = _client.comment, _client.require
# maintenance
du, rm, undelete, prune = _client.du, _client.rm, _client.undelete, _client.prune
gc, compact, fsck = _client.gc, _client.compact, _client.fsck
export = export_model = _client.export
import_ = import_model = _client.import_  # `import` is a keyword of Python
backup = _client.backup
# team
users, groups, members = _client.users, _client.groups, _client.members
webhooks, tokens, identities = _client.webhooks, _client.tokens, _client.identities
devices, audit = _client.devices, _client.audit


def run(name: str, project: str | None = None) -> Run:
    """Return a run by its name or id.

    `Client.run` takes the project first. The keywords are the same in both: `run(name=…, project=…)`.

    Parameters
    ----------
    name : str
        The name of the run, its id, or at least the first six digits of its id.
    project : str, optional
        The project of the run. Default: the current project.

    Returns
    -------
    Run
        The run, for reading.

    Raises
    ------
    NotFound
        If the project has no run with this name or id.

    Examples
    --------
    >>> lmvp.run("quiet-wren-44").history("train/loss")  # doctest: +SKIP
    """
    return Client().run(project, name)


def annotate(
    run: str,
    project: str | None = None,
    *,
    name: str | None = None,
    notes: str | None = None,
    params: Params | None = None,
    tags: Mapping[str, str | None] | None = None,
) -> Run:
    """Change the name, notes, params or tags of a run. The run can be running or finished.

    An argument that is None, or not given, leaves the field unchanged. See `Client.amend_run`.

    Parameters
    ----------
    run : str
        The name or the id of the run.
    project : str, optional
        The project of the run. Default: the current project.
    name : str, optional
        The new name.
    notes : str, optional
        The new notes, as plain text.
    params : mapping, dataclass or Namespace, optional
        Params to add or to overwrite.
    tags : mapping of str to str or None, optional
        Tags to add or to overwrite. The value None removes a tag.

    Returns
    -------
    Run
        The run with the new values.

    Raises
    ------
    NotFound
        If the run does not exist.
    AccessDenied
        If the run belongs to another user and the caller is not a maintainer.

    Examples
    --------
    >>> lmvp.annotate("quiet-wren-44", "digits", name="baseline", tags={"by": "ada"})  # doctest: +SKIP
    """
    return Client().amend_run(project, run, name=name, notes=notes, params=params, tags=tags)


def active_run() -> ActiveRun | None:
    """Return the active run of this process.

    Returns
    -------
    ActiveRun or None
        The run that `lmvp.log` writes to; None if no run is active.

    Examples
    --------
    >>> lmvp.active_run()  # doctest: +SKIP
    """
    from lmvp.tracking.active_run import active

    return active()


def log(values: Mapping[str, Any], step: int | None = None, time: float | datetime | None = None) -> None:
    """Log metrics to the active run; see `ActiveRun.log`.

    Parameters
    ----------
    values : mapping of str to float
        The value of each metric. NaN and infinity are allowed.
    step : int, optional
        The step of the values. Default: the server numbers the points in the order in which they were logged.
    time : float or datetime, optional
        The time of the values, in seconds since 1970 or as a datetime. Default: now.

    Raises
    ------
    NotFound
        If no run is active.

    Examples
    --------
    >>> lmvp.log({"train/loss": 0.5}, step=0)  # doctest: +SKIP
    """
    run = active_run()
    if run is None:
        raise NotFound("no run is active", hint="`run = lmvp.start_run(project)` starts one")
    run.log(values, step, time)


def sync(*, dry_run: bool = False, force: bool = False, discard: str | None = None) -> list[Delivery]:
    """Send the unsent run data of this machine to its servers.

    Data is unsent if the process of a run was killed, or if the server of a run did not answer.

    Parameters
    ----------
    dry_run : bool, default False
        Only list the runs with unsent data; send nothing.
    force : bool, default False
        Also send the data of processes on other machines that share this folder. Such a process can still be running:
        on a file system without locks, this machine cannot detect it.
    discard : str, optional
        Delete the unsent data of the run with this name or id, and send nothing.

    Returns
    -------
    list of Delivery
        The result for each run; empty with `discard`.

    Raises
    ------
    NotFound
        If the run in `discard` has no unsent data on this machine.
    Conflict
        If a process still logs to the run in `discard`.

    Examples
    --------
    >>> lmvp.sync(dry_run=True)  # doctest: +SKIP
    """
    from lmvp.tracking import unsent

    if discard is not None:
        unsent.discard(discard)
        return []
    return unsent.deliver(dry_run=dry_run, force=force)


def login(url: str, token: str | None = None, *, scope: str = "") -> str:
    """Log in to a server, and make it the default server of all processes of this user.

    If neither `token` nor a stored token exists, this function prints a link and a code, and blocks until a user of the
    server approves the code.

    Parameters
    ----------
    url : str
        The URL of the server, for example `https://models.example.org`.
    token : str, optional
        An existing token. Default: the stored token of this server, or a new one.
    scope : {"", "read", "write", "admin"}, default ""
        The scope of a new token. Empty: use the stored token if there is one, otherwise request scope `write`.

    Returns
    -------
    str
        The URL of the server, in its normal form.

    Raises
    ------
    InvalidArgument
        If `url` is not the URL of a server.
    NotAuthenticated
        If the server does not accept the token.
    AccessDenied
        If the approval was denied.
    ExpiredCode
        If no user approved the code in time.

    Examples
    --------
    >>> lmvp.login("https://models.example.org")  # doctest: +SKIP
    """
    from lmvp.client.login import sign_in

    return sign_in(url, token, scope=scope)


def status() -> Status:
    """Return the current server, user, project and active run.

    This function does not start the server of this machine.

    Returns
    -------
    Status
        The state of this process and its server.

    Examples
    --------
    >>> lmvp.status()  # doctest: +SKIP
    """
    from lmvp.cli.tables import Status

    return Status.now()


def stop() -> bool:
    """Stop the server of this machine. The next call that needs the server starts it again.

    Returns
    -------
    bool
        True if the server was running.

    Raises
    ------
    Conflict
        If the server does not exit within 45 seconds.

    Examples
    --------
    >>> lmvp.stop()  # doctest: +SKIP
    """
    from lmvp.local import stop

    return stop()


def project(name: str | None = None) -> str:
    """Return the current project, or set it for this process.

    The current project is the project of references that contain no project, for example `mlp@v3`.

    Parameters
    ----------
    name : str, optional
        The new current project. Default: do not change it.

    Returns
    -------
    str
        The current project.

    Raises
    ------
    InvalidName
        If the name breaks the rule for names.

    Examples
    --------
    >>> lmvp.project("digits")  # doctest: +SKIP
    'digits'
    """
    from lmvp.config import current_project

    if name is not None:
        set_project(name)
    return current_project()


def cache(*, clear: bool = False) -> CacheUsage:
    """Return the size of the download cache of this machine, or delete the cache.

    Parameters
    ----------
    clear : bool, default False
        Delete all files of the cache.

    Returns
    -------
    Usage
        The number of files and their size in bytes. With `clear`: of the deleted files.

    Examples
    --------
    >>> lmvp.cache(clear=True)  # doctest: +SKIP
    """
    from lmvp.config import cache_home
    from lmvp.transfer.model_cache import Cache, opened

    kept = opened() or Cache(cache_home(), 0)
    return kept.clear() if clear else kept.usage()


__all__ = [
    "AccessDenied",
    "ActiveRun",
    "Alias",
    "AlreadyExists",
    "AuthorizationPending",
    "Client",
    "Conflict",
    "Contribution",
    "DamagedFile",
    "Diff",
    "ExpiredCode",
    "FileChanged",
    "History",
    "IntegrityError",
    "InvalidArgument",
    "InvalidManifest",
    "InvalidName",
    "InvalidReference",
    "InvalidRequest",
    "LmvpError",
    "Mismatch",
    "MissingChunks",
    "MissingDependency",
    "NotAuthenticated",
    "NotFound",
    "ProofRequired",
    "ProtectedAlias",
    "Run",
    "RunRemoved",
    "Runs",
    "ServerError",
    "ServerMismatch",
    "ServerUnavailable",
    "SlowDown",
    "StorageFailed",
    "StorageFull",
    "StorageReadOnly",
    "TooLarge",
    "TooManyRequests",
    "UnknownFormat",
    "Untrusted",
    "UserError",
    "Version",
    "accept",
    "active_run",
    "alias",
    "aliases",
    "amend",
    "annotate",
    "audit",
    "backup",
    "best",
    "bisect",
    "cache",
    "comment",
    "compact",
    "compare",
    "contribute",
    "contributions",
    "decline",
    "devices",
    "diff",
    "download",
    "du",
    "export",
    "export_model",
    "fork",
    "fsck",
    "gc",
    "groups",
    "history",
    "identities",
    "import_",
    "import_model",
    "log",
    "login",
    "logout",
    "ls",
    "members",
    "metrics",
    "models",
    "open",
    "project",
    "projects",
    "prune",
    "pull",
    "push",
    "remove_alias",
    "require",
    "rm",
    "rollback",
    "run",
    "runs",
    "set_project",
    "show",
    "showHistory",
    "show_history",
    "start_run",
    "status",
    "stop",
    "sync",
    "tokens",
    "ui",
    "undelete",
    "update",
    "users",
    "webhooks",
    "withdraw",
]


def __getattr__(name: str) -> Any:
    if name == "ActiveRun":  # imported on first use, because its module imports numpy
        from lmvp.tracking.active_run import ActiveRun

        return ActiveRun
    raise AttributeError(f"module 'lmvp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
