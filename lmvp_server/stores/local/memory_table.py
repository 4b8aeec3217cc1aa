"""Rows of one table in memory, accessible by id, by seq and by indexed fields.

Every index has sorted lists of `seq`, so reading a page of n rows takes O(n) time from both ends and from any cursor.
A new row is appended to its lists. Only a change of an indexed value of an old row inserts into the middle of a list.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from lmvp.errors import AlreadyExists
from lmvp_server.stores.base import Document, Record

_MISSING = object()
# Other values, such as lists, cannot be keys of an index.
_SCALARS = (str, int, float, bool, type(None))


class Rows:
    """Records of one table.

    Examples
    --------
    >>> rows = Rows(["color"])
    >>> for seq, color in enumerate(["red", "blue", "red"], 1):
    ...     rows.put(Record(f"r{seq}", seq, 1, {"color": color}))
    >>> [record.id for record in rows.select({"color": "red"}, newest_first=True)]
    ['r3', 'r1']
    >>> rows.next_seq
    4
    """

    def __init__(self, fields: Sequence[str] = ()) -> None:
        self.next_seq = 1
        self._records: dict[int, Record] = {}
        self._by_id: dict[str, Record] = {}
        self._seqs: list[int] = []
        self._indexes: dict[str, dict[Any, list[int]]] = {field: {} for field in fields}

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return map(self._records.__getitem__, self._seqs)

    def get(self, record_id: str) -> Record | None:
        """Return the record with this id, or None."""
        return self._by_id.get(record_id)

    def at(self, seq: int) -> Record | None:
        """Return the record with this seq, or None."""
        return self._records.get(seq)

    def put(self, record: Record) -> None:
        """Add a record, or replace the record with the same seq."""
        old, namesake = self._records.get(record.seq), self._by_id.get(record.id)
        if namesake is not None and namesake.seq != record.seq:  # only TinyDB's own methods can cause this
            raise AlreadyExists(f"document {namesake.seq} has the id {record.id!r} already", hint="update that one")
        if old is None:
            _add(self._seqs, record.seq)
        elif old.id != record.id:
            del self._by_id[old.id]
        self._records[record.seq] = self._by_id[record.id] = record
        self._reindex(record.seq, {} if old is None else old.data, record.data)
        self.next_seq = max(self.next_seq, record.seq + 1)

    def remove(self, seq: int) -> None:
        """Remove the record with this seq, if it exists. The seq is not used again."""
        old = self._records.pop(seq, None)
        if old is not None:
            del self._by_id[old.id]
            del self._seqs[bisect_left(self._seqs, seq)]
            self._reindex(seq, old.data, {})

    def _reindex(self, seq: int, before: Document, after: Document) -> None:
        for field, index in self._indexes.items():
            old, new = before.get(field, _MISSING), after.get(field, _MISSING)
            # Compare types too: 1 == True in Python.
            if old is new or (type(old) is type(new) and old == new):
                continue
            if isinstance(old, _SCALARS):
                _discard(index, old, seq)
            if isinstance(new, _SCALARS):
                _add(index.setdefault(new, []), seq)

    def select(
        self,
        where: Mapping[str, Any] | None = None,
        *,
        newest_first: bool = False,
        after: int | None = None,
        limit: int | None = None,
    ) -> list[Record]:
        """Return the records as `RecordStore.find` specifies."""
        seqs, rest = self._narrow(where or {})
        window = map(self._records.__getitem__, map(seqs.__getitem__, _window(seqs, newest_first, after)))
        found = filter(_test(rest), window) if rest else window
        return list(islice(found, limit))

    def count(self, where: Mapping[str, Any] | None = None) -> int:
        """Return the number of records whose fields equal `where`."""
        seqs, rest = self._narrow(where or {})
        return len(self.select(where)) if rest else len(seqs)

    def equal(self, field: str, value: Any) -> list[int] | None:
        """Return the seqs of the records with this value, from the index; None if the field needs a scan."""
        if not isinstance(value, _SCALARS) or field not in self._indexes:
            return None
        return self._indexes[field].get(value, [])

    def _narrow(self, where: Mapping[str, Any]) -> tuple[list[int], dict[str, Any]]:
        """Return the shortest list of candidates, and the conditions to test on each of them."""
        best, by = self._seqs, ""
        for field, value in where.items():
            seqs = self.equal(field, value)
            if seqs is not None and (not by or len(seqs) < len(best)):
                best, by = seqs, field
        return best, {field: value for field, value in where.items() if field != by}


def _add(seqs: list[int], seq: int) -> None:
    if not seqs or seqs[-1] < seq:
        seqs.append(seq)
    else:
        insort(seqs, seq)


def _discard(index: dict[Any, list[int]], value: Any, seq: int) -> None:
    seqs = index[value]
    del seqs[bisect_left(seqs, seq)]
    if not seqs:
        del index[value]


def _window(seqs: list[int], newest_first: bool, after: int | None) -> range:
    if newest_first:
        return range((len(seqs) if after is None else bisect_left(seqs, after)) - 1, -1, -1)
    return range(0 if after is None else bisect_right(seqs, after), len(seqs))


def _test(where: Mapping[str, Any]) -> Callable[[Record], bool]:
    return lambda record: all(record.data.get(field, _MISSING) == value for field, value in where.items())


def envelope(record: Record) -> Document:
    """Return the document of a record as TinyDB sees it."""
    return {"id": record.id, "rev": record.rev, "data": record.data}


class RowsView(Mapping[str, Document]):
    """Rows in the form of a table that TinyDB's storages return: documents by `doc_id` as text, built on access."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def __getitem__(self, key: str) -> Document:
        record = self.rows.at(int(key))
        if record is None:
            raise KeyError(key)
        return envelope(record)

    def __iter__(self) -> Iterator[str]:
        return (str(record.seq) for record in list(self.rows))

    def __len__(self) -> int:
        return len(self.rows)
