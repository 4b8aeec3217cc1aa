"""Backup of a running server: a snapshot of the records, then all data that they reference, each piece verified.

Undamaged data of an earlier backup in the folder is reused. `backup.json` is written last. Until then, the folder
contains the earlier backup with all its data. See docs/format.md, "Backups".
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import count as counting
from pathlib import Path
from typing import Any

import msgspec
from blake3 import blake3

from lmvp.archive import backup_folder, backup_records, backup_series
from lmvp.archive.backup_folder import (
    CHUNKS,
    MANIFESTS,
    NOTES,
    RECORDS,
    SERIES,
    BackupFolder,
    Index,
    Space,
)
from lmvp.archive.backup_series import Copy
from lmvp.archive.verification import FrameVerifier, Known, parse
from lmvp.connection import Connection
from lmvp.core import digest, files
from lmvp.core.codecs import DEPTH_LIMIT, Buffer
from lmvp.core.files import sync_folder, write_all
from lmvp.core.manifest import Manifest
from lmvp.core.number_format import plural
from lmvp.core.schemas import Backup, BackupSpace, WantedPieces
from lmvp.errors import DamagedFile, IntegrityError, LmvpError, NotFound, ServerError, ServerUnavailable
from lmvp.transfer.download import body_reader
from lmvp.transfer.progress import Advance, Progress, showing

ATTEMPTS = 5
"""Maximum attempts. A new attempt begins if the server was restarted, because the server then forgot the backup."""

# All frames of a batch are in memory at once.
_BATCH_BYTES, _BATCH = 8 << 20, 256
_SIGN_OF_LIFE = 30.0
"""Seconds between two requests that keep the backup alive; the server drops it after 300 seconds without a request."""


@dataclass(frozen=True, slots=True)
class BackedUp:
    """The result of a backup.

    Attributes
    ----------
    path : Path
        The folder.
    projects, versions, chunks : int
        Counts of the contents of the backup.
    removed : int
        The number of these versions that are in the trash.
    bytes : int
        Bytes of all chunks, decoded.
    copied, kept : int
        Counts of the chunks that were transferred, and of those that the folder already had.
    written : int
        Bytes of frames that were written.
    """

    path: Path
    projects: int
    versions: int
    chunks: int
    bytes: int
    copied: int
    kept: int
    written: int
    removed: int = 0


@dataclass(slots=True)
class _Tally:
    copied: int = 0
    kept: int = 0
    written: int = 0


def back_up(connection: Connection, path: Path, *, quick: bool, progress: Progress) -> BackedUp:
    """Copy a server to a folder; see `lmvp.Client.back_up`.

    Parameters
    ----------
    quick : bool
        Check only that stored frames exist with the right lengths; do not decode them.

    Raises
    ------
    IntegrityError
        If data is damaged on the server and missing in this folder. The backup contains everything else.
    """
    with BackupFolder.open(path) as folder:
        tally = _Tally()
        for _ in range(ATTEMPTS - 1):
            try:
                return _Run(connection, folder, tally, quick).run(progress)
            except _Lost:  # the server was restarted; the copied data is reused
                continue
        return _Run(connection, folder, tally, quick).run(progress)


@dataclass(frozen=True, slots=True)
class _Series:
    """A copy of the points of a run, by its BLAKE3."""

    key: str
    copy: Copy


def _worth(series: _Series) -> tuple[int, bool]:
    """Return the sort key of a copy: more points first, undamaged before damaged."""
    return series.copy.points, not series.copy.set_aside


def _most(copies: Sequence[_Series]) -> int:
    return max((series.copy.points for series in copies), default=0)


class _Lost(ServerUnavailable):
    """The server does not know this backup: it was restarted, or the backup expired."""


class _Run:
    """One attempt of a backup, on one snapshot of the server."""

    def __init__(self, connection: Connection, folder: BackupFolder, tally: _Tally, quick: bool) -> None:
        self._connection, self._folder, self._tally, self._quick = connection, folder, tally, quick
        self._backup: Backup
        self._seen = time.monotonic()
        self._verified: dict[str, set[str]] = {}
        self._manifests: dict[str, dict[str, None]] = {}
        self._lacking: dict[str, list[str]] = {}
        self._damaged_runs: list[tuple[str, str]] = []
        self._before: dict[str, Space] = {}
        with suppress(NotFound, DamagedFile):  # no backup to this folder was finished
            self._before = {space.space: space for space in folder.index().spaces}

    def run(self, progress: Progress) -> BackedUp:
        self._backup = self._connection.send_json("POST", "/backups", {}, Backup)
        try:
            index = self._copy(progress)
        finally:
            self._end()
        # The new backup is complete now. Old files can be deleted, and the error for damaged data can be raised.
        self._tidy(index)
        self._complain(index)
        return self._outcome(index)

    def _copy(self, progress: Progress) -> Index:
        # Records first: they are the snapshot, and they state which data it needs.
        spaces = [self._records(space) for space in self._backup.spaces]
        needed = {space.space: self._need(space) for space in spaces}
        total = sum(size for chunks in needed.values() for size in chunks.values())
        with showing(progress, total, "backup") as advance:
            spaces = [self._chunks(space, needed[space.space], advance) for space in spaces]
        return self._seal(spaces)

    def _end(self) -> None:
        """End the lease on the server. If this request fails, the lease expires after 300 seconds."""
        try:
            self._connection.send("DELETE", f"/backups/{self._backup.id}")
        except LmvpError:
            return

    # -- records

    def _records(self, listed: BackupSpace) -> Space:
        # The file is moved into place under a name with its digest, so the file of the earlier backup stays.
        part = self._folder.part
        self._connection.attempt(lambda: self._receive_records(listed.space, part))
        found = backup_records.open_file(part, listed.space)
        name = backup_folder.file_of(listed.space, found.digest)
        files.move(part, self._folder.root / RECORDS / name)
        return Space(
            space=listed.space,
            name=listed.name,
            file=name,
            size=found.size,
            digest=found.digest,
            records=found.head.records,
            events=found.head.events,
        )

    def _receive_records(self, space: str, part: Path) -> None:
        with self._asking("GET", f"records/{space}", None) as answer, files.new_file(part) as descriptor:
            for piece in read_pieces(answer):
                write_all(descriptor, piece)

    # -- manifests

    def _need(self, space: Space) -> dict[str, int]:
        """Copy the manifests of a space; return the sizes of the chunks that it needs by id, oldest first."""
        digests = dict.fromkeys(backup_folder.versions_of(self._folder.records(space)))
        self._manifests[space.space] = digests
        needed: dict[str, int] = {}
        for manifest in self._kept_or_fetched(space, list(digests)):
            needed.update(backup_folder.chunks_of(manifest))
        return needed

    def _kept_or_fetched(self, space: Space, digests: Sequence[str]) -> Iterator[Manifest]:
        """Yield the manifests of a space; download those that are missing or damaged in the folder."""
        for batch in _batches(digests, _BATCH):
            self._live()
            lacking = [digest_ for digest_ in batch if not self._has_manifest(space.space, digest_)]
            gone = {
                key for key, data in self._fetch(space.space, MANIFESTS, lacking) if not self._keep(space, key, data)
            }
            self._lacking.setdefault(space.space, []).extend(sorted(gone))
            for digest_ in batch:
                if digest_ not in gone:
                    yield self._folder.manifest(space.space, digest_)[1]

    def _keep(self, space: Space, key: str, data: Buffer) -> bool:
        """Store a manifest if it matches its digest."""
        path = self._folder.piece(MANIFESTS, space.space, key)
        try:
            backup_folder.verified_manifest(data, key, str(path))
        except DamagedFile:
            return False
        self._put(path, data)
        return True

    def _has_manifest(self, space: str, key: str) -> bool:
        try:
            self._folder.manifest(space, key)
        except (NotFound, DamagedFile):
            return False
        return True

    def _notes(self, space: Space) -> dict[str, str]:
        """Copy the current notes. If the server lacks a note, use the one of the earlier backup: notes stay valid."""
        notes, before = {}, self._before.get(space.space)
        for batch in _batches(list(self._manifests[space.space]), _BATCH):
            for key, data in self._fetch(space.space, NOTES, batch):
                if data:
                    # A note is stored under its digest, so a new note never overwrites that of the earlier backup.
                    notes[key] = digest.of_bytes(data)
                    path = self._folder.piece(NOTES, space.space, notes[key])
                    if not _holds(path, data):
                        self._put(path, data)
                elif before is not None and key in before.notes and self._has_note(before, key):
                    notes[key] = before.notes[key]
        return notes

    def _has_note(self, before: Space, key: str) -> bool:
        try:
            self._folder.note(before, key)
        except (NotFound, DamagedFile):
            return False
        return True

    def _series(self, space: Space) -> Space:
        """Copy the current points of runs, which can be more than at the time of the snapshot.

        If points of a run are damaged or missing on the server, `series` gets the copy with the most points, and
        `earlier_series` the undamaged copy with the most points, if that is another one. See docs/format.md, "Points
        of runs".
        """
        series, earlier, lacking = dict[str, str](), dict[str, str](), list(space.lacking)
        for run, points in backup_folder.runs_of(self._folder.records(space)):
            new = self._received_series(space, run)
            copies = self._copies_before(space.space, run, unless=new.key if new else "")
            # The normal case: undamaged, and at least as many points as any earlier copy.
            if new is not None and not new.copy.set_aside and new.copy.points >= max(points, _most(copies)):
                series[run] = self._keep_series(space.space, new)
            elif new is not None or copies or points or (space.name, run) in self._damaged_runs:
                if (space.name, run) not in self._damaged_runs:
                    self._damaged_runs.append((space.name, run))
                # This reads the files completely, so it is not done in the normal case.
                copies = [copied for copied in copies if self._is_sound(space.space, copied)]
                copies = [new, *copies] if new else copies
                best = max(copies, key=_worth, default=None)
                sound = max([copied for copied in copies if not copied.copy.set_aside], key=_worth, default=None)
                if new is not None and new in (best, sound):
                    self._keep_series(space.space, new)
                if best is not None:
                    series[run] = best.key
                if sound is not None and sound is not best:
                    earlier[run] = sound.key
                # The points are complete if the best copy is undamaged and has all points that the record states. The
                # record of a running run states no number, so only the new copy can be complete.
                if best is None or best is not sound or best.copy.points < points or (not points and best is not new):
                    lacking.append(run)
            self._live()
        return msgspec.structs.replace(
            space, series=series, earlier_series=earlier or msgspec.UNSET, lacking=tuple(lacking)
        )

    def _copies_before(self, space: str, run: str, *, unless: str) -> list[_Series]:
        """Return the earlier copies of the points of a run; an empty list if the only copy equals the new one.

        This checks only the framing of the copies, not their content.
        """
        before = self._before.get(space)
        keys = before.copies_of(run) if before is not None else []
        if keys == [unless]:
            return []
        copies = []
        for key in keys:
            try:
                copies.append(_Series(key, backup_series.peek_file(self._folder.piece(SERIES, space, key))))
            except (NotFound, DamagedFile, IntegrityError):
                continue
        return copies

    def _is_sound(self, space: str, series: _Series) -> bool:
        try:
            self._folder.check_series(space, series.key)
        except (NotFound, DamagedFile):
            return False
        return True

    def _keep_series(self, space: str, new: _Series) -> str:
        files.move(self._folder.part, self._folder.piece(SERIES, space, new.key))
        return new.key

    def _received_series(self, space: Space, run: str) -> _Series | None:
        """Copy the points of a run to the part file and verify them; return None for a run without points.

        Runs with damaged points are added to `_damaged_runs`.
        """
        try:
            key, size = self._connection.attempt(partial(self._receive_series, space.space, run))
            return _Series(key, backup_series.check_file(self._folder.part)) if size else None
        except IntegrityError:
            self._damaged_runs.append((space.name, run))
            return None

    def _receive_series(self, space: str, run: str) -> tuple[str, int]:
        """Write the points of a run to the part file; return their BLAKE3 and number of bytes."""
        hasher, size = blake3(), 0
        with files.new_file(self._folder.part) as descriptor:
            for piece in self._series_pieces(space, run):
                hasher.update(piece)
                size += len(piece)
                write_all(descriptor, piece)
        return hasher.hexdigest(), size

    def _series_pieces(self, space: str, run: str) -> Iterator[Buffer]:
        try:
            with self._asking("GET", f"series/{space}/{run}", None) as answer:
                yield from read_pieces(answer)
        except _Lost:  # a server of an earlier release lacks this route and sends a series as one piece
            body = WantedPieces(want=(run,))
            yield from (data for _, data in self._receive(f"{SERIES}/{space}", body))

    # -- chunks

    def _chunks(self, space: Space, needed: dict[str, int], advance: Advance) -> Space:
        verifier = FrameVerifier(self._folder, space.space)
        self._verified[space.space] = verifier.verified
        lacking = self._lacking.setdefault(space.space, [])
        for batch in self._wanted(verifier, needed, advance):
            for chunk, data in self._fetch(space.space, CHUNKS, batch):
                if chunk not in verifier.verified and not self._take(space.space, verifier, chunk, data):
                    lacking.append(chunk)
                advance(needed[chunk])
        done = msgspec.structs.replace(
            space,
            versions=len(self._manifests[space.space]),
            chunks=len(needed),
            bytes=sum(needed.values()),
            lacking=tuple(lacking),
            notes=self._notes(space),
        )
        return self._series(done)

    def _wanted(self, verifier: FrameVerifier, needed: dict[str, int], advance: Advance) -> Iterator[list[str]]:
        """Yield the chunks that are missing or damaged in the folder, in batches."""
        batch: list[str] = []
        size = 0
        for chunk in needed:
            self._live()
            if self._is_right(verifier, chunk):
                self._tally.kept += 1
                advance(needed[chunk])
                continue
            batch.append(chunk)
            size += needed[chunk]
            if size >= _BATCH_BYTES or len(batch) >= _BATCH:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _is_right(self, verifier: FrameVerifier, chunk: str) -> bool:
        """Return whether the folder has an undamaged frame of a chunk."""
        if chunk in verifier.verified:
            return True
        try:
            verifier.look(chunk) if self._quick else verifier.verify(chunk)
        except (NotFound, DamagedFile):
            return False
        return True

    def _take(self, space: str, verifier: FrameVerifier, chunk: str, data: Buffer, above: int = 0) -> bool:
        """Store a frame as received if it can be verified, otherwise the chunk as a raw frame; return success."""
        frame = self._fitting(space, verifier, chunk, data, above)
        if frame is None:
            # The frame does not fit to its base in the folder, for example because the server encoded the base again
            # as a deeper delta. The decoded bytes need no base.
            [(_, data)] = self._fetch(space, CHUNKS, [chunk], plain=True)
            frame = self._fitting(space, verifier, chunk, data, above)
        if frame is None:
            return False
        self._put(self._folder.piece(CHUNKS, space, chunk), data)
        verifier.remember(chunk, frame)
        self._tally.copied += 1
        self._tally.written += len(data)
        return True

    def _fitting(self, space: str, verifier: FrameVerifier, chunk: str, data: Buffer, above: int) -> Known | None:
        """Copy the delta base of a frame if necessary, then verify the frame; return None if that fails."""
        try:
            link = parse(chunk, data)[2]
            # `above` bounds the recursion for a server that sends an endless chain of bases.
            if link is not None and above < DEPTH_LIMIT and not self._is_right(verifier, link.base):
                [(_, base)] = self._fetch(space, CHUNKS, [link.base])
                self._take(space, verifier, link.base, base, above + 1)
            return verifier.check(chunk, data)
        except (IntegrityError, DamagedFile, NotFound):
            return None

    # -- completion

    def _seal(self, spaces: Sequence[Space]) -> Index:
        """Sync all data, then write the index, which makes the new backup valid."""
        for path in _all_folders(self._folder.root):  # including folders that a killed attempt filled
            sync_folder(path)
        index = Index(
            kind=backup_folder.KIND,
            format=backup_folder.FORMAT,
            created_at=self._backup.created_at,
            server=self._backup.server,
            spaces=tuple(spaces),
        ).sealed()
        self._folder.put(self._folder.root / backup_folder.INDEX, index.encoded())
        sync_folder(self._folder.root)
        return index

    def _tidy(self, index: Index) -> None:
        """Delete files that the new backup does not need. After a crash here, the next backup deletes them."""
        files = {space.file for space in index.spaces}
        for path in (self._folder.root / RECORDS).iterdir():
            if path.name not in files:
                path.unlink()
        keep: dict[str, dict[str, Any]] = {
            CHUNKS: dict(self._verified),
            MANIFESTS: dict(self._manifests),
            NOTES: {space.space: set(space.notes.values()) for space in index.spaces},
            SERIES: {
                space.space: {*space.series.values(), *(space.earlier_series or {}).values()} for space in index.spaces
            },
        }
        damaged = {space.space for space in index.spaces if space.lacking}
        damaged |= {space.space for space in index.spaces for name, _ in self._damaged_runs if name == space.name}
        for kind, by_space in keep.items():
            for folder in _folders(self._folder.root / kind):
                if folder.name in damaged:  # any of these files can be needed for a later repair
                    continue
                needed = by_space.get(folder.name, ())
                for key, path in list(self._folder.pieces(kind, folder.name)):
                    if key not in needed:
                        path.unlink()

    def _complain(self, index: Index) -> None:
        """Raise an error that names damaged data, if there is any."""
        runs = [f"{run[:8]} of {name}" for name, run in self._damaged_runs]
        pieces = [
            f"{piece[:12]} of {space.name}"
            for space in index.spaces
            for piece in space.lacking
            if backup_folder.is_digest(piece)
        ]
        problems, hints = [], []
        if runs:
            problems.append(
                f"the points of {plural(len(runs), 'run')} are damaged on the server ({', '.join(runs[:5])}); "
                "the backup keeps the points that it had before"
            )
            hints.append("`lmvp fsck` names the damaged files")
        if pieces:
            problems.append(
                f"{len(pieces)} chunks or manifests are damaged or gone on the server ({', '.join(pieces[:5])})"
            )
            hints.append("`lmvp fsck` tells which versions have them; `lmvp fsck --repair` and a push heal them")
        if problems:
            raise IntegrityError("; ".join([*problems, "all else is in the backup"]), hint="; ".join(hints))

    def _outcome(self, index: Index) -> BackedUp:
        spaces = index.spaces
        versions, removed = backup_folder.count_versions(self._folder, spaces)
        return BackedUp(
            self._folder.root,
            projects=sum(1 for space in spaces if space.space != backup_folder.SERVER),
            versions=versions,
            removed=removed,
            chunks=sum(space.chunks for space in spaces),
            bytes=sum(space.bytes for space in spaces),
            copied=self._tally.copied,
            kept=self._tally.kept,
            written=self._tally.written,
        )

    # -- requests

    def _fetch(
        self, space: str, kind: str, want: Sequence[str], *, plain: bool = False
    ) -> Sequence[tuple[str, Buffer]]:
        """Return pieces in the order of `want`; a piece is empty if the server lacks it."""
        if not want:
            return []
        body = WantedPieces(want=tuple(want), plain=plain)
        return self._connection.attempt(partial(self._receive, f"{kind}/{space}", body))

    def _receive(self, path: str, body: WantedPieces) -> list[tuple[str, Buffer]]:
        with self._asking("POST", path, body) as answer:
            return list(zip(body.want, read_pieces(answer, len(body.want)), strict=True))

    @contextmanager
    def _asking(self, method: str, path: str, body: WantedPieces | None) -> Iterator[Any]:
        """Send a request for data of this backup; yield the response."""
        self._seen = time.monotonic()
        with ExitStack() as stack:
            with _as_lost():  # not around the `yield`: a `NotFound` of the caller is about a local file
                whole = f"/backups/{self._backup.id}/{path}"
                answer = stack.enter_context(self._connection.stream(method, whole, body))
            yield answer

    def _live(self) -> None:
        """Keep the backup alive on the server while this side only checks local files."""
        if time.monotonic() - self._seen > _SIGN_OF_LIFE:
            with _as_lost():
                self._connection.get(f"/backups/{self._backup.id}", Backup)
            self._seen = time.monotonic()

    def _put(self, path: Path, data: Buffer) -> None:
        self._folder.put(path, data)


@contextmanager
def _as_lost() -> Iterator[None]:
    """Convert the error 404 of the server to `_Lost`, which starts a new attempt."""
    try:
        yield
    except NotFound as error:
        raise _Lost(error.message, hint=error.hint) from None


def _batches(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _all_folders(root: Path) -> Iterator[Path]:
    yield root
    for folder in _folders(root):
        yield from _all_folders(folder)


def _holds(path: Path, data: Buffer) -> bool:
    """Return whether a file has these bytes; False for a link."""
    try:
        return files.read_copy(path, len(data)) == data
    except (NotFound, DamagedFile):
        return False


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []


PIECE_LIMIT = 64 << 20
"""Maximum bytes of a piece. It bounds the memory that the client allocates if the server is broken."""

_PIECE_LENGTH = struct.Struct("<I")


def read_pieces(answer: Any, count: int | None = None) -> Iterator[bytearray]:
    """Yield `count` pieces, or all pieces up to an empty one if `count` is None.

    Raises
    ------
    Interrupted
        If the response ends early.
    ServerError
        If a piece exceeds the limit.
    """
    read = body_reader(answer)
    # Without a count, an empty piece marks the end, so that an interrupted response does not count as complete.
    for number in counting():
        if number == count:
            return
        head = bytearray(_PIECE_LENGTH.size)
        read(memoryview(head))
        [size] = _PIECE_LENGTH.unpack(head)
        if size > PIECE_LIMIT:
            raise ServerError(f"the server sent a piece of {size:,} bytes; the limit is {PIECE_LIMIT:,}")
        piece = bytearray(size)
        read(memoryview(piece))
        if count is None and not size:
            return
        yield piece
