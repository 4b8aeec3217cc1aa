"""As many points as a picture has room for, that look like all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lmvp.tracking.columns import Columns
from lmvp_server.stores.series.pyramid import Blocks, blocks_of, fold


def stretches(steps: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.intp]:
    """Return where stretches of one width begin among ordered steps; those without a step are left out."""
    low, high = float(steps[0]), float(steps[-1])
    width = (high - low) / count or 1.0
    number = np.minimum(((steps.astype(np.float64) - low) / width).astype(np.int64), count - 1)
    return np.flatnonzero(np.concatenate([[True], number[1:] != number[:-1]]))


def reduced(points: Columns, most: int) -> Columns:
    """Return at most `most` of points that are in the order of their steps.

    The least and the greatest finite value of each of `most // 3` stretches, one that is not finite, and the ends.
    """
    if len(points) <= most:
        return points
    return _chosen([blocks_of(points, stretches(points.steps, max(1, (most - 2) // 3)))], ends_of(points))


def reduced_blocks(parts: Sequence[Blocks], first_and_last: Columns, most: int) -> Columns:
    """Return at most `most` points of those that rows of blocks have; the rows are in the order of their steps."""
    blocks = Blocks(*(np.concatenate([getattr(part, name) for part in parts]) for name in Blocks.__slots__))
    return _chosen([fold(blocks, stretches(blocks.first, max(1, (most - 2) // 3)))], first_and_last)


def ends_of(points: Columns) -> Columns:
    """Return the first and the last point."""
    return Columns(points.steps[[0, -1]], points.values[[0, -1]], points.times[[0, -1]])


def _chosen(parts: Sequence[Blocks], more: Columns) -> Columns:
    """Return the points of the rows and some more, each once, in the order of their steps."""
    found = Columns.join([*(part.points() for part in parts), more])
    _, rows = np.unique(found.steps, return_index=True)
    return Columns(found.steps[rows], found.values[rows], found.times[rows])
