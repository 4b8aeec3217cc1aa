"""Block sizes of the levels of a segment's pyramid, and the boundaries of the blocks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BLOCK = 256
"""Points in a block of the first level."""
FOLD = 32
"""Blocks of the first level in a block of the second level."""


def starts_of(sizes: npt.NDArray[np.intp], width: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Split groups of rows into blocks of at most `width` rows. Return the starts, and the blocks of each group."""
    # Rounds up: the last block of a group can be shorter.
    counts = -(-sizes // width)
    before = np.cumsum(sizes) - sizes
    rank = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return (np.repeat(before, counts) + rank * width).astype(np.intp), counts
