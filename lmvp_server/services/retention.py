"""Pruning: deletion of the versions that a retention rule does not keep, on request or by the rule of the model."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from lmvp.core import retention_rules
from lmvp.core.references import check_alias
from lmvp.core.schemas import ModelChange, Prune, Version
from lmvp.errors import InvalidArgument
from lmvp_server.services import access, grants
from lmvp_server.services.access import Caller
from lmvp_server.services.catalog import SERVER, Catalog, Place
from lmvp_server.services.clock import now
from lmvp_server.services.contributions import check_rule
from lmvp_server.services.maintenance import Upkeep, passed_over
from lmvp_server.services.trash import Trash
from lmvp_server.services.versions import Versions
from lmvp_server.stores.base import Document, Put, Record, RecordStore


class Retention:
    """Use cases of retention rules."""

    def __init__(
        self,
        records: RecordStore,
        catalog: Catalog,
        versions: Versions,
        trash: Trash,
        upkeep: Upkeep,
    ) -> None:
        self._records, self._catalog, self._versions = records, catalog, versions
        self._trash, self._upkeep = trash, upkeep

    def prune(self, caller: Caller, project: str, model: str, asked: Prune) -> Document:
        """Delete the versions of a model that a rule does not keep. A dry run only lists them.

        Raises
        ------
        InvalidArgument
            If the rule is invalid, or neither the request nor the model has one.
        """
        place = self._catalog.find_model(caller, project, model)
        access.require(caller, access.MAINTAIN, project)
        if asked.keep:
            retention_rules.parse(asked.keep)
        rule = asked.keep or place.model.data.get("keep", "")
        if not rule:
            raise InvalidArgument(
                f"{place.reference} has no rule of its own", hint=f"say what stays; {retention_rules.HINT}"
            )
        if asked.dry_run:
            going = self._going(place, rule)
            ids = {record.id for record in going}
            ids |= self._trash.released_with(place.space, ids)
            freed = self._upkeep.would_free(place.space, ids).bytes if going else 0
        else:
            going, freed = self._take_away(caller, place, rule)
        numbers = sorted((record.data["number"] for record in going), reverse=True)
        return {"versions": numbers, "bytes": freed, "dry_run": asked.dry_run, "keep": rule}

    def change_model(self, caller: Caller, project: str, model: str, change: ModelChange) -> Document:
        """Change the settings of a model: description, retention rule, requirement, protected aliases.

        An empty rule keeps all.
        """
        if change.keep:
            retention_rules.parse(change.keep)
        if change.require:
            check_rule(change.require)
        for alias in change.protected or ():
            check_alias(alias)
        given: Document = msgspec.to_builtins(change)  # with lists instead of tuples, as in records
        fields = {key: value for key, value in given.items() if value is not None}

        def attempt() -> Document:
            place = self._catalog.find_model(caller, project, model)
            # A description changes nothing but text. The other settings can delete versions or weaken protection.
            right = access.WRITE if fields.keys() <= {"description"} else access.MAINTAIN
            access.require(caller, right, project)
            before = {key: place.model.data.get(key, "") for key in fields}
            event = {"at": now(), "who": caller.name, "action": "model.amend", "what": place.reference,
                     "before": before, "after": fields}  # fmt: skip
            put = Put("models", place.model.id, {**place.model.data, **fields}, place.model.rev)
            if before != fields:
                check = grants.still(self._records, caller, right, place.project)
                self._records.commit(place.space, [put], [event], check=check)
            return self._catalog.model(caller, project, model)

        return self._records.retry(attempt)

    def apply_rules(self, go_on: Callable[[], bool]) -> None:
        """Prune every model that has a rule, as long as `go_on` returns True."""
        for project in self._records.find(SERVER, "projects"):
            with passed_over(project.id):
                for model in self._records.find(project.id, "models"):
                    if model.data.get("keep") and go_on():
                        # The rule was set by a maintainer; its caller needs every right, and names the rule in events.
                        rule = Caller("retention rule", is_operator=True, scope="admin")
                        self._take_away(rule, Place(project, model), model.data["keep"])

    def _going(self, place: Place, rule: str) -> list[Record]:
        """Return the versions of a model that the rule does not keep."""
        clauses = retention_rules.stored(rule)
        records = self._records.find(place.space, "versions", {"model": place.model.id}, newest_first=True)
        versions = [msgspec.convert(self._versions.present(place, record), Version) for record in records]
        stay = retention_rules.kept(clauses, versions)
        return [record for record in records if record.data["number"] not in stay]

    def _take_away(self, caller: Caller, place: Place, rule: str) -> tuple[list[Record], int]:
        going = self._trash.drop(caller, place, lambda: self._going(place, rule), "version.prune", keep=False)
        return going, self._trash.reclaim(place.project) if going else 0
