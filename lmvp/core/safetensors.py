"""Writer and parser of safetensors headers. The parser treats a file as untrusted input.

A file consists of the length of the header (8 bytes, little-endian), the header as JSON, and the bytes of the tensors
without gaps. Each number in the header is compared with the size of the file before memory is allocated for it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmvp.errors import DamagedFile

HEADER_LIMIT = 100 << 20
"""Maximum bytes of JSON in a header."""

BITS: Mapping[str, int] = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
"""Bits of a number, by dtype."""

RESERVED = "__metadata__"
"""The only name that a tensor cannot have."""

_PREFIX = struct.Struct("<Q")
_DIMENSIONS = 64
_SIZE_LIMIT = 1 << 60


@dataclass(frozen=True, slots=True)
class Span:
    """The position of a tensor in a file. `dtype` is a name of safetensors: `BF16`, `F32`, `I64`, `BOOL`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int


def tensor_size(dtype: str, shape: Sequence[int]) -> int | None:
    """Return the bytes of a tensor; None if the dtype is unknown, the shape invalid, or the last byte incomplete.

    Examples
    --------
    >>> tensor_size("BF16", (3, 5)), tensor_size("F4", (2, 2)), tensor_size("F4", (3,)), tensor_size("F99", ())
    (30, 2, None, None)
    """
    bits = BITS.get(dtype)
    if bits is None or len(shape) > _DIMENSIONS:
        return None
    for length in shape:
        if not 0 <= length < _SIZE_LIMIT:
            return None
        # Python's integers have no limit, so the product of a hostile shape could be very long.
        bits = min(bits * length, _SIZE_LIMIT * 8)
    return None if bits % 8 or bits >= _SIZE_LIMIT * 8 else bits // 8


def header(tensors: Sequence[tuple[str, str, Sequence[int]]], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return the header of a file: length and JSON, padded so that the data begin at a multiple of 8.

    Parameters
    ----------
    tensors : sequence of (name, dtype, shape)
        In the order of their bytes.
    metadata : mapping of str to str, optional
        Stored as `__metadata__`.

    Examples
    --------
    >>> data = header([("w", "F32", (2, 3))])
    >>> len(data) % 8, [span.size for span in parse(lambda at, n: (data + bytes(24))[at : at + n], len(data) + 24)]
    (0, [24])
    """
    entries: dict[str, Any] = {RESERVED: dict(metadata)} if metadata else {}
    position = 0
    for name, dtype, shape in tensors:
        size = tensor_size(dtype, shape)
        assert size is not None, f"{name}: no size for {dtype} {tuple(shape)}"
        assert name != RESERVED, "a reserved name"
        assert name not in entries, f"{name} stands twice"
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return _PREFIX.pack(len(text)) + text


def parse(read: Callable[[int, int], bytes | memoryview], size: int, name: str = "the file") -> list[Span]:
    """Return the tensors of a safetensors file in the order of their bytes. Offsets count from the start of the file.

    Parameters
    ----------
    read : callable
        Returns `n` bytes at an offset: `read(offset, n)`.
    size : int
        Length of the file in bytes.
    name : str
        Name of the file in error messages.

    Raises
    ------
    DamagedFile
        If the header is invalid; the message names the tensor and the rule.
    """
    if size < _PREFIX.size:
        raise _damaged(name, f"it has {size} bytes, too few for a header")
    length = _PREFIX.unpack(read(0, _PREFIX.size))[0]
    start = _PREFIX.size + length
    if start > size:
        raise _damaged(name, f"its header claims {length:,} bytes, the file has {size:,}")
    if length > HEADER_LIMIT:
        raise _damaged(name, f"its header has {length:,} bytes; the limit is {HEADER_LIMIT:,}")
    spans = [_span(name, tensor, entry, start) for tensor, entry in _entries(name, read(_PREFIX.size, length)).items()]
    # Empty tensors have the same offset as their successor; the end sorts them first.
    spans.sort(key=lambda span: (span.offset, span.offset + span.size))
    _check_cover(name, spans, start, size)
    return spans


def _entries(name: str, text: bytes | memoryview) -> dict[str, Any]:
    """Decode the JSON of a header; return the entries of the tensors."""
    try:
        entries = json.loads(str(text, "utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except RecursionError:
        raise _damaged(name, "its header is nested too deeply") from None
    except ValueError as error:
        raise _damaged(name, f"its header is not JSON: {error}") from None
    if not isinstance(entries, dict):
        raise _damaged(name, "its header is not a JSON object")
    metadata = entries.pop(RESERVED, None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _damaged(name, f"{RESERVED} is not an object of strings")
    return entries


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for key, value in pairs:
        if key in entries:
            raise ValueError(f"the key {_short(key)} stands twice")
        entries[key] = value
    return entries


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _span(name: str, tensor: str, entry: Any, start: int) -> Span:
    """Check a single entry and return its position. `start` is the offset of the data in the file."""
    if not _is_text(tensor):
        raise _damaged(name, f"the name {_short(tensor)} of a tensor is not Unicode")
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise _damaged(name, f"tensor {_short(tensor)} lacks dtype, shape or data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise _damaged(name, f"tensor {_short(tensor)} has an unknown dtype {_short(dtype)}")
    if not _is_lengths(shape):
        raise _damaged(name, f"tensor {_short(tensor)} has an impossible shape {_short(shape)}")
    if not _is_lengths(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _damaged(name, f"tensor {_short(tensor)} has impossible data_offsets {_short(offsets)}")
    size = tensor_size(dtype, shape)
    if size is None or size != offsets[1] - offsets[0]:
        told = "an impossible number of" if size is None else f"{size:,}"
        raise _damaged(
            name,
            f"tensor {_short(tensor)} is {told} bytes by dtype and shape, {offsets[1] - offsets[0]:,} by its offsets",
        )
    return Span(tensor, dtype, tuple(shape), start + offsets[0], size)


def _check_cover(name: str, spans: Sequence[Span], start: int, size: int) -> None:
    """Raise an error unless the tensors fill the file without gaps and overlaps."""
    position = start
    for span in spans:
        if span.offset != position:
            kind = "overlaps the one before" if span.offset < position else "leaves a hole before it"
            raise _damaged(name, f"tensor {_short(span.name)} {kind}")
        position += span.size
    if position != size:
        kind = "reach beyond the end of the file" if position > size else "do not reach its end"
        raise _damaged(name, f"its tensors {kind}: {position:,} of {size:,} bytes")


def _is_lengths(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < _SIZE_LIMIT for n in value)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _damaged(name: str, what: str) -> DamagedFile:
    return DamagedFile(f"{name} is a damaged safetensors file: {what}", hint="write it again, or push it as .bin")
