"""Pushes: uploads that become versions.

A push begins with a manifest. The server stages it, which protects its chunks from gc, and answers with the chunks that
the project lacks. Frames can arrive in any order. Each is decoded and verified before it is stored; a delta is stored
raw, so nothing that a push uploads depends on another chunk. The commit verifies that all chunks exist and are durable,
adds the parents, stores the manifest and writes one record, which creates the version. A failure before that record
leaves unreferenced data, but no damage. A small push does the same in one request.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from threading import Lock

import msgspec
from blake3 import blake3

from lmvp.core import chunk_frames, codecs
from lmvp.core import manifest as manifests
from lmvp.core.chunk_frames import DELTA, RAW, Frame
from lmvp.core.codecs import Buffer
from lmvp.core.manifest import Manifest
from lmvp.core.manifest_validation import check_manifest, check_repetition
from lmvp.core.references import check_alias
from lmvp.core.schemas import NewPush, Push
from lmvp.errors import AccessDenied, Conflict, IntegrityError, InvalidManifest, InvalidRequest, MissingChunks, NotFound
from lmvp_server.services import (
    access,
    grants,
    imported_versions,
    metadata,
    run_records,
)
from lmvp_server.services.access import Caller
from lmvp_server.services.aliases import alias_change, hold
from lmvp_server.services.catalog import SERVER, Catalog, Place
from lmvp_server.services.chunk_reader import ChunkReader, codec_turn
from lmvp_server.services.clock import now
from lmvp_server.services.headers import check_headers
from lmvp_server.services.push_quota import LIFETIME, PushLimits, PushQuota
from lmvp_server.services.runs import Runs
from lmvp_server.services.tensors import TensorDigests
from lmvp_server.services.versions import DELETED_CONTRIBUTIONS, Versions, proposed_key, version_id
from lmvp_server.stores.base import Change, ChunkStore, Document, Put, Record, RecordStore

_PUSH = re.compile(r"[0-9a-f]{32}")
_LIMITS = PushLimits()
_REMEMBERED, _REMEMBERED_CHUNKS = 64, 200_000
"""The maximum number of pushes in memory and of their chunks, at about 350 bytes each. Others are read from disk."""

log = logging.getLogger("lmvp_server")


class StagedPush(NewPush, frozen=True, kw_only=True):
    """The staged body of a push, with the account that began it and the bytes that it reserves."""

    by: str | None = None
    reserved: int = 0


def _staged(body: NewPush, by: str | None, reserved: int) -> StagedPush:
    return StagedPush(**{name: getattr(body, name) for name in body.__struct_fields__}, by=by, reserved=reserved)


@dataclass(slots=True)
class OpenPush:
    """An open push. Any process can restore it from its staged body.

    Attributes
    ----------
    by : str or None
        The id of the account that began the push. Empty for the operator; None if an earlier version of LMVP staged it.
    base : str or None
        The digest of the version whose chunks can be delta bases: the parent, or the latest version at the start.
    sent : int
        The bytes transferred. Missing chunks count with their raw size, because their encoded size is not known before
        they arrive.
    stored : int
        The bytes added to the data folder.
    proved : set of str
        Chunks whose size in the manifest is verified.
    verified : bool
        Whether the digests of all tensors are verified.
    """

    place: Place
    body: NewPush
    manifest: Manifest
    sizes: dict[str, int]
    missing: set[str]
    base: str | None = None
    sent: int = 0
    stored: int = 0
    proved: set[str] = field(default_factory=set)
    by: str | None = None
    verified: bool = False
    lock: Lock = field(default_factory=Lock)

    @property
    def id(self) -> str:
        """The id that the client chose."""
        return self.body.push

    def count(self, frame: Frame, stored: int) -> None:
        """Count a received frame. A frame that arrives more than once counts once."""
        with self.lock:
            self.proved.add(frame.chunk)
            self.stored += stored
            if frame.chunk in self.missing:
                self.sent -= frame.size - frame.payload
                self.missing.discard(frame.chunk)


class Pushes:
    """Use cases of pushes."""

    def __init__(
        self,
        records: RecordStore,
        chunks: ChunkStore,
        catalog: Catalog,
        versions: Versions,
        chunk_reader: ChunkReader,
        runs: Runs,
        digests: TensorDigests,
        *,
        shared: bool,
        limits: PushLimits = _LIMITS,
    ) -> None:
        self._records, self._chunks, self._catalog, self._versions = records, chunks, catalog, versions
        self._chunk_reader, self._runs, self._digests = chunk_reader, runs, digests
        self._shared = shared
        self._open: dict[tuple[str, str], OpenPush] = {}
        self._quota = PushQuota(chunks, limits)

    # -- push in several requests

    def begin(self, caller: Caller, project: str, model: str, body: NewPush) -> Push:
        """Validate and stage a push, and return the chunks that the project lacks.

        Raises
        ------
        Conflict, TooLarge
            If the account has too many open pushes; see `PushQuota`.
        """
        push = self._prepare(caller, project, model, body)
        self._require_free(caller, push)
        with self._chunks.shared_lock(push.place.space):  # gc must not delete a chunk between the check and the staging
            push.missing = self._lacking(push)
            self._check_sizes(push, push.missing)
            push.sent = sum(push.sizes[chunk] for chunk in push.missing)
            reserved = push.sent + len(bytes(body.manifest))
            data = msgspec.json.encode(_staged(body, push.by, reserved))
            for expired in self._quota.stage(push.place.space, push.id, data, push.by, reserved):
                self._open.pop(expired, None)
        self._remember(push)
        return _answer(push)

    def status(self, caller: Caller, project: str, model: str, push_id: str) -> Push:
        """Return the chunks that an open push still lacks."""
        push = self.resume(caller, project, model, push_id)
        push.missing = self._lacking(push)
        return _answer(push)

    def resume(self, caller: Caller, project: str, model: str, push_id: str) -> OpenPush:
        """Return an open push.

        Raises
        ------
        NotFound
            If the push does not exist, is expired or belongs to another account.
        """
        place = self._catalog.find_model(caller, project, model)
        access.require(caller, access.PROPOSE, project)
        found = self._open.get((place.space, push_id)) or self._reopen(place, push_id)
        if not _is_own(caller, found):
            raise _no_push(push_id)
        access.require(caller, right_of(found.body), project)
        self._chunks.touch(place.space, push_id)
        if found.place.model.id != place.model.id:
            raise _no_push(push_id)
        return found

    def _require_free(self, caller: Caller, push: OpenPush) -> None:
        """Check that no other account has an open push with the same id, which the new push would replace."""
        key = push.place.space, push.id
        try:
            open_ = self._open.get(key) or self._reopen(push.place, push.id)
        except NotFound:
            return
        if not _is_own(caller, open_):
            raise Conflict(f"somebody else has an open push {push.id}", hint="make up another id")

    def receive(self, push: OpenPush, frame: Frame, payload: Sequence[memoryview]) -> None:
        """Verify one frame and store it.

        Raises
        ------
        InvalidRequest
            If the chunk is not in the manifest, or the delta base is not a chunk of the base version.
        IntegrityError
            If the digest of the decoded bytes is not the id of the chunk. Nothing is stored.
        Conflict
            If the delta base can no longer be read.
        """
        if push.sizes.get(frame.chunk) != frame.size:
            raise InvalidRequest(
                f"the chunk {frame.chunk[:12]} of {frame.size} bytes is not in the manifest of this push"
            )
        # A raw frame is verified without a copy of its bytes. Others must be decoded to be verified.
        kept: Frame = frame
        pieces: Sequence[Buffer] = payload
        if frame.codec == RAW:
            _verify(frame, payload)
        else:
            kept, pieces = self._decoded(push, frame, b"".join(payload))
        push.count(frame, self._chunks.put(push.place.space, frame.chunk, [chunk_frames.header(kept), *pieces]))

    def commit(self, caller: Caller, project: str, model: str, push_id: str) -> Document:
        """Commit a push. A repeated request returns the same version.

        Raises
        ------
        MissingChunks
            If chunks are missing.
        Conflict
            If `expect_parent` is no longer the latest version.
        """
        place = self._catalog.find_model(caller, project, model)
        access.require(caller, access.PROPOSE, project)
        done = self._committed(place, push_id)
        # A client that did not receive the answer of its commit repeats the request.
        return done or self._finish(caller, self.resume(caller, project, model, push_id))

    def to_verify(self, caller: Caller, project: str, model: str, push_id: str) -> OpenPush | None:
        """Return an open push whose tensor digests are to be verified before the commit; None if it is committed."""
        place = self._catalog.find_model(caller, project, model)
        access.require(caller, access.PROPOSE, project)
        return None if self._committed(place, push_id) else self.resume(caller, project, model, push_id)

    def cost_of_verifying(self, push: OpenPush) -> int:
        """Return the number of bytes that `verify_tensors` hashes."""
        return 0 if push.verified else self._digests.cost(push.manifest)

    def verify_tensors(self, push: OpenPush) -> None:
        """Verify the tensor digests of a push if its chunks are complete.

        If chunks are missing, the commit reports them.
        """
        if not push.verified and not self._lacking(push):
            self._check_sizes(push)
            with _unreadable(push):
                self._digests.require_true(push.place.space, push.manifest)
            push.verified = True

    def _check_headers(self, push: OpenPush) -> None:
        with _unreadable(push):
            check_headers(self._chunk_reader, push.place.space, push.manifest)

    # -- push in one request

    def prepare_small(self, caller: Caller, project: str, model: str, body: NewPush) -> OpenPush:
        """Validate a push of one request. It is not staged, because its frames follow in the same request."""
        push = self._prepare(caller, project, model, body)
        push.missing = self._lacking(push)
        push.sent = sum(push.sizes[chunk] for chunk in push.missing)
        return push

    def commit_small(self, caller: Caller, push: OpenPush) -> Document:
        """Commit a small push whose frames were received."""
        return self._committed(push.place, push.id) or self._finish(caller, push)

    # -- steps

    def _decoded(self, push: OpenPush, frame: Frame, payload: bytes) -> tuple[Frame, Sequence[Buffer]]:
        """Decode and verify a frame. Return the frame to store: raw for a delta, otherwise unchanged."""
        with codec_turn:  # limits the number of frames that are decoded at the same time
            data = codecs.decode(frame, payload, lambda base: self._base_data(push, frame, base))
            _verify(frame, [memoryview(data)])
        return (Frame(frame.chunk, frame.size, frame.size), [data]) if frame.codec == DELTA else (frame, [payload])

    def _base_data(self, push: OpenPush, frame: Frame, base: str) -> Buffer:
        """Return the delta base of a frame if it is a chunk of the base version."""
        if base not in self._bases(push):
            raise InvalidRequest(
                f"the delta of the chunk {frame.chunk[:12]} depends on {base[:12]}, which is no chunk of the base",
                hint="a delta depends on a chunk of the version that the push was told as its base",
            )
        try:
            return self._chunk_reader.data(push.place.space, base)
        except IntegrityError as error:
            raise Conflict(f"{error.message}; a delta depends on it", hint="send the chunk by itself") from None

    def _bases(self, push: OpenPush) -> Container[str]:
        if push.base is None:
            return ()
        try:
            return self._versions.slots(push.place.space, push.base).chunks
        except IntegrityError:  # the base version was removed meanwhile
            return ()

    def _prepare(self, caller: Caller, project: str, model: str, body: NewPush) -> OpenPush:
        if not _PUSH.fullmatch(body.push):
            raise InvalidRequest("the id of a push is 32 hex digits that the client makes up")
        try:
            self._require_right(caller, project, model, body)
        except AccessDenied as error:
            if not body.propose and caller.may(access.PROPOSE, project):
                error.hint = f"{error.hint}; `--propose` proposes the version to a maintainer"
            raise
        # Rights are checked before the manifest is parsed: parsing a large one is expensive.
        manifest = manifests.decode_new(bytes(body.manifest))
        if manifest.parents:
            raise InvalidRequest("a manifest is pushed without parents; the server adds them")
        check_manifest(manifest)
        check_repetition(manifest)
        metadata.checked(body)
        metadata.check_environment(body.environment)
        if body.run:
            run_records.checked_id("run", body.run)
        imported_versions.check(caller, project, body, manifest)
        if body.propose and (body.recorded or body.aliases):
            raise InvalidRequest("a proposed version goes without aliases: a maintainer sets them")
        for alias in body.aliases:
            check_alias(alias)
        place = self._place(caller, project, model, body)
        access.require(caller, right_of(body), project)
        self._require_run(caller, place, body)
        if body.parent and self._versions.by_digest(place, body.parent) is None:
            raise NotFound(f"no version of {place.reference} has the digest {body.parent[:12]}, given as the parent")
        return OpenPush(place, body, manifest, _sizes(manifest), set(), self._base(place, body), by=caller.user)

    def _require_right(self, caller: Caller, project: str, model: str, body: NewPush) -> None:
        """Check the caller's rights, and that the model exists or can be created, before the manifest is parsed."""
        if not self._makes(body):
            self._place(caller, project, model, body)
        elif self._catalog.may_make(caller, project):
            return
        else:
            self._catalog.find_or_create_project(caller, project)
        access.require(caller, right_of(body), project)

    def _makes(self, body: NewPush) -> bool:
        """Whether a push creates its model and project if they do not exist."""
        return (body.create or not self._shared) and not body.propose

    def _base(self, place: Place, body: NewPush) -> str | None:
        latest = None if body.parent else self._versions.latest(place)
        return latest.data["digest"] if latest else body.parent

    def _place(self, caller: Caller, project: str, model: str, body: NewPush) -> Place:
        if self._makes(body):
            return self._catalog.find_or_create(caller, project, model)
        try:
            self._catalog.find_project(caller, project)  # first, so that a missing project is reported as such
            return self._catalog.find_model(caller, project, model)
        except NotFound as error:
            near = f"{error.hint} " if str(error.hint).startswith("did you mean") else ""
            way = "`--create` makes a new one"
            if body.propose:
                way = "a version is proposed to a model that is there: a maintainer makes it first"
            raise NotFound(error.message, hint=f"{near}{way}") from None

    def _reopen(self, place: Place, push_id: str) -> OpenPush:
        """Load a push from its staged body. Another process began it, or this process was restarted."""
        try:
            data, touched = self._chunks.staged(place.space, push_id)
        except KeyError:
            raise _no_push(push_id) from None
        if time.time() - touched > LIFETIME:  # expired; the next gc deletes it with its chunks
            raise _no_push(push_id)
        body = msgspec.json.decode(data, type=StagedPush)
        manifest = manifests.decode(bytes(body.manifest))
        push = OpenPush(place, body, manifest, _sizes(manifest), set(), self._base(place, body), by=body.by)
        push.missing = self._lacking(push)
        push.sent = sum(push.sizes[chunk] for chunk in push.missing)
        self._remember(push)
        return push

    def _remember(self, push: OpenPush) -> None:
        while self._open and (len(self._open) >= _REMEMBERED or self._chunks_with(push) > _REMEMBERED_CHUNKS):
            # dicts keep the order of insertion, so the first entry is the oldest.
            self._open.pop(next(iter(self._open)), None)
        self._open[push.place.space, push.id] = push

    def _chunks_with(self, push: OpenPush) -> int:
        return len(push.sizes) + sum(len(one.sizes) for one in list(self._open.values()))

    def _lacking(self, push: OpenPush) -> set[str]:
        return set(self._chunks.missing(push.place.space, push.sizes))

    def _check_sizes(self, push: OpenPush, missing: Container[str] = ()) -> None:
        """Verify the size of each existing chunk in the manifest. The sizes of missing chunks are verified on arrival.

        Raises
        ------
        InvalidManifest
            If a size is wrong; the message names the file and the chunk. Such a version could not be read.
        """
        for file in push.manifest.files:
            for chunk in file.chunks:
                if chunk.id in push.proved or chunk.id in missing:
                    continue
                found = self._chunk_reader.length(push.place.space, chunk.id, chunk.size)
                if found != chunk.size:
                    raise InvalidManifest(
                        f"{file.path!r} states {chunk.size:,} bytes for the chunk {chunk.id[:12]}, which has {found:,}",
                        hint="a manifest states the size of each chunk as it is: see docs/format.md, Manifest",
                    )
                push.proved.add(chunk.id)

    def _committed(self, place: Place, push_id: str) -> Document | None:
        # The id of a push is stored in its version, so a repeated commit is found even after a restart.
        ours = {"push": push_id, "model": place.model.id}
        found = self._records.find(place.space, "versions", ours, limit=1)
        found = found or self._records.find(
            place.space, "versions", {"push": push_id, "model": proposed_key(place.model.id)}, limit=1
        )
        found = found or self._records.find(
            place.space, DELETED_CONTRIBUTIONS, {"push": push_id, "model": proposed_key(place.model.id)}, limit=1
        )
        if not found:
            return None
        self._records.commit(place.space, [])  # wait until the version is durable before the answer promises it
        return self._versions.present(place, found[0])

    def _require_run(self, caller: Caller, place: Place, body: NewPush) -> None:
        """Check that the caller can link a version to the run. An import keeps the run of the recorded version.

        An unknown run is accepted, because its journal can arrive after the version.

        Raises
        ------
        AccessDenied
            If the run belongs to another account and the caller is not a maintainer.
        NotFound
            If the run belongs to another project.
        """
        if not body.run or body.recorded:
            return
        run = self._records.get(place.space, "runs", body.run)
        if run is not None:
            self._runs.require_author(caller, place.project, run)
        elif any(self._records.get(one.id, "runs", body.run) for one in self._records.find(SERVER, "projects")):
            name = place.project.data["name"]
            raise NotFound(f"no run {body.run} in project {name!r}", hint="a version names a run of its own project")

    def _finish(self, caller: Caller, push: OpenPush) -> Document:
        self._require_run(caller, push.place, push.body)  # again, because the run can be new since the push began
        with self._chunks.shared_lock(push.place.space):
            missing = sorted(self._lacking(push))
            if missing:
                raise _missing(push, missing)
            self._check_sizes(push)
            self.verify_tensors(push)
            self._check_headers(push)
            # The order matters: chunks are durable before the record that references them.
            self._chunks.settle(push.place.space, push.sizes)
            self._records.commit(SERVER, [])  # the project too must be durable: another request may be creating it
            version = self._insert(caller, push)
        self._chunks.unstage(push.place.space, push.id)
        self._open.pop((push.place.space, push.id), None)
        return self._versions.present(push.place, version) | {"sent": push.sent}

    def _insert(self, caller: Caller, push: OpenPush) -> Record:
        """Write the record of the version with the next number. Retry if another push takes the number first."""

        def attempt() -> Record:
            model = self._model(push)  # read first: if anything below is newer, the commit fails and is retried
            said = push.body.recorded
            if said and (found := imported_versions.already_there(self._versions, push.place, model, said)):
                self._records.commit(push.place.space, [])
                return found
            latest = self._versions.latest(push.place)
            _check_expected(push, latest)
            if push.body.propose:
                return self._propose(caller, push, model, latest)
            if latest is not None and said is None and _says_nothing_new(push, latest):
                return self._only_aliases(caller, push, latest)
            changes, events = self._changes(caller, push, model, latest)
            self._records.commit(push.place.space, changes, events, check=self._still(caller, push))
            return self._versions.find(push.place, str(imported_versions.number(said, model)))

        return self._records.retry(attempt)

    def _propose(self, caller: Caller, push: OpenPush, model: Record, latest: Record | None) -> Record:
        """Write the record of a proposed version; see `lmvp_server.services.contributions`."""
        space, number = push.place.space, int(model.data.get("proposed", 0)) + 1
        version = self._version(caller, push, number, self._parents(push, latest))
        self._chunks.put_manifest(space, version["digest"], _with_parents(push.manifest, version["parents"]))
        about = {"status": "proposed", "by": caller.user, "reason": "", "accepted": 0, "comments": []}
        version |= {"model": proposed_key(model.id), "contribution": about}
        id_ = version_id(proposed_key(model.id), number)
        event = {"at": version["created_at"], "who": version["author"], "action": "contribution.propose",
                 "what": f"{push.place.reference}@c{number}", "before": None,
                 "after": {"digest": version["digest"], "message": version["message"]}}  # fmt: skip
        changes = [Put("versions", id_, version, expect=0),
                   Put("models", model.id, {**model.data, "proposed": number}, model.rev)]  # fmt: skip
        self._records.commit(space, changes, [event], check=self._still(caller, push))
        record = self._records.get(space, "versions", id_)
        assert record is not None
        return record

    def _model(self, push: OpenPush) -> Record:
        model = self._records.get(push.place.space, "models", push.place.model.id)
        if model is None:
            raise NotFound(f"{push.place.reference} was deleted in the meantime")
        return model

    def _changes(
        self, caller: Caller, push: OpenPush, model: Record, latest: Record | None
    ) -> tuple[list[Change], list[Document]]:
        place = push.place
        said = push.body.recorded
        number = imported_versions.number(said, model)
        version = self._version(caller, push, number, self._parents(push, latest))
        self._chunks.put_manifest(place.space, version["digest"], _with_parents(push.manifest, version["parents"]))
        changes: list[Change] = [
            Put("versions", version_id(model.id, number), version, expect=0),
            Put(
                "models",
                model.id,
                {**model.data, "latest": number, "last": imported_versions.last(said, number)},
                model.rev,
            ),
        ]
        after = {"number": number, "digest": version["digest"], "message": version["message"]}
        events = [_told(caller, push, version, after)]
        for alias in _aliases(push):
            put, entries = alias_change(self._records, place, alias, number, version["author"])
            changes += [put] if put else []
            events += entries
        return changes, events

    def _version(self, caller: Caller, push: OpenPush, number: int, parents: Sequence[Document]) -> Document:
        fields = {"message": "", "metrics": {}, "params": {}, "tags": {}} | metadata.checked(push.body)
        return {
            "model": push.place.model.id,
            "number": number,
            "digest": blake3(_with_parents(push.manifest, parents)).hexdigest(),
            "content": manifests.content_of(push.manifest),
            "format": push.manifest.format,
            "created_at": now(),
            "author": caller.on_behalf(push.body.author),
            "parents": parents,
            "environment": push.body.environment,
            "size": push.manifest.size,
            "stored": push.stored,
            "sent": push.sent,
            "revised": 0,
            "push": push.id,
            "run": push.body.run,
            **fields,
            **imported_versions.fields(push.body.recorded),
        }

    def _parents(self, push: OpenPush, latest: Record | None) -> list[Document]:
        if push.body.recorded:
            return imported_versions.parents(push.body.recorded)
        parent = self._versions.by_digest(push.place, push.body.parent) if push.body.parent else latest
        return [{"number": parent.data["number"], "digest": parent.data["digest"]}] if parent else []

    def _still(self, caller: Caller, push: OpenPush) -> Callable[[], None]:
        return grants.still(self._records, caller, right_of(push.body), push.place.project)

    def _only_aliases(self, caller: Caller, push: OpenPush, latest: Record) -> Record:
        who = caller.on_behalf(push.body.author)
        for alias in _aliases(push):
            put, events = alias_change(self._records, push.place, alias, latest.data["number"], who)
            if put:
                self._records.commit(push.place.space, [put, *hold(latest)], events, check=self._still(caller, push))
                latest = self._versions.by_number(push.place, latest.data["number"]) or latest
        self._records.commit(push.place.space, [])  # wait until this version is durable: another push may be writing it
        return latest


def _is_own(caller: Caller, push: OpenPush) -> bool:
    """Whether the caller began a push. A push that an earlier version of LMVP staged has no account."""
    return push.by is None or access.made_by(caller, push.by)


def _aliases(push: OpenPush) -> list[str]:
    """Return the aliases of a push without duplicates. Case is ignored, and one commit cannot create an alias twice."""
    unique: dict[str, str] = {}
    for alias in push.body.aliases:
        unique.setdefault(alias.lower(), alias)
    return list(unique.values())


def right_of(body: NewPush) -> str:
    """Return the right that a push requires."""
    return access.PROPOSE if body.propose else access.WRITE


def _told(caller: Caller, push: OpenPush, version: Document, after: Document) -> Document:
    """Return the event of a new version. For an import it also has the time and the importing account."""
    event = {"at": version["created_at"], "who": version["author"], "action": "version.create",
             "what": f"{push.place.reference}@v{version['number']}", "before": None, "after": after}  # fmt: skip
    if push.body.recorded:
        made = {"author": version["author"], "created_at": version["created_at"]}
        event |= {"at": now(), "who": caller.name, "action": "version.import", "after": after | made}
    return event


def _sizes(manifest: Manifest) -> dict[str, int]:
    return {chunk.id: chunk.size for file in manifest.files for chunk in file.chunks}


def _with_parents(manifest: Manifest, parents: Sequence[Document]) -> bytes:
    digests = tuple(parent["digest"] for parent in parents)
    return manifests.encode(msgspec.structs.replace(manifest, parents=digests))


@contextmanager
def _unreadable(push: OpenPush) -> Iterator[None]:
    """Accept a version that shares a damaged chunk: its frames were verified, and the damage occurred later.

    Answers never contain the damaged bytes, `fsck` reports the file, and a push with the same chunk can repair it.
    """
    try:
        yield
    except IntegrityError as error:
        log.warning("a push to %s shares damaged data: %s", push.place.space, error.message)


def _verify(frame: Frame, payload: Sequence[memoryview]) -> None:
    hasher = blake3()
    for piece in payload:
        hasher.update(piece)
    if hasher.hexdigest() != frame.chunk:
        raise IntegrityError(f"the bytes of the chunk {frame.chunk[:12]} do not match its id", hint="send it again")


def _says_nothing_new(push: OpenPush, latest: Record) -> bool:
    """Whether the latest version has the same content, and the same values of all given fields."""
    same = latest.data["content"] == manifests.content_of(push.manifest)
    return same and all(latest.data[key] == value for key, value in metadata.checked(push.body).items())


def _check_expected(push: OpenPush, latest: Record | None) -> None:
    # An empty text means: the model must have no version.
    expected = push.body.expect_parent
    actual = latest.data["digest"] if latest else ""
    if expected is not None and expected != actual:
        at = f"v{latest.data['number']}" if latest else "empty"
        raise Conflict(
            f"{push.place.reference} is at {at}, not at {expected[:12] or 'nothing'} as expected",
            hint="pull the latest version, or push without expect_parent",
        )


def _missing(push: OpenPush, missing: Sequence[str]) -> MissingChunks:
    count = f"{len(missing)} of {len(push.sizes)} chunks"
    error = MissingChunks(f"{count} have not come, the first is {missing[0][:12]}", hint="send them and commit again")
    error.missing = list(missing)
    return error


def _no_push(push_id: str) -> NotFound:
    return NotFound(f"no open push {push_id[:32]!r}", hint="it was committed, or its 24 hours are over: begin again")


def _answer(push: OpenPush) -> Push:
    expires = datetime.fromtimestamp(time.time() + LIFETIME, timezone.utc)
    # In the order of the manifest, so that the client reads its files sequentially.
    ordered = tuple(chunk for chunk in push.sizes if chunk in push.missing)
    return Push(push=push.id, missing=ordered, expires=expires, base=push.base)
