"""Versions: lookup by revision, lists, changes of their records, and access to their content."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from lmvp.core.chunk_alignment import Slots
from lmvp.core.manifest import Manifest
from lmvp.core.number_format import plural
from lmvp.core.references import Revision, suggest
from lmvp.core.schemas import Amendment, Child
from lmvp.errors import Conflict, InvalidReference, NotFound
from lmvp_server.process import cancellation
from lmvp_server.services import access, filters, grants, metadata, paging
from lmvp_server.services.access import Caller
from lmvp_server.services.catalog import Catalog, Place
from lmvp_server.services.chunk_reader import manifest_bytes, read_manifest
from lmvp_server.services.clock import now
from lmvp_server.services.paging import Page
from lmvp_server.stores.base import ChunkStore, Document, Put, Record, RecordStore


@dataclass(frozen=True)
class VersionQuery:
    """A query for versions of a list; see `filters` for the language.

    Parameters
    ----------
    where : str
        A filter; empty for all versions.
    order : str
        A field to sort by, with `-` before it for descending order; empty for newest first.
    """

    where: str = ""
    order: str = ""

    def page(self, every: Iterable[Document], page: Page) -> Document:
        """Return a page of the versions that match.

        The cursor is a count of items, not the number of a version, because the order can be by any field.
        """
        match = filters.parse(self.where, filters.VERSION) if self.where else None
        found = [one for one in map(_with_text, every) if match is None or match(one)]
        if self.order:
            found.sort(key=filters.order(self.order, filters.VERSION))
        first = page.cursor or 0
        shown = [{key: value for key, value in one.items() if key not in _FOR_FILTERS} for one in found[first:]]
        more = str(first + page.limit) if len(shown) > page.limit else None
        return {"items": shown[: page.limit], "next": more, "total": len(found)}


EVERY = VersionQuery()
"""The query for all versions, newest first."""

_FOR_FILTERS = ("name", "text")
"""Fields that `_with_text` adds for filters. They are not part of the answer."""


def _with_text(version: Document) -> Document:
    """Add the fields that only filters read."""
    cancellation.check()  # a model can have many versions, and the client may have disconnected
    name = f"v{version['number']}"
    words = (name, version["message"], version["author"], *version["aliases"])
    return {**version, "name": name, "text": " ".join(words).casefold()}


DELETED_CONTRIBUTIONS = "deleted_contributions"
"""The table of contributions whose files are deleted.

They are not in the table of versions, all of which have files.
"""
_KEPT = 4
"""The number of versions whose chunk positions are cached, because transfers request the same versions repeatedly."""


def version_id(model: str, number: int) -> str:
    """Return the id of a version's record: the id of the model and the number, so that it is unique."""
    return f"{model}-{number}"


def proposed_key(model: str) -> str:
    """Return the key that replaces the id of the model in records of proposed versions."""
    return f"{model}:c"


def removed_key(model: str) -> str:
    """Return the key that replaces the id of the model in records of removed versions."""
    return f"{model}:gone"


def name_of(version: Record) -> str:
    """Return the name of a version inside its model: `v3`, `v3 (removed)`, `c3`, `c3 (declined)`."""
    number, which = version.data["number"], version.data["model"].partition(":")[2]
    status = version.data["contribution"]["status"] if which == "c" else ""
    proposed = f"c{number} ({status})" if status in ("declined", "withdrawn") else f"c{number}"
    return {"c": proposed, "gone": f"v{number} (removed)"}.get(which, f"v{number}")


def next_number(model: Record) -> int:
    """Return the number of the next version of a model. Numbers of removed versions are not used again."""
    return 1 + int(max(model.data["latest"], model.data.get("last", 0)))


class Versions:
    """Use cases of versions."""

    def __init__(self, records: RecordStore, chunks: ChunkStore, catalog: Catalog) -> None:
        self._records, self._chunks, self._catalog = records, chunks, catalog
        self._slots = lru_cache(_KEPT)(self._read_slots)

    # -- reading

    def of_model(self, caller: Caller, project: str, model: str, page: Page, asked: VersionQuery = EVERY) -> Document:
        """List the versions of a model, newest first, or as the query specifies."""
        place = self._catalog.find_model(caller, project, model)
        ours = {"model": place.model.id}
        names, name = self._aliases(place.space, ours), place.model.data["name"]
        return self._listing(place.space, ours, page, lambda record: _listed(record, project, name, names), asked)

    def of_project(self, caller: Caller, project: str, page: Page, asked: VersionQuery = EVERY) -> Document:
        """List the versions of all models of a project, newest first, or as the query specifies."""
        home = self._catalog.find_project(caller, project)
        names, name = self._aliases(home.id, {}), home.data["name"]

        def present(version: Record) -> Document:  # a model can be removed while the list is built
            return _listed(version, name, self._model_of(home.id, version) or "?", names)

        if asked is not EVERY:
            every = self._records.find(home.id, "versions", newest_first=True)
            return asked.page((present(one) for one in every if self._model_of(home.id, one)), page)
        models = self._records.find(home.id, "models")
        total = sum(self._records.count(home.id, "versions", {"model": each.id}) for each in models)
        return paging.listing(page, self._standing(home.id, page), total, present)

    def _model_of(self, space: str, version: Record) -> str | None:
        """Return the name of the model of a version; None if the version is proposed or removed."""
        cancellation.check()
        model = self._records.get(space, "models", version.data["model"])
        return str(model.data["name"]) if model else None

    def _standing(self, space: str, page: Page) -> list[Record]:
        """Return up to `limit + 1` published versions; the extra one shows that there is a next page."""
        found: list[Record] = []
        # The index also has proposed and removed versions, so several reads can be necessary to fill a page.
        after, limit = page.cursor, page.limit + 1
        while len(found) < limit:
            some = self._records.find(space, "versions", newest_first=True, after=after, limit=limit)
            if not some:
                break
            found += [one for one in some if self._model_of(space, one)]
            after = some[-1].seq
        return found[:limit]

    def version(self, caller: Caller, project: str, model: str, revision: str) -> Document:
        """Return one version."""
        place = self._catalog.find_model(caller, project, model)
        return self.present(place, self.find(place, revision))

    def manifest(self, caller: Caller, project: str, model: str, revision: str) -> tuple[str, bytes]:
        """Return the digest of a version and its stored manifest."""
        place = self._catalog.find_model(caller, project, model)
        version = self.find(place, revision)
        return version.data["digest"], self.manifest_bytes(place.space, version.data["digest"])

    def children(self, caller: Caller, project: str, model: str, revision: str, page: Page) -> Document:
        """List the versions of the project that have this version as a parent, newest first."""
        place = self._catalog.find_model(caller, project, model)
        digest = self.find(place, revision).data["digest"]
        grown = [
            Child(model=self._model_of(place.space, one) or "?", number=one.data["number"], message=one.data["message"])
            for one in self._records.find(place.space, "versions", {}, newest_first=True)
            if any(parent["digest"] == digest for parent in one.data["parents"]) and self._model_of(place.space, one)
        ]
        first = int(page.cursor or 0)
        more = str(first + page.limit) if len(grown) > first + page.limit else None
        return {"items": grown[first : first + page.limit], "next": more, "total": len(grown)}

    def place_of(self, caller: Caller, project: str, model: str, revision: str) -> tuple[str, str]:
        """Return the id of the project, where the chunks are stored, and the digest of a version."""
        place = self._catalog.find_model(caller, project, model)
        return place.space, self.find(place, revision).data["digest"]

    def content(self, caller: Caller, project: str, model: str, revision: str) -> tuple[str, Manifest]:
        """Return the id of the project, where the chunks are stored, and the manifest of a version."""
        place = self._catalog.find_model(caller, project, model)
        return place.space, read_manifest(self._chunks, place.space, self.find(place, revision).data["digest"])

    def slots(self, space: str, digest: str) -> Slots:
        """Return the chunks of a version of a project by their position.

        Raises
        ------
        IntegrityError
            If the manifest is missing or damaged.
        """
        return self._slots(space, digest)

    def _read_slots(self, space: str, digest: str) -> Slots:
        return Slots(read_manifest(self._chunks, space, digest))

    def manifest_bytes(self, space: str, digest: str) -> bytes:
        """Return the verified manifest of a version.

        Raises
        ------
        IntegrityError
            If the manifest is missing or damaged.
        """
        return manifest_bytes(self._chunks, space, digest)

    # -- finding

    def find(self, place: Place, revision: str) -> Record:
        """Return the record of the version of a revision.

        Raises
        ------
        NotFound
            If the version does not exist. The hint has the latest version or similar aliases.
        InvalidReference
            If the revision is invalid, or several digests begin with it.
        """
        parsed = Revision.parse(revision)
        version = self._base(place, parsed)
        for _ in range(parsed.back):
            version = self._first_parent(place, version, revision)
        return version

    def by_number(self, place: Place, number: int) -> Record | None:
        """Return the record of a version by its number, or None."""
        version = self._records.get(place.space, "versions", version_id(place.model.id, number))
        return version if version and version.data["model"] == place.model.id else None

    def removed(self, place: Place, number: int) -> Record | None:
        """Return the record of a removed version that can be restored, or None."""
        version = self._records.get(place.space, "versions", version_id(place.model.id, number))
        return version if version and version.data["model"] == removed_key(place.model.id) else None

    def by_digest(self, place: Place, digest: str) -> Record | None:
        """Return the record of a version by its full digest, or None."""
        # Several models, and contributions, can have a version with this digest.
        versions = self._records.find(place.space, "versions", {"digest": digest})
        return next((record for record in versions if record.data["model"] == place.model.id), None)

    def in_project(self, space: str, digest: str) -> bool:
        """Whether a project has a version with this digest."""
        return bool(self._records.find(space, "versions", {"digest": digest}, limit=1))

    def older(self, place: Place, number: int) -> Record | None:
        """Return the record of the newest version before a number, or None."""
        versions = self._records.find(place.space, "versions", {"model": place.model.id})
        older = [one for one in versions if one.data["number"] < number]
        return max(older, key=lambda one: int(one.data["number"]), default=None)

    def latest(self, place: Place) -> Record | None:
        """Return the record of the newest version, or None."""
        versions = self._records.find(place.space, "versions", {"model": place.model.id}, newest_first=True, limit=1)
        return versions[0] if versions else None

    def _base(self, place: Place, revision: Revision) -> Record:
        find = {
            "latest": self._find_latest,
            "number": self._find_number,
            "digest": self._find_digest,
            "alias": self._find_alias,
            "contribution": self._find_contribution,
        }[revision.kind]
        return find(place, revision)

    def _find_latest(self, place: Place, _revision: Revision) -> Record:
        found = self.latest(place)
        if found is None:
            raise NotFound(
                f"{place.reference} has no version yet", hint=f"`lmvp push {place.reference} FILE` pushes the first one"
            )
        return found

    def _find_number(self, place: Place, revision: Revision) -> Record:
        found = self.by_number(place, int(revision.value))
        if found is None:
            latest = self.latest(place)
            if self.removed(place, int(revision.value)):
                back = f"`lmvp undelete {place.reference}@v{int(revision.value)}`"
                raise NotFound(f"no version v{int(revision.value)} of {place.reference}: it was removed",
                               hint=f"{back} brings it back")  # fmt: skip
            hint = f"the latest is v{latest.data['number']}" if latest else "it has no version yet"
            raise NotFound(f"no version v{int(revision.value)} of {place.reference}", hint=hint)
        return found

    def _find_contribution(self, place: Place, revision: Revision) -> Record:
        id_ = version_id(proposed_key(place.model.id), int(revision.value[1:]))
        version = self._records.get(place.space, "versions", id_)
        if version is not None:
            return version
        deleted = self._records.get(place.space, DELETED_CONTRIBUTIONS, id_)
        if deleted is None:
            raise NotFound(f"no contribution {revision.value} to {place.reference}")
        about = deleted.data["contribution"]
        raise NotFound(
            f"the files of {revision.value} of {place.reference} were deleted on {about['deleted_at'][:10]}: "
            f"it was {about['status']} on {about['decided_at'][:10]}",
            hint="`lmvp contributions --all` still lists it",
        )

    def _find_digest(self, place: Place, revision: Revision) -> Record:
        versions = self._records.find(place.space, "versions", {"model": place.model.id}, newest_first=True)
        fitting = [record for record in versions if record.data["digest"].startswith(revision.value)]
        if not fitting:
            raise NotFound(f"no version of {place.reference} has a digest that begins with {revision.value!r}")
        if len(fitting) > 1:
            numbers = ", ".join(f"v{record.data['number']}" for record in fitting[:5])
            raise InvalidReference(f"the digest prefix {revision.value!r} fits {numbers}", hint="give more digits")
        return fitting[0]

    def _find_alias(self, place: Place, revision: Revision) -> Record:
        alias = self._records.get(place.space, "aliases", f"{place.model.id}-{revision.value.lower()}")
        number = None if alias is None else _number_at(alias.data, revision)
        if number is None:
            raise self._no_alias(place, revision, alias)
        return self._find_number(place, Revision("number", str(number)))

    def _no_alias(self, place: Place, revision: Revision, alias: Record | None) -> NotFound:
        if alias is not None and revision.at is not None:
            return _not_then(place, revision, alias)
        names = [r.data["name"] for r in self._records.find(place.space, "aliases", {"model": place.model.id})
                 if r.data["number"]]  # fmt: skip
        near = suggest(revision.value, [*names, "latest"])
        known = f"its aliases are {', '.join(sorted(names))}" if names else "it has no aliases"
        hint = f"did you mean {near!r}?" if near else known
        return NotFound(f"no alias {revision.value!r} for {place.reference}", hint=hint)

    def _first_parent(self, place: Place, version: Record, revision: str) -> Record:
        parents = version.data["parents"]
        found = self.by_number(place, parents[0]["number"]) if parents else None
        if found is None:
            raise NotFound(f"{place.reference}@{revision}: v{version.data['number']} has no parent")
        return found

    # -- changing

    def amend(self, caller: Caller, project: str, model: str, revision: str, given: Amendment) -> Document:
        """Replace the given fields of a version's record. The previous values are stored in the event."""
        place = self._catalog.find_model(caller, project, model)
        access.require(caller, access.WRITE, project)
        fields = metadata.checked(given)

        def attempt() -> Document:
            version = self.find(place, revision)
            before = {key: version.data[key] for key in fields}
            forgotten = _without_code(version.data["environment"]) if given.forget_code else None
            if before == fields and forgotten is None:
                self._records.commit(place.space, [])  # another request may be writing the same values
                return self.present(place, version)
            if "contribution" in version.data:
                raise Conflict("a contribution stays as it was proposed", hint="amend the version, once it is accepted")
            data = {**version.data, **fields, "revised": version.data["revised"] + 1}
            event = self._event(caller, place, version, before, fields)
            if forgotten is not None:
                data["environment"] = forgotten
                event["forgot"] = "code"
            check = grants.still(self._records, caller, access.WRITE, place.project)
            self._records.commit(place.space, [Put("versions", version.id, data, version.rev)], [event], check=check)
            return self.present(place, self.find(place, str(version.data["number"])))

        return self._records.retry(attempt)

    @staticmethod
    def _event(caller: Caller, place: Place, version: Record, before: Document, after: Document) -> Document:
        what = f"{place.reference}@v{version.data['number']}"
        return {
            "at": now(),
            "who": caller.name,
            "action": "version.amend",
            "what": what,
            "before": before,
            "after": after,
        }

    # -- answers

    def present(self, place: Place, version: Record) -> Document:
        """Return a version in the form of API answers."""
        names = self._aliases(place.space, {"model": place.model.id})
        return _present(version, place.project.data["name"], place.model.data["name"], names)

    def _listing(
        self,
        space: str,
        where: Mapping[str, Any],
        page: Page,
        present: Callable[[Record], Document],
        asked: VersionQuery = EVERY,
    ) -> Document:
        if asked is not EVERY:
            every = map(present, self._records.find(space, "versions", where, newest_first=True))
            return asked.page(every, page)
        limit = page.limit + 1
        versions = self._records.find(space, "versions", where, newest_first=True, after=page.cursor, limit=limit)
        return paging.listing(page, versions, self._records.count(space, "versions", where), present)

    def _aliases(self, space: str, where: Mapping[str, Any]) -> dict[str, list[str]]:
        """Return the names of aliases, by the id of the version to which they point."""
        names: dict[str, list[str]] = defaultdict(list)
        for alias in self._records.find(space, "aliases", where):
            names[version_id(alias.data["model"], alias.data["number"])].append(alias.data["name"])
        return names


def _present(record: Record, project: str, model: str, aliases: Mapping[str, Sequence[str]]) -> Document:
    shown = {**record.data, "project": project, "model": model, "aliases": aliases.get(record.id, ())}
    # The id of the push is internal. `packed` is in records of earlier releases.
    del shown["push"]
    shown.pop("packed", None)
    proposed = shown.pop("contribution", None)
    if proposed is not None:
        shown["status"] = proposed["status"]
    return shown


def _listed(record: Record, project: str, model: str, aliases: Mapping[str, Sequence[str]]) -> Document:
    """Return a version in the form of lists: without its code, which is long and rarely needed."""
    shown = _present(record, project, model, aliases)
    plain = _without_code(shown["environment"])
    return shown if plain is None else shown | {"environment": plain}


def _without_code(environment: Document) -> Document | None:
    """Return an environment without its code, or None if it has no code."""
    return {key: value for key, value in environment.items() if key != "code"} if "code" in environment else None


def _number_at(alias: Document, revision: Revision) -> int | None:
    """Return the version to which an alias points now, n moves ago or at a time; None for an unset alias."""
    history = alias["history"]
    if revision.at is None:
        return alias["number"] or None
    if isinstance(revision.at, int):
        return history[-1 - revision.at]["number"] or None if revision.at < len(history) else None
    moment: datetime = revision.at
    past = [move for move in history if datetime.fromisoformat(move["at"].replace("Z", "+00:00")) <= moment]
    return past[-1]["number"] or None if past else None


def _not_then(place: Place, revision: Revision, alias: Record) -> NotFound:
    """Return the error for an alias that did not exist at a time. The hint states when it was set."""
    history = alias.data["history"]
    moves = plural(len(history) - 1, "move")
    when = plural(revision.at, "move") + " ago" if isinstance(revision.at, int) else f"at {revision.at}"
    return NotFound(
        f"the alias {revision.value!r} of {place.reference} was not there {when}",
        hint=f"it was set at {history[0]['at']}, with {moves} since",
    )
