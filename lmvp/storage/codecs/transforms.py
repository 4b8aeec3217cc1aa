"""The payloads of `solo` and `delta`: the kind of number, streams of planes, then the bytes of no whole number."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from lmvp.errors import IntegrityError
from lmvp.storage.codecs import numbers, streams
from lmvp.storage.codecs.kinds import KINDS, Kind
from lmvp.storage.codecs.numbers import Bits


def encode_solo(data: Any, kind: Kind) -> bytes:
    """Return the payload of a chunk by itself."""
    return _join(numbers.rotate(numbers.bits(data, kind), kind), data, kind)


def decode_solo(payload: memoryview, size: int) -> memoryview:
    """Undo `encode_solo` for a chunk of `size` bytes."""
    reader = streams.Reader(payload)
    kind = _kind(reader)
    return _whole(numbers.unrotate(_numbers(reader, size, kind), kind), reader, size, kind)


def encode_delta(data: Any, base: Any, kind: Kind) -> bytes:
    """Return the payload, after its link, of a chunk as steps from a base of its length."""
    old = numbers.bits(base, kind)
    steps = numbers.steps(numbers.bits(data, kind), old, kind)
    order = numbers.order(old, kind)
    return _join(steps if order is None else steps[order], data, kind)


def decode_delta(payload: memoryview, base: Any) -> memoryview:
    """Undo `encode_delta`."""
    reader = streams.Reader(payload)
    kind = _kind(reader)
    old = numbers.bits(base, kind)
    steps = _numbers(reader, len(base), kind)
    order = numbers.order(old, kind)
    if order is not None:
        grouped, steps = steps, np.empty_like(steps)
        steps[order] = grouped
    return _whole(numbers.apply_steps(steps, old, kind), reader, len(base), kind)


def _kind(reader: streams.Reader) -> Kind:
    number = reader.take(1)[0]
    if number not in KINDS:
        raise IntegrityError(f"unknown kind {number} of numbers in a payload", hint="update lmvp on this side")
    return KINDS[number]


def _join(coded: Bits, data: Any, kind: Kind) -> bytes:
    planes: Iterable[Any] = (piece for plane in numbers.split(coded, kind) for piece in streams.encode(plane))
    return b"".join([bytes([kind.number]), *planes, memoryview(data)[len(data) - len(data) % kind.size :]])


def _numbers(reader: streams.Reader, size: int, kind: Kind) -> Bits:
    return numbers.join([reader.stream(size // kind.size) for _ in range(kind.size)], kind)


def _whole(decoded: Bits, reader: streams.Reader, size: int, kind: Kind) -> memoryview:
    tail = reader.take(size % kind.size)
    reader.end()
    whole = memoryview(np.ascontiguousarray(decoded)).cast("B")
    return whole if not tail else memoryview(b"".join([whole, tail]))
