"""GGUF, the format of llama.cpp. Quantised tensors are listed as rows of bytes, as in the `gguf` package."""

from __future__ import annotations

from lmvp.core.containers.base import (
    TENSORS,
    Broken,
    Cursor,
    Layout,
    Read,
)
from lmvp.core.safetensors import Span, tensor_size

MAGIC = b"GGUF"

_VERSIONS = (2, 3)
_ALIGNMENT = "general.alignment"
_STRING, _ARRAY = 8, 9
_WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a metadata value, by type."""

_DTYPES = {0: "F32", 1: "F16", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 30: "BF16"}
_BLOCKS = {
    2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 20: (32, 18), 39: (32, 17),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 21: (256, 110), 22: (256, 82), 23: (256, 136),
    29: (256, 56), 34: (256, 54), 35: (256, 66), 40: (64, 36), 41: (128, 18),
}  # fmt: skip
"""Numbers per block and bytes per block, by tensor type."""


def layout(read: Read, size: int) -> Layout:
    """Return the tensors, and the offsets of tensors of unknown types.

    Raises
    ------
    Broken
        If the file is not a complete GGUF file of a known version in little-endian byte order.
    """
    cursor = Cursor(read, size)
    magic, version = cursor.take(4), cursor.number(4)
    count, pairs = cursor.unpack("QQ")
    if magic != MAGIC or version not in _VERSIONS or count > TENSORS:
        raise Broken("not a GGUF file of a known version")
    alignment = _alignment(cursor, pairs)
    infos = [_info(cursor) for _ in range(count)]
    # Tensor data begins after the header, padded to the alignment.
    start = cursor.at + -cursor.at % alignment
    spans = [_span(name, shape, kind, start + offset) for name, shape, kind, offset in infos]
    return Layout(tuple(span for span in spans if span), (start, *sorted(start + offset for *_, offset in infos)))


def _alignment(cursor: Cursor, pairs: int) -> int:
    """Move past the metadata; return the alignment of tensors that it states."""
    alignment = 32  # the default of the specification
    for _ in range(pairs):
        key, kind = _text(cursor), cursor.number(4)
        if key == _ALIGNMENT and kind == 4:
            alignment = cursor.number(4)
        else:
            _pass_value(cursor, kind)
    if not 0 < alignment <= 1 << 20:
        raise Broken("an impossible alignment")
    return alignment


def _text(cursor: Cursor) -> str:
    return cursor.take(cursor.number(8)).decode()


def _pass_value(cursor: Cursor, kind: int) -> None:
    if kind == _STRING:
        cursor.skip(cursor.number(8))
    elif kind == _ARRAY:
        _pass_array(cursor)
    else:
        cursor.skip(_width(kind))


def _pass_array(cursor: Cursor) -> None:
    kind, count = cursor.number(4), cursor.number(8)
    if kind != _STRING:  # arrays of arrays are not supported: no writer creates them
        cursor.skip(_width(kind) * count)
        return
    for _ in range(count):
        cursor.skip(cursor.number(8))


def _width(kind: int) -> int:
    if kind not in _WIDTHS:
        raise Broken(f"a value of the unknown type {kind}")
    return _WIDTHS[kind]


def _info(cursor: Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """Return name, shape, type and offset of a tensor. GGUF stores the innermost dimension first."""
    name, dimensions = _text(cursor), cursor.number(4)
    if dimensions > 8:
        raise Broken("a tensor of many dimensions")
    shape = cursor.unpack(f"{dimensions}Q")[::-1]
    return name, shape, cursor.number(4), cursor.number(8)


def _span(name: str, shape: tuple[int, ...], kind: int, offset: int) -> Span | None:
    dtype = _DTYPES.get(kind)
    if dtype is None:
        numbers, width = _BLOCKS.get(kind, (0, 0))
        # A row must consist of whole blocks; otherwise the tensor is only a cut.
        if not numbers or not shape or shape[-1] % numbers:
            return None
        dtype, shape = "U8", (*shape[:-1], shape[-1] // numbers * width)
    size = tensor_size(dtype, shape)
    return None if size is None else Span(name, dtype, shape, offset, size)
