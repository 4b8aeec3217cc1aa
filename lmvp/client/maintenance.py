"""Methods of `Client` for maintenance: disk usage, trash, pruning, gc, compaction, verification and the audit log."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from lmvp.client._base import BaseClient, model_path
from lmvp.connection import Connection
from lmvp.core.references import check_name
from lmvp.core.sanitize import quoted
from lmvp.core.schemas import (
    Check,
    Checked,
    Collect,
    Collected,
    Compacted,
    ErrorBody,
    Event,
    Head,
    Model,
    ModelChange,
    Project,
    Prune,
    Pruned,
    Removed,
    RemovedItem,
    Usage,
    Version,
)
from lmvp.core.schemas.runs import RunRecord
from lmvp.errors import BY_CODE, InvalidArgument, InvalidReference, ServerError

T = TypeVar("T")

Told = Callable[[int, int], Any]
"""A callback for progress: it is called with the amount done and the total."""


class Housekeeping(BaseClient):
    """Base class of `Client` with the methods for maintenance."""

    def usage(self, name: str | None = None) -> Usage:
        """Return the disk usage of the server, a project or a model.

        Parameters
        ----------
        name : str, optional
            `project/` for the usage of its models, `[project/]model` for the usage of its versions. Default: all
            projects of the server; this requires admin.

        Returns
        -------
        Usage
            The logical size and the stored size of each part, in bytes. The stored size is after deduplication and
            compression.

        Raises
        ------
        NotFound
            If the project or the model does not exist.

        Examples
        --------
        >>> client.du("digits/")  # doctest: +SKIP
        """
        path = "" if name is None else self._path_of(name)
        return self._connection.get(f"{path}/usage", Usage)

    du = usage

    def remove(self, name: str, *, now: bool = False, yes: bool = False) -> Removed:
        """Remove a version, a model with its versions, a project with its models, or a run with its points.

        A removed object is moved to the trash. `undelete` can restore it for 7 days, or for the time that the operator
        has configured.

        Parameters
        ----------
        name : str
            `[project/]model@revision`, `[project/]model`, `project/`, or `project/runs/run`.
        now : bool, default False
            Delete the object permanently and free its disk space, instead of moving it to the trash.
        yes : bool, default False
            Confirm the removal of a whole model or project.

        Returns
        -------
        Removed
            The number of removed versions, the freed bytes, and the time until which they can be restored.

        Raises
        ------
        NotFound
            If the object does not exist.
        InvalidArgument
            If the name is that of a model or a project and `yes` is False.
        Conflict
            If an alias points at the version.
        AccessDenied
            If the caller is not a maintainer; for a project, not an owner.

        Examples
        --------
        >>> client.rm("digits/mlp@v3")  # doctest: +SKIP
        """
        if run := run_path(name):
            self._connection.send("DELETE", run + ("?now=1" if now else ""))
            return Removed(versions=0, bytes=0)
        whole = self._path_of(name)
        if "@" not in name and not yes:
            rows = self.usage(name).rows
            count = sum(row.versions for row in rows if not row.name.endswith("(removed)"))
            versions = "1 version" if count == 1 else f"{count:,} versions"
            hint = "`--yes` removes all of them"
            raise InvalidArgument(f"{name!r} has {versions}", hint=hint)
        path = whole + ("?now=1" if now else "")
        return self._connection.decoded(self._connection.send("DELETE", path).content, Removed)

    rm = remove

    def removed(self, project: str | None = None) -> list[RemovedItem]:
        """Return the objects in the trash that the caller can restore, the last removed first.

        Parameters
        ----------
        project : str, optional
            Return only objects of this project. Default: all projects.

        Returns
        -------
        list of RemovedItem
            The objects. `undelete` takes their `name`.
        """
        path = "" if project is None else f"/projects/{quote(check_name(project, 'project name'))}"
        return self._list(f"{path}/removed", RemovedItem)

    def undelete(self, name: str) -> Version | Model | Project | RunRecord:
        """Restore an object from the trash, with everything that it contained.

        Parameters
        ----------
        name : str
            `[project/]model@v3`, `[project/]model`, `project/`, or `project/runs/run` with the name or the id of the
            run. A project can be restored by the user who removed it, and by an admin.

        Returns
        -------
        Version, Model, Project or RunRecord
            The restored object.

        Raises
        ------
        NotFound
            If the object is not in the trash: it was never removed, or is deleted permanently.
        Conflict
            If a new object has the same name.

        Examples
        --------
        >>> client.undelete("digits/mlp@v3")  # doctest: +SKIP
        """
        if run := run_path(name):
            return self._connection.send_json("POST", f"{run}/undelete", {}, RunRecord)
        path = self._path_of(name)
        # /projects/P, /projects/P/models/M, /projects/P/models/M/versions/V: the number of slashes selects the type.
        kind: Any = {2: Project, 4: Model, 6: Version}[path.count("/")]
        back: Version | Model | Project = self._connection.send_json("POST", f"{path}/undelete", {}, kind)
        return back

    def prune(self, name: str, *, keep: str | None = None, dry_run: bool = False) -> Pruned:
        """Delete the versions of a model that a retention rule does not keep. They are deleted permanently.

        The newest version, versions with an alias, and the first parents of versions with an alias always stay.

        Parameters
        ----------
        name : str
            `[project/]model`.
        keep : str, optional
            The rule, for example `"best:val_acc:3,last:5"`; see `lmvp.core.retention_rules`. Default: the rule
            of the model.
        dry_run : bool, default False
            Only list the versions; delete nothing.

        Returns
        -------
        Pruned
            The numbers of the deleted versions and the freed bytes; with `dry_run`, of the versions to delete.

        Raises
        ------
        InvalidArgument
            If the rule cannot be parsed, or if neither `keep` is given nor the model has a rule.
        AccessDenied
            If the caller is not a maintainer.

        Examples
        --------
        >>> client.prune("digits/mlp", keep="best:val_acc:3,last:5", dry_run=True)  # doctest: +SKIP
        """
        body = Prune(keep=keep or "", dry_run=dry_run)
        return self._do(f"{self._model_path(name)}/prune", body, Pruned)

    def set_retention(self, name: str, keep: str) -> Model:
        """Set the retention rule of a model. The server applies it automatically when it is idle.

        Parameters
        ----------
        name : str
            `[project/]model`.
        keep : str
            The rule, for example `"best:val_acc:3,last:5"`; see `lmvp.core.retention_rules`. Empty: keep all versions.

        Returns
        -------
        Model
            The model with the rule.

        Raises
        ------
        InvalidArgument
            If the rule cannot be parsed.
        """
        return self._connection.send_json("PATCH", self._model_path(name), ModelChange(keep=keep), Model)

    def set_card(self, name: str, text: str) -> Model:
        """Set the model card of a model: its purpose, its training data and its limits. `lmvp.show` displays the card.

        Parameters
        ----------
        name : str
            `[project/]model`.
        text : str
            The card, as Markdown. HTML in it is shown as text. Empty: remove the card.

        Returns
        -------
        Model
            The model with the card.
        """
        return self._connection.send_json("PATCH", self._model_path(name), ModelChange(description=text), Model)

    def collect_garbage(self, *, removed: bool = False) -> Collected:
        """Delete the data on the server that no version and no open push references. Requires admin.

        Parameters
        ----------
        removed : bool, default False
            Also delete the objects in the trash permanently.

        Returns
        -------
        Collected
            The number of deleted chunks and the freed bytes.

        Examples
        --------
        >>> client.gc()  # doctest: +SKIP
        """
        return self._do("/gc", Collect(removed=removed), Collected)

    gc = collect_garbage

    def compact(self) -> Compacted:
        """Encode stored chunks with smaller codecs now, instead of when the server is idle. Requires admin.

        Returns
        -------
        Compacted
            The number of encoded chunks, and their size in bytes before and after.

        Examples
        --------
        >>> client.compact()  # doctest: +SKIP
        """
        return self._do("/compact", {}, Compacted)

    def check(self, *, repair: bool = False, told: Told = lambda *_: None, heads: Sequence[Head] = ()) -> Checked:
        """Verify every digest, record and series on the server. Requires admin.

        Parameters
        ----------
        repair : bool, default False
            Set damaged frames aside, so that a push of the same content can replace them. Nothing is deleted.
        told : callable, optional
            A callback for progress. It is called with the verified chunks of a project and its total chunks.
        heads : sequence of Head, default ()
            Earlier results of `audit_heads` that were stored outside the server. The check fails if an audit log is not
            a continuation of its head, for example because entries were changed or deleted.

        Returns
        -------
        Checked
            The numbers of verified versions, chunks and bytes, and the problems.

        Examples
        --------
        >>> client.fsck().problems  # doctest: +SKIP
        ()
        """
        return self._do("/fsck", Check(repair=repair, heads=tuple(heads)), Checked, told)

    fsck = check

    # -- audit log

    def events(
        self,
        project: str | None = None,
        *,
        who: str = "",
        action: str = "",
        target: str = "",
        since: str = "",
        until: str = "",
        limit: int | None = 100,
    ) -> list[Event]:
        """Return the events of a project or of the server from the audit log, newest first.

        Parameters
        ----------
        project : str, optional
            The project. Default: the events of the server itself; this requires admin.
        who : str, default ""
            Return only events of this account.
        action : str, default ""
            Return only events whose action begins with this text, for example `alias.`.
        target : str, default ""
            Return only events whose object begins with this text, for example `digits/mlp@`.
        since, until : str, default ""
            Return only events of this period: `2026-11-26` or `2026-11-26T12:00`, in UTC.
        limit : int or None, default 100
            The maximum number of events. None returns all events.

        Returns
        -------
        list of Event

        Examples
        --------
        >>> client.audit("digits", action="alias.", since="2026-11-26")  # doctest: +SKIP
        """
        path = f"/projects/{quoted(project)}/events" if project else "/events"
        given = {"who": who, "action": action, "what": target, "since": since, "until": until}
        return self._some(path, Event, limit, **{name: value for name, value in given.items() if value})[0]

    audit = events

    def audit_heads(self) -> list[Head]:
        """Return the newest entry of each audit log. Requires admin.

        Store the heads where the server cannot write. `check` can later verify with them that no earlier entry was
        changed or deleted.

        Returns
        -------
        list of Head
        """
        return self._list("/events/heads", Head)

    # -- helpers

    def _do(self, path: str, body: Any, type_: type[T], told: Told = lambda *_: None) -> T:
        """Send a request whose response streams its progress; return the result.

        Such requests can be repeated: after a lost connection, the next attempt does only the remaining work.
        """

        def work() -> T:
            with self._connection.stream("POST", path, body) as answer:
                return _follow(self._connection, self._connection.lines(answer), type_, told)

        return self._connection.attempt(work)

    def _path_of(self, name: str) -> str:
        """Return the API path of a project (`name/`), a model or a version."""
        if isinstance(name, str) and name.endswith("/"):
            return f"/projects/{quote(check_name(name[:-1], 'project name'))}"
        place = self._reference(name)
        path = model_path(place)
        return f"{path}/versions/{quote(place.revision, safe='')}" if "@" in name.rpartition("/")[2] else path

    def _model_path(self, name: str) -> str:
        path = self._path_of(name)
        if path.count("/") != 4:  # /projects/P/models/M
            raise InvalidReference(f"{name!r} does not name a model", hint="`project/model` does")
        return path


def run_path(name: object) -> str:
    """Return the API path of a run with the name `project/runs/run`; empty for any other name.

    Examples
    --------
    >>> run_path("digits/runs/quiet-wren-44"), run_path("digits/runs"), run_path("digits/mlp@v1")
    ('/projects/digits/runs/quiet-wren-44', '', '')
    """
    project, middle, run = name.partition("/runs/") if isinstance(name, str) else ("", "", "")
    if not middle or not run or "/" in project:
        return ""
    return f"/projects/{quote(check_name(project, 'project name'))}/runs/{quoted(run)}"


class _Step(msgspec.Struct):
    """A line of a streamed response: progress, the result, or an error."""

    done: int = 0
    total: int = 0
    error: ErrorBody | None = None
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def _follow(connection: Connection, lines: Iterator[bytes], type_: type[T], told: Told) -> T:
    """Read the lines of a streamed response, report the progress, and return the result.

    Raises
    ------
    LmvpError
        The error in the last line.
    ServerError
        If the response is complete but contains neither a result nor an error.
    """
    for line in lines:
        said = connection.decoded(line, _Step)
        if said.result is not msgspec.UNSET:  # not `None`: null is a valid result
            return connection.decoded(said.result, type_)
        if said.error is not None:
            raise BY_CODE.get(said.error.code, ServerError)(said.error.message, hint=said.error.hint)
        told(said.done, said.total)
    raise ServerError("the server stopped before it was done", hint="try again; its log may say more")
