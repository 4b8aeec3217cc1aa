"""Reader of length-prefixed pieces in an HTTP response: a little-endian uint32 length, then the bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import count as counting
from typing import Any

from lmvp.errors import ServerError
from lmvp.transfer.download import body_reader

LIMIT = 64 << 20
"""Maximum bytes of a piece. It bounds the memory that the client allocates if the server is broken."""

_LENGTH = struct.Struct("<I")


def read_pieces(answer: Any, count: int | None = None) -> Iterator[bytearray]:
    """Yield `count` pieces, or all pieces up to an empty one if `count` is None.

    Raises
    ------
    Interrupted
        If the response ends early.
    ServerError
        If a piece exceeds the limit.
    """
    read = body_reader(answer)
    # Without a count, an empty piece marks the end, so that an interrupted response does not count as complete.
    for number in counting():
        if number == count:
            return
        head = bytearray(_LENGTH.size)
        read(memoryview(head))
        [size] = _LENGTH.unpack(head)
        if size > LIMIT:
            raise ServerError(f"the server sent a piece of {size:,} bytes; the limit is {LIMIT:,}")
        piece = bytearray(size)
        read(memoryview(piece))
        if count is None and not size:
            return
        yield piece
