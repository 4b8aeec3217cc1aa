"""TinyDB storage with a write-ahead journal: records in memory, an appended and synced journal, occasional snapshots.

A commit takes the lock, applies its operations in memory and appends one record to the journal. It then waits, without
the lock, for a sync that began after the append. The first thread that finds no sync in progress syncs for all threads
that have appended, and the others wait for it (group commit). If an append fails, the commit is undone. If a sync
fails, all unsynced commits are undone, because each builds on the previous ones; the content of the journal is then
unknown, so a snapshot is written before the next commit.

A snapshot starts the next journal and copies the list of records under the lock (records are immutable). It writes the
snapshot file and removes the older journals without the lock, so commits can continue. `recovery` explains why a crash
loses nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Condition
from typing import Any

import msgspec
from tinydb.storages import Storage

from lmvp.core.files import disk_errors, make_folder, sync_folder
from lmvp.core.framing import framed
from lmvp.errors import IntegrityError, InvalidArgument
from lmvp_server.stores.base import Document, Record
from lmvp_server.stores.local.event_log import Head, Lines, chained
from lmvp_server.stores.local.journal import AppendFile, Envelope, Operation, verify_journal
from lmvp_server.stores.local.memory_table import Rows, RowsView
from lmvp_server.stores.local.recovery import Files, recover
from lmvp_server.stores.local.snapshot import (
    META,
    Image,
    Meta,
    verify_snapshot,
    write_snapshot,
)

COMPACT_AT = 1 << 20
"""The size of the journal, in bytes, below which no snapshot is written."""

_log = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode
_decode_operation = msgspec.json.Decoder(Operation).decode


class Closed(Exception):
    """The space was closed or dropped by another thread."""


@dataclass
class _Commit:
    """A commit that is applied in memory but not yet durable, with the state that undoes it."""

    commits: int
    head: Head
    undo: list[tuple[Rows, int, Record | None]] = field(default_factory=list)
    operations: list[bytes] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)
    end: int = 0
    done: bool = False
    error: OSError | None = None


class JournalledStorage(Storage):  # type: ignore[misc]
    """The storage of one space.

    Parameters
    ----------
    path : Path
        The snapshot file. The other files have names that begin with its name.
    indexes : mapping, optional
        The fields to index, for each table.
    compact_at : int, default 1 MiB
        The size of the journal, in bytes, below which no snapshot is written.
    """

    def __init__(
        self, path: Path, indexes: Mapping[str, Sequence[str]] | None = None, compact_at: int = COMPACT_AT
    ) -> None:
        self.lock = Condition()
        self._files = Files(path)
        self._compact_at = compact_at
        with disk_errors(path.parent):
            found = recover(self._files, {table: tuple(fields) for table, fields in (indexes or {}).items()})
        self._state, self._events = found.state, found.events
        self._generation, self._older, self._snapshot_size = found.generation, found.older, found.snapshot_size
        self._synced_size = found.journal_size
        self._journal: AppendFile | None = None
        self._unsynced: list[_Commit] = []
        self._syncing = self._compacting = self._must_snapshot = self._closed = False
        self._no_snapshot_below = 0  # raised after a failed snapshot, so that not every commit retries it

    # --- interface of TinyDB's storages

    def read(self) -> dict[str, Mapping[str, Document]]:
        """Return all tables, as views that read on demand."""
        with self.lock:
            return {name: RowsView(rows) for name, rows in self._state.tables.items() if len(rows)}

    def write(self, data: Mapping[str, Mapping[str, Any]]) -> None:
        """Replace all tables with `data`. Only rows that differ are written."""
        self.commit(self._replacing(data))

    def _replacing(self, data: Mapping[str, Mapping[str, Any]]) -> Iterator[Operation]:
        for table in {**self.read(), **data}:
            rows, documents = self.rows(table), data.get(table, {})
            # TinyDB passes unchanged tables back; skip the comparison of all their rows.
            if isinstance(documents, RowsView) and documents.rows is rows:
                continue
            yield from [Operation(table, record.seq) for record in rows if str(record.seq) not in documents]
            for key, document in documents.items():
                yield Operation(table, int(key), msgspec.convert(dict(document), Envelope))

    def close(self) -> None:
        """Make all commits durable and close the files."""
        with self.lock:
            if not self._closed:
                try:
                    with disk_errors(self._files.snapshot.parent):
                        self._settle()
                finally:
                    self._let_go()

    def _let_go(self) -> None:
        self._closed = True
        self._events.close()
        if self._journal:
            self._journal.close()

    def drop(self) -> None:
        """Close the files and delete them."""
        with self.lock:
            with suppress(OSError):  # the data is deleted anyway
                self._settle()
            self._let_go()
            with disk_errors(self._files.snapshot.parent):
                self._files.remove()

    # --- reading

    def rows(self, table: str) -> Rows:
        """Return the rows of a table. Use them only while you hold `lock`."""
        return self._state.rows(table)

    def event_lines(self) -> Lines:
        """Return a snapshot of the event log."""
        with self.lock:
            return self._events.lines()

    def snapshot(self) -> tuple[Image, Lines]:
        """Return a snapshot of all acknowledged commits and the event log that belongs to it."""
        with self.lock:
            if self._closed:
                raise Closed
            self._settle()
            return self._image(), self._events.lines()

    def verify(self) -> None:
        """Verify the files of the space; raise IntegrityError if one is damaged."""
        with self.lock:
            self._settle()
            verify_snapshot(self._files.snapshot)
            for generation, size in {**self._older, self._generation: self._synced_size}.items():
                verify_journal(self._files.journal(generation), size)

    def rewrite_files(self) -> None:
        """Write a snapshot of the records in memory, which replaces all files, also damaged ones."""
        with disk_errors(self._files.snapshot.parent), self.lock:
            self._must_snapshot = True
            self._be_ready()

    # --- committing

    def commit(self, operations: Iterable[Operation], events: Sequence[Document] = ()) -> None:
        """Apply all operations and append all events durably, or do nothing.

        The storage takes the operations one by one under the lock and applies each before it takes the next. So a
        generator sees the current state, and it can abort the commit by raising an error.
        """
        with disk_errors(self._files.snapshot.parent):
            with self.lock:
                commit = self._apply(operations, events)
            if commit is not None:
                self._wait_for(commit)
                self._compact_if_due()

    def _apply(self, operations: Iterable[Operation], events: Sequence[Document]) -> _Commit | None:
        self._be_ready()
        commit = _Commit(self._state.commits, self._state.head)
        try:
            self._change(commit, operations, events)
            if not commit.operations and not commit.lines:
                # A barrier: wait for the newest unsynced commit, because the caller may have read it.
                return self._unsynced[-1] if self._unsynced else None
            self._append(commit)
        except BaseException:
            self._undo(commit)
            self._forget_appended()
            raise
        self._unsynced.append(commit)
        return commit

    def _be_ready(self) -> None:
        if self._suspect() and not self._closed:
            self._mend()
        if self._closed:
            raise Closed

    def _suspect(self) -> bool:
        return self._must_snapshot or (self._journal is not None and self._journal.broken)

    def _open_journal(self, generation: int, size: int) -> AppendFile:
        folder = self._files.snapshot.parent
        make_folder(folder, sync=True)
        journal = AppendFile(self._files.journal(generation), size)
        try:
            sync_folder(folder)
        except BaseException:
            journal.close()
            raise
        return journal

    def _change(self, commit: _Commit, operations: Iterable[Operation], events: Sequence[Document]) -> None:
        for wanted in operations:
            if wanted.table == META:
                raise InvalidArgument(
                    f"a table may not be called {META!r}", hint="snapshots keep their own notes there"
                )
            encoded = _encode(wanted)
            operation = _decode_operation(encoded)  # a copy, equal to what recovery would read
            before = self._state.apply(operation)
            commit.undo.append((self.rows(operation.table), operation.seq, before))
            commit.operations.append(encoded)
        for event in events:
            self._state.head, line = chained(self._state.head, event)
            commit.lines.append(line)

    def _append(self, commit: _Commit) -> None:
        if self._journal is None:
            self._journal = self._open_journal(self._generation, self._synced_size)
        number = self._state.commits + 1
        parts = b",".join(commit.operations), b",".join(line[:-1] for line in commit.lines)
        self._journal.append(framed(b'{"n":%d,"ops":[%b],"events":[%b]}' % (number, *parts)))
        self._state.commits = number
        commit.end = self._journal.size

    def _forget_appended(self) -> None:
        """Truncate a record that an interrupt (KeyboardInterrupt) left in the journal."""
        end = self._unsynced[-1].end if self._unsynced else self._synced_size
        if self._journal is not None and self._journal.size > end:
            self._journal.cut(end)

    def _undo(self, commit: _Commit) -> None:
        # In reverse order, because one commit can change a row more than once.
        for rows, seq, before in reversed(commit.undo):
            if before is None:
                rows.remove(seq)
            else:
                rows.put(before)
        self._state.commits, self._state.head = commit.commits, commit.head

    # --- syncing

    def _wait_for(self, commit: _Commit) -> None:
        with self.lock:
            while not commit.done:
                if self._syncing:
                    self.lock.wait()
                else:
                    self._sync()
        if commit.error is not None:
            # A new exception for each waiting thread: a shared one would collect the tracebacks of all of them.
            raise OSError(commit.error.errno, commit.error.strerror) from commit.error

    def _sync(self) -> None:
        """Sync for all threads that have appended. Releases the lock during the sync, so that others can append."""
        covered = len(self._unsynced)
        self._syncing = True
        self.lock.release()
        try:
            failed = self._try_to_sync()
        finally:
            self.lock.acquire()
            self._syncing = False
            self.lock.notify_all()
        self._accept(covered) if failed is None else self._refuse(failed)

    def _sync_alone(self) -> None:
        """Sync all appended commits while holding the lock, so that no commit is appended during the sync."""
        if self._unsynced:
            failed = self._try_to_sync()
            self._accept(len(self._unsynced)) if failed is None else self._refuse(failed)
            self.lock.notify_all()

    def _try_to_sync(self) -> OSError | None:
        assert self._journal is not None
        try:
            self._journal.sync()
        except OSError as error:
            return error
        return None

    def _accept(self, covered: int) -> None:
        for commit in self._unsynced[:covered]:
            self._synced_size, commit.done = commit.end, True
            if commit.lines:
                self._events.extend(commit.lines)
        del self._unsynced[:covered]

    def _refuse(self, error: OSError) -> None:
        """Undo all unsynced commits: the later ones build on the one that failed."""
        assert self._journal is not None
        for commit in reversed(self._unsynced):
            self._undo(commit)
            commit.done, commit.error = True, error
        self._unsynced.clear()
        self._journal.cut(self._synced_size)
        self._journal.broken = self._must_snapshot = True

    def _settle(self) -> None:
        """Wait until every commit is synced and no snapshot is in progress. Other threads can commit while it waits."""
        while self._syncing or self._compacting:
            self.lock.wait()
        self._sync_alone()

    # --- snapshots

    def _mend(self) -> None:
        """Write a snapshot because the content of the journal is unknown. Commits wait until it is complete."""
        self._settle()
        if self._suspect() and not self._closed:
            self._must_snapshot = True
            self._finish(self._rotate())
            self._must_snapshot = False

    def _compact_if_due(self) -> None:
        try:
            image = self._begin_snapshot()
            if image is not None:
                self._finish_snapshot(image)
        except (OSError, IntegrityError) as error:  # the commit is durable in the journal: do not fail it
            self._no_snapshot_below = 2 * self._journals_size()
            _log.warning("no snapshot of %s for now: %s", self._files.snapshot, error)

    def _begin_snapshot(self) -> Image | None:
        with self.lock:
            if not self._due():
                return None
            self._settle()
            if not self._due():  # another thread wrote a snapshot while `_settle` waited
                return None
            image = self._rotate()
            self._compacting = True
            return image

    def _finish_snapshot(self, image: Image) -> None:
        try:
            self._finish(image)
        finally:
            with self.lock:
                self._compacting = False
                self.lock.notify_all()

    def _due(self) -> bool:
        # Snapshots are due when the journal outgrows the last snapshot, so their cost stays proportional to the
        # commits.
        busy = self._closed or self._compacting or self._must_snapshot
        return not busy and self._journals_size() > max(self._compact_at, self._snapshot_size, self._no_snapshot_below)

    def _journals_size(self) -> int:
        return sum(self._older.values()) + (self._journal.size if self._journal else 0)

    def _rotate(self) -> Image:
        """Start the next journal and return the image for the snapshot before it."""
        self._events.flush()
        self._events.sync()
        journal = self._journal = self._journal or self._open_journal(self._generation, self._synced_size)
        if journal.size or journal.broken:
            self._journal = self._open_journal(self._generation + 1, 0)
            journal.close()
            self._older[self._generation] = journal.size
            self._generation += 1
            self._synced_size = 0
        return self._image()

    def _image(self) -> Image:
        state = self._state
        meta = Meta(
            generation=self._generation,
            commits=state.commits,
            events=state.head,
            events_size=self._events.size,
            next_seq={name: rows.next_seq for name, rows in state.tables.items()},
        )
        return Image(meta, {name: list(rows) for name, rows in state.tables.items()})

    def _finish(self, image: Image) -> None:
        """Write the snapshot and remove the journals that it replaces."""
        self._snapshot_size = write_snapshot(self._files.snapshot, image)
        self._no_snapshot_below = 0
        for generation in [number for number in self._older if number < image.meta.generation]:
            with suppress(OSError):  # recovery ignores the journal and deletes it at the next start
                self._files.journal(generation).unlink()
            del self._older[generation]
