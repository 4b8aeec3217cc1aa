"""The graph of a history: in which lane each version stands, and the lines that pass its row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lmvp.records import Version

MOST_LANES = 6
_PARENTS = 16
"""Parents of a version that get a line; the time of a row grows with the lanes that wait."""


def lanes(versions: Sequence[Version]) -> list[dict[str, Any]]:
    """Lay out versions, newest first: the first-parent line of the newest is lane 0.

    Returns
    -------
    list of dict
        For each row its `lane`, the lanes that come `in` from above, that go `out` below, and that `pass`.

    Notes
    -----
    A lane waits for the version that its line leads to. A version takes the leftmost lane that waits for it, or the
    first free one; its first parent inherits the lane, further parents get lanes of their own unless one waits already.
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
        # A parent that is not in the table either lies below its end, or is gone: then no line leads to it.
        reachable = [p for p in parents if p in known or p[0] < last]
        leaving = [_reserve(waiting, parent, lane if rank == 0 else None) for rank, parent in enumerate(reachable)]
        rows.append({"lane": lane, "in": arriving, "out": leaving, "pass": passing})
    return [_narrowed(row) for row in rows]


def _free(waiting: list[tuple[int, str] | None]) -> int:
    if None not in waiting:
        waiting.append(None)
    return waiting.index(None)


def _reserve(waiting: list[tuple[int, str] | None], parent: tuple[int, str], lane: int | None) -> int:
    if lane is None:
        lane = waiting.index(parent) if parent in waiting else _free(waiting)
    waiting[lane] = parent
    return lane


def _narrowed(row: dict[str, Any]) -> dict[str, Any]:
    """Histories with more branches than there is room for share the last lane."""
    edge = MOST_LANES - 1
    return {
        "lane": min(row["lane"], edge),
        **{side: sorted({min(lane, edge) for lane in row[side]}) for side in ("in", "out", "pass")},
    }
