"""What a place to keep things must do: records with their log of events, chunks with their manifests, and series.

Services know only these interfaces. `lmvp_server.testing` holds the contract suites that every implementation passes.
All methods block, may be called from any thread, and are durable when they return, unless their docstring says
otherwise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from lmvp.tracking.columns import Columns, Shipment

Buffer: TypeAlias = bytes | bytearray | memoryview

Document: TypeAlias = dict[str, Any]
"""JSON data. What a store hands out is shared: never change it, put a new one."""


class ConcurrentChange(Exception):
    """A change expected another revision than the one in the store: read again and decide anew."""


@dataclass(frozen=True, slots=True)
class Record:
    """A document as it lies in the store.

    Attributes
    ----------
    id : str
        Unique in its table.
    seq : int
        Position in the table, rising with every insert, never used again; survives updates.
    rev : int
        1 for a new record, one more at each change.
    """

    id: str
    seq: int
    rev: int
    data: Document


@dataclass(frozen=True, slots=True)
class Put:
    """Insert or replace one record. `expect` is the revision it must have; 0: it must not exist; None: whatever."""

    table: str
    id: str
    data: Document
    expect: int | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove one record (nothing happens where there is none and `expect` is None)."""

    table: str
    id: str
    expect: int | None = None


Change: TypeAlias = Put | Delete


@dataclass(frozen=True, slots=True)
class Moment:
    """What a space held at one moment; later commits leave it as it is.

    Attributes
    ----------
    tables : mapping of str to sequence of Record
        In the order of `seq`.
    next_seq : mapping of str to int
        By table: the position that the next insert gets.
    count : int
        How many events there are.
    events : callable
        Walks over them, in order; may be asked again.
    """

    tables: Mapping[str, Sequence[Record]]
    next_seq: Mapping[str, int]
    count: int
    events: Callable[[], Iterator[Document]]


class RecordStore(ABC):
    """Tables of JSON documents, in spaces, each with an append-only log of events.

    A space is a unit of storage: `"server"`, or the id of a project. It springs into being with its first commit.
    Fields named in `indexes` (table -> fields) are found without a scan; `find` takes other fields too, slowly.
    """

    @abstractmethod
    def get(self, space: str, table: str, record_id: str) -> Record | None:
        """Return one record, or None."""

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
        newest_first : bool
            Highest `seq` first.
        after : int, optional
            Begin behind this `seq` in the chosen direction: a cursor.
        limit : int, optional
            At most so many.

        Notes
        -----
        With `where` on one indexed field, or none, the cost depends on what is returned, not on what is stored.
        """

    @abstractmethod
    def count(self, space: str, table: str, where: Mapping[str, Any] | None = None) -> int:
        """Count the records whose fields equal `where`."""

    @abstractmethod
    def commit(
        self,
        space: str,
        changes: Sequence[Change],
        events: Sequence[Document] = (),
        *,
        check: Callable[[], object] | None = None,
    ) -> None:
        """Make all changes and append all events, durably, or none of them.

        Each event is a dict without `seq` and `chain`; the store adds both (see `lmvp.records.Event`).

        What others are committing can be read before it is durable. With no changes and no events, this returns when
        all that could be read is, and raises what they raise otherwise: whoever answers by what was read asks for it.

        Parameters
        ----------
        check : callable, optional
            Reads this space and raises an error if the changes must not be made, for example because a right has ended.
            No other commit to this space comes between the check and the changes. The check must not write.

        Raises
        ------
        ConcurrentChange
            If a record is not at the revision that its change expects; nothing is changed.
        """

    @abstractmethod
    def events(
        self, space: str, *, newest_first: bool = False, after: int | None = None, limit: int | None = None
    ) -> list[Document]:
        """Return events in the order of their `seq` (from 1), with `seq` and `chain`."""

    @abstractmethod
    def verify(self, space: str) -> None:
        """Prove that no event of a space was taken out or altered.

        Raises
        ------
        IntegrityError
            Naming the first one that is not as it was written.
        """

    @abstractmethod
    def verify_files(self, space: str) -> None:
        """Prove that what the next start would read of a space is what was written.

        Raises
        ------
        IntegrityError
            Naming the file; `renew` mends it, as long as the space is open.
        """

    @abstractmethod
    def renew(self, space: str) -> None:
        """Write all records of a space anew, from memory."""

    @abstractmethod
    def moment(self, space: str) -> Moment:
        """Return what a space holds now: all that was acknowledged, and nothing of a commit in part."""

    @abstractmethod
    def restore(self, space: str, moment: Moment) -> None:
        """Make a space what it was at a moment, of whatever store: same ids, `seq`, `rev`, and chain of events.

        Nobody uses the space meanwhile; what was in it is gone.
        """

    @abstractmethod
    def spaces(self) -> list[str]:
        """Return the names of all spaces that were committed to."""

    @abstractmethod
    def size(self, space: str) -> int:
        """Return the bytes that the records and events of a space take on the disk; 0 where there is no such space."""

    @abstractmethod
    def drop(self, space: str) -> None:
        """Forget a space, its records and its events."""

    @abstractmethod
    def close(self) -> None:
        """Let go of files and locks."""


class ChunkStore(ABC):
    """Frames by content id, manifests by digest, and the bodies of open pushes; each project has its own.

    A frame is the header and the payload of `lmvp.storage.frames`, the same on disk and on the wire.
    """

    @abstractmethod
    def missing(self, project: str, ids: Iterable[str]) -> list[str]:
        """Return those of `ids` that the project does not hold, in the order given."""

    @abstractmethod
    def put(self, project: str, chunk: str, pieces: Sequence[Buffer]) -> int:
        """Keep one verified frame, given as consecutive pieces; return the bytes added, 0 if it was there.

        Of several calls for one chunk, one alone adds bytes, also when they come at once.

        The bytes are on disk on return; the *name* is sure only after `settle`.
        """

    @abstractmethod
    def settle(self, project: str, ids: Iterable[str]) -> None:
        """Make sure that the names of these chunks survive a power cut."""

    @abstractmethod
    def get(self, project: str, chunk: str) -> bytes:
        """Return one frame.

        Raises
        ------
        KeyError
            If the project does not hold it.
        """

    @abstractmethod
    def size(self, project: str, chunk: str) -> int:
        """Return the length of one frame in bytes.

        Raises
        ------
        KeyError
            If the project does not hold it.
        """

    @abstractmethod
    def start(self, project: str, chunk: str, size: int) -> bytes:
        """Return the first bytes of one frame, `size` of them or as many as there are.

        Raises
        ------
        KeyError
            If the project does not hold it.
        """

    @abstractmethod
    def chunks(self, project: str) -> Iterator[str]:
        """Walk over the ids of all chunks of a project, in any order."""

    @abstractmethod
    def replace(self, project: str, chunk: str, pieces: Sequence[Buffer]) -> int:
        """Let another frame of the same chunk take the place of the one that is there; return its length in bytes.

        A reader sees the old one or the new one, whole. The new one is durable on return.

        Raises
        ------
        KeyError
            If the project does not hold the chunk.
        """

    @abstractmethod
    def remove(self, project: str, ids: Iterable[str]) -> int:
        """Delete chunks, and return the bytes that this freed; what is not there is passed over.

        A frame that another project shares frees nothing.
        """

    @abstractmethod
    def adopt(self, project: str, source: str, chunk: str) -> None:
        """Let a project hold a frame of another one too, without copying its bytes where that can be.

        What either of them does with it later is not seen by the other. Nothing happens where it is there. Durable
        after `settle`.

        Raises
        ------
        KeyError
            If the source does not hold it.
        """

    @abstractmethod
    def sharers(self, project: str, chunk: str, others: Iterable[str]) -> list[str]:
        """Return those of other projects that keep this chunk in the same bytes on the disk, not in a copy of them."""

    @abstractmethod
    def share(self, project: str, source: str, chunk: str) -> None:
        """Replace a project's frame with the one of another project, without copying its bytes where that is possible.

        Durable on return.

        Raises
        ------
        KeyError
            If one of them does not hold it.
        """

    @abstractmethod
    def set_aside(self, project: str, chunk: str) -> None:
        """Take a damaged frame out of use without deleting it: the chunk is missing then, and can be pushed again."""

    @abstractmethod
    def pinning(self, project: str) -> AbstractContextManager[None]:
        """While this is held, nobody is `sweeping`: what was found to be there stays. Many may hold it at once."""

    @abstractmethod
    def sweeping(self, project: str) -> AbstractContextManager[None]:
        """While this is held, nobody is `pinning`: what is found to be of no use does not come into use."""

    @abstractmethod
    def manifests(self, project: str) -> Iterator[str]:
        """Walk over the digests of all manifests of a project, in any order."""

    @abstractmethod
    def remove_manifests(self, project: str, digests: Iterable[str]) -> int:
        """Delete manifests and their notes, and return the bytes that this freed."""

    @abstractmethod
    def put_note(self, project: str, digest: str, data: bytes) -> None:
        """Keep what was worked out about a manifest beside it; a later note takes the place of an earlier one."""

    @abstractmethod
    def notes(self, project: str) -> Iterator[str]:
        """Walk over the digests of all manifests of a project that have a note, damaged notes included."""

    @abstractmethod
    def note(self, project: str, digest: str) -> bytes:
        """Return the note about a manifest.

        Raises
        ------
        KeyError
            If there is none.
        """

    @abstractmethod
    def usage(self, project: str, others: Iterable[str] = ()) -> Mapping[str, int]:
        """Return the bytes that a project takes: of `chunks`, `manifests`, `notes`, `staging`, and `damaged` frames.

        Frames that the project shares with one of `others` do not count.
        """

    @abstractmethod
    def projects(self) -> list[str]:
        """Return the ids of all projects of which something is kept."""

    @abstractmethod
    def put_manifest(self, project: str, digest: str, data: bytes) -> None:
        """Keep a manifest under its digest."""

    @abstractmethod
    def manifest(self, project: str, digest: str) -> bytes:
        """Return a manifest.

        Raises
        ------
        KeyError
            If the project does not hold it.
        """

    @abstractmethod
    def stage(self, project: str, push: str, data: bytes) -> None:
        """Remember the body of an open push. Need not survive a power cut, must survive a killed process."""

    @abstractmethod
    def staged(self, project: str, push: str) -> tuple[bytes, float]:
        """Return the body of an open push and the time it was last touched (seconds since 1970).

        Raises
        ------
        KeyError
            If there is no such push.
        """

    @abstractmethod
    def touch(self, project: str, push: str, *, at: float | None = None) -> None:
        """Set the time of the last request of an open push, by default to now; nothing happens if there is none."""

    @abstractmethod
    def unstage(self, project: str, push: str) -> None:
        """Forget an open push; nothing happens where there is none."""

    @abstractmethod
    def pushes(self, project: str) -> list[str]:
        """Return the ids of all open pushes of a project."""

    @abstractmethod
    def drop(self, project: str) -> None:
        """Forget all of a project."""


class Gap(Exception):
    """Bytes of a journal were appended that do not follow on what is there."""

    def __init__(self, applied: int) -> None:
        super().__init__(f"applied up to byte {applied}")
        self.applied = applied


class CursorLost(Exception):
    """The points behind a cursor are no longer at hand one by one: read the curves anew, and go on from now."""


@dataclass(frozen=True, slots=True)
class KeyState:
    """What a series knows of one key: see `lmvp.tracking.records.KeyRecord`."""

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
    """What a series is, without its points.

    Attributes
    ----------
    points : int
        How many were taken in; the cursor of a reader who has seen all.
    epoch : int
        The newest one.
    touched : float
        The last sign of life, seconds since 1970.
    """

    points: int
    keys: int
    epoch: int
    touched: float


class SeriesStore(ABC):
    """The points of runs, each run a series by itself. docs/runs.md says what counts at a (key, step).

    A series springs into being with its first `append`. What is appended can be read when the call returns.
    """

    @abstractmethod
    def append(
        self, project: str, run: str, writer: str, start: int, data: Buffer, shipment: Shipment, *, alive: bool = True
    ) -> int:
        """Take in frames that begin at byte `start` of a writer's journal; return how far the journal is applied.

        Parameters
        ----------
        data : bytes-like
            Whole frames; no bytes are a sign of life.
        shipment : Shipment
            The same, parsed; not looked at where some of `data` was applied before.
        alive : bool
            Whether the frames are a sign of life of the run.

        Raises
        ------
        Gap
            If `start` is beyond what is applied.
        InvalidRequest
            If a point names a key that the writer has not defined. Nothing is taken in.

        Notes
        -----
        Bytes that were applied before are passed over. Durable on return. Several writers may append at once.
        """

    @abstractmethod
    def applied(self, project: str, run: str, writer: str) -> int:
        """Return how far a writer's journal is applied, in bytes; 0 for a writer who is not known."""

    @abstractmethod
    def attempt(self, project: str, run: str, writer: str) -> int:
        """Return the epoch of the points that a writer sends next; 0 for a writer who is not known."""

    @abstractmethod
    def touch(self, project: str, run: str) -> None:
        """Note a sign of life. Need not survive a power cut."""

    @abstractmethod
    def touched(self, project: str, run: str) -> float:
        """Return when the last sign of life was, in seconds since 1970; 0 if there was none."""

    @abstractmethod
    def state(self, project: str, run: str) -> SeriesState | None:
        """Return what a series is; None where there is none."""

    @abstractmethod
    def keys(self, project: str, run: str) -> list[KeyState]:
        """Return what is known of each key, in the order of their first points; of dropped points no longer."""

    @abstractmethod
    def count(self, project: str, run: str, key: str, first: int | None = None, last: int | None = None) -> int:
        """Return how many points of a key have a step from `first` to `last`, both included; nearly, if many."""

    @abstractmethod
    def read(
        self, project: str, run: str, key: str, first: int | None = None, last: int | None = None
    ) -> Iterator[Columns]:
        """Yield all points of a key that count, in the order of their steps, a page of at most 65,536 at a time."""

    @abstractmethod
    def sample(
        self, project: str, run: str, key: str, points: int, first: int | None = None, last: int | None = None
    ) -> Columns:
        """Return at most `points` points of a key that look like all of them, in the order of their steps.

        The range of steps is cut into `points // 3` stretches of one width, or somewhat fewer. The least and the
        greatest finite value of each are there, exactly, one of its values that are not finite, and the first and the
        last point of the range. Where there are no more than `points`, all are returned. The cost depends on `points`,
        not on how many there are.
        """

    @abstractmethod
    def since(
        self, project: str, run: str, cursor: int, keys: Sequence[str] | None = None, limit: int = 100_000
    ) -> tuple[int, dict[str, Columns]]:
        """Return the points that were taken in after `cursor`, in that order, and the cursor behind them.

        Raises
        ------
        CursorLost
            If they were sealed already, or points that a reader had before no longer count.
        """

    @abstractmethod
    def wait(self, project: str, run: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` (from any thread) whenever points were taken in; return what ends that."""

    @abstractmethod
    def settle(self, project: str, run: str) -> None:
        """Seal all points into segments, as small and as quick to read as can be: the run has ended."""

    @abstractmethod
    def settle_soon(self, project: str, run: str) -> None:
        """Settle a series in the background; `close` waits for it."""

    @abstractmethod
    def tidy(self, go_on: Callable[[], bool]) -> None:
        """Seal and merge what can wait until nobody uses the server, as long as `go_on` says so."""

    @abstractmethod
    def projects(self) -> list[str]:
        """Return the ids of all projects of which series are kept."""

    @abstractmethod
    def runs(self, project: str) -> list[str]:
        """Return the ids of all series of a project."""

    @abstractmethod
    def size(self, project: str, run: str) -> int:
        """Return the bytes that a series takes on the disk; 0 where there is none."""

    @abstractmethod
    def verify(self, project: str, run: str) -> None:
        """Prove that a series can be read from the disk as it was written.

        Raises
        ------
        IntegrityError
            Naming the file.
        """

    @abstractmethod
    def damage(self, project: str, run: str) -> list[str]:
        """Name the damage because of which points of a series are missing; nothing if all are there.

        A series with a damaged log serves its sound points and takes new ones. The damaged file is kept. A text
        begins with the name of the file, without its folder.
        """

    @abstractmethod
    def dump(self, project: str, run: str) -> Iterator[bytes]:
        """Yield a series as one stream, as it is at one moment: writers, keys, points, epochs and cuts."""

    @abstractmethod
    def load(self, project: str, run: str, pieces: Iterable[bytes]) -> None:
        """Make a series of what `dump` yielded, in place of what is there.

        Raises
        ------
        IntegrityError
            If the stream is damaged or cut short; nothing is changed.
        """

    @abstractmethod
    def drop(self, project: str, run: str | None = None) -> int:
        """Forget a series, or all of a project; return the bytes that this freed."""

    @abstractmethod
    def close(self) -> None:
        """Let go of files."""
