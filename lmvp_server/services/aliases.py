"""Aliases: movable names of versions, each with the history of its moves."""

from __future__ import annotations

import msgspec

from lmvp.core.references import check_alias
from lmvp.core.schemas import Alias
from lmvp.errors import Conflict, NotFound
from lmvp_server.services import access, grants
from lmvp_server.services.access import Caller
from lmvp_server.services.catalog import Catalog, Place
from lmvp_server.services.clock import now
from lmvp_server.services.versions import Versions
from lmvp_server.stores.base import Document, Put, Record, RecordStore


class Aliases:
    """Use cases of aliases."""

    def __init__(self, records: RecordStore, catalog: Catalog, versions: Versions) -> None:
        self._records, self._catalog, self._versions = records, catalog, versions

    def of_model(self, caller: Caller, project: str, model: str) -> Document:
        """List the aliases of a model, by name."""
        place = self._catalog.find_model(caller, project, model)
        # A removed alias stays in the table with number 0, because its record holds the history of moves.
        aliases = self._records.find(place.space, "aliases", {"model": place.model.id})
        shown = sorted((_present(place, alias) for alias in aliases if alias.data["number"]), key=lambda a: a["name"])
        return {"items": shown, "next": None, "total": len(shown)}

    def alias(self, caller: Caller, project: str, model: str, name: str) -> Document:
        """Return one alias with its moves.

        Raises
        ------
        NotFound
            If the model has no alias of this name.
        """
        place = self._catalog.find_model(caller, project, model)
        found = self._existing(place, name)
        return {**_present(place, found), "moves": found.data["history"]}

    def move(self, caller: Caller, project: str, model: str, name: str, revision: str) -> Document:
        """Point an alias at a version; create the alias if it does not exist."""
        place = self._catalog.find_model(caller, project, model)
        access.require(caller, right(place, name), project)
        self._set(caller, place, check_alias(name), revision)
        return self.alias(caller, project, model, name)

    def remove(self, caller: Caller, project: str, model: str, name: str) -> None:
        """Remove an alias. Its history stays."""
        place = self._catalog.find_model(caller, project, model)
        access.require(caller, right(place, name), project)
        self._existing(place, name)
        self._set(caller, place, name, None)

    def check_move(self, caller: Caller, project: str, model: str, name: str, revision: str | None) -> None:
        """Check that a move, or with `revision` None a removal, needs no confirmation.

        Raises
        ------
        ProtectedAlias
            If the alias is protected and points at another version.
        """
        place = self._catalog.find_model(caller, project, model)
        access.require(caller, right(place, name), project)
        old = self._records.get(place.space, "aliases", _alias_id(place, name))
        if old is None:
            return
        number = 0 if revision is None else self._versions.find(place, revision).data["number"]
        now = msgspec.convert(_present(place, old), Alias)
        now.check_move(number, f"moved to v{number}" if number else "removed", "confirm it")

    def _existing(self, place: Place, name: str) -> Record:
        alias = self._records.get(place.space, "aliases", _alias_id(place, name))
        if alias is None or not alias.data["number"]:
            raise NotFound(f"no alias {name!r} for {place.reference}")
        return alias

    def _set(self, caller: Caller, place: Place, name: str, revision: str | None) -> None:

        def attempt() -> None:
            version = None if revision is None else self._versions.find(place, revision)
            if version is not None and "contribution" in version.data:
                raise Conflict(f"{revision} is only proposed", hint="accept it first; then an alias can stand at it")
            number = 0 if version is None else version.data["number"]
            put, events = alias_change(self._records, place, name, number, caller.name)
            if put is None:
                # The alias is there already, but the commit that moved it may not be on disk yet. An empty commit
                # waits for it, so that the answer is durable.
                self._records.commit(place.space, [])
                return
            check = grants.still(self._records, caller, right(place, name), place.project)
            self._records.commit(place.space, [put, *hold(version)], events, check=check)

        self._records.retry(attempt)


PROTECTED = ("production",)
"""The protected aliases of a model that does not set its own list."""


def right(place: Place, name: str) -> str:
    """Return the right that a caller needs to move an alias."""
    return access.MAINTAIN if is_protected(place, name) else access.ALIAS


def is_protected(place: Place, name: str) -> bool:
    """Return whether only maintainers can move an alias. Case is ignored."""
    return name.lower() in {each.lower() for each in place.model.data.get("protected", PROTECTED)}


def hold(version: Record | None) -> list[Put]:
    """Return a change that rewrites a version unchanged, so that the commit fails if the version was removed since."""
    return [] if version is None else [Put("versions", version.id, version.data, expect=version.rev)]


def alias_change(
    records: RecordStore, place: Place, name: str, number: int, who: str
) -> tuple[Put | None, list[Document]]:
    """Return the change and the event that point an alias at a version. The caller commits them.

    Parameters
    ----------
    number : int
        The number of the version; 0 removes the alias.
    who : str
        The author of the event.

    Returns
    -------
    tuple
        (None, []) if the alias points at this version already.
    """
    old = records.get(place.space, "aliases", _alias_id(place, name))
    before = old.data["number"] if old else 0
    if before == number:
        return None, []
    at = now()
    history = [*(old.data["history"] if old else ()), {"number": number, "at": at, "by": who}]
    data: Document = {"model": place.model.id, "name": name, "number": number, "history": history}
    event = {"at": at, "who": who, "action": "alias.move" if number else "alias.remove",
             "what": f"{place.reference}@{name}", "before": before or None, "after": number or None}  # fmt: skip
    return Put("aliases", _alias_id(place, name), data, expect=old.rev if old else 0), [event]


def _alias_id(place: Place, name: str) -> str:
    return f"{place.model.id}-{name.lower()}"


def _present(place: Place, alias: Record) -> Document:
    last = alias.data["history"][-1]
    return {
        "project": place.project.data["name"],
        "model": place.model.data["name"],
        "name": alias.data["name"],
        "number": alias.data["number"],
        "moved_at": last["at"],
        "moved_by": last["by"],
        "protected": is_protected(place, alias.data["name"]),
    }
