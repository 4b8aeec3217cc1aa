"""Compressed sizes of chunks with the published layouts of other systems, reimplemented here.

All layouts get the same chunks, the same deduplication and the better of two zstd implementations on every plane, so
that only the layouts differ. Lossy systems are not compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from lmvp.core.codecs import kinds, zstd

Layout = Callable[[memoryview, memoryview | None, str], int]
"""A function from a chunk, the chunk at its place in the parent (or None) and the dtype to the stored size in bytes."""


def dedup(data: memoryview, _base: memoryview | None, _dtype: str) -> int:
    """Store new chunks without compression."""
    return len(data)


def zstd3(data: memoryview, _base: memoryview | None, _dtype: str) -> int:
    """Compress the bytes in their order."""
    return min(len(data), len(zstd.compress(data)))


def zipnn(data: memoryview, _base: memoryview | None, dtype: str) -> int:
    """Move the sign to the lowest bit, split into byte planes, Huffman: Hershcovitch et al., "ZipNN", 2024."""
    kind = kinds.BY_DTYPE[dtype]
    bits = _bits(data, kind)
    return _planes((bits << 1) | (bits >> (8 * kind.size - 1)) if kind.floating else bits)


def bitx(data: memoryview, base: memoryview | None, dtype: str) -> int:
    """XOR with the parent, split into byte planes, zstd: Wang et al., "ZipLLM", 2025; without a parent, use ZipNN."""
    kind = kinds.BY_DTYPE[dtype]
    alone = zipnn(data, None, dtype)
    return alone if base is None else min(alone, _planes(_bits(data, kind) ^ _bits(base, kind)))


LAYOUTS: Mapping[str, Layout] = {"dedup": dedup, "zstd-3": zstd3, "ZipNN": zipnn, "BitX": bitx}


def _bits(data: memoryview, kind: kinds.Kind) -> npt.NDArray[np.unsignedinteger]:
    return np.frombuffer(data, f"<u{kind.size}")


def _planes(bits: npt.NDArray[np.unsignedinteger]) -> int:
    columns = bits.view(np.uint8).reshape(-1, bits.itemsize)
    return sum(_plane(np.ascontiguousarray(columns[:, at])) for at in range(bits.itemsize))


def _plane(plane: npt.NDArray[np.uint8]) -> int:
    return min(len(plane), len(zstd.entropy(plane)), len(zstd.compress(plane)))
