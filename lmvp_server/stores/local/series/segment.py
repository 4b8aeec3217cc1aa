"""Segment file: points of many keys, sorted by key and step, in compressed columns. See docs/format.md.

The file consists of pages, the levels of the pyramid, a directory, and a footer with the position of the directory.
Readers decode single pages.
"""

from __future__ import annotations

import os
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import IO, Any
from zlib import crc32

import msgspec
import numpy as np
import numpy.typing as npt
from pcodec import ChunkConfig
from pcodec.standalone import simple_compress, simple_decompress

from lmvp.archive.backup_series import (
    FOOTER,
    MAGIC,
    Directory,
    Piece,
)
from lmvp.core import files
from lmvp.core.downsample import Blocks, blocks_of, fold
from lmvp.core.files import atomic_write
from lmvp.errors import IntegrityError, NotFound
from lmvp_server.stores.local.series.columns import Table

_CACHE_LIMIT = 64 << 20


class Pages:
    """A cache that removes the least recently used entries.

    Parameters
    ----------
    limit : int, default 64 MiB
        The maximum size in bytes. The newest entry stays even if it alone is larger.
    """

    def __init__(self, limit: int = _CACHE_LIMIT) -> None:
        self._limit, self._size = limit, 0
        self._held: OrderedDict[tuple[Path, int], Any] = OrderedDict()
        self._lock = Lock()

    def get(self, name: tuple[Path, int], read: Callable[[], Any]) -> Any:
        """Return the entry under a name; if it is missing, call `read` and store the result.

        `read` runs without the lock.
        """
        with self._lock:
            if name in self._held:
                self._held.move_to_end(name)
                return self._held[name]
        value = read()
        with self._lock:
            # Another thread can have read the same page meanwhile.
            if name not in self._held:
                self._held[name] = value
                self._size += _bytes(value)
            # The entry that was just read must stay, even if it is larger than the limit.
            while self._size > self._limit and len(self._held) > 1:
                self._size -= _bytes(self._held.popitem(last=False)[1])
        return value

    def forget(self, path: Path) -> None:
        """Remove all entries of a file."""
        with self._lock:
            for name in [name for name in self._held if name[0] == path]:
                self._size -= _bytes(self._held.pop(name))


def _bytes(value: Any) -> int:
    return sum(getattr(value, name).nbytes for name in value.__slots__)


PAGES = Pages()
"""The cache of this process."""


BLOCK = 256
"""Points in a block of the first level."""
FOLD = 32
"""Blocks of the first level in a block of the second level."""


def starts_of(sizes: npt.NDArray[np.intp], width: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Split groups of rows into blocks of at most `width` rows. Return the starts, and the blocks of each group."""
    # Rounds up: the last block of a group can be shorter.
    counts = -(-sizes // width)
    before = np.cumsum(sizes) - sizes
    rank = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return (np.repeat(before, counts) + rank * width).astype(np.intp), counts


PAGE_ROWS = 1 << 16  # 2.3 MB uncompressed
_COLUMNS = ("keys", "steps", "values", "times", "epochs")
_DTYPES = {"keys": "<u4", "steps": "<i8", "values": "<f8", "times": "<f8", "epochs": "<i8"}
_LEVEL = tuple(Blocks.__slots__)
_CONFIG = ChunkConfig(compression_level=6)


# -- writing


def write_segment(path: Path, table: Table) -> None:
    """Write a segment. The points must be sorted, with one point for each key and step."""
    pieces: list[bytes] = [MAGIC]
    size = len(MAGIC)

    def put(columns: Sequence[npt.NDArray[Any]], rows: int) -> Piece:
        nonlocal size
        # Columns are compressed separately, because values of one column resemble each other.
        coded = [_coded(column) for column in columns]
        data = b"".join(coded)
        piece = Piece(size, [len(each) for each in coded], rows, crc32(data))
        pieces.append(data)
        size += len(data)
        return piece

    keys, starts, counts = np.unique(table.keys, return_index=True, return_counts=True)
    pages = [
        put([getattr(part, name) for name in _COLUMNS], len(part))
        for part in (table.take(slice(at, at + PAGE_ROWS)) for at in range(0, len(table), PAGE_ROWS))
    ]
    levels = [put([getattr(level, name) for name in _LEVEL], len(level)) for level in _levels(table, counts)]
    directory = msgspec.msgpack.encode(
        Directory(
            1,
            len(table),
            _coded(keys.astype(np.uint32)),
            _coded(counts.astype(np.int64)),
            _coded(table.steps[starts]),
            _coded(table.steps[starts + counts - 1]),
            pages,
            levels,
        )
    )
    footer = FOOTER.pack(size, len(directory), crc32(directory), MAGIC)
    atomic_write(path, *pieces, directory, footer)


def _levels(table: Table, counts: npt.NDArray[np.intp]) -> Iterator[Blocks]:
    """Yield the levels of the pyramid, finest first, for the keys that have more points than two blocks."""
    tall = counts > 2 * BLOCK
    starts, blocks = starts_of(np.where(tall, counts, 0), BLOCK)
    if not tall.any():
        return
    high = table.take(np.repeat(tall, counts)) if not tall.all() else table
    level = blocks_of(high.columns(), starts)
    yield level
    starts, _ = starts_of(blocks, FOLD)
    yield fold(level, starts)


def _coded(column: npt.NDArray[Any]) -> bytes:
    return bytes(simple_compress(np.require(column, requirements=["C", "A"]), _CONFIG))


# -- reading


class Segment:
    """A segment on disk. Decoded pages are cached in `PAGES`.

    Raises
    ------
    IntegrityError
        If a part that is read is damaged or the file is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.size = path.lstat().st_size
        except FileNotFoundError:
            raise IntegrityError(f"{path} is missing", hint="a backup has it; other runs are as they were") from None

    @cached_property
    def _directory(self) -> Directory:
        with self._open() as file:
            at, length, check = self._footer(file)
            data = os.pread(file.fileno(), length, at)
        # A damaged directory would direct reads to wrong bytes.
        if crc32(data) != check or len(data) != length:
            raise self._damaged("directory")
        try:
            return msgspec.msgpack.decode(data, type=Directory)
        except msgspec.DecodeError:
            raise self._damaged("directory") from None

    def _footer(self, file: Any) -> tuple[int, int, int]:
        data = os.pread(file.fileno(), FOOTER.size, max(0, self.size - FOOTER.size))
        if len(data) != FOOTER.size:
            raise self._damaged("footer")
        at, length, check, magic = FOOTER.unpack(data)
        if magic != MAGIC or at + length + FOOTER.size != self.size:
            raise self._damaged("footer")
        return at, length, check

    def delete_when_let_go(self) -> None:
        """Delete the file when this object is garbage-collected, so that readers that have it can finish."""
        weakref.finalize(self, _delete, self.path, self.path.lstat().st_ino)

    def _open(self) -> IO[bytes]:
        try:
            return files.open_read(self.path)
        except FileNotFoundError:
            raise NotFound("these points were removed meanwhile", hint="ask again which runs there are") from None

    def _damaged(self, what: str) -> IntegrityError:
        return IntegrityError(
            f"the {what} of {self.path} is damaged", hint="a backup has it; other runs are as they were"
        )

    @cached_property
    def keys(self) -> npt.NDArray[np.uint32]:
        """The keys with points in this segment, sorted."""
        return _plain(self._directory.keys, np.uint32)

    @cached_property
    def starts(self) -> npt.NDArray[np.int64]:
        """The first row of each key, followed by the number of rows."""
        counts: npt.NDArray[np.int64] = _plain(self._directory.counts, np.int64)
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])

    @cached_property
    def first(self) -> npt.NDArray[np.int64]:
        """The first step of each key."""
        return _plain(self._directory.first, np.int64)

    @cached_property
    def last(self) -> npt.NDArray[np.int64]:
        """The last step of each key."""
        return _plain(self._directory.last, np.int64)

    @cached_property
    def _blocks(self) -> list[npt.NDArray[np.int64]]:
        """For each level, the first block of each key, followed by the number of blocks."""
        counts = np.diff(self.starts)
        blocks = np.where(counts > 2 * BLOCK, -(-counts // BLOCK), 0)
        return [np.r_[0, np.cumsum(blocks)], np.r_[0, np.cumsum(-(-blocks // FOLD))]]

    def _place(self, key: int) -> int | None:
        at = int(np.searchsorted(self.keys, key))
        return at if at < len(self.keys) and self.keys[at] == key else None

    def span(self, key: int) -> tuple[int, int, int] | None:
        """Return the first step, the last step and the number of points of a key, or None if it has no points."""
        at = self._place(key)
        if at is None:
            return None
        return int(self.first[at]), int(self.last[at]), int(self.starts[at + 1] - self.starts[at])

    def all_rows(self, key: int) -> tuple[int, int]:
        """Return the range of rows of a key, which must have points."""
        at = self._place(key)
        assert at is not None
        return int(self.starts[at]), int(self.starts[at + 1])

    def rows_of(self, key: int, first: int, last: int) -> tuple[int, int]:
        """Return the range of rows of a key with steps from `first` to `last`, inclusive."""
        at = self._place(key)
        assert at is not None
        begin, end = self.all_rows(key)
        # The directory answers ranges that end at the ends of the key; only other ranges need pages.
        if first > self.last[at] or last < self.first[at] or first > last:
            return begin, begin
        if first > self.first[at]:
            begin = self._search(begin, end, first, "left")
        if last < self.last[at]:
            end = self._search(begin, end, last, "right")
        return begin, end

    def _search(self, begin: int, end: int, step: int, side: str) -> int:
        """Return the position of a step in a range of rows, by bisection that reads only a few pages."""
        low, high = begin // PAGE_ROWS, (end - 1) // PAGE_ROWS
        while low < high:
            middle = (low + high + 1) // 2
            start = self._page(middle).steps[max(0, begin - middle * PAGE_ROWS)]
            low, high = (low, middle - 1) if start > step or (start == step and side == "left") else (middle, high)
        page, base = self._page(low), low * PAGE_ROWS
        a, b = max(begin, base) - base, min(end, base + PAGE_ROWS) - base
        return base + a + int(np.searchsorted(page.steps[a:b], step, "left" if side == "left" else "right"))

    def rows(self, begin: int, end: int) -> Iterator[Table]:
        """Yield the rows of a range, at most one page at a time."""
        for number in range(begin // PAGE_ROWS, -(-end // PAGE_ROWS)) if begin < end else ():
            base = number * PAGE_ROWS
            yield self._page(number).take(slice(max(0, begin - base), end - base))

    def level(self, number: int, key: int) -> Blocks:
        """Return the blocks of a key at a level: 0 is the finest. The key must have more points than two blocks."""
        at = self._place(key)
        assert at is not None
        begin, end = self._blocks[number][at : at + 2]
        # Negative numbers identify levels in the cache, the others pages.
        found: Blocks = PAGES.get((self.path, -1 - number), lambda: self._read_level(number))
        return found.take(slice(begin, end))

    def _page(self, number: int) -> Table:
        found: Table = PAGES.get((self.path, number), lambda: self._read_page(number))
        return found

    def _read_page(self, number: int) -> Table:
        piece = self._directory.pages[number]
        columns = self._read(piece, f"page {number}")
        return Table(*(_plain(data, _DTYPES[name]) for name, data in zip(_COLUMNS, columns, strict=True)))

    def _read_level(self, number: int) -> Blocks:
        columns = self._read(self._directory.levels[number], f"level {number}")
        types = (np.int64 if name.endswith(("step", "first")) else np.float64 for name in _LEVEL)
        return Blocks(*(_plain(data, type_) for data, type_ in zip(columns, types, strict=True)))

    def _read(self, piece: Piece, what: str) -> list[bytes]:
        with self._open() as file:
            data = os.pread(file.fileno(), sum(piece.sizes), piece.at)
        if crc32(data) != piece.check:
            raise self._damaged(what)
        ends = np.cumsum(piece.sizes).tolist()
        return [data[end - size : end] for end, size in zip(ends, piece.sizes, strict=True)]

    def verify(self) -> None:
        """Read the whole segment; raise IntegrityError if a part is damaged."""
        with self._open() as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise self._damaged("head")
        rows = sum(len(self._read_page(number)) for number in range(len(self._directory.pages)))
        for number in range(len(self._directory.levels)):
            self._read_level(number)
        if rows != self._directory.rows or rows != self.starts[-1]:
            raise self._damaged("number of rows")


def _delete(path: Path, inode: int) -> None:
    """Delete a file, unless its name now belongs to another file: the run can have been deleted and restored."""
    with suppress(FileNotFoundError):
        if path.lstat().st_ino == inode:
            path.unlink()
    PAGES.forget(path)


def _plain(data: bytes, dtype: Any) -> npt.NDArray[Any]:
    found = simple_decompress(data)
    return np.empty(0, dtype) if found is None else np.asarray(found).astype(dtype, copy=False)
