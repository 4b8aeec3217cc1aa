"""TinyDB table on the indexed rows: TinyDB's methods, without reading and writing whole files.

TinyDB passes the whole table to an updater as a dict and then writes all of it. Here the updater gets a `Draft`, which
records the rows that it touches, and only these are committed. Equality queries on indexed fields, alone or combined
with `&`, use the index; all other queries scan. TinyDB's query cache is off, because the index is as fast and never
stale.

Documents have the form `{"id", "rev", "data"}`, and `doc_id` is the seq of the record::

    table.search(where("data")["model"] == "mlp")
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, MutableMapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import msgspec
from tinydb.table import Table

from lmvp_server.stores.base import Document
from lmvp_server.stores.local.journal import Envelope, Operation
from lmvp_server.stores.local.memory_table import Rows, envelope

if TYPE_CHECKING:
    from lmvp_server.stores.local.journal_storage import JournalledStorage


class Draft(MutableMapping[int, Document]):
    """A table during an update: behaves like a dict and records the rows that were touched."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._touched: dict[int, Document | None] = {}

    def __getitem__(self, seq: int) -> Document:
        if seq not in self._touched:
            record = self._rows.at(seq)
            # A copy, because an updater can change the document in place.
            self._touched[seq] = None if record is None else deepcopy(envelope(record))
        document = self._touched[seq]
        if document is None:
            raise KeyError(seq)
        return document

    def __setitem__(self, seq: int, document: Document) -> None:
        self._touched[seq] = document

    def __delitem__(self, seq: int) -> None:
        if seq not in self:
            raise KeyError(seq)
        self._touched[seq] = None

    def __iter__(self) -> Iterator[int]:
        kept = (record.seq for record in list(self._rows) if self._touched.get(record.seq, True) is not None)
        added = (seq for seq, document in self._touched.items() if document is not None and not self._rows.at(seq))
        yield from kept
        yield from sorted(added)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, seq: Any) -> bool:
        return self._touched[seq] is not None if seq in self._touched else self._rows.at(seq) is not None

    def operations(self, table: str) -> Iterator[Operation]:
        """Yield the operations for all rows that the updater changed."""
        for seq, document in self._touched.items():
            record = self._rows.at(seq)
            if document is None and record is not None:
                yield Operation(table, seq)
            elif document is not None and (record is None or document != envelope(record)):
                content = msgspec.convert(document, Envelope)
                content.rev = record.rev + 1 if record else 1
                yield Operation(table, seq, content)


class RecordTable(Table):  # type: ignore[misc]
    """A TinyDB table with indexed reads and appended writes."""

    default_query_cache_capacity = 0

    _storage: JournalledStorage
    name: str

    def search(self, cond: Any) -> list[Any]:
        """Return the documents that match, in the order of their `doc_id`."""
        return list(self._matching(cond))

    def get(self, cond: Any = None, doc_id: int | None = None, doc_ids: list[int] | None = None) -> Any:
        """Return one document by condition or `doc_id`, or several by `doc_ids`."""
        with self._storage.lock:
            if doc_ids is not None:
                return [found for seq in doc_ids if (found := super(RecordTable, self).get(doc_id=seq)) is not None]
            if doc_id is None and cond is not None:
                return next(self._matching(cond), None)
            return super().get(cond, doc_id=doc_id)

    def _matching(self, cond: Any) -> Iterator[Any]:
        with self._storage.lock:
            rows = self._storage.rows(self.name)
            seqs = candidates(rows, getattr(cond, "_hash", None))
            records = list(rows) if seqs is None else [record for seq in seqs if (record := rows.at(seq))]
        pairs = ((record.seq, envelope(record)) for record in records)
        return (self.document_class(document, seq) for seq, document in pairs if cond(document))

    def _get_next_id(self) -> int:
        """Return a `doc_id` that was never used."""
        with self._storage.lock:
            rows = self._storage.rows(self.name)
            rows.next_seq += 1
            return rows.next_seq - 1

    def _update_table(self, updater: Callable[[MutableMapping[int, Document]], None]) -> None:
        self._storage.commit(self._drafted(updater))

    def _drafted(self, updater: Callable[[MutableMapping[int, Document]], None]) -> Generator[Operation, None, None]:
        draft = Draft(self._storage.rows(self.name))
        updater(draft)
        yield from list(draft.operations(self.name))


def candidates(rows: Rows, structure: Any) -> list[int] | None:
    """Return the seqs that a query can match, from the indexes; None if the query needs a scan.

    `structure` is `QueryInstance._hash`, TinyDB's private description of a query: `("==", path, value)`, or
    `("and", frozenset of two)`. A test detects a change of it.
    """
    if not isinstance(structure, tuple):
        return None
    # Each part alone limits the result, so the shortest list of candidates is enough.
    if structure[0] == "and":
        found = [seqs for part in structure[1] if (seqs := candidates(rows, part)) is not None]
        return min(found, key=len, default=None)
    if structure[0] == "==" and len(structure[1]) == 2 and structure[1][0] == "data":
        return rows.equal(structure[1][1], structure[2])
    return None
