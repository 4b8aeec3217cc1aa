r"""Framing of append-only logs (length + CRC), and crash recovery: valid records, damage and a torn end.

This module serves the journals of records, the logs and state files of series, and the journals of runs. Each record
has a head (uint32 length of the payload, uint32 CRC-32, little-endian) and a payload. The same rules apply to all
of these logs:

- Only a *torn end* can be truncated. It is the rest of the file after the last valid record, if an interrupted write
  can have left it: only zeros (the file system extended the file and lost the data), or a record whose length exceeds
  the end of the file. A torn record was never acknowledged, because the acknowledgement follows the sync of the
  complete record.
- All other invalid bytes are *damage*: bytes that a valid record follows, and a last record that is complete but does
  not match its CRC. An interrupted write leaves a prefix of a record. A complete record was therefore written
  completely, and can have been acknowledged.
- The length field can be damaged too. If the last record matches its CRC with the length that follows from the end of
  the file, it was complete. It is damage, not a torn end.

A log with damage is neither extended nor truncated. New records go to a new file.

Three special cases:

1. A file system can lose blocks in the middle of the last write and keep the length of the file. The record then ends
   in zeros. JSON contains no zero bytes, so such a record in a JSON journal is torn (`Framing.text`). In binary logs,
   zeros are ordinary values, so the record counts as damage. The file is then preserved unnecessarily, but no data is
   lost.
2. Zeros after the last valid record are a torn end, even if they were records once. A damaged sector that reads as
   zeros looks the same as lost blocks.
3. A damaged length can join two records. The bytes of both are then one gap.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias
from zlib import crc32

Buffer: TypeAlias = bytes | bytearray | memoryview
Check: TypeAlias = Callable[[bytes, Buffer], int]

HEAD: Final = struct.Struct("<II")
"""Length and CRC-32 of the payload."""
_LENGTH: Final = struct.Struct("<I")
_ZEROS: Final = bytes(1 << 16)
_TRAILING: Final = 64
"""Maximum number of zeros at the end of a payload that the search for a complete last record tries."""


def record_check(length: bytes, payload: Buffer) -> int:
    """Return the CRC-32 of a record of a server: over the four bytes of the length and the payload.

    It covers the length because a crash can leave zeros at the end of the file: with a CRC over the payload alone,
    eight zeros would be a valid, empty record.
    """
    return crc32(payload, crc32(length))


def frame_check(length: bytes, payload: Buffer) -> int:  # noqa: ARG001 - the length of a frame is at least 1
    """Return the CRC-32 of a frame of a run: over its payload only."""
    return crc32(payload)


def framed(payload: bytes, check: Check = record_check) -> bytes:
    r"""Return a payload with its length and CRC prepended.

    Examples
    --------
    >>> framed(b"{}")[:4], len(framed(b"{}"))
    (b'\x02\x00\x00\x00', 10)
    """
    length = len(payload)
    return HEAD.pack(length, check(_LENGTH.pack(length), payload)) + payload


def is_sound(head: bytes, payload: Buffer) -> bool:
    """Return whether a complete payload matches its head of 8 bytes with length and `record_check`."""
    length, check = HEAD.unpack(head)
    return bool(length == len(payload) and record_check(head[:4], payload) == check)


def whole_records(data: bytes) -> Iterator[tuple[memoryview, int]]:
    """Yield each payload and the offset after it, up to the first record that is incomplete or damaged."""
    view, at = memoryview(data), 0
    while at + HEAD.size <= len(view):
        head = bytes(view[at : at + HEAD.size])
        payload = view[at + HEAD.size : at + HEAD.size + HEAD.unpack(head)[0]]
        if not is_sound(head, payload):
            return
        at += HEAD.size + len(payload)
        yield payload, at


@dataclass(frozen=True, slots=True)
class Framing:
    """The format of the records of a log.

    Parameters
    ----------
    check : callable
        Computes the CRC-32 of a record from the four bytes of the length and the payload.
    start : re.Pattern
        A lookahead pattern that matches where a record can begin. The search for the next valid record after damage
        tests only these positions, so the pattern determines its speed.
    limit : int, default 2**32 - 1
        The maximum size of a payload in bytes.
    text : bool, default False
        Whether payloads contain no zero bytes.
    """

    check: Check
    start: re.Pattern[bytes]
    limit: int = (1 << 32) - 1
    text: bool = False


@dataclass(frozen=True, slots=True)
class Gap:
    """Damaged bytes of a log, from `start` up to `end` (excluded)."""

    start: int
    end: int

    def __str__(self) -> str:
        return f"damaged from byte {self.start:,} to {self.end:,}"


@dataclass(slots=True)
class LogReader:
    r"""Iterates over the valid records of a log. `gaps` and `end` are complete after the iteration.

    Parameters
    ----------
    data : bytes-like
        The whole log.
    framing : Framing
        The format of its records.

    Attributes
    ----------
    gaps : list of Gap
        The damage, in order.
    end : int
        The offset of the torn end. The bytes before it are valid or damaged, and must not be truncated.

    Examples
    --------
    >>> framing = Framing(record_check, re.compile(rb"(?=[^\0])", re.DOTALL))
    >>> log = LogReader(framed(b"one") + b"?" * 11 + framed(b"three") + framed(b"four")[:-1], framing)
    >>> [bytes(payload) for payload, _ in log], log.gaps, log.end
    ([b'one', b'three'], [Gap(start=11, end=22)], 35)
    """

    data: Buffer
    framing: Framing
    gaps: list[Gap] = field(default_factory=list)
    end: int = 0

    def __iter__(self) -> Iterator[tuple[memoryview, int]]:
        """Yield each valid payload, and the offset after its record."""
        view = memoryview(self.data)
        self.gaps, self.end = [], 0
        while self.end < len(view):
            payload = _record_at(view, self.end, self.framing)
            if payload is not None:
                self.end += HEAD.size + len(payload)
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
        """Iterate over all records to compute `gaps` and `end`; return self."""
        for _ in self:
            pass
        return self


def _record_at(view: memoryview, at: int, framing: Framing) -> memoryview | None:
    """Return the payload of the record at an offset; None if the record is not valid."""
    if at + HEAD.size > len(view):
        return None
    length, check = HEAD.unpack_from(view, at)
    begin = at + HEAD.size
    if not 0 < length <= min(framing.limit, len(view) - begin):
        return None
    payload = view[begin : begin + length]
    return payload if framing.check(bytes(view[at : at + 4]), payload) == check else None


def _next_record(view: memoryview, at: int, framing: Framing) -> int | None:
    """Return the offset of the next valid record after an invalid one; None if no valid record follows."""
    if at + HEAD.size <= len(view):  # usually the length is undamaged, and the search is not needed
        length: int = HEAD.unpack_from(view, at)[0]
        behind = at + HEAD.size + length
        if length and behind < len(view) and _record_at(view, behind, framing) is not None:
            return behind
    places = framing.start.finditer(view, at + 1)
    return next((each.start() for each in places if _record_at(view, each.start(), framing) is not None), None)


def _is_torn(view: memoryview, at: int, framing: Framing) -> bool:
    """Return whether the bytes after the last valid record of a log are a torn end."""
    last, begin = _last_byte(view, at), at + HEAD.size
    if last < at or len(view) < begin:  # only zeros, or an incomplete head
        return True
    length, check = HEAD.unpack_from(view, at)
    if 0 < length <= min(framing.limit, len(view) - begin):  # the record is complete
        # At least two zeros at the end: a bit flip can turn one byte of a complete record into zero.
        return framing.text and last < begin + length - 2
    # The length exceeds the file. If the CRC matches for a length that ends in the file, the length field is damaged.
    for end in range(max(last, begin) + 1, min(len(view), max(last, begin) + 1 + _TRAILING) + 1):
        payload = view[begin:end]
        if framing.check(_LENGTH.pack(len(payload)), payload) == check:
            return False
    return True


def _last_byte(view: memoryview, start: int) -> int:
    """Return the offset of the last byte that is not zero; `start - 1` if all bytes are zero."""
    end = len(view)
    while end > start:
        begin = max(start, end - len(_ZEROS))
        part = bytes(view[begin:end])
        if part != _ZEROS[: end - begin]:
            return begin + len(part.rstrip(b"\0")) - 1
        end = begin
    return start - 1
