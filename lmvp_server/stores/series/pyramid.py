"""How many points a row of each level of a segment's pyramid stands for, and where the blocks begin."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BLOCK = 256
"""Points that one row of the first level stands for."""
FOLD = 32
"""Rows that one row of the next level stands for."""


def starts_of(sizes: npt.NDArray[np.intp], width: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Cut runs of rows into blocks of at most `width`: where the blocks begin, and how many each run has."""
    counts = -(-sizes // width)
    before = np.cumsum(sizes) - sizes
    rank = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return (np.repeat(before, counts) + rank * width).astype(np.intp), counts
