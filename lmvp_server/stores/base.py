"""Interfaces of the stores: records with their event log, chunks with their manifests, and series of metrics.

Services use only these interfaces. `lmvp_server.stores.testing` has a contract test suite for each interface, and every
implementation must pass it. Unless a docstring states otherwise, a method blocks, can be called from any thread, and
its effect is durable when it returns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from lmvp.core.columns import Columns, Shipment

Buffer: TypeAlias = bytes | bytearray | memoryview

Document: TypeAlias = dict[str, Any]
"""JSON data. Documents that a store returns are shared: do not modify one, put a new one instead."""


class ConcurrentChange(Exception):
    """A record does not have the revision that the change expects. The caller must read again and retry."""


@dataclass(frozen=True, slots=True)
class Record:
    """A stored document with its position and revision.

    Attributes
    ----------
    id : str
        The id, unique in its table.
    seq : int
        The position in the table. It rises with every insert, does not change at an update and is never used again.
    rev : int
        The revision: 1 for a new record, plus 1 at each change.
    data : dict
        The document. It is shared and must not be modified.
    """

    id: str
    seq: int
    rev: int
    data: Document


@dataclass(frozen=True, slots=True)
class Put:
    """Insert or replace one record.

    Attributes
    ----------
    table, id : str
        The table and the id of the record.
    data : dict
        The new document.
    expect : int or None
        The revision that the record must have. 0: it must not exist. None: no check.
    """

    table: str
    id: str
    data: Document
    expect: int | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove one record. If it does not exist and `expect` is None, nothing happens.

    Attributes
    ----------
    table, id : str
        The table and the id of the record.
    expect : int or None
        The revision that the record must have. None: no check.
    """

    table: str
    id: str
    expect: int | None = None


Change: TypeAlias = Put | Delete


@dataclass(frozen=True, slots=True)
class Moment:
    """A consistent snapshot of a space. Later commits do not change it.

    Attributes
    ----------
    tables : mapping of str to sequence of Record
        The records of each table, in the order of `seq`.
    next_seq : mapping of str to int
        For each table, the position that the next insert gets.
    count : int
        The number of events.
    events : callable
        Returns an iterator over the events, oldest first. It can be called more than once.
    """

    tables: Mapping[str, Sequence[Record]]
    next_seq: Mapping[str, int]
    count: int
    events: Callable[[], Iterator[Document]]


class RecordStore(ABC):
    """Tables of JSON documents, grouped in spaces. Each space has an append-only event log.

    A space is the unit of storage and of commits: `"server"`, or the id of a project. The first commit creates it.
    Fields that are named in `indexes` (table -> fields) are found without a scan. `find` accepts other fields too, but
    scans the table for them.
    """

    @abstractmethod
    def get(self, space: str, table: str, record_id: str) -> Record | None:
        """Return one record.

        Parameters
        ----------
        space : str
            The space: `"server"` or the id of a project.
        table : str
            The name of the table.
        record_id : str
            The id of the record.

        Returns
        -------
        Record or None
            None if the record does not exist.
        """

    @abstractmethod
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
        """Return the records whose fields equal `where`, in the order of `seq`.

        Parameters
        ----------
        space, table : str
            The space and the table to search.
        where : mapping, optional
            Field names with the values that they must have. Default: all records.
        newest_first : bool, default False
            Sort by descending `seq`.
        after : int, optional
            A cursor: start after this `seq`, in the chosen direction.
        limit : int, optional
            The maximum number of records. Default: no limit.

        Returns
        -------
        list of Record
            Empty if no record matches.

        Notes
        -----
        If `where` is empty or names one indexed field, the cost depends on the number of records returned, not on the
        number stored.
        """

    @abstractmethod
    def count(self, space: str, table: str, where: Mapping[str, Any] | None = None) -> int:
        """Return the number of records whose fields equal `where`.

        Parameters
        ----------
        space : str
            The space: `"server"` or the id of a project.
        table : str
            The name of the table.
        where : mapping, optional
            Field names with the values that they must have. Default: all records.

        Returns
        -------
        int
            The number of matching records; 0 if the space or the table does not exist.
        """

    @abstractmethod
    def commit(
        self,
        space: str,
        changes: Sequence[Change],
        events: Sequence[Document] = (),
        *,
        check: Callable[[], object] | None = None,
    ) -> None:
        """Apply all changes and append all events durably, or do nothing.

        Other threads can read a commit before it is durable. A call without changes and events is a barrier: it
        returns when everything that was readable is durable, and raises the error of a commit that failed. Call it
        before an answer that depends on such a read.

        Parameters
        ----------
        space : str
            The space to change.
        changes : sequence of Put or Delete
            The changes, applied in this order.
        events : sequence of dict
            Events without `seq` and `chain`. The store adds both (see `lmvp.core.schemas.Event`).
        check : callable, optional
            Reads this space and raises an error if the changes must not be applied, for example because a right was
            revoked. The store runs no other commit to this space between the check and the changes. The check must not
            write.

        Raises
        ------
        ConcurrentChange
            If a record does not have the revision that its change expects. Nothing is changed.
        """

    @abstractmethod
    def events(
        self, space: str, *, newest_first: bool = False, after: int | None = None, limit: int | None = None
    ) -> list[Document]:
        """Return events with `seq` (from 1) and `chain`, in the order of `seq`.

        Parameters
        ----------
        space : str
            The space to read.
        newest_first : bool, default False
            Sort by descending `seq`.
        after : int, optional
            A cursor: start after this `seq`, in the chosen direction.
        limit : int, optional
            The maximum number of events. Default: no limit.

        Returns
        -------
        list of dict
            Empty if the space does not exist.
        """

    @abstractmethod
    def verify(self, space: str) -> None:
        """Verify the chain of events: no event was removed or altered.

        Parameters
        ----------
        space : str
            The space: `"server"` or the id of a project.

        Raises
        ------
        IntegrityError
            If an event does not match its digest. The message names the first one.
        """

    @abstractmethod
    def verify_files(self, space: str) -> None:
        """Verify the files that the next start of the server would read.

        Parameters
        ----------
        space : str
            The space: `"server"` or the id of a project.

        Raises
        ------
        IntegrityError
            If a file is damaged. The message names it. As long as the space is open, `renew` repairs it.
        """

    @abstractmethod
    def renew(self, space: str) -> None:
        """Rewrite the files of a space from the records in memory.

        Parameters
        ----------
        space : str
            The space: `"server"` or the id of a project.
        """

    @abstractmethod
    def moment(self, space: str) -> Moment:
        """Return a snapshot: every acknowledged commit completely, and no commit partly.

        Parameters
        ----------
        space : str
            The space: `"server"` or the id of a project.

        Returns
        -------
        Moment
            An empty snapshot if the space does not exist.
        """

    @abstractmethod
    def restore(self, space: str, moment: Moment) -> None:
        """Replace the content of a space with a snapshot, which can come from another store.

        Ids, `seq`, `rev` and the chain of events stay the same. The previous content is lost. The space must not be in
        use during the call.

        Parameters
        ----------
        space : str
            The space: `"server"` or the id of a project.
        moment : Moment
            The snapshot. It can come from another store.
        """

    @abstractmethod
    def spaces(self) -> list[str]:
        """Return the names of all spaces that have a commit.

        Returns
        -------
        list of str
            The names.
        """

    @abstractmethod
    def size(self, space: str) -> int:
        """Return the size of the records and events of a space on disk.

        Parameters
        ----------
        space : str
            The space: `"server"` or the id of a project.

        Returns
        -------
        int
            The size in bytes; 0 if the space does not exist.
        """

    @abstractmethod
    def drop(self, space: str) -> None:
        """Delete a space with its records and its events.

        Parameters
        ----------
        space : str
            The space: `"server"` or the id of a project.
        """

    @abstractmethod
    def close(self) -> None:
        """Close all files and release all locks."""


class ChunkStore(ABC):
    """Frames by chunk id, manifests by digest, and the bodies of open pushes, separate for each project.

    A frame is the header and the payload of `lmvp.core.chunk_frames`. It has the same bytes on disk and on the wire.
    """

    @abstractmethod
    def missing(self, project: str, ids: Iterable[str]) -> list[str]:
        """Return those of `ids` that the project does not have.

        Parameters
        ----------
        project : str
            The id of the project.
        ids : iterable of str
            Ids of chunks.

        Returns
        -------
        list of str
            The missing ids, in the given order.
        """

    @abstractmethod
    def put(self, project: str, chunk: str, pieces: Sequence[Buffer]) -> int:
        """Store one verified frame.

        If several calls store the same chunk, also concurrently, only one of them adds bytes. The content is durable on
        return, but the name is durable only after `settle`: one folder sync then covers all chunks of a push.

        Parameters
        ----------
        project, chunk : str
            The id of the project and the digest of the chunk.
        pieces : sequence of bytes-like
            The frame, as consecutive parts.

        Returns
        -------
        int
            The bytes added; 0 if the chunk existed.
        """

    @abstractmethod
    def settle(self, project: str, ids: Iterable[str]) -> None:
        """Make the names of these chunks durable.

        Parameters
        ----------
        project : str
            The id of the project.
        ids : iterable of str
            Ids of chunks.
        """

    @abstractmethod
    def get(self, project: str, chunk: str) -> bytes:
        """Return one frame.

        Parameters
        ----------
        project : str
            The id of the project.
        chunk : str
            The id of the chunk: its BLAKE3 digest as 64 hex digits.

        Returns
        -------
        bytes
            The header and the payload.

        Raises
        ------
        KeyError
            If the project does not have the chunk.
        """

    @abstractmethod
    def size(self, project: str, chunk: str) -> int:
        """Return the length of one frame.

        Parameters
        ----------
        project : str
            The id of the project.
        chunk : str
            The id of the chunk: its BLAKE3 digest as 64 hex digits.

        Returns
        -------
        int
            The length of header and payload in bytes.

        Raises
        ------
        KeyError
            If the project does not have the chunk.
        """

    @abstractmethod
    def start(self, project: str, chunk: str, size: int) -> bytes:
        """Return the first bytes of one frame, or the whole frame if it is shorter.

        Parameters
        ----------
        project : str
            The id of the project.
        chunk : str
            The id of the chunk: its BLAKE3 digest as 64 hex digits.
        size : int
            The number of bytes.

        Returns
        -------
        bytes
            At most `size` bytes.

        Raises
        ------
        KeyError
            If the project does not have the chunk.
        """

    @abstractmethod
    def chunks(self, project: str) -> Iterator[str]:
        """Iterate over the ids of all chunks of a project.

        Parameters
        ----------
        project : str
            The id of the project.

        Returns
        -------
        iterator of str
            The ids, in any order.
        """

    @abstractmethod
    def replace(self, project: str, chunk: str, pieces: Sequence[Buffer]) -> int:
        """Replace the frame of a chunk with another frame of the same chunk.

        A reader sees either the old or the new frame, complete. The new frame is durable on return.

        Parameters
        ----------
        project, chunk : str
            The id of the project and the digest of the chunk.
        pieces : sequence of bytes-like
            The new frame, as consecutive parts.

        Returns
        -------
        int
            The length of the new frame in bytes.

        Raises
        ------
        KeyError
            If the project does not have the chunk.
        """

    @abstractmethod
    def remove(self, project: str, ids: Iterable[str]) -> int:
        """Delete chunks. Chunks that do not exist are skipped.

        Parameters
        ----------
        project : str
            The id of the project.
        ids : iterable of str
            Ids of chunks.

        Returns
        -------
        int
            The bytes freed. A frame that another project shares frees no bytes.
        """

    @abstractmethod
    def adopt(self, project: str, source: str, chunk: str) -> None:
        """Add a chunk of another project to a project, without a copy of its bytes where the storage allows it.

        The two projects stay independent: a later change in one does not affect the other. If the project has the
        chunk, nothing happens. The name is durable after `settle`.

        Parameters
        ----------
        project : str
            The id of the project that gets the chunk.
        source : str
            The id of the project that has it.
        chunk : str
            The digest of the chunk.

        Raises
        ------
        KeyError
            If the source does not have the chunk.
        """

    @abstractmethod
    def sharers(self, project: str, chunk: str, others: Iterable[str]) -> list[str]:
        """Return those of `others` that share the stored bytes of this chunk with the project, instead of a copy.

        Parameters
        ----------
        project : str
            The id of the project.
        chunk : str
            The id of the chunk: its BLAKE3 digest as 64 hex digits.
        others : iterable of str
            Ids of other projects.

        Returns
        -------
        list of str
            The ids of those projects, in the given order.
        """

    @abstractmethod
    def share(self, project: str, source: str, chunk: str) -> None:
        """Replace a project's frame with the frame of another project, without a copy where the storage allows it.

        The change is durable on return.

        Parameters
        ----------
        project : str
            The id of the project.
        source : str
            The id of the project whose frame is used.
        chunk : str
            The id of the chunk: its BLAKE3 digest as 64 hex digits.

        Raises
        ------
        KeyError
            If one of the two projects does not have the chunk.
        """

    @abstractmethod
    def set_aside(self, project: str, chunk: str) -> None:
        """Move a damaged frame away without deleting it. The chunk is then missing and can be pushed again.

        Parameters
        ----------
        project : str
            The id of the project.
        chunk : str
            The id of the chunk: its BLAKE3 digest as 64 hex digits.
        """

    @abstractmethod
    def pinning(self, project: str) -> AbstractContextManager[None]:
        """Return a shared lock that excludes `sweeping`: chunks that were found are not deleted while it is held.

        Parameters
        ----------
        project : str
            The id of the project.

        Returns
        -------
        context manager
            Holds the lock while it is entered.
        """

    @abstractmethod
    def sweeping(self, project: str) -> AbstractContextManager[None]:
        """Return an exclusive lock that excludes `pinning`: unused chunks do not come into use while it is held.

        Parameters
        ----------
        project : str
            The id of the project.

        Returns
        -------
        context manager
            Holds the lock while it is entered.
        """

    @abstractmethod
    def manifests(self, project: str) -> Iterator[str]:
        """Iterate over the digests of all manifests of a project.

        Parameters
        ----------
        project : str
            The id of the project.

        Returns
        -------
        iterator of str
            The digests, in any order.
        """

    @abstractmethod
    def remove_manifests(self, project: str, digests: Iterable[str]) -> int:
        """Delete manifests with their notes.

        Parameters
        ----------
        project : str
            The id of the project.
        digests : iterable of str
            Digests of manifests.

        Returns
        -------
        int
            The bytes freed.
        """

    @abstractmethod
    def put_note(self, project: str, digest: str, data: bytes) -> None:
        """Store data that was computed from a manifest, a note, next to it. A new note replaces the old one.

        Parameters
        ----------
        project : str
            The id of the project.
        digest : str
            The digest of the manifest.
        data : bytes
            The content of the note.
        """

    @abstractmethod
    def notes(self, project: str) -> Iterator[str]:
        """Iterate over the digests of all manifests that have a note.

        Parameters
        ----------
        project : str
            The id of the project.

        Returns
        -------
        iterator of str
            The digests, in any order. They include those of damaged notes.
        """

    @abstractmethod
    def note(self, project: str, digest: str) -> bytes:
        """Return the note of a manifest.

        Parameters
        ----------
        project : str
            The id of the project.
        digest : str
            The digest of the manifest.

        Returns
        -------
        bytes
            The content of the note.

        Raises
        ------
        KeyError
            If the note is missing or damaged. The caller then computes it again.
        """

    @abstractmethod
    def usage(self, project: str, others: Iterable[str] = ()) -> Mapping[str, int]:
        """Return the size of a project on disk.

        Frames that the project shares with one of `others` do not count.

        Parameters
        ----------
        project : str
            The id of the project.
        others : iterable of str, optional
            Ids of other projects. Default: none.

        Returns
        -------
        mapping of str to int
            Bytes of `chunks`, `manifests`, `notes`, `staging` and `damaged`.
        """

    @abstractmethod
    def projects(self) -> list[str]:
        """Return the ids of all projects that have data in this store.

        Returns
        -------
        list of str
            The ids.
        """

    @abstractmethod
    def put_manifest(self, project: str, digest: str, data: bytes) -> None:
        """Store a manifest under its digest.

        Parameters
        ----------
        project : str
            The id of the project.
        digest : str
            The digest of the manifest.
        data : bytes
            The encoded manifest.
        """

    @abstractmethod
    def manifest(self, project: str, digest: str) -> bytes:
        """Return a manifest.

        Parameters
        ----------
        project : str
            The id of the project.
        digest : str
            The digest of the manifest.

        Returns
        -------
        bytes
            The encoded manifest.

        Raises
        ------
        KeyError
            If the project does not have it.
        """

    @abstractmethod
    def stage(self, project: str, push: str, data: bytes) -> None:
        """Store the body of an open push. It must survive a killed process, but not a power failure.

        Parameters
        ----------
        project : str
            The id of the project.
        push : str
            The id of the push: 32 hex digits.
        data : bytes
            The body of the push.
        """

    @abstractmethod
    def staged(self, project: str, push: str) -> tuple[bytes, float]:
        """Return the body of an open push and the time of its last request.

        Parameters
        ----------
        project : str
            The id of the project.
        push : str
            The id of the push: 32 hex digits.

        Returns
        -------
        tuple of (bytes, float)
            The body, and the time in seconds since 1970.

        Raises
        ------
        KeyError
            If the push does not exist or its body is damaged.
        """

    @abstractmethod
    def touch(self, project: str, push: str, *, at: float | None = None) -> None:
        """Set the time of the last request of an open push, by default to now. Unknown pushes are ignored.

        Parameters
        ----------
        project : str
            The id of the project.
        push : str
            The id of the push: 32 hex digits.
        at : float, optional
            The time in seconds since 1970. Default: now.
        """

    @abstractmethod
    def unstage(self, project: str, push: str) -> None:
        """Delete an open push. Unknown pushes are ignored.

        Parameters
        ----------
        project : str
            The id of the project.
        push : str
            The id of the push: 32 hex digits.
        """

    @abstractmethod
    def pushes(self, project: str) -> list[str]:
        """Return the ids of all open pushes of a project.

        Parameters
        ----------
        project : str
            The id of the project.

        Returns
        -------
        list of str
            The ids.
        """

    @abstractmethod
    def drop(self, project: str) -> None:
        """Delete all data of a project.

        Parameters
        ----------
        project : str
            The id of the project.
        """


class Gap(Exception):
    """Appended bytes of a journal begin after the end of the applied bytes.

    Attributes
    ----------
    applied : int
        The number of bytes that are applied. The writer must send from there.
    """

    def __init__(self, applied: int) -> None:
        super().__init__(f"applied up to byte {applied}")
        self.applied = applied


class CursorLost(Exception):
    """The points after a cursor are no longer available one by one. The reader must read the curves again."""


@dataclass(frozen=True, slots=True)
class KeyState:
    """State of one metric of a series. `lmvp.core.schemas.runs.KeyRecord` explains the fields."""

    name: str
    count: int
    first: int
    step: int
    value: float
    time: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class SeriesState:
    """Properties of a series without its points.

    Attributes
    ----------
    points : int
        The number of points received. It is also the cursor of a reader that has received all of them.
    keys : int
        The number of metrics.
    epoch : int
        The newest attempt. (An attempt begins at the start, a resume or a rewind of a run.)
    touched : float
        The time of the last sign of life, in seconds since 1970.
    """

    points: int
    keys: int
    epoch: int
    touched: float


class SeriesStore(ABC):
    """Points of runs. Each run is one series. docs/runs.md explains which point counts at a (key, step).

    The first `append` creates a series. Points can be read as soon as `append` returns.
    """

    @abstractmethod
    def append(
        self, project: str, run: str, writer: str, start: int, data: Buffer, shipment: Shipment, *, alive: bool = True
    ) -> int:
        """Apply frames of a writer's journal and return the number of its bytes that are applied.

        Bytes that were applied before are skipped, so a request can be repeated. Several writers can append at the same
        time. The points are durable on return.

        Parameters
        ----------
        project, run, writer : str
            The ids of the project, the run and the writer.
        start : int
            The position of `data` in the journal, in bytes.
        data : bytes-like
            Complete frames. Empty data is a sign of life.
        shipment : Shipment
            The parsed `data`. It is ignored if a part of `data` was applied before.
        alive : bool, default True
            Whether the frames are a sign of life of the run.

        Returns
        -------
        int
            The number of bytes of the journal that are applied.

        Raises
        ------
        Gap
            If `start` is after the end of the applied bytes.
        InvalidRequest
            If a point names a key that the writer has not defined. No point is stored.
        """

    @abstractmethod
    def applied(self, project: str, run: str, writer: str) -> int:
        """Return how many bytes of a writer's journal are applied.

        Parameters
        ----------
        project : str
            The id of the project.
        run : str
            The id of the run.
        writer : str
            The id of the writer: 32 hex digits.

        Returns
        -------
        int
            The number of bytes; 0 for an unknown writer.
        """

    @abstractmethod
    def attempt(self, project: str, run: str, writer: str) -> int:
        """Return the attempt to which the next points of a writer belong.

        Parameters
        ----------
        project : str
            The id of the project.
        run : str
            The id of the run.
        writer : str
            The id of the writer: 32 hex digits.

        Returns
        -------
        int
            The number of the attempt; 0 for an unknown writer.
        """

    @abstractmethod
    def touch(self, project: str, run: str) -> None:
        """Record a sign of life. It need not survive a power failure.

        Parameters
        ----------
        project : str
            The id of the project.
        run : str
            The id of the run.
        """

    @abstractmethod
    def touched(self, project: str, run: str) -> float:
        """Return the time of the last sign of life.

        Parameters
        ----------
        project : str
            The id of the project.
        run : str
            The id of the run.

        Returns
        -------
        float
            Seconds since 1970; 0 if the run has never sent a sign of life.
        """

    @abstractmethod
    def state(self, project: str, run: str) -> SeriesState | None:
        """Return the properties of a series without its points.

        Parameters
        ----------
        project : str
            The id of the project.
        run : str
            The id of the run.

        Returns
        -------
        SeriesState or None
            None if the series does not exist.
        """

    @abstractmethod
    def keys(self, project: str, run: str) -> list[KeyState]:
        """Return the state of each metric.

        Parameters
        ----------
        project : str
            The id of the project.
        run : str
            The id of the run.

        Returns
        -------
        list of KeyState
            The keys with points that count, in the order of their first points.
        """

    @abstractmethod
    def count(self, project: str, run: str, key: str, first: int | None = None, last: int | None = None) -> int:
        """Return the number of points of a key with a step from `first` to `last`, inclusive.

        It is an upper bound: sealed points that a newer attempt replaced count until their segments are merged.

        Parameters
        ----------
        project : str
            The id of the project.
        run : str
            The id of the run.
        key : str
            The key of the metric.
        first : int, optional
            The first step of the range, inclusive. Default: no limit.
        last : int, optional
            The last step of the range, inclusive. Default: no limit.

        Returns
        -------
        int
            The number of points, or an upper bound of it.
        """

    @abstractmethod
    def read(
        self, project: str, run: str, key: str, first: int | None = None, last: int | None = None
    ) -> Iterator[Columns]:
        """Yield all points of a key that count.

        Parameters
        ----------
        project : str
            The id of the project.
        run : str
            The id of the run.
        key : str
            The key of the metric.
        first : int, optional
            The first step of the range, inclusive. Default: no limit.
        last : int, optional
            The last step of the range, inclusive. Default: no limit.

        Returns
        -------
        iterator of Columns
            Pages of at most 65,536 points, in the order of steps.
        """

    @abstractmethod
    def sample(
        self, project: str, run: str, key: str, points: int, first: int | None = None, last: int | None = None
    ) -> Columns:
        """Return at most `points` points of a key that preserve the shape of its curve, in the order of steps.

        The range of steps is divided into at most `points // 3` ranges of equal width. The result contains the exact
        minimum and maximum of the finite values of each range, one value that is not finite, and the first and last
        point. If the key has at most `points` points, the result contains all of them. The cost depends on `points`,
        not on the number of stored points.

        Parameters
        ----------
        project, run, key : str
            The ids of the project and the run, and the key of the metric.
        points : int
            The maximum number of points.
        first, last : int, optional
            The range of steps, inclusive. Default: all steps.

        Returns
        -------
        Columns
            The points, as columns.
        """

    @abstractmethod
    def since(
        self, project: str, run: str, cursor: int, keys: Sequence[str] | None = None, limit: int = 100_000
    ) -> tuple[int, dict[str, Columns]]:
        """Return the points that were received after `cursor`, in that order, and the new cursor.

        Parameters
        ----------
        project, run : str
            The ids of the project and the run.
        cursor : int
            The cursor of the previous call, or `SeriesState.points`.
        keys : sequence of str, optional
            The metrics to return. Default: all.
        limit : int, default 100_000
            The maximum number of points.

        Returns
        -------
        tuple of (int, dict of str to Columns)
            The new cursor, and the points of each key.

        Raises
        ------
        CursorLost
            If the points are already sealed, or points that the reader has received no longer count.
        """

    @abstractmethod
    def wait(self, project: str, run: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` whenever points are received.

        Parameters
        ----------
        project : str
            The id of the project.
        run : str
            The id of the run.
        wake : callable
            Called without arguments, from any thread. It must not block.

        Returns
        -------
        callable
            Unsubscribes `wake`.
        """

    @abstractmethod
    def settle(self, project: str, run: str) -> None:
        """Seal all points of a finished run into compact segments that are fast to read.

        Parameters
        ----------
        project : str
            The id of the project.
        run : str
            The id of the run.
        """

    @abstractmethod
    def settle_soon(self, project: str, run: str) -> None:
        """Settle a series in the background. `close` waits for it.

        Parameters
        ----------
        project : str
            The id of the project.
        run : str
            The id of the run.
        """

    @abstractmethod
    def tidy(self, go_on: Callable[[], bool]) -> None:
        """Seal and merge segments while the server is idle.

        Parameters
        ----------
        go_on : callable
            Returns whether to continue. Called before each step of the work.
        """

    @abstractmethod
    def projects(self) -> list[str]:
        """Return the ids of all projects that have series.

        Returns
        -------
        list of str
            The ids.
        """

    @abstractmethod
    def runs(self, project: str) -> list[str]:
        """Return the ids of all series of a project.

        Parameters
        ----------
        project : str
            The id of the project.

        Returns
        -------
        list of str
            The ids.
        """

    @abstractmethod
    def size(self, project: str, run: str) -> int:
        """Return the size of a series on disk.

        Parameters
        ----------
        project : str
            The id of the project.
        run : str
            The id of the run.

        Returns
        -------
        int
            The size in bytes; 0 if the series does not exist.
        """

    @abstractmethod
    def verify(self, project: str, run: str) -> None:
        """Verify that the files of a series are complete and unchanged.

        Parameters
        ----------
        project : str
            The id of the project.
        run : str
            The id of the run.

        Raises
        ------
        IntegrityError
            If a file is damaged. The message names it.
        """

    @abstractmethod
    def damage(self, project: str, run: str) -> list[str]:
        """Describe the damage that makes points of a series unavailable.

        A series with a damaged log still serves its sound points and accepts new ones. The damaged file is not deleted.

        Parameters
        ----------
        project : str
            The id of the project.
        run : str
            The id of the run.

        Returns
        -------
        list of str
            The problems. Each text begins with the name of the file, without its folder. Empty if all points are
            available.
        """

    @abstractmethod
    def dump(self, project: str, run: str) -> Iterator[bytes]:
        """Yield a consistent snapshot of a series as one stream: writers, keys, points, attempts and cuts.

        Parameters
        ----------
        project : str
            The id of the project.
        run : str
            The id of the run.

        Returns
        -------
        iterator of bytes
            The stream, in pieces of any size. Empty if the series does not exist.
        """

    @abstractmethod
    def load(self, project: str, run: str, pieces: Iterable[bytes]) -> None:
        """Replace a series with the stream of `dump`.

        Parameters
        ----------
        project : str
            The id of the project.
        run : str
            The id of the run.
        pieces : iterable of bytes
            The stream, in pieces of any size.

        Raises
        ------
        IntegrityError
            If the stream is damaged or incomplete. Nothing is changed.
        """

    @abstractmethod
    def drop(self, project: str, run: str | None = None) -> int:
        """Delete one series, or all series of a project.

        Parameters
        ----------
        project : str
            The id of the project.
        run : str, optional
            The id of the run. Default: all runs of the project.

        Returns
        -------
        int
            The bytes freed.
        """

    @abstractmethod
    def close(self) -> None:
        """Close all files."""
