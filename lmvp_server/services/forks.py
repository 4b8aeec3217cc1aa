"""Forks: copies of a model with its history in another project, and contributions from a fork to its origin.

A fork links to the same chunks on disk as its origin, so it costs only file names. After that, each project deletes and
encodes its chunks independently. Forks and contributions are the only transfers between projects. The caller needs the
right to read the source, and to write or propose in the target.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from lmvp.core import chunk_frames
from lmvp.core import manifest as manifests
from lmvp.core.chunk_frames import Frame
from lmvp.core.manifest import Manifest
from lmvp.core.references import Reference
from lmvp.core.schemas import NewPush
from lmvp.errors import AlreadyExists, Conflict, IntegrityError
from lmvp_server.services import access, grants
from lmvp_server.services.access import Caller
from lmvp_server.services.audit import event
from lmvp_server.services.catalog import SERVER, Catalog, Place
from lmvp_server.services.chunk_reader import ChunkReader, read_manifest
from lmvp_server.services.clock import now
from lmvp_server.services.delta_graph import DeltaGraph, link_of
from lmvp_server.services.headers import check_headers
from lmvp_server.services.maintenance import Upkeep
from lmvp_server.services.pushes import Pushes
from lmvp_server.services.tensors import TensorDigests
from lmvp_server.services.versions import Versions, version_id
from lmvp_server.stores.base import Change, ChunkStore, ConcurrentChange, Document, Put, Record, RecordStore

_STAYS = frozenset({"push", "run"})
"""Fields of a version that refer to objects of its project. A copy in another project does not have them."""


@dataclass(frozen=True, slots=True)
class _Way:
    """A transfer of chunks from one project to another, with the deltas of both.

    Attributes
    ----------
    source, target : str
        The projects.
    there, here : DeltaGraph
        The deltas of the source and of the target.
    """

    source: str
    target: str
    there: DeltaGraph
    here: DeltaGraph


class Forks:
    """Use cases of forks."""

    def __init__(
        self,
        records: RecordStore,
        chunks: ChunkStore,
        catalog: Catalog,
        versions: Versions,
        chunk_reader: ChunkReader,
        upkeep: Upkeep,
        pushes: Pushes,
        digests: TensorDigests,
    ) -> None:
        self._records, self._chunks, self._catalog, self._versions = records, chunks, catalog, versions
        self._chunk_reader, self._upkeep, self._pushes, self._digests = chunk_reader, upkeep, pushes, digests

    def fork(self, caller: Caller, project: str, model: str, to: str) -> Document:
        """Copy a model with all its versions, without its aliases; return the new model.

        Parameters
        ----------
        to : str
            The new model, `project/model` or only `model` for the same project. A missing project is created.

        Raises
        ------
        AlreadyExists
            If a model of this name exists.
        Conflict
            If the model has no versions.
        IntegrityError
            If data of the model is damaged.
        """
        origin = self._catalog.find_model(caller, project, model)
        wanted = Reference.parse(to, project=project)
        made = self._catalog.find_or_create_project(caller, wanted.project or project).data["name"]
        access.require(caller, access.WRITE, made)
        self._verify_tensors(origin)
        # Without gc and compaction, the frames that are found here stay unchanged until the fork references them.
        with self._upkeep.undisturbed():
            home = self._catalog.find_project(caller, made)
            versions = self._records.find(origin.space, "versions", {"model": origin.model.id})
            if not versions:
                raise Conflict(f"{origin.reference} has no version yet", hint="a fork begins with what there is")
            for digest in dict.fromkeys(one.data["digest"] for one in versions):  # do not copy damage to a new project
                manifest = read_manifest(self._chunks, origin.space, digest)
                self._chunk_reader.check_sizes(origin.space, manifest.files)
                # Quick, because `_verify_tensors` has read the bytes, except for versions that were pushed since.
                self._digests.require_stored(origin.space, manifest)
                check_headers(self._chunk_reader, origin.space, manifest)
            if home.id != origin.space:
                self._take_all(origin.space, home.id, [one.data["digest"] for one in versions])
            self._write(caller, origin, home, wanted.model, versions)
        return self._catalog.model(caller, made, wanted.model)

    def _verify_tensors(self, origin: Place) -> None:
        """Verify the tensor digests of all versions.

        This reads all bytes, so it is done before `undisturbed`, which blocks gc and compaction of the server.
        """
        versions = self._records.find(origin.space, "versions", {"model": origin.model.id})
        for digest in dict.fromkeys(one.data["digest"] for one in versions):
            manifest = read_manifest(self._chunks, origin.space, digest)
            self._chunk_reader.check_sizes(origin.space, manifest.files)
            self._digests.require_stored(origin.space, manifest)

    def contribute(self, caller: Caller, project: str, model: str, revision: str, message: str) -> Document:
        """Propose a version of a fork to the model that it was forked from; return the new contribution.

        Raises
        ------
        Conflict
            If the model is not a fork, or its origin is removed or cannot be read by the caller.
        """
        fork = self._catalog.find_model(caller, project, model)
        version = self._versions.find(fork, revision)
        origin = self._origin(caller, fork)
        access.require(caller, access.PROPOSE, origin.project.data["name"])
        manifest = manifests.decode(self._versions.manifest_bytes(fork.space, version.data["digest"]))
        body = self._as_push(origin, fork, version, manifest, message)
        with self._upkeep.undisturbed():
            if fork.space != origin.space:
                self._take(self._way(fork.space, origin.space), manifest)
            push = self._pushes.prepare_small(caller, origin.project.data["name"], origin.model.data["name"], body)
            return self._pushes.commit_small(caller, push)

    def _origin(self, caller: Caller, fork: Place) -> Place:
        """Return the model that a fork was made from."""
        said = fork.model.data.get("origin") or {}
        home = self._records.get(SERVER, "projects", said.get("project", ""))
        if home is None or not caller.may(access.READ, home.data["name"]):
            raise Conflict(
                f"{fork.reference} is no fork of anything that you can see",
                hint="`lmvp push MODEL FILE --propose` proposes a version to another model",
            )
        model = self._records.get(home.id, "models", said["model"])
        if model is None:
            raise Conflict(f"what {fork.reference} was forked from is there no more")
        return Place(home, model)

    def _as_push(self, origin: Place, fork: Place, version: Record, manifest: Manifest, message: str) -> NewPush:
        """Return the request of a push that proposes a version of a fork to its origin."""
        data = version.data
        # The parents of the manifest are versions of the fork; the push sets a parent that the origin has.
        plain = manifests.encode(msgspec.structs.replace(manifest, parents=()))
        return NewPush(
            push=secrets.token_hex(16),
            manifest=msgspec.Raw(plain),
            parent=self._common(origin, fork, version),
            message=message or data["message"],
            metrics=data["metrics"],
            params=data["params"],
            tags=data["tags"],
            environment=data["environment"],
            propose=True,
        )

    def _common(self, origin: Place, fork: Place, version: Record) -> str | None:
        """Return the digest of the nearest ancestor, along the first parents, that the origin has too; else None."""
        seen: Record | None = version
        while seen is not None and seen.data["parents"]:
            parent = seen.data["parents"][0]
            if self._versions.by_digest(origin, parent["digest"]):
                return str(parent["digest"])
            seen = self._versions.by_number(fork, parent["number"])
        return None

    # -- records

    def _write(self, caller: Caller, origin: Place, home: Record, name: str, versions: Sequence[Record]) -> None:
        """Write the records of the new model and its versions in one commit."""
        model, at = secrets.token_hex(8), now()
        data: Document = {
            "name": name,
            "key": name.lower(),
            "description": origin.model.data["description"],
            "created_at": at,
            "latest": versions[-1].data["number"],
            "last": origin.model.data.get("last", versions[-1].data["number"]),
            "origin": {"project": origin.space, "model": origin.model.id, "at": versions[-1].data["number"]},
        }
        changes: list[Change] = [
            Put("names", f"models:{name.lower()}", {"id": model}, expect=0),
            Put("models", model, data, expect=0),
            *(
                Put("versions", version_id(model, one.data["number"]), _copied(one, model), expect=0)
                for one in versions
            ),
        ]
        after = {"origin": origin.reference, "versions": len(versions)}
        what = f"{home.data['name']}/{name}"
        try:
            check = grants.still(self._records, caller, access.WRITE, home)
            self._records.commit(home.id, changes, [event(caller.name, "model.fork", what, None, after)], check=check)
        except ConcurrentChange:
            raise AlreadyExists(f"there is a model {what!r}", hint="fork it under another name") from None

    # -- bytes

    def _take_all(self, source: str, target: str, digests: Sequence[str]) -> None:
        way = self._way(source, target)
        for digest in dict.fromkeys(digests):
            data = self._versions.manifest_bytes(source, digest)
            self._take(way, manifests.decode(data))
            self._chunks.put_manifest(target, digest, data)
            self._take_note(way, digest)

    def _take_note(self, way: _Way, digest: str) -> None:
        try:
            self._chunks.put_note(way.target, digest, self._chunks.note(way.source, digest))
        except KeyError:  # a note is computed again when it is needed
            return

    def _way(self, source: str, target: str) -> _Way:
        return _Way(source, target, self._upkeep.links(source), self._upkeep.links(target))

    def _take(self, way: _Way, manifest: Manifest) -> None:
        """Add the chunks of a manifest, and their delta bases, to the target."""
        wanted = {chunk.id for file in manifest.files for chunk in file.chunks}
        lacking = self._chunks.missing(way.target, sorted(way.there.with_bases(wanted)))
        for chunk in sorted(lacking, key=way.there.depth):  # each delta base before the deltas that depend on it
            self._take_chunk(way, chunk)
        self._chunks.settle(way.target, lacking)  # once for all of them, because it waits for the disk

    def _take_chunk(self, way: _Way, chunk: str) -> None:
        base, depth = way.there.base(chunk), way.there.depth(chunk)
        # The target can have the base as a deeper delta than the source. The depth in this frame would then be wrong,
        # so the chunk is stored raw.
        if base is not None and way.here.depth(base) >= depth:
            data = self._chunk_reader.data(way.source, chunk)
            self._chunks.put(way.target, chunk, [chunk_frames.header(Frame(chunk, len(data), len(data))), data])
            return
        try:
            self._chunks.adopt(way.target, way.source, chunk)
        except KeyError:
            raise IntegrityError(
                f"the chunk {chunk[:12]} is gone from the disk", hint="`lmvp fsck` tells more"
            ) from None
        if base is not None:
            way.here.note(chunk, link_of(self._chunks, way.target, chunk))


def _copied(version: Record, model: str) -> Document:
    return {**version.data, "model": model, "sent": 0, **dict.fromkeys(_STAYS, "")}
