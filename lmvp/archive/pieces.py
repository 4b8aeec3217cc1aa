"""Pieces of bytes in the answer to a request: a uint32 length, little-endian, and that many bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import count as counting
from typing import Any

from lmvp.errors import ServerError
from lmvp.transfer.pull import body_reader

LIMIT = 64 << 20
"""Bytes of a piece at most: more is no server of ours."""

_LENGTH = struct.Struct("<I")


def read_pieces(answer: Any, count: int | None = None) -> Iterator[bytearray]:
    """Yield so many pieces; without a number, up to one of no bytes.

    Raises
    ------
    Interrupted
        If the answer breaks off.
    """
    read = body_reader(answer)
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
