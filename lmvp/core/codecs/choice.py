"""Choice of the codec of a chunk from a sample. It is deterministic: equal chunks get equal codecs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lmvp.core.chunk_frames import LINK_SIZE, SOLO, ZSTD
from lmvp.core.codecs import transforms, zstd
from lmvp.core.codecs.kinds import BY_DTYPE

WORTH = 0.97
"""Maximum ratio of encoded to plain size. A smaller saving does not justify the time of decoding."""

# 16 pieces of 4 KiB; see docs/format.md, "How LMVP chooses a codec".
_PIECES, _PIECE = 16, 4096
_SAMPLE = _PIECES * _PIECE


def sample(data: memoryview) -> memoryview:
    """Return a sample of pieces from the whole chunk, or a short chunk itself. Pieces are aligned to 8 bytes."""
    if len(data) <= 2 * _SAMPLE:
        return data
    last = len(data) - _PIECE
    # Aligned so that a piece never begins inside a number of up to 8 bytes.
    starts = [(last * at // (_PIECES - 1)) & ~7 for at in range(_PIECES)]
    return memoryview(b"".join([data[start : start + _PIECE] for start in starts]))


def encode(data: memoryview, dtype: str | None) -> tuple[int, bytes] | None:
    """Return the better codec, zstd or solo, with its payload; None if neither saves enough."""
    ways = _ways(dtype)
    some = sample(data)
    sizes = {codec: len(way(some)) for codec, way in ways.items()}
    best = min(sizes, key=lambda codec: sizes[codec])
    if sizes[best] > WORTH * len(some):
        return None
    payload = ways[best](data)
    # The sample can be misleading, so check the complete chunk as well.
    return None if len(payload) > WORTH * len(data) else (best, payload)


def encode_delta(data: memoryview, base: memoryview, dtype: str) -> bytes | None:
    """Return the payload of a delta without its link; None if the sample shows no saving over `encode`."""
    kind = BY_DTYPE.get(dtype)
    if kind is None:
        return None
    some, old = sample(data), sample(base)
    # A delta must beat the standalone encoding, because reading it needs another chunk.
    alone = min(len(some), *(len(way(some)) for way in _ways(dtype).values()))
    if len(transforms.encode_delta(some, old, kind)) > WORTH * alone:
        return None
    payload = transforms.encode_delta(data, base, kind)
    return None if LINK_SIZE + len(payload) > WORTH * len(data) else payload


def _ways(dtype: str | None) -> dict[int, Callable[[Any], bytes]]:
    kind = BY_DTYPE.get(dtype or "")
    ways: dict[int, Callable[[Any], bytes]] = {ZSTD: zstd.compress}
    if kind is not None:
        ways[SOLO] = lambda data: transforms.encode_solo(data, kind)
    return ways
