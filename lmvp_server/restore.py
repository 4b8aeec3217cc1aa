"""`lmvp restore`: create a data folder from a backup, and verify each piece before it is stored.

During the restore, the folder contains `restoring.json`, so that no server opens it. An interrupted restore continues
when it is repeated. Chunks and manifests come first, then the records of the projects, then those of the server.

A backup contains the sessions, tokens, invitations and webhooks of its time. Some of them can have been revoked since,
because a token leaked or a person left, and the backup does not show which. A restore therefore deletes them, unless
`keep_grants` is set.
"""

from __future__ import annotations

import argparse
import getpass
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from lmvp.archive import backup_folder
from lmvp.archive.backup_folder import BackupFolder, Index, Space
from lmvp.archive.backup_records import RecordFile
from lmvp.archive.backup_series import Copy
from lmvp.archive.verification import FrameVerifier
from lmvp.core import chunk_frames
from lmvp.core.chunk_frames import HEADER_SIZE
from lmvp.core.manifest import Manifest
from lmvp.core.number_format import plural, versions_with_trash
from lmvp.errors import DamagedFile, IntegrityError, InvalidArgument, InvalidManifest, NotFound
from lmvp_server.data_folder import DataFolder
from lmvp_server.services import INDEXES
from lmvp_server.services.audit import event
from lmvp_server.services.chunk_reader import ChunkReader, read_manifest
from lmvp_server.services.headers import check_headers
from lmvp_server.services.tensors import TensorDigests
from lmvp_server.stores.base import Change, Delete, Put, Record, SpaceSnapshot
from lmvp_server.stores.local.chunks import FolderChunks
from lmvp_server.stores.local.records import TinyDbRecords
from lmvp_server.stores.local.series.folder import FolderSeries
from lmvp_server.stores.local.snapshot import META

_SHOWN = 20
GRANTS = ("sessions", "tokens", "invitations")
"""Tables of grants that a restore deletes. Passwords and identities stay, so that users can sign in."""


@dataclass(slots=True)
class Grants:
    """Numbers of grants that a restore deleted or kept."""

    sessions: int = 0
    tokens: int = 0
    invitations: int = 0
    webhooks: int = 0

    def __bool__(self) -> bool:
        return any(astuple(self))

    def __str__(self) -> str:
        counts = [(count, name.removesuffix("s")) for name, count in asdict(self).items() if count]
        return ", ".join(plural(count, noun) for count, noun in counts)


@dataclass(slots=True)
class Restored:
    """The result of a restore: numbers of restored objects, and the problems of the backup."""

    projects: int = 0
    versions: int = 0
    chunks: int = 0
    removed: int = 0
    ended: Grants = field(default_factory=Grants)
    kept: Grants = field(default_factory=Grants)
    incomplete: list[str] = field(default_factory=list)
    """Runs whose backup is valid but does not contain all points, because they were damaged on the server."""
    problems: list[str] = field(default_factory=list)


def restore(
    backup: Path,
    data: Path,
    *,
    keep_going: bool = False,
    keep_grants: bool = False,
    on_progress: Callable[[int, int], Any] = lambda *_: None,
) -> Restored:
    """Create a data folder from a backup.

    Parameters
    ----------
    backup : Path
        The folder of the backup.
    data : Path
        A folder that is missing, empty, or from an interrupted restore.
    keep_going : bool, default False
        Finish although pieces are damaged. The versions that need them are then incomplete; `lmvp fsck` lists them.
    keep_grants : bool, default False
        Keep the sessions, tokens, invitations and webhooks of the backup, also those that were revoked since. By
        default, the restore deletes them and disables the webhooks.
    told : callable, optional
        Called with the number of processed chunks and the total.

    Returns
    -------
    Restored
        The counts and the problems.

    Raises
    ------
    NotFound, Conflict, ServerMismatch
        If the backup is not found, or the data folder contains something else.
    DamagedFile
        If a records file or `backup.json` is damaged.
    IntegrityError
        If other pieces are damaged; the message lists the files. Everything else is restored.
    """
    folder = BackupFolder.existing(backup)
    index = folder.index()
    # A data folder inside the backup would mix live data with the copy.
    if data.resolve().is_relative_to(backup.resolve()):
        raise InvalidArgument(f"{data} lies in the backup itself", hint="choose another folder with --data")
    with DataFolder.restoring(data, index.digest) as home:
        work = _Restore(folder, index, home, on_progress, keep_grants)
        work.bytes()
        work.records()
        if work.done.problems and not keep_going:
            raise _damaged(work.done.problems, "mend the backup and restore again, or do without them by --keep-going")
        home.restored()
    return work.done


class _Restore:
    """The state of one restore."""

    def __init__(
        self,
        folder: BackupFolder,
        index: Index,
        home: DataFolder,
        on_progress: Callable[[int, int], Any],
        keep_grants: bool,
    ) -> None:
        self._folder, self._index, self._home, self._on_progress = folder, index, home, on_progress
        self._keep_grants = keep_grants
        self._total, self._at = sum(space.chunks for space in index.spaces), 0
        self.done = Restored()

    # -- chunks, manifests, notes

    def bytes(self) -> None:
        """Restore chunks, manifests, notes and points."""
        self.done.versions, self.done.removed = backup_folder.count_versions(self._folder, self._index.spaces)
        store = FolderChunks(self._home.path)
        for stale in set(store.projects()) - {space.space for space in self._index.spaces}:
            store.drop(stale)  # from another backup whose restore was interrupted
        # Series of an interrupted restore are dropped, because they are loaded again completely.
        for stale in FolderSeries(self._home.path).projects():
            FolderSeries(self._home.path).drop(stale)
        for space in self._index.spaces:
            records = self._folder.records(space)  # verified first: without the records, the rest is useless
            self.done.projects += space.space != backup_folder.SERVER
            self._space(store, space, records)

    def _space(self, store: FolderChunks, space: Space, records: RecordFile) -> None:
        verifier, seen = FrameVerifier(self._folder, space.space), set[str]()
        sizes: dict[str, int] = {}
        for digest in dict.fromkeys(backup_folder.versions_of(records)):
            manifest = self._manifest(store, space, digest)
            for chunk in backup_folder.chunks_of(manifest) if manifest else ():
                if chunk not in seen:
                    seen.add(chunk)
                    self._chunk(store, space, verifier, chunk, sizes)
            self._check_sizes(space, digest, manifest, sizes)
            self._check_headers(store, space, digest, manifest)
        for base in sorted(verifier.verified - seen):  # delta bases that no version contains
            self._chunk(store, space, verifier, base, sizes)
        # All chunks are on disk before records refer to them.
        store.settle(space.space, verifier.verified)
        self._check_tensors(store, space, records)
        self._series(space, dict(backup_folder.runs_of(records)))

    def _series(self, space: Space, points: dict[str, int]) -> None:
        """Restore the points of runs. A run with missing points is marked, so that the server reports them.

        Parameters
        ----------
        points : dict of str to int
            The minimum number of points of each run, according to the records.
        """
        store = FolderSeries(self._home.path)
        for run in {**points, **space.series}:
            problems = list[str]()
            copy = self._load_series(store, space, run, problems)
            if copy.points < points.get(run, 0):
                problems.append(f"{copy.points:,} of its {points[run]:,} points are in the backup")
            elif run in space.lacking and not space.copies_of(run):
                problems.append("its points were damaged on the server, so the backup has none")
            about = f"the run {run} of {space.name}: "
            if problems:
                self.done.problems.append(about + "; ".join(problems))
            elif run in space.lacking:
                self.done.incomplete.append(about + "its points were damaged on the server, so the latest are missing")
            if (problems or run in space.lacking) and not copy.set_aside:
                store.mark_incomplete(space.space, run)
        store.close()

    def _load_series(self, store: FolderSeries, space: Space, run: str, problems: list[str]) -> Copy:
        """Restore the first valid copy of the points of a run, and report the damaged ones."""
        for key in space.copies_of(run):
            try:
                copy = self._folder.check_series(space.space, key)
                store.load(space.space, run, self._folder.series(space.space, key))
            except (NotFound, DamagedFile, IntegrityError) as error:
                problems.append(error.message)
            else:
                return copy
        return Copy()

    def _manifest(self, store: FolderChunks, space: Space, digest: str) -> Manifest | None:
        try:
            data, manifest = self._folder.manifest(space.space, digest)
        except (NotFound, DamagedFile) as error:
            self.done.problems.append(error.message)
            return None
        store.put_manifest(space.space, digest, data)
        if digest in space.notes:
            try:
                store.put_note(space.space, digest, self._folder.note(space, digest))
            except (NotFound, DamagedFile) as error:
                self.done.problems.append(error.message)
        return manifest

    def _check_sizes(self, space: Space, digest: str, manifest: Manifest | None, sizes: dict[str, int]) -> None:
        """Report a version whose manifest has a wrong chunk size, which old servers accepted."""
        for file in manifest.files if manifest else ():
            for one in file.chunks:
                if sizes.get(one.id, one.size) != one.size:
                    self.done.problems.append(
                        f"the version {digest[:12]} of {space.name} states {one.size:,} bytes for the chunk "
                        f"{one.id[:12]} of {file.path!r}, which has {sizes[one.id]:,}"
                    )
                    return

    def _check_headers(self, store: FolderChunks, space: Space, digest: str, manifest: Manifest | None) -> None:
        """Report a version whose tensors differ from the headers of its files, which old servers accepted."""
        try:
            if manifest is not None:
                check_headers(ChunkReader(store), space.space, manifest)
        except InvalidManifest as error:
            self.done.problems.append(f"the version {digest[:12]} of {space.name}: {error.message}")
        except IntegrityError:  # a missing or damaged chunk is reported already
            pass

    def _check_tensors(self, store: FolderChunks, space: Space, records: RecordFile) -> None:
        """Report versions with a wrong tensor digest, which old servers accepted."""
        digests = TensorDigests(ChunkReader(store))
        for digest in dict.fromkeys(backup_folder.versions_of(records)):
            what = f"the version {digest[:12]} of {space.name}"
            try:
                false = next(digests.false(space.space, read_manifest(store, space.space, digest)), None)
            except IntegrityError:  # a damaged or missing chunk, or a wrong size, is reported already
                continue
            except InvalidManifest as error:
                self.done.problems.append(f"{what}: {error.message}")
                continue
            if false is not None:
                self.done.problems.append(f"{what} has a wrong digest of the tensor {false.name[:80]!r}")

    def _chunk(
        self, store: FolderChunks, space: Space, verifier: FrameVerifier, chunk: str, sizes: dict[str, int]
    ) -> None:
        self._at += 1
        self._on_progress(self._at, max(self._total, self._at))
        try:
            data = verifier.verify(chunk)
        except (NotFound, DamagedFile) as error:
            self.done.problems.append(error.message)
            return
        sizes[chunk] = chunk_frames.read_header(data[:HEADER_SIZE]).size  # the decoding verified the size
        # An interrupted restore can have left a damaged chunk, so existing ones are compared.
        if store.missing(space.space, [chunk]) or store.get(space.space, chunk) != data:
            store.remove(space.space, [chunk])
            store.put(space.space, chunk, [data])
        self.done.chunks += 1

    # -- records

    def records(self) -> None:
        """Restore the records of all projects, then those of the server."""
        store = TinyDbRecords(self._home.path / "records", INDEXES)
        try:
            # Projects of another backup whose restore was interrupted become empty.
            for stale in set(store.spaces()) - {space.space for space in self._index.spaces}:
                store.restore(stale, SpaceSnapshot({}, {}, 0, lambda: iter(())))
            # The server's records come last: they list the projects, which must be complete.
            for space in sorted(self._index.spaces, key=lambda space: space.space == backup_folder.SERVER):
                store.restore(space.space, _snapshot(self._folder.records(space)))
                self._verify(store, space)
            self._record(store)
        finally:
            store.close()

    def _record(self, store: TinyDbRecords) -> None:
        """Delete the grants of the backup, and add the restore to the audit log of the server."""
        changes = self._end_grants(store)
        done: dict[str, Any] = {
            "projects": self.done.projects,
            "versions": self.done.versions,
            "problems": len(self.done.problems),
        }
        done |= {"ended": asdict(self.done.ended), "kept": asdict(self.done.kept)}
        made = self._index.created_at.isoformat()
        entry = event(_user(), "server.restore", f"the backup of {made}", None, done)
        store.commit(backup_folder.SERVER, changes, [entry])

    def _end_grants(self, store: TinyDbRecords) -> list[Change]:
        found = {table: store.find(backup_folder.SERVER, table) for table in GRANTS}
        changes: list[Change] = [Delete(table, one.id, expect=one.rev) for table in GRANTS for one in found[table]]
        # A webhook reports each event to another server. A copy of a server must not do that without a decision.
        enabled = [one for one in store.find(backup_folder.SERVER, "webhooks") if not one.data.get("disabled")]
        why = {"disabled": True, "why": "a restore disabled it; an owner can enable the webhook"}
        changes += [Put("webhooks", one.id, {**one.data, **why}, expect=one.rev) for one in enabled]
        counts = Grants(**{table: len(rows) for table, rows in found.items()}, webhooks=len(enabled))
        if self._keep_grants:
            self.done.kept = counts
            return []
        self.done.ended = counts
        return changes

    def _verify(self, store: TinyDbRecords, space: Space) -> None:
        try:
            store.verify(space.space)
        except IntegrityError as error:  # it was damaged on the server
            self.done.problems.append(f"{self._folder.root / backup_folder.RECORDS / space.file}: {error.message}")


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in some containers
        return "owner"


def _snapshot(records: RecordFile) -> SpaceSnapshot:
    tables: dict[str, list[Record]] = {}
    ids: dict[str, set[str]] = {}
    for row in records.records():
        rows, names = tables.setdefault(row.table, []), ids.setdefault(row.table, set())
        after = rows[-1].seq if rows else 0
        if not after < row.seq < records.head.next_seq.get(row.table, 0) or row.id in names or row.table == META:
            raise DamagedFile(f"{records.path} is damaged: {row.id[:80]!r} cannot stand where it does in {row.table!r}")
        rows.append(Record(row.id, row.seq, row.rev, row.data))
        names.add(row.id)
    return SpaceSnapshot(tables, records.head.next_seq, records.head.events, lambda: _events(records))


def _events(records: RecordFile) -> Iterator[dict[str, Any]]:
    for number, one in enumerate(records.events(), 1):
        if one.get("seq") != number or not isinstance(one.get("chain"), str):
            raise DamagedFile(f"{records.path} is damaged: event {number} is not there")
        yield one


def _damaged(problems: Sequence[str], hint: str) -> IntegrityError:
    more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
    return IntegrityError("\n  ".join(["pieces of the backup are damaged", *problems[:_SHOWN], *more]), hint=hint)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `lmvp restore`; return the exit code."""
    parser = argparse.ArgumentParser("lmvp restore", description="Make a data folder of what `lmvp backup` wrote.")
    parser.add_argument("backup", type=Path, metavar="FOLDER", help="the backup")
    parser.add_argument("--data", type=Path, required=True, metavar="NEW_FOLDER", help="the data folder to make")
    parser.add_argument("--keep-going", action="store_true", help="finish although pieces are damaged, without them")
    parser.add_argument(
        "--keep-grants", action="store_true",
        help="keep the sessions, tokens, invitations and webhooks of the backup, also those that have ended since",
    )  # fmt: skip
    parser.add_argument("--no-progress", action="store_true", help="show no bar")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("-q", "--quiet", action="store_true", help="print no messages and no progress bar, only data")
    options = parser.parse_args(argv)
    with _bar(options.no_progress or options.quiet or not sys.stderr.isatty()) as on_progress:
        backup, data = options.backup.expanduser(), options.data.expanduser().absolute()
        done = restore(
            backup, data, keep_going=options.keep_going, keep_grants=options.keep_grants, on_progress=on_progress
        )
    if not options.quiet:
        _tell_of_grants(done)
    if done.problems:
        raise _damaged(done.problems, f"{data} has all else; `lmvp fsck` there tells which versions lack something")
    for line in done.incomplete:  # also with --quiet, because points are missing
        print(line, file=sys.stderr)
    if options.json:
        print(msgspec.json.format(msgspec.json.encode({"data": str(data), **asdict(done)}), indent=2).decode())
    elif not options.quiet:
        versions = versions_with_trash(done.versions, done.removed)
        what = f"{plural(done.projects, 'project')}, {versions}, {plural(done.chunks, 'chunk')}"
        print(f"{what} restored; serve them with: lmvp server --data {data}")
    return 0


def _tell_of_grants(done: Restored) -> None:
    lines = []
    if done.ended:
        lines = [
            f"the restore ended the grants of the backup: {done.ended}",
            "  Some of them may have ended since the backup was made, and would work again.",
            "  People sign in again and make new tokens and invitations; owners enable their webhooks.",
            "  To keep all grants, restore into a new folder with --keep-grants.",
        ]
    if done.kept:
        lines = [
            f"the restore kept the grants of the backup: {done.kept}",
            "  Those that have ended since the backup was made work again: `lmvp tokens` lists tokens, with their ids.",
        ]
    if lines:
        lines.append("  Passwords, roles and disabled accounts are those of the backup: check what has changed since.")
        print("\n".join(lines), file=sys.stderr)


@contextmanager
def _bar(hidden: bool) -> Iterator[Callable[[int, int], Any]]:
    from tqdm.auto import tqdm

    with tqdm(desc="restore", unit=" chunks", leave=False, delay=0.5, disable=hidden) as bar:

        def on_progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield on_progress
