"""Keeping a server small and sound: what takes room, taking things away, and proving what is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from lmvp.base_client import BaseClient, model_path
from lmvp.connection import Connection
from lmvp.errors import BY_CODE, InvalidArgument, InvalidReference, ServerError
from lmvp.records import (
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
from lmvp.references import check_name
from lmvp.text import quoted
from lmvp.tracking.records import RunRecord

T = TypeVar("T")

Told = Callable[[int, int], Any]
"""Told how much is done, and how much there is in all."""


class Housekeeping(BaseClient):
    """The part of a client that keeps house; `lmvp.Client` has it all."""

    def usage(self, name: str | None = None) -> Usage:
        """Return what takes how much room on the server.

        Parameters
        ----------
        name : str, optional
            `project/` for its models, `[project/]model` for its versions; without it, all projects.

        Returns
        -------
        Usage
            In bytes: as the versions are, and as they are kept.
        """
        path = "" if name is None else self._path_of(name)
        return self._connection.get(f"{path}/usage", Usage)

    du = usage

    def remove(self, name: str, *, now: bool = False, yes: bool = False) -> Removed:
        """Remove a version, a model with all its versions, a project with all its models, or a run with its points.

        Parameters
        ----------
        name : str
            `[project/]model@revision`, `[project/]model`, `project/`, or `project/runs/run`.
        now : bool
            Delete it for good and give its bytes back; else it can be brought back for a week, or as long as the server
            keeps what is removed.
        yes : bool
            Confirm the removal of a whole model or project.

        Returns
        -------
        Removed
            How many versions went, the bytes that came back, and until when it can be brought back.

        Raises
        ------
        InvalidArgument
            If the name is a whole model or project, and the removal is not confirmed.
        Conflict
            If an alias points at the version.
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
        """Return what you can bring back, what was removed last first; of one project, if it is named."""
        path = "" if project is None else f"/projects/{quote(check_name(project, 'project name'))}"
        return self._list(f"{path}/removed", RemovedItem)

    def undelete(self, name: str) -> Version | Model | Project | RunRecord:
        """Bring back what was removed, with all that was in it.

        Parameters
        ----------
        name : str
            `[project/]model@v3`, `[project/]model`, `project/`, or `project/runs/run`, with the name or the id of a
            run. A project comes back for the one who removed it, or for an admin.

        Returns
        -------
        Version, Model, Project or RunRecord
            What is there again.

        Raises
        ------
        NotFound
            If it is gone for good, or was never removed.
        Conflict
            If there is a new one of that name.
        """
        if run := run_path(name):
            return self._connection.send_json("POST", f"{run}/undelete", {}, RunRecord)
        path = self._path_of(name)
        kind: Any = {2: Project, 4: Model, 6: Version}[path.count("/")]
        back: Version | Model | Project = self._connection.send_json("POST", f"{path}/undelete", {}, kind)
        return back

    def prune(self, name: str, *, keep: str | None = None, dry_run: bool = False) -> Pruned:
        """Take away the versions of a model that a rule does not keep.

        The newest version, those that an alias stands at, and the first parents of these stay in any case.

        Parameters
        ----------
        name : str
            `[project/]model`.
        keep : str, optional
            The rule, see `lmvp.retention`: `"best:val_acc:3,last:5"`; without it, the one that the model has.
        dry_run : bool
            Only tell what would go, and how many bytes would come back.

        Raises
        ------
        InvalidArgument
            If the rule cannot be read.
        """
        body = Prune(keep=keep or "", dry_run=dry_run)
        return self._do(f"{self._model_path(name)}/prune", body, Pruned)

    def set_retention(self, name: str, keep: str) -> Model:
        """Give a model a rule that the server applies by itself when it is idle; an empty one keeps all versions."""
        return self._connection.send_json("PATCH", self._model_path(name), ModelChange(keep=keep), Model)

    def set_card(self, name: str, text: str) -> Model:
        """Give a model a card: what it is for, what it was trained on, where it fails. `lmvp.show` has it on top.

        Parameters
        ----------
        name : str
            `[project/]model`.
        text : str
            Paragraphs, with an empty line between them; an empty text takes the card away.
        """
        return self._connection.send_json("PATCH", self._model_path(name), ModelChange(description=text), Model)

    def collect_garbage(self, *, removed: bool = False) -> Collected:
        """Delete what no version and no open push needs, on the whole server.

        Parameters
        ----------
        removed : bool
            Also all that was removed and could still be brought back.
        """
        return self._do("/gc", Collect(removed=removed), Collected)

    gc = collect_garbage

    def compact(self) -> Compacted:
        """Encode now what the server would encode when it is idle."""
        return self._do("/compact", {}, Compacted)

    def check(self, *, repair: bool = False, told: Told = lambda *_: None, heads: Sequence[Head] = ()) -> Checked:
        """Prove every digest on the server, down to the last byte.

        Parameters
        ----------
        repair : bool
            Set damaged frames aside, so that a push of the same content heals what it hit; nothing is deleted.
        told : callable
            Told how many chunks of a project are proved, and how many it has.
        heads : sequence of Head
            What `audit_heads` gave once, and was kept elsewhere: the logs of events must go on from there.
        """
        return self._do("/fsck", Check(repair=repair, heads=tuple(heads)), Checked, told)

    # -- who did what

    fsck = check

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
        """Return who did what, newest first: in a project, or, for admins, on the server itself.

        Parameters
        ----------
        who : str
            Only what this person did.
        action, target : str
            Only what begins so: `alias.`, `digits/mlp@`.
        since, until : str
            `2026-11-26`, or `2026-11-26T12:00`, in UTC.
        """
        path = f"/projects/{quoted(project)}/events" if project else "/events"
        given = {"who": who, "action": action, "what": target, "since": since, "until": until}
        return self._some(path, Event, limit, **{name: value for name, value in given.items() if value})[0]

    audit = events

    def audit_heads(self) -> list[Head]:
        """Return the head of each log of events, to be kept where the server cannot write; for admins."""
        return self._list("/events/heads", Head)

    # -- steps

    def _do(self, path: str, body: Any, type_: type[T], told: Told = lambda *_: None) -> T:
        """Ask for something long; the server says how far it is until it is done. Asking again costs what was left."""

        def work() -> T:
            with self._connection.stream("POST", path, body) as answer:
                return _follow(self._connection, self._connection.lines(answer), type_, told)

        return self._connection.attempt(work)

    def _path_of(self, name: str) -> str:
        """Return the path in the API of a project (`name/`), a model or a version."""
        if isinstance(name, str) and name.endswith("/"):
            return f"/projects/{quote(check_name(name[:-1], 'project name'))}"
        place = self._reference(name)
        path = model_path(place)
        return f"{path}/versions/{quote(place.revision, safe='')}" if "@" in name.rpartition("/")[2] else path

    def _model_path(self, name: str) -> str:
        path = self._path_of(name)
        if path.count("/") != 4:
            raise InvalidReference(f"{name!r} does not name a model", hint="`project/model` does")
        return path


def run_path(name: object) -> str:
    """Return the path of a run that is named `project/runs/run`; empty for any other name.

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
    """A line of the answer to a long request: progress, the result, or an error."""

    done: int = 0
    total: int = 0
    error: ErrorBody | None = None
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def _follow(connection: Connection, lines: Iterator[bytes], type_: type[T], told: Told) -> T:
    """Read lines that tell how far something is, up to the one with its result.

    Raises
    ------
    LmvpError
        What the last line says.
    """
    for line in lines:
        said = connection.decoded(line, _Step)
        if said.result is not msgspec.UNSET:
            return connection.decoded(said.result, type_)
        if said.error is not None:
            raise BY_CODE.get(said.error.code, ServerError)(said.error.message, hint=said.error.hint)
        told(said.done, said.total)
    raise ServerError("the server stopped before it was done", hint="try again; its log may say more")
