"""How others lay a chunk out before an entropy coder, rebuilt from what they published: the size that each would keep.

All get the same chunks, the same deduplication and the better of two zstds on every plane, so that what is compared is
the layout alone. Lossy systems are not compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from lmvp.storage.codecs import kinds, zstd

Layout = Callable[[memoryview, memoryview | None, str], int]
"""From a chunk, what the parent has at its place (if it has a parent) and the dtype to the bytes kept."""


def dedup(data: memoryview, _base: memoryview | None, _dtype: str) -> int:
    """Keep what is new as it is."""
    return len(data)


def zstd3(data: memoryview, _base: memoryview | None, _dtype: str) -> int:
    """Compress the bytes as they lie."""
    return min(len(data), len(zstd.compress(data)))


def zipnn(data: memoryview, _base: memoryview | None, dtype: str) -> int:
    """Rotate the sign to the bottom, split into byte planes, Huffman: Hershcovitch et al., "ZipNN", 2024."""
    kind = kinds.BY_DTYPE[dtype]
    bits = _bits(data, kind)
    return _planes((bits << 1) | (bits >> (8 * kind.size - 1)) if kind.floating else bits)


def bitx(data: memoryview, base: memoryview | None, dtype: str) -> int:
    """XOR with the parent, split into byte planes, zstd: Wang et al., "ZipLLM", 2025; without a parent as ZipNN."""
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
