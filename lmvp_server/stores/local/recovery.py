"""Recovery of a space from its files.

The files of a space `x`::

    x.json           the snapshot of generation g; missing before the first snapshot, when g is 0
    x.json.j<g>      the journal that follows it; also j<g+1>, … while the next snapshot is being written
    x.events.jsonl   the events
    x.json.tmp       an incomplete snapshot
    x.json.drop      a marker: the space is being deleted, and its other files are ignored

A new journal is created before the snapshot that replaces the older journals, and they are removed after it. So the
snapshot and the journals from its generation on are complete at every moment, and a crash leaves at most files that are
no longer needed. Commits are numbered consecutively, so a lost commit is detected.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from lmvp.core.files import sync_file, sync_folder
from lmvp.core.framing import Buffer, LogReader
from lmvp.errors import IntegrityError
from lmvp_server.stores.base import Record
from lmvp_server.stores.local.event_log import (
    RESTORE,
    EventFile,
    Head,
    head_of,
)
from lmvp_server.stores.local.journal import Commit, Operation, decode_commit, read_journal
from lmvp_server.stores.local.memory_table import Rows
from lmvp_server.stores.local.snapshot import Image, read_snapshot, temporary_of

SUFFIX = ".json"
_JOURNAL = re.compile(r"\.json\.j(\d+)")


@dataclass
class Files:
    """File names of one space."""

    snapshot: Path

    @property
    def events(self) -> Path:
        """The event log."""
        return self.snapshot.with_suffix(".events.jsonl")

    @property
    def dropped(self) -> Path:
        """The marker of a space that is being deleted."""
        return self.snapshot.with_name(self.snapshot.name + ".drop")

    def journal(self, generation: int) -> Path:
        """Return the name of the journal that follows the snapshot of this generation."""
        return self.snapshot.with_name(f"{self.snapshot.name}.j{generation}")

    def journals(self) -> dict[int, Path]:
        """Return the existing journals by generation, oldest first."""
        paths = self.snapshot.parent.glob(f"{self.snapshot.name}.j*")
        found = {
            int(match[1]): path for path in paths if (match := _JOURNAL.fullmatch(path.name, len(self.snapshot.stem)))
        }
        return dict(sorted(found.items()))

    def exist(self) -> bool:
        """Whether the space has a commit.

        An event log alone counts too: its records are then lost, which is an error.
        """
        files = any(map(os.path.lexists, (self.snapshot, self.events))) or bool(self.journals())
        return files and not self.dropped.exists()

    def size(self) -> int:
        """Return the size of all files in bytes."""
        paths = (self.snapshot, *self.journals().values(), self.events)
        return sum(path.lstat().st_size for path in paths if os.path.lexists(path))

    def remove(self) -> None:
        """Delete the files.

        When the marker is durable, the space counts as deleted, even if a crash interrupts the rest.
        """
        self.dropped.touch()
        sync_folder(self.snapshot.parent)
        for path in (self.snapshot, *self.journals().values(), self.events, temporary_of(self.snapshot)):
            path.unlink(missing_ok=True)
        sync_folder(self.snapshot.parent)
        self.dropped.unlink(missing_ok=True)


def spaces_in(folder: Path) -> list[str]:
    """Return the names of all spaces that have files in a folder, sorted."""
    names = {path.name.partition(".")[0] for path in folder.glob("*.json*")}
    return sorted(name for name in names if Files(folder / (name + SUFFIX)).exist())


@dataclass
class State:
    """The content of a space in memory."""

    indexes: dict[str, tuple[str, ...]]
    tables: dict[str, Rows] = field(default_factory=dict)
    commits: int = 0
    head: Head = field(default_factory=Head)

    def rows(self, table: str) -> Rows:
        """Return the rows of a table. An unknown table is created."""
        rows = self.tables.get(table)
        if rows is None:
            rows = self.tables[table] = Rows(self.indexes.get(table, ()))
        return rows

    def apply(self, operation: Operation) -> Record | None:
        """Apply an operation and return the previous record."""
        rows, content = self.rows(operation.table), operation.content
        before = rows.at(operation.seq)
        if content is None:
            rows.remove(operation.seq)
        else:
            rows.put(Record(content.id, operation.seq, content.rev, content.data))
        return before

    def load(self, image: Image) -> None:
        """Load a snapshot."""
        self.commits, self.head = image.meta.commits, image.meta.events
        for table, records in image.tables.items():
            rows = self.rows(table)
            for record in records:
                rows.put(record)
        for table, seq in image.meta.next_seq.items():
            self.rows(table).next_seq = seq

    def replay(self, commit: Commit) -> list[bytes]:
        """Apply a commit of the journal and return the lines of its events."""
        for operation in commit.ops:
            self.apply(operation)
        self.commits = commit.n
        lines = [bytes(line) + b"\n" for line in commit.events]
        if lines:
            self.head = head_of(lines[-1])
        return lines


@dataclass
class Recovered:
    """The recovered state of a space and the position in its files.

    Attributes
    ----------
    generation, journal_size : int
        The generation of the journal to append to, and its valid bytes.
    older : dict of int to int
        The size of each older journal that is still needed, by generation.
    snapshot_size : int
        The size of the snapshot in bytes; 0 without a snapshot.
    """

    state: State
    events: EventFile
    generation: int
    journal_size: int
    older: dict[int, int]
    snapshot_size: int


def recover(files: Files, indexes: dict[str, tuple[str, ...]]) -> Recovered:
    """Read a space from its files, and delete files that are no longer needed.

    Raises
    ------
    IntegrityError
        If a file is damaged in a way that a crash cannot explain.
    """
    if files.dropped.exists():
        files.remove()
    image = read_snapshot(files.snapshot)
    state, generation = State(indexes), image.meta.generation
    state.load(image)
    events = EventFile(files.events, image.meta.events_size)
    journals = _that_count(files, generation)
    lines: list[bytes] = []
    sizes = {number: _replay(path, read_journal(path), state, lines) for number, path in journals.items()}
    events.recover(image.meta.events, lines)
    newest = max(sizes, default=generation)
    # The next snapshot is due when the journals outgrow this size.
    snapshot_size = files.snapshot.stat().st_size if files.snapshot.exists() else 0
    return Recovered(state, events, newest, sizes.pop(newest, 0), sizes, snapshot_size)


def _that_count(files: Files, generation: int) -> dict[int, Path]:
    found = files.journals()
    needed = {number: path for number, path in found.items() if number >= generation}
    if list(needed) != list(range(generation, generation + len(needed))):
        raise IntegrityError(f"{files.journal(generation)} and those that follow it have a gap", hint=RESTORE)
    # The journal of a snapshot is created before the snapshot. If it is missing, commits can be lost.
    if not needed and (files.snapshot.exists() or files.events.exists()):
        raise IntegrityError(f"{files.journal(generation)} is missing: it follows {files.snapshot.name}", hint=RESTORE)
    _remove_leftovers(files, [path for number, path in found.items() if number < generation])
    return needed


def _remove_leftovers(files: Files, journals: list[Path]) -> None:
    with suppress(OSError):  # leftovers do no harm
        if journals:
            # The snapshot replaces these journals. After a crash, its name may not be durable yet.
            sync_folder(files.snapshot.parent)
        for path in (*journals, temporary_of(files.snapshot)):
            path.unlink(missing_ok=True)


def _replay(path: Path, log: LogReader, state: State, lines: list[bytes]) -> int:
    """Apply the commits of a journal and return the number of its bytes that are sound and synced.

    Raises
    ------
    IntegrityError
        If a commit is damaged or lost. Later commits build on earlier ones, so a space is opened completely or not at
        all, and its files are not changed.

    Notes
    -----
    The last record of a process that was killed can be unsynced. After recovery it counts: it can be read, and its
    events are written to the event log. Therefore it is synced here, so that a power failure cannot remove it.
    """
    for payload, end in log:
        _check_gaps(path, log)
        commit = _decoded(path, payload, end)
        if commit.n != state.commits + 1:
            raise IntegrityError(
                f"{path} continues with commit {commit.n} after {state.commits}: some are lost", hint=RESTORE
            )
        lines += state.replay(commit)
    _check_gaps(path, log)
    if log.end:
        sync_file(path)
    return log.end


def _check_gaps(path: Path, log: LogReader) -> None:
    if log.gaps:
        raise IntegrityError(f"{path} is {log.gaps[0]}", hint=RESTORE)


def _decoded(path: Path, payload: Buffer, end: int) -> Commit:
    try:
        return decode_commit(payload)
    except msgspec.MsgspecError as error:
        raise IntegrityError(f"{path} is damaged before byte {end:,}: {error}", hint=RESTORE) from None
