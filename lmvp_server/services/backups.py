"""Backups of a running server: a snapshot of its records and the data that they reference, which a client copies.

A backup begins with a snapshot of every space and a lease on every project. Until the lease ends, nothing in the
projects is deleted; pushes, amendments and compaction continue. The client requests the records, reads from them which
manifests and chunks exist, and requests those that it lacks. Frames are sent as they are stored. For a delta, the
client can request the delta base too, or the decoded chunk.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial

import lmvp
from lmvp.archive import backup_records
from lmvp.core import chunk_frames
from lmvp.core.chunk_frames import Frame
from lmvp.core.schemas import Backup, BackupSpace, WantedPieces
from lmvp.errors import Conflict, IntegrityError, InvalidRequest, NotFound, TooLarge
from lmvp_server.services import access
from lmvp_server.services.access import Caller
from lmvp_server.services.audit import event
from lmvp_server.services.catalog import REMOVED, SERVER, every_project
from lmvp_server.services.chunk_reader import ChunkReader
from lmvp_server.services.gc import Leases
from lmvp_server.services.maintenance import Upkeep
from lmvp_server.stores.base import ChunkStore, Record, RecordStore, SeriesStore, SpaceSnapshot

AT_ONCE = 32
"""The limit of open backups. One more ends the backup with the oldest last request; its client must start again."""

PIECE_LIMIT = 64 << 20
"""The largest piece, in bytes. It must equal the limit in `lmvp.archive.backup`, which the server does not import."""

_SLICE = 64 << 10
"""Bytes of lines that are joined to one piece. A piece for each short line would be slow."""


@dataclass(frozen=True, slots=True)
class _Open:
    """An open backup."""

    about: Backup
    snapshots: dict[str, SpaceSnapshot]
    by: str
    """The id of the account that started it; empty for the server's operator."""


class Backups:
    """Use cases of backups. Open backups are in memory: a restart of the server ends them."""

    def __init__(
        self,
        records: RecordStore,
        chunks: ChunkStore,
        series: SeriesStore,
        chunk_reader: ChunkReader,
        upkeep: Upkeep,
        leases: Leases,
    ) -> None:
        self._records, self._chunks, self._series, self._chunk_reader = records, chunks, series, chunk_reader
        self._upkeep, self._leases = upkeep, leases
        self._open: dict[str, _Open] = {}

    def begin(self, caller: Caller) -> Backup:
        """Take a snapshot of all spaces, and lease the projects.

        Raises
        ------
        AccessDenied
            If the caller is not an admin. A backup contains all data of the server.
        Conflict
            If more than `AT_ONCE` others were started meanwhile, which ended this one.
        """
        access.require(caller, access.ADMIN)
        self._make_room()
        lease = secrets.token_hex(16)
        self._leases.begin(lease)
        try:
            at, snapshots = datetime.now(timezone.utc), self._snapshots(lease)
        except BaseException:  # otherwise the lease would defer deletions until it expires
            self._leases.end(lease)
            raise
        about = Backup(id=lease, created_at=at, server=lmvp.__version__, spaces=tuple(_about(snapshots)))
        self._open[lease] = _Open(about, snapshots, caller.user)
        self._record(caller, "backup.begin", lease, {"projects": len(about.spaces) - 1})
        return about

    def about(self, caller: Caller, backup: str) -> Backup:
        """Return the description of a backup. The request also extends its lease."""
        return self._find(caller, backup).about

    def end(self, caller: Caller, backup: str) -> None:
        """End a backup, and run the deletions that it deferred. A backup that has ended already is not an error."""
        access.require(caller, access.ADMIN)
        if (found := self._open.get(backup)) is not None:
            self._require_own(caller, found)
            self._record(caller, "backup.end", backup, None)
        self._open.pop(backup, None)
        self._leases.end(backup)
        self._upkeep.settle_up()

    def forget_dead(self) -> None:
        """Drop the snapshots of backups whose lease has ended or expired."""
        alive = self._leases.alive()
        for gone in [one for one in list(self._open) if one not in alive]:
            self._open.pop(gone, None)

    def records(self, caller: Caller, backup: str, space: str) -> Iterator[bytes]:
        """Yield the file of records and events of a space in pieces; see docs/format.md, "Backups".

        Raises
        ------
        IntegrityError
            If an event is damaged, before the first piece is sent. A restore would refuse the file.
        """
        snapshot = self._space(caller, backup, space)
        for _ in snapshot.events():  # verifies each event; after the first piece, the answer cannot fail any more
            pass
        return _pieces(
            backup_records.lines(space, snapshot.tables, snapshot.next_seq, snapshot.count, snapshot.events())
        )

    def pieces(
        self, caller: Caller, backup: str, space: str, kind: str, wanted: WantedPieces
    ) -> Sequence[Callable[[], bytes]]:
        """Return a function for each requested chunk, manifest, note or series, which reads it when it is called.

        The function returns no bytes if the piece is missing or cannot be decoded.

        Raises
        ------
        InvalidRequest
            If an id is repeated. Otherwise a short request could make the server send one chunk many thousand times.
        NotFound
            If there is no such kind of pieces.
        TooLarge
            If a series is longer than `PIECE_LIMIT`.
        """
        self._space(caller, backup, space)
        if len(set(wanted.want)) < len(wanted.want):
            repeated, times = Counter(wanted.want).most_common(1)[0]
            raise InvalidRequest(f"`want` names {repeated[:64]!r} {times:,} times", hint="name each id once")
        read = {
            "chunks": self._plain if wanted.plain else self._chunks.get,
            "manifests": self._chunks.manifest,
            "notes": self._chunks.note,
            "series": self._dumped,
        }.get(kind)
        if kind == "series":
            self._require_short(space, wanted.want)
        if read is None:
            raise NotFound(f"no {kind!r} in a backup", hint="chunks, manifests, notes and series are")
        return [partial(_or_nothing, read, space, one) for one in wanted.want]

    def series(self, caller: Caller, backup: str, space: str, run: str) -> Iterator[bytes]:
        """Yield the series of a run in pieces; see docs/format.md, "Backups".

        Raises
        ------
        IntegrityError
            If the series is damaged, before the first piece is sent.
        """
        self._space(caller, backup, space)
        return _pieces(self._series.dump(space, run))

    # -- steps

    def _require_short(self, space: str, runs: Sequence[str]) -> None:
        """Refuse to send a series above `PIECE_LIMIT` as one piece, because clients of 9d7a6ec do not accept it."""
        for run in runs:
            if (size := self._series.size(space, run)) > PIECE_LIMIT:
                raise TooLarge(
                    f"the points of run {run} have {size:,} bytes; as one piece, the limit is {PIECE_LIMIT:,}",
                    hint="update lmvp on this side: it asks for long series piece by piece",
                )

    def _snapshots(self, lease: str) -> dict[str, SpaceSnapshot]:
        """Take snapshots of all projects and of the server, which list the same projects."""
        while True:  # a project can be created or deleted while the snapshots are taken
            projects = {record.id for record in every_project(self._records)}
            snapshots = {space: self._snapshot(lease, space) for space in sorted(projects)}
            server = self._records.snapshot(SERVER)
            if {record.id for record in _projects(server)} == projects:
                return {SERVER: server, **snapshots}

    def _snapshot(self, lease: str, space: str) -> SpaceSnapshot:
        """Lease a project, then take its snapshot.

        `shared_lock` waits for a gc that is deleting at this time. The lease defers a later one.
        """
        with self._chunks.shared_lock(space):
            try:
                self._leases.add(lease, space)
            except KeyError:
                raise Conflict("too many backups were begun at once", hint="begin again in a while") from None
            return self._records.snapshot(space)

    def _find(self, caller: Caller, backup: str) -> _Open:
        """Return an open backup of the caller, and extend its lease."""
        access.require(caller, access.ADMIN)
        found = self._open.get(backup)
        if found is None or not self._leases.touch(backup):
            self._open.pop(backup, None)
            raise _no_backup(backup)
        self._require_own(caller, found)
        return found

    def _require_own(self, caller: Caller, backup: _Open) -> None:
        # The same error as for an unknown id: it does not reveal backups of other admins.
        if not access.made_by(caller, backup.by):
            raise _no_backup(backup.about.id)

    def _record(self, caller: Caller, action: str, backup: str, after: object) -> None:
        # The beginning of the id is enough to identify the backup in the log.
        self._records.commit(SERVER, [], [event(caller.name, action, backup[:8], None, after)])

    def _space(self, caller: Caller, backup: str, space: str) -> SpaceSnapshot:
        snapshot = self._find(caller, backup).snapshots.get(space)
        if snapshot is None:
            raise NotFound(f"no space {space[:64]!r} in this backup")
        return snapshot

    def _make_room(self) -> None:
        """End the backups with the oldest last requests, so that one more is within the limit."""
        alive = self._leases.alive()
        for silent in alive[: max(0, len(alive) - AT_ONCE + 1)]:
            self._leases.end(silent)
        self.forget_dead()

    def _dumped(self, space: str, run: str) -> bytes:
        return b"".join(self._series.dump(space, run))

    def _plain(self, space: str, chunk: str) -> bytes:
        """Return a decoded chunk as a raw frame."""
        data = self._chunk_reader.data(space, chunk)
        return chunk_frames.header(Frame(chunk, len(data), len(data))) + data


def _no_backup(backup: str) -> NotFound:
    return NotFound(f"no backup {backup[:32]!r} of yours is under way", hint="begin again: what was copied stays")


def _projects(server: SpaceSnapshot) -> Sequence[Record]:
    """Return the projects in a snapshot of the server, those in the trash included; see `every_project`."""
    return [*server.tables.get("projects", ()), *server.tables.get(REMOVED, ())]


def _about(snapshots: dict[str, SpaceSnapshot]) -> Iterator[BackupSpace]:
    names = {record.id: record.data["name"] for record in _projects(snapshots[SERVER])}
    for space, snapshot in snapshots.items():
        records = sum(len(rows) for rows in snapshot.tables.values())
        yield BackupSpace(space=space, name=names.get(space, ""), records=records, events=snapshot.count)


def _pieces(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Join lines to pieces of at least `_SLICE` bytes."""
    held, size = [], 0
    for line in lines:
        held.append(line)
        size += len(line)
        if size >= _SLICE:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


def _or_nothing(read: Callable[[str, str], bytes], space: str, key: str) -> bytes:
    """Read a piece; return no bytes if it is missing or cannot be decoded. The client reports what it lacks."""
    try:
        return read(space, key)
    except (KeyError, IntegrityError):
        return b""
