"""Codecs: lossless encodings of chunks as payloads of frames. See docs/format.md, "Codecs".

`encode` encodes a chunk standalone and `encode_delta` as the difference from a delta base; `decode` decodes both.
`link` returns the delta base of a frame from the first bytes of its payload, without decoding it. The modules behind
these functions need numpy, so they are imported by the first call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from lmvp.core.chunk_frames import (
    CHUNK_LIMIT,
    CODECS,
    DELTA,
    LINK,
    LINK_SIZE,
    RAW,
    ZSTD,
    Frame,
)
from lmvp.errors import IntegrityError

Buffer: TypeAlias = bytes | bytearray | memoryview

DEPTH_LIMIT = 16
"""Maximum number of deltas in a chain. It bounds the work of decoding one chunk."""

"""Bytes at the start of a delta's payload that state base and depth."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """An encoded chunk: the byte of the codec and the payload of the frame."""

    codec: int
    payload: Buffer


@dataclass(frozen=True, slots=True)
class Link:
    """The dependency of a delta: the id of its base, and the number of deltas in the chain, including this delta."""

    base: str
    depth: int


def encode(data: Buffer, dtype: str | None) -> Encoded:
    """Encode a chunk standalone, with the codec that has the smallest payload for a sample.

    Parameters
    ----------
    data : bytes-like
        The chunk, 1 byte to 4 MiB.
    dtype : str, optional
        The dtype of its numbers, a name of safetensors (`"BF16"`); None for other data.

    Returns
    -------
    Encoded
        Codec `raw` with `data` as the payload if encoding would save less than 3 %.
    """
    from lmvp.core.codecs import choice

    found = choice.encode(_bytes(data), dtype)
    return Encoded(RAW, data) if found is None else Encoded(*found)


def encode_delta(data: Buffer, dtype: str, base: Buffer, link: Link) -> Encoded | None:
    """Encode a chunk as the difference from a base of the same length and dtype.

    Parameters
    ----------
    link : Link
        Id of the base, and depth of the new delta.

    Returns
    -------
    Encoded or None
        None if the sample shows no saving over `encode`.
    """
    from lmvp.core.codecs import choice

    assert 0 < link.depth <= DEPTH_LIMIT, "a chain too long"
    view, old = _bytes(data), _bytes(base)
    assert len(view) == len(old), "a base of another length"
    found = choice.encode_delta(view, old, dtype)
    return None if found is None else Encoded(DELTA, LINK.pack(bytes.fromhex(link.base), link.depth) + found)


def decode(frame: Frame, payload: Buffer, base: Callable[[str], Buffer]) -> Buffer:
    """Decode a chunk. The caller must compare the result with the id.

    Parameters
    ----------
    base : callable
        Returns the decoded bytes of the delta base for its id. The caller must check, with `link`, that the frame of
        the base has a smaller depth.

    Raises
    ------
    IntegrityError
        If the payload is invalid. Memory is allocated only in proportion to the `size` of the frame.
    """
    view = _bytes(payload)
    if len(view) != frame.payload:
        raise _damaged(frame, f"{frame.payload:,} bytes of payload were told, {len(view):,} came")
    # The same limits as in `frames.read_header`, because a caller can build a frame without it.
    if frame.size > CHUNK_LIMIT or frame.codec not in CODECS:
        raise _damaged(frame, f"{frame.size:,} bytes in codec {frame.codec} are beyond the rules of frames")
    if frame.codec == RAW and frame.size != frame.payload:
        raise _damaged(frame, f"{frame.size:,} raw bytes were told, {frame.payload:,} came")
    return payload if frame.codec == RAW else _decode(frame, view, base)


def _decode(frame: Frame, payload: memoryview, base: Callable[[str], Buffer]) -> Buffer:
    from lmvp.core.codecs import transforms, zstd

    # Compare sizes before anything is decoded: memory depends on `size` only.
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
    """Return the dependency of a delta from the first `LINK_SIZE` bytes of its payload; None for other codecs.

    Raises
    ------
    IntegrityError
        If the depth is invalid or the payload too short.
    """
    if frame.codec != DELTA:
        return None
    if len(start) < LINK_SIZE:
        raise _damaged(frame, f"a delta of {len(start):,} bytes cannot name its base")
    base, depth = LINK.unpack_from(start)
    if not 0 < depth <= DEPTH_LIMIT:
        raise _damaged(frame, f"it stands on {depth} deltas; the limit is {DEPTH_LIMIT}")
    return Link(base.hex(), depth)


def _bytes(data: Buffer) -> memoryview:
    return memoryview(data).cast("B")


def _damaged(frame: Frame, what: str, hint: str | None = None) -> IntegrityError:
    return IntegrityError(f"chunk {frame.chunk[:12]} cannot be decoded: {what}", hint=hint)
