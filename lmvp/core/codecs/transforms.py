"""Payloads of the solo and delta codecs: the kind, the streams of the planes, and the tail."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from lmvp.core.codecs import numbers, streams
from lmvp.core.codecs.kinds import KINDS, Kind
from lmvp.core.codecs.numbers import Bits
from lmvp.core.codecs.streams import Plane
from lmvp.errors import IntegrityError

if TYPE_CHECKING:
    from lmvp.core.codecs import fast


def encode_solo(data: Any, kind: Kind) -> bytes:
    """Return the solo payload of a chunk."""
    rotated = numbers.rotate(numbers.bits(data, kind), kind)
    return _join(numbers.split(rotated, kind), [len(rotated)], data, kind)


def decode_solo(payload: memoryview, size: int) -> memoryview:
    """Decode a solo payload to `size` bytes."""
    reader = streams.Reader(payload)
    kind = _kind(reader)
    rotated = numbers.join(_planes(reader, [size // kind.size], kind), kind)
    return _whole(numbers.unrotate(rotated, kind), reader, size, kind)


def encode_delta(data: Any, base: Any, kind: Kind) -> bytes:
    """Return the delta payload of a chunk without its link. The base has the same length."""
    old, new = numbers.bits(base, kind), numbers.bits(data, kind)
    if not kind.floating:
        return _join(numbers.split(numbers.steps(new, old, kind), kind), [len(new)], data, kind)
    grouping = _grouping()(old, kind)
    return _join(grouping.planes(new), grouping.ends, data, kind)


def decode_delta(payload: memoryview, base: Any) -> memoryview:
    """Decode a delta payload without its link."""
    reader = streams.Reader(payload)
    kind = _kind(reader)
    old = numbers.bits(base, kind)
    if kind.floating:
        grouping = _grouping()(old, kind)
        new = grouping.numbers(_planes(reader, grouping.ends, kind))
    else:
        new = numbers.apply_steps(numbers.join(_planes(reader, [len(old)], kind), kind), old, kind)
    return _whole(new, reader, len(base), kind)


@cache
def _grouping() -> type[numbers.Grouping | fast.Grouping]:
    """Return the implementation of grouping: numba if it is installed and works, otherwise numpy."""
    try:
        from lmvp.core.codecs import fast
    # Errors: numba missing; built for another numpy; no writable folder for its cache.
    except (ImportError, RuntimeError):
        return numbers.Grouping
    return fast.Grouping


def _kind(reader: streams.Reader) -> Kind:
    number = reader.take(1)[0]
    if number not in KINDS:
        raise IntegrityError(f"unknown kind {number} of numbers in a payload", hint="update lmvp on this side")
    return KINDS[number]


def _join(planes: Sequence[Plane], ends: Sequence[int], data: Any, kind: Kind) -> bytes:
    """Return a payload: kind, streams of each plane segment by segment, and tail."""
    pieces: list[Any] = [bytes([kind.number])]
    for plane in planes:
        # Not strict: there is one start more, the end of the last segment.
        for start, end in zip([0, *ends], ends, strict=False):
            pieces += streams.encode(plane[start:end])
    return b"".join([*pieces, memoryview(data)[len(data) - len(data) % kind.size :]])


def _planes(reader: streams.Reader, ends: Sequence[int], kind: Kind) -> list[Plane]:
    sizes = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    return [np.concatenate([reader.stream(size) for size in sizes]) for _ in range(kind.size)]


def _whole(decoded: Bits, reader: streams.Reader, size: int, kind: Kind) -> memoryview:
    tail = reader.take(size % kind.size)
    reader.end()
    whole = np.ascontiguousarray(decoded).data.cast("B")
    return whole if not tail else memoryview(b"".join([whole, tail]))
