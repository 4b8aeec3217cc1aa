"""The frames of a journal. A run writes them; the sender, the server and the live view read them. See docs/runs.md.

A frame consists of the length of its payload (uint32), the CRC-32 of the payload (uint32), and the payload: a byte for
the kind, then its content. Numbers are little-endian and not aligned.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Any, Final, TypeAlias
from zlib import crc32

from lmvp.core import framing
from lmvp.core.framing import HEAD, Framing, LogReader, frame_check
from lmvp.errors import InvalidRequest

Buffer: TypeAlias = bytes | bytearray | memoryview

START, KEY, POINTS, BATCH, UPDATE, ATTEMPT, END = range(1, 8)
NAMES: Final = {1: "start", 2: "key", 3: "points", 4: "batch", 5: "update", 6: "epoch", 7: "end"}
"""The names of the kinds of frames."""

PAYLOAD_LIMIT: Final = 4 << 20
"""Largest payload, in bytes."""

REQUEST_LIMIT: Final = 8 << 20
"""Largest size of the frames in one request, in bytes."""

ATTEMPTS_LIMIT: Final = 1000
"""Greatest number of `ATTEMPT` frames in one request."""

KEY_LIMIT: Final = 1024
"""Longest name of a key, in bytes of UTF-8."""

AUTO: Final = -(1 << 63)
"""As a step: the key's greatest step + 1, which the server computes. As a cut: no cut."""

POINTS_HEAD: Final = struct.Struct("<Bd")
"""Kind and time, before the points."""
POINT: Final = struct.Struct("<Iqd")
"""Key id, step, value."""
BATCH_HEAD: Final = struct.Struct("<BBII")
"""Kind, flags, key id, number of points."""
STRIDE: Final = struct.Struct("<qq")
"""First step, and the difference between adjacent steps; used with `EVEN_STEPS`."""
ATTEMPT_FRAME: Final = struct.Struct("<Bqq")
"""Kind, attempt, step of the cut."""
KEY_HEAD: Final = struct.Struct("<BI")
"""Kind and key id, before the name."""

EVEN_STEPS, ONE_TIME = 1, 2
"""Flags of a batch: steps as first and stride, and one time for all points."""

BATCH_POINTS: Final = 1 << 17
"""Greatest number of points in a batch. With three columns of 8 bytes, the payload stays below `PAYLOAD_LIMIT`."""


def framed(payload: bytes) -> bytes:
    r"""Return a frame: a payload with its head.

    Examples
    --------
    >>> framed(b"\x07{}")
    b'\x03\x00\x00\x00+bq\x18\x07{}'
    """
    return framing.framed(payload, frame_check)


def note(kind: int, body: bytes) -> bytes:
    """Return a `START`, `UPDATE` or `END` frame with its JSON."""
    return framed(bytes([kind]) + body)


def key_frame(key: int, name: str) -> bytes:
    """Return the frame that declares the id of a key."""
    return framed(KEY_HEAD.pack(KEY, key) + name.encode())


def attempt_frame(epoch: int, cut: int = AUTO) -> bytes:
    """Return the frame that starts an attempt, with an optional cut."""
    return framed(ATTEMPT_FRAME.pack(ATTEMPT, epoch, cut))


def points_frame(time: float, points: list[tuple[int, int, float]]) -> bytes:
    """Return the frame of points (key id, step, value) that were logged at one time.

    Examples
    --------
    >>> len(points_frame(1.5, [(0, 7, 0.25)]))
    37
    """
    return framed(POINTS_HEAD.pack(POINTS, time) + b"".join(POINT.pack(*point) for point in points))


def whole_frames(data: Buffer, start: int = 0) -> Iterator[tuple[int, memoryview, int]]:
    r"""Yield the kind, the content and the end offset of each frame, up to the first incomplete or damaged frame.

    Examples
    --------
    >>> [(kind, bytes(body), end) for kind, body, end in whole_frames(key_frame(0, "a") + bytes(8))]
    [(2, b'\x00\x00\x00\x00a', 14)]
    """
    view, head, size = memoryview(data), HEAD.unpack_from, len(data)
    at = start
    while at + 9 <= size:
        length, check = head(view, at)
        end = at + 8 + length
        # A length of 0 marks the end: the file is extended with zeros ahead of its frames.
        if not 0 < length <= PAYLOAD_LIMIT or end > size or crc32(view[at + 8 : end]) != check:
            return
        yield view[at + 8], view[at + 9 : end], end
        at = end


def within_attempts(data: bytes, most: int = ATTEMPTS_LIMIT) -> bytes:
    """Return the beginning of `data` that has at most `most` `ATTEMPT` frames.

    Examples
    --------
    >>> len(within_attempts(key_frame(0, "a") + attempt_frame(1) + attempt_frame(2), 1)) == len(
    ...     key_frame(0, "a") + attempt_frame(1)
    ... )
    True
    """
    # A quick test: each `ATTEMPT` frame begins with this length. Other bytes can match too.
    if data.count(struct.pack("<I", ATTEMPT_FRAME.size)) <= most:
        return data
    seen, end = 0, 0
    for kind, _, behind in whole_frames(data):
        seen += kind == ATTEMPT
        if seen > most:
            return data[:end]
        end = behind
    return data


JOURNAL: Final = Framing(
    frame_check,
    re.compile(rb"(?=.{2}[\0-\x40]\0.{4}[\1-\7])", re.DOTALL),  # a length up to `PAYLOAD_LIMIT`, and a kind
    limit=PAYLOAD_LIMIT,
)
"""The framing of a journal whose process has ended, for the search of frames behind damage."""


def read_journal(data: Buffer) -> LogReader:
    """Read the whole journal of a process that has ended, and distinguish damage from a torn end.

    Examples
    --------
    >>> journal = key_frame(0, "a") + attempt_frame(1)
    >>> read_journal(journal + bytes(64)).end == len(journal), read_journal(b"?" + journal[1:]).gaps
    (True, [Gap(start=0, end=14)])
    """
    return LogReader(data, JOURNAL).read()


def whole_size(data: Buffer, start: int = 0) -> int:
    """Return the end offset of the last complete frame, or `start` if the data begins with an incomplete one."""
    return max((end for _, _, end in whole_frames(data, start)), default=start)


def check_key(name: Any) -> str:
    """Return a key if it is valid.

    Raises
    ------
    InvalidRequest
        If it is empty, too long, or contains control characters.
    """
    if not isinstance(name, str) or not name or not name.isprintable() or len(name.encode()) > KEY_LIMIT:
        shown = repr(name)[:80]
        raise InvalidRequest(
            f"{shown} cannot be the key of a metric",
            hint=f"1 to {KEY_LIMIT:,} bytes of printable text, as `train/loss`",
        )
    return name
