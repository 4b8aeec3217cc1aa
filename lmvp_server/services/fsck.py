"""`fsck`: verify every digest, record and series of a server, and report all damage.

Damage does not stop the check: any error while reading is reported as one problem, and the check continues.

A repair sets a damaged frame aside and never deletes it. Its chunk is then missing, so the next push of the same bytes
sends it, which repairs all versions that contain it.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from lmvp.core import chunk_frames, codecs
from lmvp.core.chunk_frames import Frame
from lmvp.core.manifest import Manifest
from lmvp.core.manifest_validation import check_manifest
from lmvp.core.schemas import Head, Problem
from lmvp.errors import IntegrityError, InvalidManifest, LmvpError
from lmvp_server.services import access
from lmvp_server.services.access import Caller
from lmvp_server.services.audit import Audit, recorded
from lmvp_server.services.catalog import REMOVED, SERVER, every_project
from lmvp_server.services.chunk_reader import ChunkReader, read_manifest
from lmvp_server.services.headers import check_headers
from lmvp_server.services.tensors import TensorDigests
from lmvp_server.services.versions import name_of, version_id
from lmvp_server.stores.base import ChunkStore, Document, Record, RecordStore, SeriesStore

_logger = logging.getLogger("lmvp_server")

Advance = Callable[[int, int], None]
"""A progress callback: the number of verified chunks, and their total in the project."""

PUSH_AGAIN = "push the same content again from wherever it still is; the chunk is taken anew"
LOST = "restore the data folder from a backup"
RESTORE = "restore it from a backup, or remove the version"
FALSE_SIZE = "remove the version, and push its files again: older servers took wrong sizes"
FALSE_TENSORS = "remove the version, and push its files again: older servers took wrong tensors"
FALSE_DIGEST = "remove the version, and push its files again: older servers took wrong digests"
UNUSED = "no version needs it; `lmvp gc` deletes it"
AGAIN = "nothing is lost: it is computed again when it is needed"
_NAMED = 5
"""The number of files or tensors that one problem names."""


@dataclass(slots=True)
class _Findings:
    """The counts and problems of a check."""

    versions: int = 0
    removed: int = 0
    chunks: int = 0
    bytes: int = 0
    problems: list[Problem] = field(default_factory=list)

    def add(self, kind: str, what: str, hint: str) -> None:
        """Report a problem."""
        self.problems.append(Problem(kind=kind, what=what, hint=hint))

    @contextmanager
    def noting(self, kind: str, what: str) -> Iterator[None]:
        """Report any error as a problem, because damaged bytes can raise an error of any type."""
        try:
            yield
        except LmvpError as error:
            self.add(kind, f"{what}: {error.message}", error.hint or RESTORE)
        except Exception as error:  # noqa: BLE001 - the check must not stop here
            _logger.warning("fsck: %s: %s: %s", what, type(error).__name__, error)
            self.add(kind, f"{what} cannot be read: {type(error).__name__}: {error}", RESTORE)


class _User(NamedTuple):
    """A use of a chunk: the id of the version's record, the file's name for messages, and the size in the manifest."""

    version: str
    where: str
    size: int


class Fsck:
    """Use cases of fsck."""

    def __init__(
        self,
        records: RecordStore,
        chunks: ChunkStore,
        series: SeriesStore,
        chunk_reader: ChunkReader,
        audit: Audit,
        digests: TensorDigests,
    ) -> None:
        self._records, self._chunks, self._series, self._chunk_reader = records, chunks, series, chunk_reader
        self._audit, self._digests = audit, digests

    def check(
        self, caller: Caller, repair: bool, advance: Advance = lambda *_: None, heads: tuple[Head, ...] = ()
    ) -> Document:
        """Verify all projects with `prove`, and record a repair as an event."""
        access.require(caller, access.ADMIN)
        if not repair:
            return self.prove(caller, repair, advance, heads)
        with recorded(self._records, caller.name, "server.repair", "all projects") as result:
            found = self.prove(caller, repair, advance, heads)
            result |= {"chunks": found["chunks"], "problems": len(found["problems"])}
        return found

    def prove(
        self, caller: Caller, repair: bool, advance: Advance = lambda *_: None, heads: tuple[Head, ...] = ()
    ) -> Document:
        """Verify all projects and the records of the server.

        Parameters
        ----------
        repair : bool
            Set damaged frames aside, and rewrite damaged files of records.
        advance : callable, optional
            Called after each chunk with the progress.
        heads : tuple of Head, optional
            Heads that were stored elsewhere. Each log of events must contain its head.

        Returns
        -------
        dict
            The number of versions, chunks and bytes, whether it was a repair, and the problems.
        """
        access.require(caller, access.ADMIN)
        found = _Findings()
        with found.noting("records", "the records of the server"):
            self._check_space(SERVER, "the server", repair, found)
            self._check_names(SERVER, "projects", "the server", found)
        for project in every_project(self._records):
            # Catches errors of records that cannot be opened; `_check_project` reports all others in detail.
            with found.noting("records", f"the records of {project.data['name']}"):
                self._check_project(project, repair, found, advance)
        with found.noting("events", "the events before the given heads"):
            for problem in self._audit.prove(heads):
                found.problems.append(problem)
        return {
            "versions": found.versions,
            "chunks": found.chunks,
            "bytes": found.bytes,
            "removed": found.removed,
            "repaired": repair,
            "problems": found.problems,
        }

    def _check_project(self, project: Record, repair: bool, found: _Findings, advance: Advance) -> None:
        name = project.data["name"]
        self._check_space(project.id, name, repair, found)
        with found.noting("records", f"the records of {name}"):
            self._check_names(project.id, "models", name, found)
            self._check_targets(project, found)
        # Collect the uses of all chunks first: many versions share a chunk, and `_check_chunk` verifies it once.
        users: dict[str, list[_User]] = defaultdict(list)
        removed = {record.id for record in self._records.find(project.id, REMOVED)}
        for version, reference in self._versions(project):
            found.versions += 1
            model, _, place = version.data["model"].partition(":")
            found.removed += "removed" in project.data or place == "gone" or model in removed
            manifest = self._manifest(project, version, reference, found)
            if manifest:
                self._check_tensors(project, version, reference, manifest, found)
                self._check_headers(project.id, version, reference, manifest, found)
            for file in manifest.files if manifest else ():
                for one in file.chunks:
                    users[one.id].append(_User(version.id, f"{reference}: {file.path}", one.size))
        unused = sorted(set(self._chunks.chunks(project.id)) - users.keys())
        for count, chunk in enumerate((*users, *unused), 1):
            with found.noting("chunk", f"the chunk {chunk[:12]} of {name}"):
                self._check_chunk(project.id, chunk, users.get(chunk, []), repair, found)
            advance(count, len(users) + len(unused))
        self._check_leftovers(project, found)
        for run in self._series.runs(project.id):
            with found.noting("series", f"{name}/runs/{run}"):
                self._series.verify(project.id, run)
        self._check_points(project, found)

    def _check_points(self, project: Record, found: _Findings) -> None:
        """Compare the number of points of each ended run with its record.

        `SeriesStore.verify` does not find a missing file of a series.
        """
        for run in self._records.find(project.id, "runs"):
            stated, where = int(run.data.get("points", 0)), f"{project.data['name']}/runs/{run.id}"
            with found.noting("series", where):
                state = self._series.state(project.id, run.id) if stated else None
                points = state.points if state else 0
                if points < stated:
                    found.add("series", f"{where} has {points:,} of the {stated:,} points that it ended with", LOST)

    def _check_names(self, space: str, table: str, where: str, found: _Findings) -> None:
        """Report entries of the `names` table whose project or model does not exist."""
        for name in self._records.find(space, "names"):
            kind, _, key = name.id.partition(":")
            if kind == table and self._records.get(space, table, str(name.data.get("id"))) is None:
                found.add("records", f"the name {key!r} in {where} leads to nothing", RESTORE)

    def _check_targets(self, project: Record, found: _Findings) -> None:
        """Report aliases, and latest versions of models, whose version does not exist."""
        for model in self._records.find(project.id, "models"):
            reference, latest = f"{project.data['name']}/{model.data['name']}", int(model.data["latest"])
            if latest and not self._is_there(project.id, version_id(model.id, latest)):
                found.add("records", f"{reference}@latest points at v{latest}, which is not there", RESTORE)
            for alias in self._records.find(project.id, "aliases", {"model": model.id}):
                number = int(alias.data["number"])
                if number and not self._is_there(project.id, version_id(model.id, number)):
                    what = f"the alias {reference}@{alias.data['name']} points at v{number}, which is not there"
                    found.add("alias", what, "`lmvp alias NAME ALIAS` moves it to another version")

    def _check_leftovers(self, project: Record, found: _Findings) -> None:
        """Verify the data that is not part of a version: unreferenced manifests, notes, and open pushes."""
        space, name = project.id, project.data["name"]
        used = {version.data["digest"] for version in self._records.find(space, "versions")}
        for digest in sorted(set(self._chunks.manifests(space)) - used):
            try:
                read_manifest(self._chunks, space, digest)
            except LmvpError as error:
                if digest in self._chunks.manifests(space):  # else a gc has deleted it meanwhile
                    found.add("manifest", f"{error.message}, in {name}", UNUSED)
        for digest in sorted(self._chunks.notes(space)):
            try:
                self._chunks.note(space, digest)
            except KeyError:
                if digest in self._chunks.notes(space):
                    found.add("note", f"the note about the version {digest[:12]} of {name} is damaged", AGAIN)
        for push in self._chunks.pushes(space):
            try:
                self._chunks.staged(space, push)
            except KeyError:
                if not self._records.find(
                    space, "versions", {"push": push}, limit=1
                ):  # else it was committed meanwhile
                    found.add("push", f"the open push {push} to {name} is damaged", "push again from the beginning")

    def _versions(self, project: Record) -> Iterator[tuple[Record, str]]:
        """Yield all versions of a project with their references, those in the trash included."""
        models = {
            record.id: record.data["name"]
            for table in ("models", REMOVED)
            for record in self._records.find(project.id, table)
        }
        for version in self._records.find(project.id, "versions"):
            # The model id of a removed version, or of a contribution, has a suffix after a colon.
            model = models.get(version.data["model"].partition(":")[0], "?")
            yield version, f"{project.data['name']}/{model}@{name_of(version)}"

    def _check_space(self, space: str, where: str, repair: bool, found: _Findings) -> None:
        """Verify the records and events of a space. A repair rewrites the records from memory."""
        # Raises an error if the records cannot be loaded: the repair below writes them from memory.
        self._records.count(space, "models")
        try:
            self._records.verify_files(space)
        except (IntegrityError, OSError) as error:
            hint = getattr(error, "hint", None) or "`lmvp fsck --repair` writes it anew"
            found.add("records", f"the records of {where}: {error}", hint)
            if repair:
                self._records.rewrite_files(space)
        with found.noting("events", f"the events of {where}"):
            self._records.verify(space)

    def _manifest(self, project: Record, version: Record, reference: str, found: _Findings) -> Manifest | None:
        """Return the manifest of a version; report it and return None if it is damaged or invalid."""
        digest = str(version.data["digest"])
        try:
            manifest = read_manifest(self._chunks, project.id, digest)
            check_manifest(manifest)
        except LmvpError as error:
            if self._is_there(project.id, version.id):  # else it was deleted during the check, with its bytes
                found.add("manifest", f"{reference}: {error.message}", RESTORE)
            return None
        return manifest

    def _check_headers(self, space: str, version: Record, reference: str, manifest: Manifest, found: _Findings) -> None:
        """Report a version whose manifest disagrees with the headers of its files. Older servers accepted these."""
        try:
            check_headers(self._chunk_reader, space, manifest)
        except InvalidManifest as error:
            if self._is_there(space, version.id):
                found.add("version", f"{reference}: {error.message}", FALSE_TENSORS)
        except IntegrityError:  # each damaged chunk is reported once, by `_check_chunk`
            pass

    def _check_tensors(
        self, project: Record, version: Record, reference: str, manifest: Manifest, found: _Findings
    ) -> None:
        """Report tensors whose bytes do not have the digest in the manifest.

        Views compare tensors by these digests, so a wrong digest can show a changed tensor as identical.
        """
        false: list[str] = []
        try:
            false.extend(tensor.name for tensor in self._digests.false(project.id, manifest))
        except InvalidManifest as error:  # raised before the bytes are read, because verifying would cost too much
            found.add("version", f"{reference}: {error.message}, so their digests are not verified", FALSE_DIGEST)
        except Exception:  # unreadable bytes are reported once for each chunk, by `_check_chunk`
            _logger.debug("fsck: the tensors of %s cannot be read", reference, exc_info=True)
        if false and self._is_there(project.id, version.id):
            more = f" and {len(false) - _NAMED} more" if len(false) > _NAMED else ""
            names = ", ".join(repr(name[:80]) for name in false[:_NAMED])
            found.add("version", f"{reference}: wrong digest of the tensor {names}{more}", FALSE_DIGEST)

    def _check_chunk(self, space: str, chunk: str, users: list[_User], repair: bool, found: _Findings) -> None:
        """Decode a chunk, and compare its size with the manifests that name it."""
        found.chunks += 1
        try:
            size = len(self._chunk_reader.data(space, chunk))
        except IntegrityError as error:
            self._report_damage(space, chunk, users, repair, found, error.message)
            return
        found.bytes += size
        for user in users:
            if user.size != size and self._is_there(space, user.version):
                what = f"{user.where}: the manifest states {user.size:,} bytes for the chunk {chunk[:12]}, not {size:,}"
                found.add("version", what, FALSE_SIZE)
        self._check_depth(space, chunk, repair, found)

    def _report_damage(
        self, space: str, chunk: str, users: list[_User], repair: bool, found: _Findings, said: str
    ) -> None:
        hit = [user.where for user in users if self._is_there(space, user.version)]
        if users and not hit:  # all of them were deleted during the check, with their bytes
            return
        if not users and self._chunks.missing(space, [chunk]):  # a gc has deleted the unreferenced chunk
            return
        if repair:
            self._set_aside(space, chunk)
        more = f" and {len(hit) - _NAMED} more" if len(hit) > _NAMED else ""
        where = ", ".join(hit[:_NAMED]) + more if hit else "no version has it"
        found.add("chunk", f"{said} ({where})", PUSH_AGAIN if hit else UNUSED)

    def _check_depth(self, space: str, chunk: str, repair: bool, found: _Findings) -> None:
        """Report a delta whose depth is not greater than that of its delta base.

        Growing depths keep chains of deltas within the limit and free of cycles.
        """
        link = self._link(space, chunk)
        below = self._link(space, link.base) if link else None
        if link is None or below is None or link.depth > below.depth:
            return
        what = (
            f"the frame of the chunk {chunk[:12]} is damaged: its depth is {link.depth}, that of its base {below.depth}"
        )
        found.add("chunk", what, "`lmvp fsck --repair` stores it without a base")
        if repair:
            data = self._chunk_reader.data(space, chunk)
            self._chunks.replace(space, chunk, [chunk_frames.header(Frame(chunk, len(data), len(data))), data])

    def _is_there(self, space: str, version: str) -> bool:
        return self._records.get(space, "versions", version) is not None

    def _set_aside(self, space: str, chunk: str) -> None:
        """Set aside the damaged frame: that of the chunk, or one that it depends on."""
        for each in self._chain(space, chunk):  # the deepest base first: a damaged base also fails all chunks above it
            if not self._is_whole(space, each):
                if not self._chunks.missing(space, [each]):
                    self._chunks.set_aside(space, each)
                return

    def _chain(self, space: str, chunk: str) -> list[str]:
        """Return the chunks that a chunk depends on, its last base first, then the chunk."""
        chain = [chunk]
        # A damaged frame can name a base that is in the chain already.
        while (link := self._link(space, chain[-1])) is not None and link.base not in chain:
            chain.append(link.base)
        return chain[::-1]

    def _link(self, space: str, chunk: str) -> codecs.Link | None:
        try:
            return self._chunk_reader.frame(space, chunk).link
        except IntegrityError:
            return None

    def _is_whole(self, space: str, chunk: str) -> bool:
        try:
            self._chunk_reader.data(space, chunk)
        except IntegrityError:
            return False
        return True
