r"""Reading a log after a crash: which of its bytes are sound, which are damaged, and which are a torn end.

A log is a sequence of records that is only appended to: the journals of records, the logs of series, and the journals
of runs. Each record is a head (uint32 length of the payload, uint32 CRC-32, little-endian) and the payload. One rule
decides for all of these logs which bytes may be cut off:

- Only a *torn end* may be cut. An end is torn if no sound record stands behind it, and if it can be what an interrupted
  write leaves: nothing but zeros (the file system extended the file and lost the data), or a record whose length
  reaches beyond the end of the file. A torn record was never acknowledged, because a write is acknowledged after the
  sync of the complete record.
- Everything else that is not sound is *damage*: bytes with a sound record behind them, and a last record that is there
  in full but does not match its CRC. An interrupted write leaves a prefix of the record, so it never leaves a file that
  covers the record; therefore that record was complete once, and may have been acknowledged.
- A length field can be damaged too. A last record whose bytes match the CRC once the length is taken from the file, and
  not from the length field, was complete; it is damage, not a torn end.

Nobody writes to a log with damage, nor truncates it: new records go to a new file beside it.

Three cases deserve a note. (1) A file system may lose the blocks in the middle of the last write and keep its length.
The record then ends in zeros. JSON holds no zero byte, so such a record of a journal of JSON is torn (`Framing.text`).
In binary logs zeros are ordinary values, so the record counts as damage: the file is kept for nothing, but no point is
ever lost. (2) Zeros behind the last sound record are a torn end even if they once were records: a damaged sector that
reads as zeros cannot be told from lost blocks. (3) A damaged byte may join two records; the bytes of both are one gap.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview

_HEAD: Final = struct.Struct("<II")
_ZEROS: Final = bytes(1 << 16)
_TRAILING: Final = 64
"""Zeros behind the last other byte that may belong to the payload of the last record."""


@dataclass(frozen=True, slots=True)
class Framing:
    """The records of a kind of log.

    Parameters
    ----------
    check : callable
        Gets the head's bytes of the length, and the payload; returns the CRC-32 that the head must hold.
    start : re.Pattern
        Matches, as a lookahead, where a record may begin. The search for the next sound record behind damage tests only
        these places, so the pattern decides how fast the search is.
    limit : int
        Bytes of a payload at most.
    text : bool
        Whether payloads hold no zero byte.
    """

    check: Callable[[bytes, Buffer], int]
    start: re.Pattern[bytes]
    limit: int = (1 << 32) - 1
    text: bool = False


@dataclass(frozen=True, slots=True)
class Gap:
    """Damaged bytes of a log, from `start` up to `end`."""

    start: int
    end: int

    def __str__(self) -> str:
        return f"damaged from byte {self.start:,} to {self.end:,}"


@dataclass(slots=True)
class LogReader:
    r"""Iterates over the sound records of a log; `gaps` and `end` are known when the iteration is over.

    Parameters
    ----------
    data : bytes-like
        The whole log.

    Attributes
    ----------
    gaps : list of Gap
        Damage, in order.
    end : int
        Everything before it is sound or damaged and must stay; everything behind it is a torn end.

    Examples
    --------
    >>> from zlib import crc32
    >>> framing = Framing(lambda length, payload: crc32(payload), re.compile(rb"(?=[^\0])", re.DOTALL))
    >>> def record(payload):
    ...     return _HEAD.pack(len(payload), crc32(payload)) + payload
    >>> log = LogReader(record(b"one") + b"?" * 11 + record(b"three") + record(b"four")[:-1], framing)
    >>> [bytes(payload) for payload, _ in log], log.gaps, log.end
    ([b'one', b'three'], [Gap(start=11, end=22)], 35)
    """

    data: Buffer
    framing: Framing
    gaps: list[Gap] = field(default_factory=list)
    end: int = 0

    def __iter__(self) -> Iterator[tuple[memoryview, int]]:
        """Yield each sound payload, and the offset behind its record."""
        view = memoryview(self.data)
        self.gaps, self.end = [], 0
        while self.end < len(view):
            payload = _record_at(view, self.end, self.framing)
            if payload is not None:
                self.end += _HEAD.size + len(payload)
                yield payload, self.end
                continue
            behind = _next_record(view, self.end, self.framing)
            if behind is None:
                if not _is_torn(view, self.end, self.framing):
                    self.gaps.append(Gap(self.end, len(view)))
                    self.end = len(view)
                return
            self.gaps.append(Gap(self.end, behind))
            self.end = behind

    def read(self) -> LogReader:
        """Read to the end without looking at the records; return self."""
        for _ in self:
            pass
        return self


def _record_at(view: memoryview, at: int, framing: Framing) -> memoryview | None:
    """Return the payload of the record at a place if the record is sound."""
    if at + _HEAD.size > len(view):
        return None
    length, check = _HEAD.unpack_from(view, at)
    begin = at + _HEAD.size
    if not 0 < length <= min(framing.limit, len(view) - begin):
        return None
    payload = view[begin : begin + length]
    return payload if framing.check(bytes(view[at : at + 4]), payload) == check else None


def _next_record(view: memoryview, at: int, framing: Framing) -> int | None:
    """Return where the next sound record behind a broken one begins."""
    if at + _HEAD.size <= len(view):  # usually the length is right: the search is needed where it is not
        length: int = _HEAD.unpack_from(view, at)[0]
        behind = at + _HEAD.size + length
        if length and behind < len(view) and _record_at(view, behind, framing) is not None:
            return behind
    places = framing.start.finditer(view, at + 1)
    return next((each.start() for each in places if _record_at(view, each.start(), framing) is not None), None)


def _is_torn(view: memoryview, at: int, framing: Framing) -> bool:
    """Tell whether what stands at the end of a log, with no sound record behind it, is a torn end."""
    last, begin = _last_byte(view, at), at + _HEAD.size
    if last < at or len(view) < begin:  # zeros, or a part of a head
        return True
    length, check = _HEAD.unpack_from(view, at)
    if 0 < length <= min(framing.limit, len(view) - begin):  # the record is there in full
        return framing.text and last < begin + length - 2  # more than the one byte that a flip can turn to zero
    for end in range(max(last, begin) + 1, min(len(view), max(last, begin) + 1 + _TRAILING) + 1):
        payload = view[begin:end]
        if framing.check(struct.pack("<I", len(payload)), payload) == check:
            return False
    return True


def _last_byte(view: memoryview, start: int) -> int:
    """Return the place of the last byte that is not zero; `start - 1` if there is none."""
    end = len(view)
    while end > start:
        begin = max(start, end - len(_ZEROS))
        part = bytes(view[begin:end])
        if part != _ZEROS[: end - begin]:
            return begin + len(part.rstrip(b"\0")) - 1
        end = begin
    return start - 1
