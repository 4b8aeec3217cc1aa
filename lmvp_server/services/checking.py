"""`fsck`: every digest is proved again, from the log of events down to the last byte of the last chunk.

With repair, a damaged frame is set aside, never deleted: its chunk is missing then, so the next push of the same bytes
sends it, and all versions that have it are whole again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from blake3 import blake3

from lmvp.errors import IntegrityError, LmvpError
from lmvp.records import Head, Problem
from lmvp.storage import manifest as manifests
from lmvp.storage.check import check_manifest
from lmvp.storage.manifest import Manifest
from lmvp_server.services import access
from lmvp_server.services.access import Caller
from lmvp_server.services.audit import Audit
from lmvp_server.services.catalog import REMOVED, SERVER, every_project
from lmvp_server.services.decoding import Decoder
from lmvp_server.services.versions import name_of
from lmvp_server.stores.base import ChunkStore, Document, Record, RecordStore, SeriesStore

Advance = Callable[[int, int], None]
"""Told how many chunks are proved, and how many there are in the project."""

PUSH_AGAIN = "push the same content again from wherever it still is; the chunk is taken anew"
RESTORE = "restore it from a backup, or remove the version"
_NAMED = 5


@dataclass(slots=True)
class _Findings:
    """What was looked at in a project, and what is wrong there."""

    versions: int = 0
    chunks: int = 0
    bytes: int = 0
    problems: list[Problem] = field(default_factory=list)


class _User(NamedTuple):
    """Who needs a chunk: the id of a version's record, and what to call the file there."""

    version: str
    where: str


class Checking:
    """The use case of proving a store."""

    def __init__(
        self, records: RecordStore, chunks: ChunkStore, series: SeriesStore, decoder: Decoder, audit: Audit
    ) -> None:
        self._records, self._chunks, self._series, self._decoder = records, chunks, series, decoder
        self._audit = audit

    def check(
        self, caller: Caller, repair: bool, advance: Advance = lambda *_: None, heads: tuple[Head, ...] = ()
    ) -> Document:
        """Prove all projects.

        Parameters
        ----------
        repair : bool
            Set damaged frames aside.
        advance : callable
            Told how far it is, after each chunk.
        heads : tuple of Head
            Kept elsewhere: the logs of events must go on from there.
        """
        access.require(caller, access.ADMIN)
        found = _Findings(problems=list(self._space(SERVER, "the server", repair)))
        for project in every_project(self._records):
            try:
                self._check_project(project, repair, found, advance)
            except IntegrityError as error:  # its records cannot be opened
                what = f"the records of {project.data['name']}: {error.message}"
                found.problems.append(Problem(kind="records", what=what, hint=error.hint or RESTORE))
        found.problems += self._audit.prove(heads)
        return {
            "versions": found.versions,
            "chunks": found.chunks,
            "bytes": found.bytes,
            "repaired": repair,
            "problems": found.problems,
        }

    def _check_project(self, project: Record, repair: bool, found: _Findings, advance: Advance) -> None:
        name = project.data["name"]
        found.problems += self._space(project.id, name, repair)
        users: dict[str, list[_User]] = defaultdict(list)
        for version, reference in self._versions(project):
            found.versions += 1
            manifest = self._manifest(project, version, reference, found)
            for file in manifest.files if manifest else ():
                for one in file.chunks:
                    users[one.id].append(_User(version.id, f"{reference}: {file.path}"))
        for count, chunk in enumerate(users, 1):
            self._check_chunk(project.id, chunk, users[chunk], repair, found)
            advance(count, len(users))
        found.problems += self._check_series(project)

    def _check_series(self, project: Record) -> Iterator[Problem]:
        for run in self._series.runs(project.id):
            try:
                self._series.verify(project.id, run)
            except IntegrityError as error:
                yield Problem(kind="series", what=f"{project.data['name']}/runs/{run}: {error.message}", hint=RESTORE)

    def _versions(self, project: Record) -> Iterator[tuple[Record, str]]:
        models = {
            record.id: record.data["name"]
            for table in ("models", REMOVED)
            for record in self._records.find(project.id, table)
        }
        for version in self._records.find(project.id, "versions"):
            model = models.get(version.data["model"].partition(":")[0], "?")
            yield version, f"{project.data['name']}/{model}@{name_of(version)}"

    def _space(self, space: str, where: str, repair: bool) -> Iterator[Problem]:
        """Prove the records of a space; to repair them, they are written anew from memory."""
        self._records.count(space, "models")  # what cannot be opened is not to be repaired
        try:
            self._records.verify_files(space)
        except (IntegrityError, OSError) as error:
            hint = getattr(error, "hint", None) or "`lmvp fsck --repair` writes it anew"
            yield Problem(kind="records", what=f"the records of {where}: {error}", hint=hint)
            if repair:
                self._records.renew(space)
        try:
            self._records.verify(space)
        except IntegrityError as error:
            yield Problem(kind="events", what=f"the events of {where}: {error.message}", hint=error.hint or "")

    def _manifest(self, project: Record, version: Record, reference: str, found: _Findings) -> Manifest | None:
        digest = version.data["digest"]
        try:
            data = self._chunks.manifest(project.id, digest)
            if blake3(data).hexdigest() != digest:
                raise IntegrityError("its bytes do not match its digest")
            manifest = manifests.decode(data)
            check_manifest(manifest)
        except KeyError:
            said = "it is gone"
        except LmvpError as error:
            said = error.message
        else:
            return manifest
        if not self._is_there(project.id, version.id):  # it was removed meanwhile, and its bytes with it
            return None
        found.problems.append(
            Problem(kind="manifest", what=f"the manifest {digest[:12]} of {reference}: {said}", hint=RESTORE)
        )
        return None

    def _check_chunk(self, space: str, chunk: str, users: list[_User], repair: bool, found: _Findings) -> None:
        found.chunks += 1
        try:
            found.bytes += len(self._decoder.data(space, chunk))
        except IntegrityError as error:
            hit = [user.where for user in users if self._is_there(space, user.version)]
            if not hit:  # they were removed meanwhile, and their bytes with them
                return
            if repair:
                self._set_aside(space, chunk)
            more = f" and {len(hit) - _NAMED} more" if len(hit) > _NAMED else ""
            said = f"{error.message} ({', '.join(hit[:_NAMED])}{more})"
            found.problems.append(Problem(kind="chunk", what=said, hint=PUSH_AGAIN))

    def _is_there(self, space: str, version: str) -> bool:
        return self._records.get(space, "versions", version) is not None

    def _set_aside(self, space: str, chunk: str) -> None:
        """Set aside the frame that is damaged: this one, or one that it leans on."""
        for each in self._chain(space, chunk):
            if not self._is_whole(space, each):
                if not self._chunks.missing(space, [each]):
                    self._chunks.set_aside(space, each)
                return

    def _chain(self, space: str, chunk: str) -> list[str]:
        """Return what a chunk leans on, the last one first, then the chunk itself."""
        chain = [chunk]
        while (link := self._link(space, chain[-1])) is not None and link not in chain:
            chain.append(link)
        return chain[::-1]

    def _link(self, space: str, chunk: str) -> str | None:
        try:
            link = self._decoder.frame(space, chunk).link
        except IntegrityError:
            return None
        return link.base if link else None

    def _is_whole(self, space: str, chunk: str) -> bool:
        try:
            self._decoder.data(space, chunk)
        except IntegrityError:
            return False
        return True
