"""ONNX: positions of the initialisers of a model. The reader walks through the protobuf and decodes nothing else.

Large models store their initialisers in other files; these are returned as `Elsewhere`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from lmvp.core.containers.base import (
    TENSORS,
    Broken,
    Cursor,
    Elsewhere,
    Layout,
    Read,
)
from lmvp.core.safetensors import Span, tensor_size

DTYPES: Mapping[int, str] = {
    1: "F32",
    2: "U8",
    3: "I8",
    4: "U16",
    5: "I16",
    6: "I32",
    7: "I64",
    9: "BOOL",
    10: "F16",
    11: "F64",
    12: "U32",
    13: "U64",
    14: "C64",
    16: "BF16",
    17: "F8_E4M3",
    18: "F8_E4M3FNUZ",
    19: "F8_E5M2",
    20: "F8_E5M2FNUZ",
    24: "F8_E8M0",
}
"""Names of the types of `TensorProto.DataType` in safetensors. Other types are not plain numbers of whole bytes."""

_DIMENSIONS = 64
# Field numbers of `onnx.proto` and wire types of protobuf.
_MODEL_GRAPH = 7
_GRAPH_INITIALIZER = 5
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_TYPED = {4: 1, 10: 11}
"""Fields of packed numbers with the same bytes as raw data (`float_data`, `double_data`), and the data type of each."""


@dataclass(slots=True)
class _Tensor:
    """The relevant fields of a `TensorProto`. `data` is offset and size of its bytes in the file."""

    name: str = ""
    dims: list[int] = field(default_factory=list)
    data_type: int = 0
    data: tuple[int, int] = (0, 0)
    external: dict[str, str] = field(default_factory=dict)
    location: int = 0

    def span(self, offset: int, size: int) -> Span | None:
        """Return the position of the tensor; None if its size does not match dtype and shape."""
        dtype = DTYPES.get(self.data_type, "")
        if not self.name or tensor_size(dtype, self.dims) != size:
            return None
        return Span(self.name, dtype, tuple(self.dims), offset, size)


def layout(read: Read, size: int) -> Layout:
    """Return the initialisers that are stored in the file itself.

    Raises
    ------
    Broken
        If the file is not valid protobuf.
    """
    spans = [tensor.span(*tensor.data) for tensor in _initializers(read, size) if not tensor.external]
    return Layout(tuple(span for span in spans if span is not None and span.size))


def elsewhere(read: Read, size: int) -> list[Elsewhere]:
    """Return the initialisers in other files. A missing length is computed from dtype and shape.

    Raises
    ------
    Broken
        If the file is not valid protobuf, or an offset or length is not a number.
    """
    return [_elsewhere(tensor) for tensor in _initializers(read, size) if tensor.location == 1 and tensor.external]


def _elsewhere(tensor: _Tensor) -> Elsewhere:
    size = tensor_size(DTYPES.get(tensor.data_type, ""), tensor.dims)
    offset = _count(tensor.external.get("offset", "0"))
    length = _count(tensor.external.get("length", str(size or 0)))
    span = None if size is None else tensor.span(offset, length)
    return Elsewhere(tensor.external.get("location", ""), span or Span("", "", (), 0, 0))


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Broken("a place that is no number")
    return int(text)


def _initializers(read: Read, size: int) -> Iterator[_Tensor]:
    cursor = Cursor(read, size)
    count = 0
    for graph in _inside(cursor, size, _MODEL_GRAPH):
        for end in _inside(cursor, graph, _GRAPH_INITIALIZER):
            count += 1
            if count > TENSORS:
                raise Broken("too many initialisers")
            yield _tensor(cursor, end)


def _inside(cursor: Cursor, end: int, wanted: int) -> Iterator[int]:
    """Yield the end of each message in a field, with the cursor at its start; the cursor then moves to that end."""
    for number, wire, size in _fields(cursor, end):
        if number == wanted and wire == _LENGTH:
            inner = cursor.at + size
            yield inner
            cursor.at = inner
        else:
            cursor.skip(size)


def _fields(cursor: Cursor, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield number, wire type and size of each field. The caller moves the cursor past the value."""
    while cursor.at < end:
        tag = _varint(cursor)
        number, wire = tag >> 3, tag & 7
        size = _size(cursor, wire)
        if size > end - cursor.at or not number:
            raise Broken("a field reaches beyond its message")
        yield number, wire, size


def _size(cursor: Cursor, wire: int) -> int:
    """Return the size of a field's value. A varint is measured without moving the cursor."""
    if wire == _LENGTH:
        return _varint(cursor)
    if wire == _VARINT:
        start = cursor.at
        _varint(cursor)
        size, cursor.at = cursor.at - start, start
        return size
    if wire in {_FIXED32, _FIXED64}:
        return 4 if wire == _FIXED32 else 8
    raise Broken(f"the unknown wire type {wire}")


def _varint(cursor: Cursor) -> int:
    value = 0
    for shift in range(0, 70, 7):  # a varint has at most 10 bytes of 7 bits
        byte = cursor.take(1)[0]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1
    raise Broken("a varint of more than 10 bytes")


def _tensor(cursor: Cursor, end: int) -> _Tensor:
    tensor = _Tensor()
    for number, wire, size in _fields(cursor, end):
        after = cursor.at + size
        _note(cursor, tensor, number, wire, size)
        cursor.at = after
    return tensor


def _note(cursor: Cursor, tensor: _Tensor, number: int, wire: int, size: int) -> None:
    """Store the value of a field of a tensor. The field numbers are those of `onnx.proto`."""
    match number, wire:
        case (1, 0):
            tensor.dims.append(_varint(cursor))
            _check_dimensions(tensor)
        case (1, 2):  # packed
            end = cursor.at + size
            while cursor.at < end:
                tensor.dims.append(_varint(cursor))
                _check_dimensions(tensor)
        case (2, 0):
            tensor.data_type = _varint(cursor)
        case (8, 2):
            tensor.name = cursor.take(size).decode()
        case (9, 2):
            tensor.data = cursor.at, size
        # The data type precedes these fields in files of the usual writers; otherwise the tensor is not listed.
        case (4 | 10, 2) if tensor.data_type == _TYPED[number]:
            tensor.data = cursor.at, size
        case (13, 2):
            key, value = _pair(cursor, cursor.at + size)
            if key in {"location", "offset", "length"}:
                tensor.external[key] = value
        case (14, 0):
            tensor.location = _varint(cursor)


def _check_dimensions(tensor: _Tensor) -> None:
    if len(tensor.dims) > _DIMENSIONS:
        raise Broken("a tensor of many dimensions")


def _pair(cursor: Cursor, end: int) -> tuple[str, str]:
    texts = {1: "", 2: ""}
    for number, wire, size in _fields(cursor, end):
        if wire != _LENGTH or number not in texts:
            raise Broken("a text that is none")
        texts[number] = cursor.take(size).decode()
    return texts[1], texts[2]
