"""Codecs: how the payload of a frame stands for the bytes of its chunk. Lossless to the bit.

See docs/format.md, "Codecs".

A chunk is encoded by itself (`encode`) or against an older one (`encode_delta`); `decode` undoes either. What a frame
leans on can be told from its first bytes (`link`), without decoding it. The modules behind these functions need numpy
and are loaded by the first call that does.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from lmvp.errors import IntegrityError
from lmvp.storage.frames import CHUNK_LIMIT, CODECS, DELTA, RAW, ZSTD, Frame

Buffer: TypeAlias = bytes | bytearray | memoryview

DEPTH_LIMIT = 16
"""Deltas that may stand on one another."""

_LINK = struct.Struct("<32sB")
LINK_SIZE = _LINK.size
"""Bytes at the start of a delta's payload that tell its base and its depth."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A chunk, encoded: the codec's byte and the payload of the frame."""

    codec: int
    payload: Buffer


@dataclass(frozen=True, slots=True)
class Link:
    """What a delta leans on: the id of its base, and how many deltas stand on one another, itself included."""

    base: str
    depth: int


def encode(data: Buffer, dtype: str | None) -> Encoded:
    """Encode a chunk by itself, in whatever way a sample promises the smallest payload.

    Parameters
    ----------
    data : bytes-like
        The chunk, 1 byte to 4 MiB.
    dtype : str, optional
        The dtype of the numbers in it, as safetensors writes it (`"BF16"`); None for anything else.

    Returns
    -------
    Encoded
        `raw`, with `data` itself as the payload, where the gain would be less than 3 %.
    """
    from lmvp.storage.codecs import choice

    found = choice.encode(_bytes(data), dtype)
    return Encoded(RAW, data) if found is None else Encoded(*found)


def encode_delta(data: Buffer, dtype: str, base: Buffer, link: Link) -> Encoded | None:
    """Encode a chunk as what changed since another one of its length and dtype.

    Parameters
    ----------
    link : Link
        Names the base, and tells the depth that the new delta will have.

    Returns
    -------
    Encoded or None
        None where a sample promises that `encode` does as well.
    """
    from lmvp.storage.codecs import choice

    assert 0 < link.depth <= DEPTH_LIMIT, "a chain too long"
    view, old = _bytes(data), _bytes(base)
    assert len(view) == len(old), "a base of another length"
    found = choice.encode_delta(view, old, dtype)
    return None if found is None else Encoded(DELTA, _LINK.pack(bytes.fromhex(link.base), link.depth) + found)


def decode(frame: Frame, payload: Buffer, base: Callable[[str], Buffer]) -> Buffer:
    """Return the bytes of a chunk, not yet held against its id.

    Parameters
    ----------
    base : callable
        Gives the decoded bytes of the chunk that a delta leans on, by its id. That the base's own frame has a lesser
        depth is for the caller to see to, with `link`: it has that frame.

    Raises
    ------
    IntegrityError
        If the payload is not what an encoder writes. No more memory is taken than the frame's `size` asks for.
    """
    view = _bytes(payload)
    if len(view) != frame.payload:
        raise _damaged(frame, f"{frame.payload:,} bytes of payload were told, {len(view):,} came")
    if frame.size > CHUNK_LIMIT or frame.codec not in CODECS:
        raise _damaged(frame, f"{frame.size:,} bytes in codec {frame.codec} are beyond the rules of frames")
    if frame.codec == RAW and frame.size != frame.payload:
        raise _damaged(frame, f"{frame.size:,} raw bytes were told, {frame.payload:,} came")
    return payload if frame.codec == RAW else _decode(frame, view, base)


def _decode(frame: Frame, payload: memoryview, base: Callable[[str], Buffer]) -> Buffer:
    from lmvp.storage.codecs import transforms, zstd

    found = link(frame, payload)
    old = None if found is None else _bytes(base(found.base))
    if old is not None and len(old) != frame.size:
        raise _damaged(frame, f"its base has {len(old):,} bytes, not {frame.size:,} like itself")
    try:
        if frame.codec == ZSTD:
            return zstd.decompress(payload, frame.size)
        if old is None:
            return transforms.decode_solo(payload, frame.size)
        return transforms.decode_delta(payload[LINK_SIZE:], old)
    except IntegrityError as error:
        raise _damaged(frame, error.message, hint=error.hint) from None


def link(frame: Frame, start: Buffer) -> Link | None:
    """Return what a frame leans on, told from the first `LINK_SIZE` bytes of its payload; None for all but deltas.

    Raises
    ------
    IntegrityError
        If the depth is beyond the limit, or the payload too short.
    """
    if frame.codec != DELTA:
        return None
    if len(start) < LINK_SIZE:
        raise _damaged(frame, f"a delta of {len(start):,} bytes cannot name its base")
    base, depth = _LINK.unpack_from(start)
    if not 0 < depth <= DEPTH_LIMIT:
        raise _damaged(frame, f"it stands on {depth} deltas; the limit is {DEPTH_LIMIT}")
    return Link(base.hex(), depth)


def _bytes(data: Buffer) -> memoryview:
    return memoryview(data).cast("B")


def _damaged(frame: Frame, what: str, hint: str | None = None) -> IntegrityError:
    return IntegrityError(f"chunk {frame.chunk[:12]} cannot be decoded: {what}", hint=hint)
