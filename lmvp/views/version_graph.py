"""Layout of the graph of a history: the lane of each version, and the lines that cross its row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lmvp.core.schemas import Version

MOST_LANES = 6
"""Maximum number of lanes that are drawn. Further branches share the last lane."""
_PARENTS = 16
"""Maximum number of parents of a version that get a line. The time for a row grows with the number of open lanes."""


def lanes(versions: Sequence[Version]) -> list[dict[str, Any]]:
    """Return the lanes of versions, newest first. The first-parent line of the newest version is lane 0.

    Parameters
    ----------
    versions : sequence of Version
        Versions of one model.

    Returns
    -------
    list of dict
        For each version its `lane`, and the lanes of the lines that end here from above (`in`), start here downwards
        (`out`), and cross the row (`pass`).

    Notes
    -----
    A lane is reserved for the version that its line leads to. A version uses the leftmost lane that is reserved for it,
    otherwise the first free one. Its first parent inherits the lane. Each other parent reserves a free lane, unless
    one is already reserved for it.
    """
    known = {(version.number, version.digest) for version in versions}
    last = min((version.number for version in versions), default=0)
    waiting: list[tuple[int, str] | None] = []
    rows = []
    for version in versions:
        key = (version.number, version.digest)
        arriving = [i for i, wanted in enumerate(waiting) if wanted == key]
        passing = [i for i, wanted in enumerate(waiting) if wanted not in (None, key)]
        lane = arriving[0] if arriving else _free(waiting)
        for i in arriving:
            waiting[i] = None
        parents = [(p.number, p.digest) for p in version.parents[:_PARENTS]]
        # A parent with a lower number than the last row is below the end of the table, and its line leaves at the
        # bottom. Any other parent that is not in the table was removed, and gets no line.
        reachable = [p for p in parents if p in known or p[0] < last]
        leaving = [_reserve(waiting, parent, lane if rank == 0 else None) for rank, parent in enumerate(reachable)]
        rows.append({"lane": lane, "in": arriving, "out": leaving, "pass": passing})
    return [_narrowed(row) for row in rows]


def _free(waiting: list[tuple[int, str] | None]) -> int:
    """Return the first free lane; add one if all are reserved."""
    if None not in waiting:
        waiting.append(None)
    return waiting.index(None)


def _reserve(waiting: list[tuple[int, str] | None], parent: tuple[int, str], lane: int | None) -> int:
    """Reserve a lane for a parent and return it; `lane` is the one that a first parent inherits."""
    if lane is None:
        lane = waiting.index(parent) if parent in waiting else _free(waiting)
    waiting[lane] = parent
    return lane


def _narrowed(row: dict[str, Any]) -> dict[str, Any]:
    """Limit the lanes of a row to `MOST_LANES`: all further branches share the last one."""
    edge = MOST_LANES - 1
    return {
        "lane": min(row["lane"], edge),
        **{side: sorted({min(lane, edge) for lane in row[side]}) for side in ("in", "out", "pass")},
    }
