"""The payloads of `solo` and `delta`: the kind of number, streams of planes, then the bytes of no whole number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lmvp.errors import IntegrityError
from lmvp.storage.codecs import numbers, streams
from lmvp.storage.codecs.kinds import KINDS, Kind
from lmvp.storage.codecs.numbers import Bits


def encode_solo(data: Any, kind: Kind) -> bytes:
    """Return the payload of a chunk by itself."""
    rotated = numbers.rotate(numbers.bits(data, kind), kind)
    return _join(rotated, [len(rotated)], data, kind)


def decode_solo(payload: memoryview, size: int) -> memoryview:
    """Undo `encode_solo` for a chunk of `size` bytes."""
    reader = streams.Reader(payload)
    kind = _kind(reader)
    rotated = _numbers(reader, [size // kind.size], kind)
    return _whole(numbers.unrotate(rotated, kind), reader, size, kind)


def encode_delta(data: Any, base: Any, kind: Kind) -> bytes:
    """Return the payload, after its link, of a chunk as steps from a base of its length."""
    old = numbers.bits(base, kind)
    steps = numbers.steps(numbers.bits(data, kind), old, kind)
    if not kind.floating:
        return _join(steps, [len(steps)], data, kind)
    grouping = numbers.Grouping(old, kind)
    return _join(grouping.gather(steps), grouping.ends, data, kind)


def decode_delta(payload: memoryview, base: Any) -> memoryview:
    """Undo `encode_delta`."""
    reader = streams.Reader(payload)
    kind = _kind(reader)
    old = numbers.bits(base, kind)
    if kind.floating:
        grouping = numbers.Grouping(old, kind)
        steps = grouping.scatter(_numbers(reader, grouping.ends, kind))
    else:
        steps = _numbers(reader, [len(old)], kind)
    return _whole(numbers.apply_steps(steps, old, kind), reader, len(base), kind)


def _kind(reader: streams.Reader) -> Kind:
    number = reader.take(1)[0]
    if number not in KINDS:
        raise IntegrityError(f"unknown kind {number} of numbers in a payload", hint="update lmvp on this side")
    return KINDS[number]


def _join(coded: Bits, ends: Sequence[int], data: Any, kind: Kind) -> bytes:
    """Return a payload: the streams of each plane, segment by segment."""
    pieces: list[Any] = [bytes([kind.number])]
    for plane in numbers.split(coded, kind):
        for start, end in zip([0, *ends], ends, strict=False):
            pieces += streams.encode(plane[start:end])
    return b"".join([*pieces, memoryview(data)[len(data) - len(data) % kind.size :]])


def _numbers(reader: streams.Reader, ends: Sequence[int], kind: Kind) -> Bits:
    sizes = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    planes = [np.concatenate([reader.stream(size) for size in sizes]) for _ in range(kind.size)]
    return numbers.join(planes, kind)


def _whole(decoded: Bits, reader: streams.Reader, size: int, kind: Kind) -> memoryview:
    tail = reader.take(size % kind.size)
    reader.end()
    whole = np.ascontiguousarray(decoded).data.cast("B")
    return whole if not tail else memoryview(b"".join([whole, tail]))
