"""LMVP: versions of neural networks, published and fetched with one line.

>>> import lmvp
>>> version = lmvp.push("digits/mlp", model, message="first try")  # doctest: +SKIP
>>> model = lmvp.pull("digits/mlp@v1")  # doctest: +SKIP
>>> lmvp.history("digits/mlp")  # doctest: +SKIP

Every verb of the shell and of `%lmvp` is a function of the same name, except those that run a program (`server`,
`restore`, `completion`). `update`, `download` and `showHistory` are other names of `push`, `pull` and `history`. Each
call uses the server that is set at that time (`lmvp login`, `LMVP_URL`); `Client(url)` has the same functions for one
server.

Importing this package loads no framework, no server and no notebook.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from lmvp._calls import ClientPerCall
from lmvp.client import Client
from lmvp.config import logout, set_project
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
from lmvp.records import Alias, Contribution, Version
from lmvp.tracking.reading import Run, Runs
from lmvp.views.diff import Diff
from lmvp.views.history import History

if TYPE_CHECKING:
    from datetime import datetime

    from lmvp.arguments import Params
    from lmvp.commands.tables import Status
    from lmvp.tracking.active import ActiveRun
    from lmvp.tracking.leftovers import Delivery
    from lmvp.transfer.cache import Usage as CacheUsage

__version__ = "0.1.0"

# The methods of a client are the functions. Type checkers see those of one client; at run time, each call makes its own
# client, since the server or the current project can change between two calls.
_client = cast("Client", ClientPerCall())

# models
push = update = _client.push
pull = download = _client.pull
history = show_history = showHistory = _client.history  # noqa: N816 - `showHistory` is the promised name
best = _client.best
show = _client.show
diff = _client.diff
bisect = _client.bisect
alias, aliases, remove_alias = _client.alias, _client.aliases, _client.remove_alias
rollback = _client.rollback
amend = _client.amend
ls, projects, models = _client.ls, _client.projects, _client.models
open = ui = _client.open  # noqa: A001 - named like the verb
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
import_ = import_model = _client.import_  # `import` is a word of Python
backup = _client.backup
# team
users, groups, members = _client.users, _client.groups, _client.members
webhooks, tokens, identities = _client.webhooks, _client.tokens, _client.identities
devices, audit = _client.devices, _client.audit


def run(name: str, project: str | None = None) -> Run:
    """Return a run, by its name, its id, or at least six digits of its id.

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
    """Change the name, notes, params or tags of a run, also after its end; see `Client.amend_run`.

    Examples
    --------
    >>> lmvp.annotate("quiet-wren-44", "digits", name="baseline", tags={"by": "ada"})  # doctest: +SKIP
    """
    return Client().amend_run(project, run, name=name, notes=notes, params=params, tags=tags)


def active_run() -> ActiveRun | None:
    """Return the run that this process logs to; None if no run is active."""
    from lmvp.tracking.active_runs import active

    return active()


def log(values: Mapping[str, Any], step: int | None = None, time: float | datetime | None = None) -> None:
    """Log metrics to the active run; see `ActiveRun.log`.

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
    """Deliver the unsent run data of this machine: of killed processes, and of runs whose server did not answer.

    Parameters
    ----------
    dry_run : bool
        Only list the runs.
    force : bool
        Deliver also the runs of processes on other machines, which may still be running: on a file system without
        locks, this machine cannot tell.
    discard : str, optional
        Delete the unsent data of this run, given by its name or id, and deliver nothing.

    Returns
    -------
    list of Delivery
        The result for each run.

    Raises
    ------
    NotFound
        If `discard` names no run with unsent data.
    Conflict
        If the process of the run to discard still logs to it.
    """
    from lmvp.tracking import leftovers

    if discard is not None:
        leftovers.discard(discard)
        return []
    return leftovers.deliver(dry_run=dry_run, force=force)


def login(url: str, token: str | None = None, *, scope: str = "") -> str:
    """Sign in to a server, and make it the server in use for every process of this user.

    Without a token, given or stored, this shows a link and a code, and waits until a user of the server approves.

    Parameters
    ----------
    url : str
        `https://models.example.org`.
    token : str, optional
        A token that exists already.
    scope : str
        The scope of a new token: `read`, `write` or `admin`. Empty: the stored token if there is one, otherwise a new
        one of scope `write`.

    Returns
    -------
    str
        The URL of the server.

    Examples
    --------
    >>> lmvp.login("https://models.example.org")  # doctest: +SKIP
    """
    from lmvp.signing_in import sign_in

    return sign_in(url, token, scope=scope)


def status() -> Status:
    """Return the server, the user, the project and the active run in use; no server is started."""
    from lmvp.commands.tables import Status

    return Status.now()


def stop() -> bool:
    """Stop the server of this machine; return whether it was running. The next call starts it again."""
    from lmvp.local import stop

    return stop()


def project(name: str | None = None) -> str:
    """Return the current project, which is that of names without a project; with a name, set it for this process."""
    from lmvp.config import current_project

    if name is not None:
        set_project(name)
    return current_project()


def cache(*, clear: bool = False) -> CacheUsage:
    """Return the size of the download cache of this machine; with `clear`, delete it and return the size it had."""
    from lmvp.config import cache_home
    from lmvp.transfer.cache import Cache, opened

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
    if name == "ActiveRun":  # loads numpy, which most uses of the package do not need
        from lmvp.tracking.active import ActiveRun

        return ActiveRun
    raise AttributeError(f"module 'lmvp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
