"""HDF5: positions of contiguous datasets, found by a walk through the groups, for files written by Keras and h5py.

Chunked, compressed and external datasets are not listed, nor members of large groups of the newest format. LMVP
does not use h5py here: a damaged file must be harmless, and files must be cut equally on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lmvp.core.containers.base import (
    TENSORS,
    Broken,
    Budget,
    Cursor,
    Read,
)
from lmvp.core.safetensors import Span, tensor_size

MAGIC = b"\x89HDF\r\n\x1a\n"

# Limits against cycles and endless trees.
_DEPTH = 32
_NODES = 4 * TENSORS
_UNDEFINED = (1 << 64) - 1
# Message types of the HDF5 specification.
_DATASPACE, _DATATYPE, _EXTERNAL, _LAYOUT, _FILTERS = 1, 3, 7, 8, 11
_LINK, _CONTINUATION, _SYMBOLS = 6, 16, 17
_FLOATS = {(2, 5, 10): "F16", (2, 8, 7): "BF16", (4, 8, 23): "F32", (8, 11, 52): "F64"}
"""Dtypes of floats by bytes, bits of the exponent, and bits of the mantissa."""


def tensors(read: Read, size: int) -> list[Span]:
    """Return the datasets by path, in the order of the file.

    Raises
    ------
    Broken
        If the file is damaged or not HDF5.
    """
    spans = list(_Walk(read, size).group(_root(Cursor(read, size)), ""))
    return sorted(spans, key=lambda span: span.offset)


def _root(cursor: Cursor) -> int:
    """Return the address of the root group's object header, from the superblock."""
    if cursor.take(8) != MAGIC:
        raise Broken("no HDF5 file")
    version = cursor.number(1)
    cursor.skip(4 if version < 2 else 0)
    widths = cursor.unpack("BB")
    cursor.skip({0: 9, 1: 13}.get(version, 1))
    base = cursor.number(8)
    cursor.skip(24 if version < 2 else 16)
    if version < 2:
        cursor.skip(8)
    # Only 8-byte offsets and lengths, as h5py writes them, without a user block before the superblock.
    if widths != (8, 8) or base or version > 3:
        raise Broken("an HDF5 file of another kind")
    return cursor.number(8)


@dataclass(slots=True)
class _Walk:
    """A walk through the groups that visits each object once, so cycles end."""

    read: Read
    size: int
    budget: Budget = field(default_factory=Budget)
    seen: set[int] = field(default_factory=set)

    def at(self, address: int) -> Cursor:
        """Return a cursor at an address."""
        if len(self.seen) > _NODES or not 0 <= address < self.size:
            raise Broken("an address beyond the end")
        return Cursor(self.read, self.size, address, self.budget)

    def new(self, address: int) -> Cursor:
        """Return a cursor at an address that was not visited yet."""
        if address in self.seen:
            raise Broken("a circle")
        self.seen.add(address)
        return self.at(address)

    def group(self, address: int, path: str, depth: int = 0) -> Iterator[Span]:
        """Yield the datasets of an object and its members."""
        if address in self.seen or depth > _DEPTH:  # a hard link: the object keeps its first name
            return
        messages = list(self.messages(address))
        if any(kind == _LAYOUT for kind, _ in messages):
            yield from _dataset(path, messages)
        for kind, data in messages:
            for name, child in self.links(kind, data):
                yield from self.group(child, f"{path}/{name}".removeprefix("/"), depth + 1)

    # Headers

    def messages(self, address: int) -> Iterator[tuple[int, bytes]]:
        """Yield type and content of the messages of an object; the content of shared messages is empty."""
        cursor = self.new(address)
        # Version 2 headers begin with a signature, version 1 headers with the version.
        new = cursor.take(4) == b"OHDR"
        flags = 0
        if new:
            version, flags = cursor.unpack("BB")
            cursor.skip((16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0))
            blocks = [(cursor.number(1 << (flags & 3)), cursor.at)]
        else:
            version = self.at(address).number(1)
            cursor.skip(4)
            blocks = [(cursor.number(4), cursor.at + 4)]
        if version != 1 + new:
            raise Broken("a header of an unknown version")
        for length, start in blocks:  # continuations append to this list
            for kind, data in self._block(start, length, flags if new else None):
                if kind == _CONTINUATION:
                    blocks.append(self._continuation(data, new))
                yield kind, data

    def _continuation(self, data: bytes, new: bool) -> tuple[int, int]:
        cursor = _over(data)
        address, length = cursor.unpack("QQ")
        there = self.new(address)
        if not new:
            return length, address
        if there.take(4) != b"OCHK" or length < 8:  # the length includes signature and checksum, 4 bytes each
            raise Broken("a header that does not go on")
        return length - 8, there.at

    def _block(self, start: int, length: int, flags: int | None) -> Iterator[tuple[int, bytes]]:
        cursor = self.at(start)
        if length > cursor.end - cursor.at:
            raise Broken("a header beyond the end")
        form, head = ("HHB3x", 8) if flags is None else ("BHB2x", 6) if flags & 4 else ("BHB", 4)
        end = start + length
        while end - cursor.at >= head:
            kind, size, marks = cursor.unpack(form)
            if size > end - cursor.at:
                raise Broken("a message beyond its block")
            data = cursor.take(size)
            yield kind, b"" if marks & 2 else data  # bit 1: the message is shared

    # Groups

    def links(self, kind: int, data: bytes) -> Iterator[tuple[str, int]]:
        """Yield names and addresses of the members of a group."""
        if kind == _LINK:
            yield from _link(_over(data))
        elif kind == _SYMBOLS:
            tree, heap = _over(data).unpack("QQ")
            cursor = self.at(heap)
            if cursor.take(4) != b"HEAP":
                raise Broken("a heap that is none")
            cursor.skip(4)
            length, _, names = cursor.unpack("QQQ")
            yield from self._tree(tree, (names, length))

    def _tree(self, address: int, names: tuple[int, int], depth: int = 0) -> Iterator[tuple[str, int]]:
        cursor = self.new(address)
        magic = cursor.take(4)
        if magic == b"SNOD":
            yield from self._symbols(cursor, names)
            return
        if magic != b"TREE" or depth > _DEPTH:
            raise Broken("a tree that is none")
        _, _, count, _, _ = cursor.unpack("BBHQQ")
        for _ in range(count):
            _, child = cursor.unpack("QQ")
            yield from self._tree(child, names, depth + 1)

    def _symbols(self, cursor: Cursor, names: tuple[int, int]) -> Iterator[tuple[str, int]]:
        _, count = cursor.unpack("BxH")
        for _ in range(count):
            name, address, cache, *_ = cursor.unpack("QQI4x16x")
            if cache != 2 and name < names[1]:  # 2: a symbolic link
                yield self._name(names[0] + name), address

    def _name(self, address: int) -> str:
        cursor = self.at(address)
        text = cursor.take(min(1024, cursor.end - cursor.at))
        return text.partition(b"\0")[0].decode()


def _over(data: bytes) -> Cursor:
    return Cursor(lambda at, count: data[at : at + count], len(data))


def _link(cursor: Cursor) -> Iterator[tuple[str, int]]:
    """Yield name and address of a hard link."""
    version, flags = cursor.unpack("BB")
    kind = cursor.number(1) if flags & 8 else 0
    cursor.skip((8 if flags & 4 else 0) + (1 if flags & 16 else 0))
    name = cursor.take(cursor.number(1 << (flags & 3))).decode()
    if version == 1 and kind == 0:
        yield name, cursor.number(8)


# Datasets


def _dataset(path: str, messages: Sequence[tuple[int, bytes]]) -> Iterator[Span]:
    """Yield the position of a dataset if it is contiguous."""
    # The first message of a type counts.
    found = dict(reversed(messages))
    if {_EXTERNAL, _FILTERS} & found.keys():
        return
    try:
        dtype, shape = _dtype(_over(found.get(_DATATYPE, b""))), _shape(_over(found.get(_DATASPACE, b"")))
        offset, size = _place(_over(found[_LAYOUT]))
    except Broken:  # only this dataset is not listed
        return
    if dtype and size and tensor_size(dtype, shape) == size:
        yield Span(path, dtype, shape, offset, size)


def _dtype(cursor: Cursor) -> str | None:
    head, flags, size = cursor.unpack("BB2xI")
    if flags & 1:  # big-endian
        return None
    if head & 15 == 0:
        return f"{'I' if flags & 8 else 'U'}{8 * size}" if size in {1, 2, 4, 8} else None
    if head & 15 == 8 and size == 1:  # an enumeration, in which h5py stores booleans
        return "U8"
    # Bit 6: VAX byte order.
    if head & 15 == 1 and not flags & 0x40:
        _, _, _, exponent, _, mantissa = cursor.unpack("HHBBBB")
        return _FLOATS.get((size, exponent, mantissa))
    return None


def _shape(cursor: Cursor) -> tuple[int, ...]:
    version, rank, _ = cursor.unpack("BBB")
    cursor.skip(5 if version == 1 else 1)
    return cursor.unpack(f"{rank}Q")


def _place(cursor: Cursor) -> tuple[int, int]:
    """Return offset and size of the data of a contiguous dataset."""
    version, kind = cursor.unpack("BB")
    if version not in {3, 4} or kind != 1:
        raise Broken("not contiguous")
    offset, size = cursor.unpack("QQ")
    if offset == _UNDEFINED:
        raise Broken("nowhere")
    return offset, size
