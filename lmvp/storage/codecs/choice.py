"""Which codec a chunk gets: what a sample of it promises. No chance in it: the same chunk, the same codec."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lmvp.storage.codecs import LINK_SIZE, transforms, zstd
from lmvp.storage.codecs.kinds import BY_DTYPE
from lmvp.storage.frames import SOLO, ZSTD

WORTH = 0.97
"""Share of the bytes below which coding them is worth the time of reading them back."""

_PIECES, _PIECE = 16, 4096
_SAMPLE = _PIECES * _PIECE


def sample(data: memoryview) -> memoryview:
    """Return pieces from all over a chunk, or all of it if it is short; pieces begin at multiples of 8 bytes."""
    if len(data) <= 2 * _SAMPLE:
        return data
    last = len(data) - _PIECE
    starts = [(last * at // (_PIECES - 1)) & ~7 for at in range(_PIECES)]
    return memoryview(b"".join([data[start : start + _PIECE] for start in starts]))


def encode(data: memoryview, dtype: str | None) -> tuple[int, bytes] | None:
    """Return the codec that does better, `zstd` or `solo`, with its payload; None if neither is worth it."""
    ways = _ways(dtype)
    some = sample(data)
    sizes = {codec: len(way(some)) for codec, way in ways.items()}
    best = min(sizes, key=lambda codec: sizes[codec])
    if sizes[best] > WORTH * len(some):
        return None
    payload = ways[best](data)
    return None if len(payload) > WORTH * len(data) else (best, payload)


def encode_delta(data: memoryview, base: memoryview, dtype: str) -> bytes | None:
    """Return the payload of a delta, after its link; None where the sample promises that `encode` does as well."""
    kind = BY_DTYPE.get(dtype)
    if kind is None:
        return None
    some, old = sample(data), sample(base)
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
