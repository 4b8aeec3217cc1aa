"""Imported versions: they keep their recorded number, date, author and parents, and are verified by their digest.

An import can create history in the names of other people, so only owners can import, and the audit log records who did.
"""

from __future__ import annotations

import re
from datetime import datetime

import msgspec

from lmvp.core import manifest as manifests
from lmvp.core.manifest import Manifest
from lmvp.core.schemas import ImportedMetadata, NewPush, Parent
from lmvp.errors import Conflict, InvalidArgument, InvalidManifest, InvalidRequest
from lmvp_server.services import access
from lmvp_server.services.access import Caller
from lmvp_server.services.catalog import Place
from lmvp_server.services.clock import is_in_range, stamp
from lmvp_server.services.versions import Versions, next_number
from lmvp_server.stores.base import Document, Record

NUMBER_LIMIT = 10**9
AUTHOR_LIMIT = 250  # characters
PARENTS_LIMIT = 64
_DIGEST = re.compile(r"[0-9a-f]{64}")


def check(caller: Caller, project: str, body: NewPush, manifest: Manifest) -> None:
    """Check the recorded fields of a push, if it has any. Fields that depend on the model are checked at the commit.

    Raises
    ------
    AccessDenied
        If the caller does not own the project.
    InvalidManifest
        If the digest of manifest and parents is not the recorded digest.
    """
    said = body.recorded
    if said is None:
        return
    access.require(caller, access.OWN, project)
    if body.parent is not None or body.expect_parent is not None or body.aliases:
        raise InvalidRequest("a recorded version goes without parent, expect_parent and aliases: it names its parents")
    if len(said.author) > AUTHOR_LIMIT or not (said.author.isprintable() or not said.author):
        raise InvalidArgument(f"the author {said.author[:60]!r} is not a name of up to {AUTHOR_LIMIT} characters")
    if not 0 < said.number <= max(said.number, said.last) <= NUMBER_LIMIT:
        raise InvalidArgument(f"v{said.number} is no number of a version: they go from 1 to {NUMBER_LIMIT:,}")
    written(said.created_at)
    _check_parents(said)
    whole = msgspec.structs.replace(manifest, parents=tuple(parent.digest for parent in said.parents))
    if manifests.digest_of(whole) != said.digest:
        raise InvalidManifest(f"v{said.number} has another digest than {said.digest[:12]!r}, which was recorded for it")


def _check_parents(said: ImportedMetadata) -> None:
    if len(said.parents) > PARENTS_LIMIT:
        raise InvalidArgument(f"v{said.number} has {len(said.parents)} parents; the limit is {PARENTS_LIMIT}")
    for parent in said.parents:
        if not 0 < parent.number < said.number or not _DIGEST.fullmatch(parent.digest):
            raise InvalidArgument(f"v{parent.number} {parent.digest[:12]!r} cannot be a parent of v{said.number}")


def written(at: datetime) -> str:
    """Return a time in the format of records.

    Raises
    ------
    InvalidArgument
        If the time has no time zone, or its year is not from 1970 to 9998.

    Examples
    --------
    >>> from datetime import timezone
    >>> written(datetime(2026, 11, 20, 13, 41, tzinfo=timezone.utc))
    '2026-11-20T13:41:00.000000Z'
    """
    if at.tzinfo is None or not is_in_range(at):
        raise InvalidArgument(f"{at.isoformat()} is no time that a version was made at: a date since 1970, with a zone")
    return stamp(at)


def already_there(versions: Versions, place: Place, model: Record, said: ImportedMetadata) -> Record | None:
    """Return the version if the model has it already, or None if it can be added now.

    Raises
    ------
    Conflict
        If the number belongs to another version or is below the next number, or a parent differs from the recorded one.
    """
    found = versions.by_number(place, said.number)
    if found is not None and found.data["digest"] == said.digest:
        return found
    if found is not None:
        raise Conflict(
            f"v{said.number} of {place.reference} is another one: {found.data['digest'][:12]}, not {said.digest[:12]}",
            hint="import into a model of another name",
        )
    # Numbers ascend and are never reused, so an import cannot fill a gap.
    if said.number < next_number(model):
        raise Conflict(
            f"v{said.number} cannot be put in: {place.reference} is beyond it, at v{next_number(model) - 1}",
            hint="import into a model of another name",
        )
    for parent in said.parents:
        _check_parent(versions, place, parent)
    return None


def _check_parent(versions: Versions, place: Place, parent: Parent) -> None:
    found = versions.by_number(place, parent.number) or versions.by_digest(place, parent.digest)
    if found and (found.data["number"], found.data["digest"]) != (parent.number, parent.digest):
        raise Conflict(
            f"a parent was recorded as v{parent.number} {parent.digest[:12]}, but {place.reference} has "
            f"v{found.data['number']} {found.data['digest'][:12]}",
            hint="import into a model of another name",
        )


def fields(said: ImportedMetadata | None) -> Document:
    """Return the fields of a version's record that an import sets instead of the server."""
    return {} if said is None else {"created_at": written(said.created_at), "author": said.author}


def parents(said: ImportedMetadata) -> list[Document]:
    """Return the parents in the format of records."""
    return [{"number": parent.number, "digest": parent.digest} for parent in said.parents]


def number(said: ImportedMetadata | None, model: Record) -> int:
    """Return the number of the new version."""
    return next_number(model) if said is None else said.number


def last(said: ImportedMetadata | None, number: int) -> int:
    """Return the highest number that counts as used after the new version."""
    return number if said is None else max(number, said.last)
