"""Projects and models: making them, finding them by name, listing them."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lmvp.errors import AlreadyExists, NotFound
from lmvp.references import check_name, suggest
from lmvp_server import cancellation
from lmvp_server.services import access, paging
from lmvp_server.services.access import Caller
from lmvp_server.services.clock import now
from lmvp_server.services.paging import Page
from lmvp_server.stores.base import ConcurrentChange, Document, Put, Record, RecordStore

SERVER = "server"
REMOVED = "removed"
"""The table of projects, in the space of the server, and of models, in that of a project, that can be brought back."""
_PRIVATE = {"key"}
_SEARCHED = 200
"""Projects that are searched for a name without one."""

_NAMED = 5
"""How many names a hint lists."""


@dataclass(frozen=True, slots=True)
class Place:
    """A model and the project that it is in, as they were when they were looked up."""

    project: Record
    model: Record

    @property
    def space(self) -> str:
        """The project's id: the name of its space of records and of its chunks."""
        return self.project.id

    @property
    def reference(self) -> str:
        """`project/model`."""
        return f"{self.project.data['name']}/{self.model.data['name']}"


def every_project(records: RecordStore) -> list[Record]:
    """Return all projects of which something is kept: those that there are, and those that can be brought back."""
    return records.find(SERVER, "projects") + records.find(SERVER, REMOVED)


def still(
    records: RecordStore, caller: Caller, right: str, home: Record, *, expected: bool = False
) -> Callable[[], None]:
    """Return a check for `RecordStore.commit`: the caller has a right in a project at the moment of the commit.

    The check finds the project by its id, because another project may have taken its name.

    Parameters
    ----------
    expected : bool
        Whether the commit expects the revision of the project: it then fails if the project was removed, and the
        caller tries again.
    """

    def check() -> None:
        found = records.get(SERVER, "projects", home.id)
        if found is None and expected:
            return
        if found is None:
            raise NotFound(f"no project {home.data['name']!r}", hint="it was removed before this change was made")
        access.require(access.current(caller), right, found.data["name"])

    return check


class Catalog:
    """The use cases around projects and models."""

    def __init__(self, records: RecordStore) -> None:
        self._records = records

    # -- projects

    def projects(self, caller: Caller, page: Page) -> Document:
        """List the projects that the caller may read, in the order of their making."""
        if caller.everything:
            access.require(caller, access.ENTER)
            found = self._records.find(SERVER, "projects", after=page.cursor, limit=page.limit + 1)
            return paging.listing(page, found, self._records.count(SERVER, "projects"), self._present_project)
        theirs = [one for one in self._records.find(SERVER, "projects") if caller.may(access.READ, one.data["name"])]
        if not theirs:
            access.require(caller, access.ENTER)  # where nothing is public, nobody is told even that
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
            With the nearest name as the hint.
        """
        cancellation.check()
        check_name(name, "project name")
        found = self._records.find(SERVER, "projects", {"key": name.lower()}, limit=1)
        if not found or not caller.may(access.READ, name):  # the same answer: who may not read it may not know of it
            if not caller.known:
                access.require(caller, access.READ, name)
            raise NotFound(f"no project {name!r}", hint=self._way_to_a_project(caller, name))
        return found[0]

    def _way_to_a_project(self, caller: Caller, name: str) -> str:
        """Name the project that was probably meant, else some that there are: often the name of one was left out."""
        every = paging.names(self._records.find(SERVER, "projects", limit=1000))
        known = [each for each in every if caller.may(access.READ, each)]
        some = ", ".join(known[:_NAMED]) + (", …" if len(known) > _NAMED else "")
        others = f"there are {some}, and `project/model` names a model of one" if known else ""
        return _did_you_mean(suggest(name, known)) or others or "`lmvp ls` lists the projects that you can read"

    def may_make(self, caller: Caller, project: str) -> bool:
        """Tell whether the caller may make a project, and no project has this name."""
        free = not self._records.count(SERVER, "projects", {"key": project.lower()})
        return free and caller.may(access.CREATE)

    def create_project(self, caller: Caller, name: str, description: str = "") -> Document:
        """Make a project.

        Raises
        ------
        AlreadyExists
            If there is one of that name, whatever the case of its letters.
        """
        check_name(name, "project name")
        access.require(caller, access.CREATE)
        if self._records.count(SERVER, "projects", {"key": name.lower()}):
            raise AlreadyExists(f"there is a project {name!r}")
        self._new_project(caller, name, description)
        return self.project(caller, name)

    def _new_project(self, caller: Caller, name: str, description: str = "") -> None:
        """Make a project, owned by whoever makes it."""
        record_id = secrets.token_hex(8)
        member = {"project": record_id, "subject": caller.user, "kind": "user", "role": access.OWNER}
        owner = [Put("members", f"{record_id}-{caller.user}", member)] if caller.user else []
        data: Document = {"name": name, "description": description}
        check = access.still(caller, access.CREATE)
        self._insert(SERVER, "projects", name, data, caller.name, name, record_id, owner, check)

    def _present_project(self, record: Record) -> Document:
        return {**_public(record), "models": self._records.count(record.id, "models")}

    # -- models

    def models(self, caller: Caller, project: str, page: Page) -> Document:
        """List the models of a project, in the order of their making."""
        home = self.find_project(caller, project)
        found = self._records.find(home.id, "models", after=page.cursor, limit=page.limit + 1)
        total = self._records.count(home.id, "models")
        return paging.listing(page, found, total, lambda record: self._present_model(caller, home, record))

    def model(self, caller: Caller, project: str, name: str) -> Document:
        """Return one model."""
        place = self.find_model(caller, project, name)
        return self._present_model(caller, place.project, place.model)

    def _present_model(self, caller: Caller, home: Record, record: Record) -> Document:
        shown = {**_public(record), "project": home.data["name"]}
        return shown | {"origin": self._origin(caller, record.data["origin"])} if "origin" in shown else shown

    def _origin(self, caller: Caller, origin: Document) -> str:
        """Return the name of what a model was forked from; nothing for who may not know of it."""
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
            With the nearest name as the hint.
        """
        try:
            home = self.find_project(caller, project)
        except NotFound as error:  # often the default project, where the name of another one was left out
            raise NotFound(error.message, hint=self.elsewhere(caller, name) or error.hint) from None
        check_name(name, "model name")
        found = self._records.find(home.id, "models", {"key": name.lower()}, limit=1)
        if not found:
            raise NotFound(f"no model {name!r} in project {project!r}", hint=self._way_to_a_model(caller, home, name))
        return Place(home, found[0])

    def _way_to_a_model(self, caller: Caller, home: Record, name: str) -> str:
        """Name the model that was probably meant, or the project that has this name."""
        near = suggest(name, paging.names(self._records.find(home.id, "models", limit=1000)))
        return (
            _did_you_mean(near)
            or self.elsewhere(caller, name)
            or f"`lmvp push {home.data['name']}/{name} FILE` makes it"
        )

    def elsewhere(self, caller: Caller, name: str, tables: Sequence[str] = ("models",)) -> str | None:
        """Return the hint for a name without its project: the first project with such an object that may be read.

        Parameters
        ----------
        tables : sequence of str
            The kinds of objects to look for: `models`, `runs`.
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
                found = found or [one for one in [self._records.get(home.id, table, name)] if one is not None]
                if found:
                    return _did_you_mean(f"{project}/{found[0].data['name']}")
        return None

    def create_model(self, caller: Caller, project: str, name: str, description: str = "") -> Document:
        """Make a model without versions.

        Raises
        ------
        AlreadyExists
            If the project has one of that name, whatever the case of its letters.
        """
        home = self.find_project(caller, project)
        check_name(name, "model name")
        access.require(caller, access.WRITE, project)
        if self._records.count(home.id, "models", {"key": name.lower()}):
            raise AlreadyExists(f"there is a model {name!r} in project {project!r}")
        self._new_model(caller, home, name, description)
        return self.model(caller, project, name)

    def find_or_create(self, caller: Caller, project: str, name: str) -> Place:
        """Return a model, made now if it was not there, and so its project."""
        check_name(project, "project name"), check_name(name, "model name")
        home = self.find_or_create_project(caller, project)
        access.require(caller, access.WRITE, project)
        if not self._records.count(home.id, "models", {"key": name.lower()}):
            self._new_model(caller, home, name)
        return self.find_model(caller, project, name)

    def find_or_create_project(self, caller: Caller, project: str) -> Record:
        """Return the record of a project, made now if it was not there."""
        check_name(project, "project name")
        if not self._records.count(SERVER, "projects", {"key": project.lower()}):
            access.require(caller, access.CREATE)
            self._new_project(caller, project)
        try:
            return self.find_project(caller, project)
        except NotFound as error:  # the name is taken, as a 409 of `create_project` tells too
            raise NotFound(
                error.message, hint="the name is taken by a project that you cannot see: take another name"
            ) from None

    def _new_model(self, caller: Caller, home: Record, name: str, description: str = "") -> None:
        data: Document = {"name": name, "description": description, "latest": 0}
        self._records.commit(SERVER, [])  # the project, which somebody else may just be making
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
        """Insert a record under a new id, unless somebody else takes the name at the same moment."""
        record_id, at = record_id or secrets.token_hex(8), now()
        key = name.lower()
        changes = [
            Put("names", f"{table}:{key}", {"id": record_id}, expect=0),
            Put(table, record_id, {**data, "key": key, "created_at": at}, expect=0),
            *more,
        ]
        event = {"at": at, "who": who, "action": f"{table[:-1]}.create", "what": what, "before": None, "after": data}
        try:
            self._records.commit(space, changes, [event], check=check)
        except ConcurrentChange:  # it is there now, which is what was wanted, or is on its way
            self._records.commit(space, [])


def _public(record: Record) -> Document:
    return {"id": record.id} | {key: value for key, value in record.data.items() if key not in _PRIVATE}


def _did_you_mean(near: str | None) -> str | None:
    return f"did you mean {near!r}?" if near else None
