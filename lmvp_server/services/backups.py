"""Backups of a running server: what its records were at one moment, and all that they need, for a client to copy.

A backup begins with a moment of every space, and a lease on the projects: until it ends, nothing in them is deleted.
All else goes on: pushes, amendments, compaction. The client asks for the records, learns from them which manifests and
chunks there are, and asks for those that it does not have. Frames travel as they are kept; what a delta leans on can be
asked for too, or the chunk as it is, decoded.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial

import lmvp
from lmvp.archive import recordfile
from lmvp.errors import Conflict, IntegrityError, InvalidRequest, NotFound, TooLarge
from lmvp.records import Backup, BackupSpace, WantedPieces
from lmvp.storage import frames
from lmvp.storage.frames import Frame
from lmvp_server.services import access
from lmvp_server.services.access import Caller
from lmvp_server.services.catalog import REMOVED, SERVER, every_project
from lmvp_server.services.decoding import Decoder
from lmvp_server.services.events import event
from lmvp_server.services.leases import Leases
from lmvp_server.services.upkeep import Upkeep
from lmvp_server.stores.base import ChunkStore, Moment, Record, RecordStore, SeriesStore

AT_ONCE = 32
"""Backups that may be under way; a further one ends that which was not heard of for longest: its client begins anew."""

PIECE_LIMIT = 64 << 20
"""Bytes of a piece at most; the same as in `lmvp.archive.pieces`, which the server does not import."""

_SLICE = 64 << 10


@dataclass(frozen=True, slots=True)
class _Open:
    """A backup under way."""

    about: Backup
    moments: dict[str, Moment]
    by: str
    """The id of the account that began it; empty for the server's operator."""


class Backups:
    """The use cases of a backup."""

    def __init__(
        self,
        records: RecordStore,
        chunks: ChunkStore,
        series: SeriesStore,
        decoder: Decoder,
        upkeep: Upkeep,
        leases: Leases,
    ) -> None:
        self._records, self._chunks, self._series, self._decoder = records, chunks, series, decoder
        self._upkeep, self._leases = upkeep, leases
        self._open: dict[str, _Open] = {}

    def begin(self, caller: Caller) -> Backup:
        """Take a moment of all spaces, and hold what they need.

        Raises
        ------
        AccessDenied
            If the caller does not own the server: a backup holds all that is in it.
        Conflict
            If so many others were begun meanwhile that this one had to make room.
        """
        access.require(caller, access.ADMIN)
        self._make_room()
        lease = secrets.token_hex(16)
        self._leases.begin(lease)
        try:
            at, moments = datetime.now(timezone.utc), self._moments(lease)
        except BaseException:
            self._leases.end(lease)
            raise
        about = Backup(id=lease, created_at=at, server=lmvp.__version__, spaces=tuple(_about(moments)))
        self._open[lease] = _Open(about, moments, caller.user)
        self._record(caller, "backup.begin", lease, {"projects": len(about.spaces) - 1})
        return about

    def about(self, caller: Caller, backup: str) -> Backup:
        """Return what a backup is of, which is a sign of life."""
        return self._find(caller, backup).about

    def end(self, caller: Caller, backup: str) -> None:
        """Let go of a backup, and delete what had to wait for its end."""
        access.require(caller, access.ADMIN)
        if (found := self._open.get(backup)) is not None:
            self._require_own(caller, found)
            self._record(caller, "backup.end", backup, None)
        self._open.pop(backup, None)
        self._leases.end(backup)
        self._upkeep.settle_up()

    def forget_dead(self) -> None:
        """Let go of the moments of backups that are not heard of any more."""
        alive = self._leases.alive()
        for gone in [one for one in list(self._open) if one not in alive]:
            self._open.pop(gone, None)

    def records(self, caller: Caller, backup: str, space: str) -> Iterator[bytes]:
        """Yield the file of records and events of a space in pieces; see docs/format.md, "Backups".

        Raises
        ------
        IntegrityError
            If an event is damaged, before anything is sent: no restore would take such a file.
        """
        moment = self._space(caller, backup, space)
        for _ in moment.events():
            pass
        return _pieces(recordfile.lines(space, moment.tables, moment.next_seq, moment.count, moment.events()))

    def pieces(
        self, caller: Caller, backup: str, space: str, kind: str, wanted: WantedPieces
    ) -> Sequence[Callable[[], bytes]]:
        """Return what reads the chunks, manifests, notes or series that are wanted; none of what is not there.

        Raises
        ------
        InvalidRequest
            If an id is repeated: a short request could ask for one chunk without end.
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
            If the series is damaged, before anything is sent.
        """
        self._space(caller, backup, space)
        return _pieces(self._series.dump(space, run))

    # -- steps

    def _require_short(self, space: str, runs: Sequence[str]) -> None:
        """Refuse to send a long series as one piece: clients of 9d7a6ec take no longer one."""
        for run in runs:
            if (size := self._series.size(space, run)) > PIECE_LIMIT:
                raise TooLarge(
                    f"the points of run {run} have {size:,} bytes; as one piece, the limit is {PIECE_LIMIT:,}",
                    hint="update lmvp on this side: it asks for long series piece by piece",
                )

    def _moments(self, lease: str) -> dict[str, Moment]:
        """Take moments of all projects that there are, and of the server while there are just these."""
        while True:
            projects = {record.id for record in every_project(self._records)}
            moments = {space: self._moment(lease, space) for space in sorted(projects)}
            server = self._records.moment(SERVER)
            if {record.id for record in _projects(server)} == projects:
                return {SERVER: server, **moments}

    def _moment(self, lease: str, space: str) -> Moment:
        """Hold a project, then take its moment: a sweep that is deleting now is waited for, a later one is put off."""
        with self._chunks.pinning(space):
            try:
                self._leases.add(lease, space)
            except KeyError:
                raise Conflict("too many backups were begun at once", hint="begin again in a while") from None
            return self._records.moment(space)

    def _find(self, caller: Caller, backup: str) -> _Open:
        access.require(caller, access.ADMIN)
        found = self._open.get(backup)
        if found is None or not self._leases.touch(backup):
            self._open.pop(backup, None)
            raise _no_backup(backup)
        self._require_own(caller, found)
        return found

    def _require_own(self, caller: Caller, backup: _Open) -> None:
        if not access.made_by(caller, backup.by):
            raise _no_backup(backup.about.id)

    def _record(self, caller: Caller, action: str, backup: str, after: object) -> None:
        self._records.commit(SERVER, [], [event(caller.name, action, backup[:8], None, after)])

    def _space(self, caller: Caller, backup: str, space: str) -> Moment:
        moment = self._find(caller, backup).moments.get(space)
        if moment is None:
            raise NotFound(f"no space {space[:64]!r} in this backup")
        return moment

    def _make_room(self) -> None:
        alive = self._leases.alive()
        for silent in alive[: max(0, len(alive) - AT_ONCE + 1)]:
            self._leases.end(silent)
        self.forget_dead()

    def _dumped(self, space: str, run: str) -> bytes:
        return b"".join(self._series.dump(space, run))

    def _plain(self, space: str, chunk: str) -> bytes:
        data = self._decoder.data(space, chunk)
        return frames.header(Frame(chunk, len(data), len(data))) + data


def _no_backup(backup: str) -> NotFound:
    return NotFound(f"no backup {backup[:32]!r} of yours is under way", hint="begin again: what was copied stays")


def _projects(server: Moment) -> Sequence[Record]:
    """Return all projects of which something is kept at a moment; see `every_project`."""
    return [*server.tables.get("projects", ()), *server.tables.get(REMOVED, ())]


def _about(moments: dict[str, Moment]) -> Iterator[BackupSpace]:
    names = {record.id: record.data["name"] for record in _projects(moments[SERVER])}
    for space, moment in moments.items():
        records = sum(len(rows) for rows in moment.tables.values())
        yield BackupSpace(space=space, name=names.get(space, ""), records=records, events=moment.count)


def _pieces(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Join lines to pieces of some length."""
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
    """Read a piece; nothing where it is not there or cannot be decoded: the client tells what it lacks."""
    try:
        return read(space, key)
    except (KeyError, IntegrityError):
        return b""
