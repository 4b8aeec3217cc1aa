"""Parser of journal frames into columns. Needs numpy: import this module lazily."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from itertools import groupby, islice
from typing import Any, NamedTuple, TypeAlias
from zlib import crc32

import numpy as np
import numpy.typing as npt

from lmvp.core.columns import (
    AttemptStart,
    Floats,
    Ints,
    ParsedFrames,
    Points,
)
from lmvp.core.framing import HEAD
from lmvp.core.run_frames import (
    ATTEMPT,
    ATTEMPT_FRAME,
    AUTO,
    BATCH,
    BATCH_HEAD,
    BATCH_POINTS,
    EVEN_STEPS,
    KEY,
    KEY_HEAD,
    NAMES,
    ONE_TIME,
    POINT,
    POINTS,
    POINTS_HEAD,
    STRIDE,
    Buffer,
    check_key,
    whole_frames,
)
from lmvp.errors import InvalidRequest

Rows: TypeAlias = npt.NDArray[np.uint8]

_TIME = POINTS_HEAD.size - 1  # bytes between the kind and the first point
_POINT = np.dtype([("key", "<u4"), ("step", "<i8"), ("value", "<f8")])


def parse(data: Buffer) -> ParsedFrames:
    """Parse whole frames.

    Raises
    ------
    InvalidRequest
        If the bytes are not a sequence of whole frames, or the content of a frame does not match its kind.

    Examples
    --------
    >>> from lmvp.core.run_frames import key_frame, points_frame
    >>> shipment = parse(key_frame(0, "loss") + points_frame(1.5, [(0, 7, 0.25)]))
    >>> shipment.keys, shipment.parts[0].steps.tolist(), shipment.parts[0].values.tolist()
    ({0: 'loss'}, [7], [0.25])
    """
    shipment, view, at, gathered = ParsedFrames(), memoryview(data), 0, _Gathered()
    while at < len(view):
        # Try the fast path for frames of equal length, then parse some frames one by one, and try again.
        rows = _alike(view, at)
        if rows is not None:
            gathered.move_to(shipment.parts)
            shipment.parts.append(_points(rows))
            at += rows.nbytes
        at = _one_by_one(view, at, shipment, gathered)
    gathered.move_to(shipment.parts)
    shipment.parts = _joined(shipment.parts)
    return shipment


def _joined(parts: list[Points | AttemptStart]) -> list[Points | AttemptStart]:
    """Join adjacent points: readers do a fixed amount of work for each part, however few points it has."""
    joined: list[Points | AttemptStart] = []
    for is_epoch, group in groupby(parts, lambda part: isinstance(part, AttemptStart)):
        adjacent = list(group)
        if is_epoch or len(adjacent) == 1:
            joined += adjacent
        else:
            columns = ([getattr(part, name) for part in adjacent] for name in ("keys", "steps", "values", "times"))
            joined.append(Points(*map(np.concatenate, columns)))
    return joined


def _one_by_one(view: memoryview, at: int, shipment: ParsedFrames, gathered: _Gathered) -> int:
    """Parse up to `_FEW` frames of any kind; return the offset after them."""
    end = at
    for kind, body, behind in islice(whole_frames(view, at), _FEW):
        end = behind
        if kind == POINTS:
            gathered.add(body)
        elif kind == BATCH and (batch := _Batch.read(body)).points <= _SHORT_BATCH:
            for points in batch.bodies():
                gathered.add(points)
        else:
            if kind in {BATCH, ATTEMPT}:  # other kinds need not keep their order among points
                gathered.move_to(shipment.parts)
            _add(shipment, kind, body)
    if end == at < len(view):
        raise InvalidRequest(f"no sound frame stands at byte {at:,} of {len(view):,}", hint="send it again")
    return end


class _Gathered:
    """Collects adjacent frames of points of any length, which numpy then converts together."""

    def __init__(self) -> None:
        self._bodies: list[Buffer] = []

    def add(self, body: Buffer) -> None:
        if (len(body) - _TIME) % POINT.size or len(body) <= _TIME:
            raise InvalidRequest(f"a frame of points has {len(body)} bytes, which is no whole number of points")
        self._bodies.append(body)

    def move_to(self, parts: list[Points | AttemptStart]) -> None:
        if not self._bodies:
            return
        times = np.frombuffer(b"".join(body[:_TIME] for body in self._bodies), "<f8")
        counts = [(len(body) - _TIME) // POINT.size for body in self._bodies]
        points = np.frombuffer(b"".join(body[_TIME:] for body in self._bodies), _POINT)
        parts.append(_columns(points, np.repeat(times, counts)))
        self._bodies = []


def _add(shipment: ParsedFrames, kind: int, body: memoryview) -> None:
    if kind == BATCH:
        shipment.parts.append(_Batch.read(body).columns())
    elif kind == ATTEMPT:
        epoch = _epoch(body)
        shipment.parts.append(epoch)
        shipment.attempt = epoch.epoch
    elif kind == KEY:
        key, name = _key(body)
        shipment.keys[key] = name
    elif kind in NAMES and kind != POINTS:
        shipment.notes.append((kind, bytes(body)))
        shipment.attempts.append(shipment.attempt)
    else:
        raise InvalidRequest(f"a frame of the unknown kind {kind}", hint="update lmvp on the server")


def _alike(view: memoryview, at: int) -> Rows | None:
    """Return the valid frames of points of one length at this offset, one per row; None if there are only a few.

    A training loop logs the same keys at each step, so most requests consist of frames of one length. numpy checks and
    parses them all at once.
    """
    length = HEAD.unpack_from(view, at)[0] if len(view) - at > POINTS_HEAD.size + HEAD.size else 0
    if length <= POINTS_HEAD.size or (length - POINTS_HEAD.size) % POINT.size:
        return None
    width, many = HEAD.size + length, _FEW
    rows = _rows(view, at, width, many)
    while len(rows) == many:
        many *= 8
        rows = _rows(view, at, width, many)
    if len(rows) < _FEW:
        return None
    rows = rows[: _first_false(_checks(rows[:, HEAD.size :]) == rows[:, 4:8].copy().view("<u4")[:, 0])]
    return rows if len(rows) else None


def _rows(view: memoryview, at: int, width: int, most: int) -> Rows:
    """Return up to `most` frames of points of this width, one per row, without a check of their CRC."""
    count = min(most, (len(view) - at) // width)
    # Compare the length field of the last of `_FEW` frames first: it rules out most other data cheaply.
    if count < _FEW or view[at + (_FEW - 1) * width : at + (_FEW - 1) * width + 4] != view[at : at + 4]:
        return np.empty((0, width), np.uint8)
    rows: Rows = np.frombuffer(view, np.uint8, count * width, at).reshape(count, width)
    heads = rows[:, : HEAD.size + 1].copy()
    return rows[: _first_false((heads[:, :4] == heads[0, :4]).all(axis=1) & (heads[:, HEAD.size] == POINTS))]


def _first_false(mask: npt.NDArray[np.bool_]) -> int:
    return len(mask) if mask.all() else int(mask.argmin())


_SHORT_BATCH = 8
"""Greatest number of points of a batch that is parsed without numpy."""
_FEW, _SHORT = 64, 128  # number of rows from which numpy is faster, and bytes of a row above which zlib is


def _checks(rows: Rows) -> npt.NDArray[np.uint32]:
    """Return the CRC-32 of each row: column by column for all rows at once if rows are short, else row by row."""
    if rows.shape[1] > _SHORT:
        return np.array([crc32(row) for row in np.ascontiguousarray(rows)], np.uint32)
    check = np.full(len(rows), 0xFFFFFFFF, np.uint32)
    table = _crc_table()
    for column in np.ascontiguousarray(rows.T):
        check = table[(check ^ column) & 0xFF] ^ (check >> 8)
    return np.invert(check)


@cache
def _crc_table() -> npt.NDArray[np.uint32]:
    """Return the table of the CRC-32 of zlib (RFC 1952, section 8)."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, 0xEDB88320 ^ (table >> 1), table >> 1).astype(np.uint32)
    return table


def _points(rows: Rows) -> Points:
    first = HEAD.size + POINTS_HEAD.size
    times = rows[:, first - 8 : first].copy().view("<f8")[:, 0]
    points: Any = rows[:, first:].copy().view(_POINT)
    return _columns(points.reshape(-1), np.repeat(times, points.shape[1]))


def _columns(points: Any, times: Floats) -> Points:
    times = _sound(times)
    keys, steps, values = (points[name].copy() for name in ("key", "step", "value"))
    return Points(keys, steps, values, times)


def _sound(times: Floats) -> Floats:
    """Replace times that are NaN or infinite by 0. LMVP's client never sends them, and JSON cannot contain them."""
    return times if np.isfinite(times).all() else np.where(np.isfinite(times), times, 0.0)


class _Batch(NamedTuple):
    """The body of a batch, and the offsets of its columns."""

    body: memoryview
    flags: int
    key: int
    points: int
    times: int
    values: int

    @classmethod
    def read(cls, body: memoryview) -> _Batch:
        head = BATCH_HEAD.size - 1
        if len(body) < head:
            raise InvalidRequest("a batch that ends in its head")
        _, flags, key, n = BATCH_HEAD.unpack(b"\0" + body[:head])
        times = head + (STRIDE.size if flags & EVEN_STEPS else 8 * n)
        values = times + (8 if flags & ONE_TIME else 8 * n)
        if not 0 < n <= BATCH_POINTS or flags > EVEN_STEPS | ONE_TIME or len(body) != values + 8 * n:
            raise InvalidRequest(f"a batch of {n:,} points has {len(body):,} bytes, which is not what its head says")
        return cls(body, flags, key, n, times, values)

    def columns(self) -> Points:
        """Return the points, as copies, because the body is not aligned and would stay in memory."""
        n, body = self.points, self.body
        if self.flags & EVEN_STEPS:
            first, stride = self._stride()
            steps: Ints = first + stride * np.arange(n, dtype=np.int64)
        else:
            steps = np.frombuffer(body, "<i8", n, BATCH_HEAD.size - 1).copy()
        at = np.frombuffer(body[self.times : self.values], "<f8")
        times = np.full(n, at[0]) if self.flags & ONE_TIME else at.copy()
        values = np.frombuffer(body, "<f8", offset=self.values).copy()
        return Points(np.full(n, self.key, np.uint32), steps, values, _sound(times))

    def bodies(self) -> Iterator[bytes]:
        """Yield the points as bodies of `POINTS` frames: for a few points, this takes 2 µs and numpy 60 µs."""
        key = struct.pack("<I", self.key)
        first, stride = self._stride() if self.flags & EVEN_STEPS else (0, 0)
        for at in range(self.points):
            time = self.times if self.flags & ONE_TIME else self.times + 8 * at
            step = BATCH_HEAD.size - 1 + 8 * at
            coded = struct.pack("<q", first + stride * at) if self.flags & EVEN_STEPS else self.body[step : step + 8]
            value = self.values + 8 * at
            yield b"".join((self.body[time : time + 8], key, coded, self.body[value : value + 8]))

    def _stride(self) -> tuple[int, int]:
        head = BATCH_HEAD.size - 1
        first, stride = STRIDE.unpack(self.body[head : head + STRIDE.size])
        if not AUTO <= first + stride * (self.points - 1) < -AUTO:
            raise InvalidRequest(f"steps from {first} by {stride} leave the range of int64")
        return first, stride


def _epoch(body: memoryview) -> AttemptStart:
    if len(body) != ATTEMPT_FRAME.size - 1:
        raise InvalidRequest("a frame of an epoch is of the wrong length")
    _, epoch, cut = ATTEMPT_FRAME.unpack(b"\0" + body)
    return AttemptStart(epoch, cut)


def _key(body: memoryview) -> tuple[int, str]:
    if len(body) < KEY_HEAD.size - 1:
        raise InvalidRequest("a frame of a key is of the wrong length")
    _, key = KEY_HEAD.unpack(b"\0" + body[:4])
    try:
        return key, check_key(str(body[4:], "utf-8"))
    except UnicodeDecodeError:
        raise InvalidRequest(f"the name of key {key} is not UTF-8") from None
