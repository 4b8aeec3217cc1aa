"""Frames: encoded chunks with a header of 48 bytes, the same on disk and on the wire.

========  =======  ====================================================
offset    type     content
========  =======  ====================================================
0         2 bytes  `LF`
2         uint8    version of the frame, 1
3         uint8    codec: 0 raw, 1 zstd, 2 solo, 3 delta; 255 failed
4         uint32   number of bytes after decoding, at most 4 MiB
8         uint32   number of bytes of the payload
12        uint32   0, reserved
16        32 bytes id of the chunk: BLAKE3 of the decoded bytes
========  =======  ====================================================

All numbers are little-endian. See docs/format.md, "Frames".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lmvp.errors import InvalidRequest

CHUNK_LIMIT = 4 << 20
"""Maximum bytes of a chunk, decoded."""

FAILURE_LIMIT = 1 << 16
"""Maximum bytes of the JSON in a failure frame."""

BATCH_LIMIT = 16 << 20
"""Maximum bytes of payloads in one request, without headers."""

LINK = struct.Struct("<32sB")
LINK_SIZE = LINK.size
"""Start of the payload of a delta: the id of its base, and its depth."""

RAW, ZSTD, SOLO, DELTA = range(4)
CODECS = {RAW: "raw", ZSTD: "zstd", SOLO: "solo", DELTA: "delta"}
"""The codecs that this version reads, by the byte in the header."""

FAILED = 255
"""Only in answers, in place of a codec: the payload is the JSON of an error. See docs/format.md, "The wire"."""

HEADER = struct.Struct("<2sBBIII32s")
HEADER_SIZE = HEADER.size
_MAGIC, _VERSION = b"LF", 1


@dataclass(frozen=True, slots=True)
class Frame:
    """The header of a frame."""

    chunk: str
    size: int
    payload: int
    codec: int = RAW


def header(frame: Frame) -> bytes:
    """Return the 48 bytes of the header.

    Examples
    --------
    >>> data = header(Frame("00" * 32, size=3, payload=3))
    >>> len(data), read_header(data).size
    (48, 3)
    """
    return HEADER.pack(_MAGIC, _VERSION, frame.codec, frame.size, frame.payload, 0, bytes.fromhex(frame.chunk))


def read_header(data: Any, *, answer: bool = False) -> Frame:
    """Parse a header.

    Parameters
    ----------
    answer : bool
        Whether the frame is part of a server's answer, which can contain failure frames (`FAILED`).

    Raises
    ------
    InvalidRequest
        If it is not a header that this version reads, or a length exceeds its limit.
    """
    if len(data) != HEADER_SIZE:
        raise InvalidRequest(f"a frame header has {HEADER_SIZE} bytes, not {len(data)}")
    magic, version, codec, size, payload, reserved, chunk = HEADER.unpack(data)
    if magic != _MAGIC or version != _VERSION or reserved:
        raise InvalidRequest("these bytes are not a frame", hint="see docs/format.md, Frames")
    if codec == FAILED and answer and payload <= FAILURE_LIMIT:
        return Frame(chunk.hex(), 0, payload, FAILED)
    if codec not in CODECS:
        raise InvalidRequest(f"unknown codec {codec} in a frame", hint="update lmvp on this side")
    _check_lengths(codec, size, payload)
    return Frame(chunk.hex(), size, payload, codec)


def _check_lengths(codec: int, size: int, payload: int) -> None:
    if size > CHUNK_LIMIT or payload > CHUNK_LIMIT:
        raise InvalidRequest(f"a frame of {max(size, payload)} bytes; the limit is {CHUNK_LIMIT}")
    if codec == RAW and size != payload:
        raise InvalidRequest(f"a raw frame says {size} bytes decoded and {payload} bytes of payload")
    # A chunk that no codec shortens is stored raw, so a payload of the same length or more is invalid.
    if codec != RAW and payload >= size:
        raise InvalidRequest(f"a {CODECS[codec]} frame of {payload} bytes of payload for {size} bytes")


class FrameReader:
    """Splits a stream of frames incrementally. Payloads are returned as pieces, without copying them.

    Examples
    --------
    >>> reader = FrameReader()
    >>> data = header(Frame("00" * 32, size=3, payload=3)) + b"abc"
    >>> list(reader.feed(data[:49])), [bytes(p) for _, ps in reader.feed(data[49:]) for p in ps]
    ([], [b'a', b'bc'])
    """

    def __init__(self) -> None:
        self._head = bytearray()
        self._frame: Frame | None = None
        self._pieces: list[memoryview] = []
        self._wanted = 0

    @property
    def between(self) -> bool:
        """Whether the stream is at a boundary between frames, where it can end."""
        return not self._head and self._frame is None

    @property
    def buffered(self) -> int:
        """Number of bytes of the incomplete frame."""
        return len(self._head) + sum(map(len, self._pieces))

    def feed(self, data: bytes) -> Iterator[tuple[Frame, list[memoryview]]]:
        """Yield the frames that the next bytes complete, each with its payload in pieces.

        Raises
        ------
        InvalidRequest
            If the bytes at the start of a frame are not a header.
        """
        view = memoryview(data)
        while view or self._complete():  # a frame can be complete without further bytes: its payload can be empty
            if self._complete():
                yield self._take()
            elif self._frame is None:
                view = self._read_head(view)
            else:
                # Pieces are views of the received buffers: joining them would copy each chunk once more.
                self._pieces.append(view[: self._wanted])
                view, self._wanted = view[self._wanted :], max(0, self._wanted - len(view))

    def _complete(self) -> bool:
        return self._frame is not None and self._wanted == 0

    def _read_head(self, view: memoryview) -> memoryview:
        lacking = HEADER_SIZE - len(self._head)
        self._head += view[:lacking]
        if len(self._head) == HEADER_SIZE:
            self._frame = read_header(self._head)
            self._wanted = self._frame.payload  # `read_header` has checked the limit
            self._head.clear()
        return view[lacking:]

    def _take(self) -> tuple[Frame, list[memoryview]]:
        frame, pieces = self._frame, self._pieces
        assert frame is not None
        self._frame, self._pieces = None, []
        return frame, pieces
