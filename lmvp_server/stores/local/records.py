"""Record store on TinyDB: one database for each space, with a journalled storage and an indexed table.

::

    <folder>/server.json + .j<gen>, server.events.jsonl       the space "server"
    <folder>/projects/<space>.json + …                        every other space

A space is opened at its first use and stays open. `rows` holds a table in memory, `journalled` makes commits durable,
`snapshot` and `recovery` define the files, and `table` has TinyDB's interface. TinyDB alone can read a snapshot::

    TinyDB("server.json").table("users").search(where("data")["name"] == "ada")
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any

import msgspec
from tinydb import TinyDB

from lmvp.core.files import disk_errors, make_folder, new_file, sync_folder
from lmvp.errors import InvalidName, ServerError
from lmvp_server.stores.base import Change, ConcurrentChange, Document, Put, Record, RecordStore, SpaceSnapshot
from lmvp_server.stores.local.event_log import EventFile, Head, head_of
from lmvp_server.stores.local.journal import Envelope, Operation
from lmvp_server.stores.local.journal_storage import COMPACT_AT, Closed, JournalledStorage
from lmvp_server.stores.local.recovery import SUFFIX, Files, spaces_in
from lmvp_server.stores.local.snapshot import Image, Meta, write_snapshot
from lmvp_server.stores.local.table import RecordTable

SERVER = "server"
"""The space of records that belong to no project."""

_SPACE = re.compile(r"[A-Za-z0-9_-]{1,128}")


class Database(TinyDB):  # type: ignore[misc]
    """A space as a TinyDB database, with `RecordTable` as table and `JournalledStorage` as storage.

    Examples
    --------
    >>> folder = getfixture("tmp_path")
    >>> database = Database(folder / "space.json", {"models": ["name"]})
    >>> database.table("models").insert({"id": "m1", "rev": 1, "data": {"name": "mlp"}})
    1
    >>> database.table("models").get(doc_id=1)["data"]
    {'name': 'mlp'}
    >>> database.close()
    """

    table_class = RecordTable
    default_storage_class = JournalledStorage

    storage: JournalledStorage


class TinyDbRecords(RecordStore):
    """A `RecordStore` in a folder.

    Parameters
    ----------
    folder : Path
        The folder. The first commit creates it. The caller ensures that no other process uses it.
    indexes : mapping
        The fields that are found without a scan, for each table.
    compact_at : int, default 1 MiB
        The size of the journal, in bytes, below which no snapshot of a space is written.

    Examples
    --------
    >>> store = TinyDbRecords(getfixture("tmp_path"), {"models": ["name"]})
    >>> store.commit("p1", [Put("models", "m1", {"name": "mlp"})], [{"who": "ada", "action": "model.create"}])
    >>> store.find("p1", "models", {"name": "mlp"})
    [Record(id='m1', seq=1, rev=1, data={'name': 'mlp'})]
    >>> store.spaces()
    ['p1']
    >>> store.close()
    """

    def __init__(self, folder: Path, indexes: Mapping[str, Sequence[str]], *, compact_at: int = COMPACT_AT) -> None:
        self._folder = folder
        self._indexes = {table: tuple(fields) for table, fields in indexes.items()}
        self._compact_at = compact_at
        self._lock = Lock()
        self._open: dict[str, Database] = {}
        self._closed = False

    def spaces(self) -> list[str]:
        """Return the names of all spaces that have a commit, sorted."""
        with self._lock:
            names = [SERVER] if Files(self._path(SERVER)).exist() else []
            return sorted(names + spaces_in(self._path("_").parent))

    def size(self, space: str) -> int:
        """Return the size of the files of a space in bytes."""
        return Files(self._path(_checked(space))).size()

    def get(self, space: str, table: str, record_id: str) -> Record | None:
        """Return one record, or None."""
        database = self._existing(space)
        if database is None:
            return None
        with database.storage.lock:
            return database.storage.rows(table).get(record_id)

    def find(
        self,
        space: str,
        table: str,
        where: Mapping[str, Any] | None = None,
        *,
        newest_first: bool = False,
        after: int | None = None,
        limit: int | None = None,
    ) -> list[Record]:
        """Return the records whose fields equal `where`, in the order of `seq`."""
        database = self._existing(space)
        if database is None:
            return []
        with database.storage.lock:
            rows = database.storage.rows(table)
            return rows.select(where, newest_first=newest_first, after=after, limit=limit)

    def count(self, space: str, table: str, where: Mapping[str, Any] | None = None) -> int:
        """Return the number of records whose fields equal `where`."""
        database = self._existing(space)
        if database is None:
            return 0
        with database.storage.lock:
            return database.storage.rows(table).count(where)

    def commit(
        self,
        space: str,
        changes: Sequence[Change],
        events: Sequence[Document] = (),
        *,
        check: Callable[[], object] | None = None,
    ) -> None:
        """Apply all changes and append all events durably, or do nothing."""
        while True:
            storage = self._database(space).storage
            try:
                return storage.commit(_operations(storage, changes, check), events)
            except Closed:  # another thread dropped the space after `_database` returned it: open it again
                self._forget(space, storage)

    def events(
        self, space: str, *, newest_first: bool = False, after: int | None = None, limit: int | None = None
    ) -> list[Document]:
        """Return events in the order of their `seq` (from 1), with `seq` and `chain`."""
        database = self._existing(space)
        if database is None:
            return []
        lines = database.storage.event_lines()
        return lines.read(newest_first=newest_first, after=after, limit=limit)

    def verify(self, space: str) -> None:
        """Verify the chain of events."""
        database = self._existing(space)
        if database is not None:
            for _ in database.storage.event_lines().walk():
                pass

    def verify_files(self, space: str) -> None:
        """Verify the snapshot and the journals."""
        database = self._existing(space)
        if database is not None:
            database.storage.verify()

    def rewrite_files(self, space: str) -> None:
        """Write a snapshot."""
        database = self._existing(space)
        if database is not None:
            database.storage.rewrite_files()

    def snapshot(self, space: str) -> SpaceSnapshot:
        """Return a snapshot of a space."""
        database = self._existing(space)
        try:
            found = database.storage.snapshot() if database is not None else None
        except Closed:  # dropped by another thread: like a space that does not exist
            found = None
        if found is None:
            return SpaceSnapshot({}, {}, 0, lambda: iter(()))
        image, lines = found
        return SpaceSnapshot(image.tables, image.meta.next_seq, image.meta.events.seq, lines.walk)

    def restore(self, space: str, snapshot: SpaceSnapshot) -> None:
        """Rewrite the files of a space. Existing files are not read, because they can be incomplete."""
        with self._lock:
            database = self._open.pop(_checked(space), None)
            if database is not None:
                database.close()
            lay_down(Files(self._path(_checked(space))), snapshot)

    def table(self, space: str, table: str) -> RecordTable:
        """Return a TinyDB table of a space, for queries that `find` does not support."""
        found: RecordTable = self._database(space).table(table)
        return found

    def drop(self, space: str) -> None:
        """Delete a space with its records and its events."""
        database = self._existing(space)
        if database is not None:
            with self._lock:
                self._open.pop(space, None)
                database.storage.drop()

    def close(self) -> None:
        """Close all files and refuse further use."""
        with self._lock:
            self._closed = True
            for database in self._open.values():
                database.close()
            self._open.clear()

    def _path(self, space: str) -> Path:
        return self._folder / (SERVER + SUFFIX) if space == SERVER else self._folder / "projects" / (space + SUFFIX)

    def _existing(self, space: str) -> Database | None:
        """Return a space that is open or has files. For other spaces, return None and create no files."""
        database = self._open.get(space)
        if database is None and Files(self._path(_checked(space))).exist():
            return self._database(space)
        return database

    def _database(self, space: str) -> Database:
        database = self._open.get(space)
        return self._opened(_checked(space)) if database is None else database

    def _opened(self, space: str) -> Database:
        with self._lock:
            if self._closed:
                raise ServerError("the record store is closed")
            if space not in self._open:
                self._open[space] = Database(self._path(space), self._indexes, self._compact_at)
            return self._open[space]

    def _forget(self, space: str, storage: JournalledStorage) -> None:
        with self._lock:
            if space in self._open and self._open[space].storage is storage:
                del self._open[space]


def _checked(space: str) -> str:
    if not _SPACE.fullmatch(space):
        raise InvalidName(f"{space!r} is no id of a space", hint=f"an id matches {_SPACE.pattern}")
    return space


def _operations(
    storage: JournalledStorage, changes: Sequence[Change], check: Callable[[], object] | None
) -> Iterator[Operation]:
    """Convert changes to operations, each based on the state after the previous ones.

    The storage runs this generator under its lock, so no other commit can come between the check and the changes.
    """
    if check is not None:
        check()
    for change in changes:
        rows = storage.rows(change.table)
        current = rows.get(change.id)
        _expect(change, current)
        if isinstance(change, Put):
            # An update keeps the position, so cursors of readers stay valid.
            seq, rev = (current.seq, current.rev + 1) if current else (rows.next_seq, 1)
            yield Operation(change.table, seq, Envelope(change.id, rev, change.data))
        elif current is not None:
            yield Operation(change.table, current.seq)


def _expect(change: Change, current: Record | None) -> None:
    rev = current.rev if current else 0
    if change.expect is not None and change.expect != rev:
        raise ConcurrentChange(f"{change.table}/{change.id} is at revision {rev}, not {change.expect}")


_GENERATION = 1
_BATCH = 1000  # events written at a time


def lay_down(files: Files, snapshot: SpaceSnapshot) -> None:
    """Replace the files of a space with those of a snapshot. An empty snapshot writes no files."""
    folder = files.snapshot.parent
    with disk_errors(folder):
        make_folder(folder, sync=True)
        files.remove()
        if not snapshot.next_seq and not snapshot.count:
            return
        head, size = _write_events(files, snapshot)
        # The order matters: recovery reports a snapshot without its journal as damaged.
        _touch(files)
        meta = Meta(
            generation=_GENERATION,
            commits=1,  # any number: the next commit continues from it
            events=head,
            events_size=size,
            next_seq=dict(snapshot.next_seq),
        )
        write_snapshot(files.snapshot, Image(meta, {name: list(rows) for name, rows in snapshot.tables.items()}))
        sync_folder(folder)


def _write_events(files: Files, snapshot: SpaceSnapshot) -> tuple[Head, int]:
    """Write the events unchanged. Their chain is not verified here; `RecordStore.verify` does that."""
    log, head = EventFile(files.events), Head()
    try:
        events = snapshot.events()
        while page := [msgspec.json.encode(event) + b"\n" for event in islice(events, _BATCH)]:
            log.extend(page)
            log.flush()
            head = head_of(page[-1])
        log.sync()
    finally:
        log.close()
    return head, log.size


def _touch(files: Files) -> None:
    with new_file(files.journal(_GENERATION)):
        pass
