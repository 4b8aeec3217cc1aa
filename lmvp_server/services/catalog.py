"""Projects and models: create them, find them by name, list them."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lmvp.core.references import check_name, suggest
from lmvp.errors import AlreadyExists, NotFound
from lmvp_server.process import cancellation
from lmvp_server.services import access, paging
from lmvp_server.services.access import Caller
from lmvp_server.services.clock import now
from lmvp_server.services.paging import Page
from lmvp_server.stores.base import ConcurrentChange, Document, Put, Record, RecordStore

SERVER = "server"
"""The space of the records of the server. The space of a project is its id."""

REMOVED = "removed"
"""The table of the trash: projects in the space of the server, models in the space of their project."""

_PRIVATE = {"key"}
"""Fields of a record that answers omit."""

_SEARCHED = 200
"""The number of projects that are searched for a name without its project, so that an error stays cheap."""

_NAMED = 5
"""The number of names that a hint lists."""


@dataclass(frozen=True, slots=True)
class Place:
    """The records of a model and its project at the time of the lookup."""

    project: Record
    model: Record

    @property
    def space(self) -> str:
        """The id of the project, which names its records and chunks in the stores."""
        return self.project.id

    @property
    def reference(self) -> str:
        """`project/model`."""
        return f"{self.project.data['name']}/{self.model.data['name']}"


def every_project(records: RecordStore) -> list[Record]:
    """Return all projects that have data: the existing ones and those in the trash."""
    return records.find(SERVER, "projects") + records.find(SERVER, REMOVED)


def still(
    records: RecordStore, caller: Caller, right: str, home: Record, *, expected: bool = False
) -> Callable[[], None]:
    """Return a check for `RecordStore.commit`: the caller has a right in a project at the time of the commit.

    The check finds the project by its id, because another project can have its name by then.

    Parameters
    ----------
    expected : bool, default False
        Whether the commit expects the revision of the project. If so, a removed project makes the commit fail with
        `ConcurrentChange`, and the caller retries; the check then raises no error for it.
    """

    def check() -> None:
        project = records.get(SERVER, "projects", home.id)
        if project is None and expected:
            return
        if project is None:
            raise NotFound(f"no project {home.data['name']!r}", hint="it was removed before this change was made")
        access.require(access.current(caller), right, project.data["name"])

    return check


class Catalog:
    """Use cases of projects and models."""

    def __init__(self, records: RecordStore) -> None:
        self._records = records

    # -- projects

    def projects(self, caller: Caller, page: Page) -> Document:
        """List the projects that the caller can read, in the order of creation."""
        if caller.everything:
            access.require(caller, access.ENTER)
            projects = self._records.find(SERVER, "projects", after=page.cursor, limit=page.limit + 1)
            return paging.listing(page, projects, self._records.count(SERVER, "projects"), self._present_project)
        theirs = [one for one in self._records.find(SERVER, "projects") if caller.may(access.READ, one.data["name"])]
        if not theirs:
            # An anonymous caller gets an error, not an empty list, unless a project is public.
            access.require(caller, access.ENTER)
        behind = [one for one in theirs if page.cursor is None or one.seq > page.cursor]
        return paging.listing(page, behind[: page.limit + 1], len(theirs), self._present_project)

    def project(self, caller: Caller, name: str) -> Document:
        """Return one project."""
        return self._present_project(self.find_project(caller, name))

    def find_project(self, caller: Caller, name: str) -> Record:
        """Return the record of a project.

        Raises
        ------
        NotFound
            If the project does not exist, or the caller cannot read it. The hint is the nearest name.
        """
        cancellation.check()
        check_name(name, "project name")
        projects = self._records.find(SERVER, "projects", {"key": name.lower()}, limit=1)
        # The same answer in both cases: the existence of a project that the caller cannot read stays hidden.
        if not projects or not caller.may(access.READ, name):
            if not caller.known:
                access.require(caller, access.READ, name)
            raise NotFound(f"no project {name!r}", hint=self._way_to_a_project(caller, name))
        return projects[0]

    def _way_to_a_project(self, caller: Caller, name: str) -> str:
        """Return a hint: the project with the nearest name, else some existing ones.

        The name in the request is often that of a model, without its project.
        """
        every = paging.names(self._records.find(SERVER, "projects", limit=1000))
        known = [each for each in every if caller.may(access.READ, each)]
        some = ", ".join(known[:_NAMED]) + (", …" if len(known) > _NAMED else "")
        others = f"there are {some}, and `project/model` names a model of one" if known else ""
        return _did_you_mean(suggest(name, known)) or others or "`lmvp ls` lists the projects that you can read"

    def may_make(self, caller: Caller, project: str) -> bool:
        """Return whether the name of a project is free, and the caller can create it."""
        free = not self._records.count(SERVER, "projects", {"key": project.lower()})
        return free and caller.may(access.CREATE)

    def create_project(self, caller: Caller, name: str, description: str = "") -> Document:
        """Create a project.

        Raises
        ------
        AlreadyExists
            If a project has this name. Case is ignored.
        """
        check_name(name, "project name")
        access.require(caller, access.CREATE)
        if self._records.count(SERVER, "projects", {"key": name.lower()}):
            raise AlreadyExists(f"there is a project {name!r}")
        self._new_project(caller, name, description)
        return self.project(caller, name)

    def _new_project(self, caller: Caller, name: str, description: str = "") -> None:
        """Create a project whose owner is the caller."""
        record_id = secrets.token_hex(8)
        # The operator has no account, so a project that it creates has no owner; admins have every right there.
        member = {"project": record_id, "subject": caller.user, "kind": "user", "role": access.OWNER}
        owner = [Put("members", f"{record_id}-{caller.user}", member)] if caller.user else []
        data: Document = {"name": name, "description": description}
        check = access.still(caller, access.CREATE)
        self._insert(SERVER, "projects", name, data, caller.name, name, record_id, owner, check)

    def _present_project(self, record: Record) -> Document:
        return {**_public(record), "models": self._records.count(record.id, "models")}

    # -- models

    def models(self, caller: Caller, project: str, page: Page) -> Document:
        """List the models of a project, in the order of creation."""
        home = self.find_project(caller, project)
        models = self._records.find(home.id, "models", after=page.cursor, limit=page.limit + 1)
        total = self._records.count(home.id, "models")
        return paging.listing(page, models, total, lambda record: self._present_model(caller, home, record))

    def model(self, caller: Caller, project: str, name: str) -> Document:
        """Return one model."""
        place = self.find_model(caller, project, name)
        return self._present_model(caller, place.project, place.model)

    def _present_model(self, caller: Caller, home: Record, record: Record) -> Document:
        shown = {**_public(record), "project": home.data["name"]}
        return shown | {"origin": self._origin(caller, record.data["origin"])} if "origin" in shown else shown

    def _origin(self, caller: Caller, origin: Document) -> str:
        """Return the name of the model that a model was forked from.

        Empty if the origin is removed, or the caller cannot read its project.
        """
        home = self._records.get(SERVER, "projects", origin["project"])
        if home is None or not caller.may(access.READ, home.data["name"]):
            return ""
        model = self._records.get(home.id, "models", origin["model"])
        return f"{home.data['name']}/{model.data['name']}" if model else ""

    def find_model(self, caller: Caller, project: str, name: str) -> Place:
        """Return the records of a model and its project.

        Raises
        ------
        NotFound
            If either does not exist, or the caller cannot read the project. The hint is the nearest name.
        """
        try:
            home = self.find_project(caller, project)
        except NotFound as error:
            # A reference without a project means the default project, which often does not exist: search the others.
            raise NotFound(error.message, hint=self.elsewhere(caller, name) or error.hint) from None
        check_name(name, "model name")
        models = self._records.find(home.id, "models", {"key": name.lower()}, limit=1)
        if not models:
            raise NotFound(f"no model {name!r} in project {project!r}", hint=self._way_to_a_model(caller, home, name))
        return Place(home, models[0])

    def _way_to_a_model(self, caller: Caller, home: Record, name: str) -> str:
        """Return a hint: the model with the nearest name, else an object of this name elsewhere, else a command."""
        near = suggest(name, paging.names(self._records.find(home.id, "models", limit=1000)))
        return (
            _did_you_mean(near)
            or self.elsewhere(caller, name)
            or f"`lmvp push {home.data['name']}/{name} FILE` makes it"
        )

    def elsewhere(self, caller: Caller, name: str, tables: Sequence[str] = ("models",)) -> str | None:
        """Return a hint for a name without its project: the first readable project that has such an object.

        Parameters
        ----------
        tables : sequence of str, default ("models",)
            The kinds of objects to look for: `models`, `runs`.

        Returns
        -------
        str or None
            The hint; None if no project has such an object.
        """
        key = name.lower()
        for home in self._records.find(SERVER, "projects", limit=_SEARCHED):
            project = home.data["name"]
            if not caller.may(access.READ, project):
                continue
            if home.data["key"] == key:
                return f"did you mean '{project}/'? '{project}/' is a project, and '{project}/model' a model of it"
            for table in tables:
                found = self._records.find(home.id, table, {"key": key}, limit=1)
                # The name can also be an id, for example the id of a run.
                found = found or [one for one in [self._records.get(home.id, table, name)] if one is not None]
                if found:
                    return _did_you_mean(f"{project}/{found[0].data['name']}")
        return None

    def create_model(self, caller: Caller, project: str, name: str, description: str = "") -> Document:
        """Create a model without versions.

        Raises
        ------
        AlreadyExists
            If the project has a model of this name. Case is ignored.
        """
        home = self.find_project(caller, project)
        check_name(name, "model name")
        access.require(caller, access.WRITE, project)
        if self._records.count(home.id, "models", {"key": name.lower()}):
            raise AlreadyExists(f"there is a model {name!r} in project {project!r}")
        self._new_model(caller, home, name, description)
        return self.model(caller, project, name)

    def find_or_create(self, caller: Caller, project: str, name: str) -> Place:
        """Return a model. If it or its project does not exist, create it."""
        check_name(project, "project name"), check_name(name, "model name")
        home = self.find_or_create_project(caller, project)
        access.require(caller, access.WRITE, project)
        if not self._records.count(home.id, "models", {"key": name.lower()}):
            self._new_model(caller, home, name)
        return self.find_model(caller, project, name)

    def find_or_create_project(self, caller: Caller, project: str) -> Record:
        """Return the record of a project. If it does not exist, create it."""
        check_name(project, "project name")
        if not self._records.count(SERVER, "projects", {"key": project.lower()}):
            access.require(caller, access.CREATE)
            self._new_project(caller, project)
        try:
            return self.find_project(caller, project)
        except NotFound as error:
            # This reveals that the name is taken, as `create_project` does with its 409.
            raise NotFound(
                error.message, hint="the name is taken by a project that you cannot see: take another name"
            ) from None

    def _new_model(self, caller: Caller, home: Record, name: str, description: str = "") -> None:
        data: Document = {"name": name, "description": description, "latest": 0}
        # Another request can be creating the project. Wait until its record is durable before a model is in it.
        self._records.commit(SERVER, [])
        project = home.data["name"]
        check = still(self._records, caller, access.WRITE, home)
        self._insert(home.id, "models", name, data, caller.name, f"{project}/{name}", check=check)

    def _insert(
        self,
        space: str,
        table: str,
        name: str,
        data: Document,
        who: str,
        what: str,
        record_id: str = "",
        more: Sequence[Put] = (),
        check: Callable[[], object] | None = None,
    ) -> None:
        """Insert a record under a new id. Do nothing if another request takes the name at the same time."""
        record_id, at = record_id or secrets.token_hex(8), now()
        key = name.lower()
        # The row in `names`, whose id is table and name, makes names unique: `expect=0` fails if it exists.
        changes = [
            Put("names", f"{table}:{key}", {"id": record_id}, expect=0),
            Put(table, record_id, {**data, "key": key, "created_at": at}, expect=0),
            *more,
        ]
        event = {"at": at, "who": who, "action": f"{table[:-1]}.create", "what": what, "before": None, "after": data}
        try:
            self._records.commit(space, changes, [event], check=check)
        except ConcurrentChange:  # another request has created the object; wait until that commit is durable
            self._records.commit(space, [])


def _public(record: Record) -> Document:
    return {"id": record.id} | {key: value for key, value in record.data.items() if key not in _PRIVATE}


def _did_you_mean(near: str | None) -> str | None:
    return f"did you mean {near!r}?" if near else None
