"""Interface of the records of the server: documents in tables, with a log of events."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

_T = TypeVar("_T")

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
class SpaceSnapshot:
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

    def update(
        self,
        space: str,
        table: str,
        record_id: str,
        change: Callable[[Document], Document | None],
        events: Sequence[Document] = (),
        *,
        check: Callable[[], object] | None = None,
    ) -> bool:
        """Read one record, change it, and commit it durably. After a concurrent change, start again.

        Parameters
        ----------
        space : str
            The space: `"server"` or the id of a project.
        table, record_id : str
            The table and the id of the record.
        change : callable
            Returns the new document for the current one, or None to leave the record. It can be called several times,
            so it must not have side effects, and it must not modify its argument.
        events : sequence of dict
            Events that are appended if the record is changed.
        check : callable, optional
            See `commit`.

        Returns
        -------
        bool
            Whether the record was changed. False if it does not exist, or if `change` returned None.
        """

        def attempt() -> bool:
            record = self.get(space, table, record_id)
            data = change(record.data) if record is not None else None
            if record is None or data is None:
                return False
            self.commit(space, [Put(table, record_id, data, expect=record.rev)], events, check=check)
            return True

        return self.retry(attempt)

    def retry(self, attempt: Callable[[], _T]) -> _T:
        """Call a function that reads records and commits changes of them, until no concurrent change prevents it.

        Use it if a change covers several records or depends on them; otherwise use `update`.

        Parameters
        ----------
        attempt : callable
            Reads the records, and commits changes with their revisions. It is called again if it raises
            `ConcurrentChange`, so it must not have other side effects before the commit.

        Returns
        -------
        object
            The result of `attempt`.
        """
        while True:
            try:
                return attempt()
            except ConcurrentChange:
                continue

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
            If a file is damaged. The message names it. As long as the space is open, `rewrite_files` repairs it.
        """

    @abstractmethod
    def rewrite_files(self, space: str) -> None:
        """Rewrite the files of a space from the records in memory.

        Parameters
        ----------
        space : str
            The space: `"server"` or the id of a project.
        """

    @abstractmethod
    def snapshot(self, space: str) -> SpaceSnapshot:
        """Return a snapshot: every acknowledged commit completely, and no commit partly.

        Parameters
        ----------
        space : str
            The space: `"server"` or the id of a project.

        Returns
        -------
        SpaceSnapshot
            An empty snapshot if the space does not exist.
        """

    @abstractmethod
    def restore(self, space: str, snapshot: SpaceSnapshot) -> None:
        """Replace the content of a space with a snapshot, which can come from another store.

        Ids, `seq`, `rev` and the chain of events stay the same. The previous content is lost. The space must not be in
        use during the call.

        Parameters
        ----------
        space : str
            The space: `"server"` or the id of a project.
        snapshot : SpaceSnapshot
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
