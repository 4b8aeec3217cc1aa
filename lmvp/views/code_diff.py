"""Unified diffs of the code of two versions, in bounded time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

from lmvp.core.schemas import Version

STEPS_LIMIT = 5_000_000
"""Maximum number of line comparisons for a diff of code, about a second. A hostile text can need billions."""
CONTEXT = 2
"""Number of unchanged lines around a change in a diff of code."""


def code_of(version: Version) -> str:
    """Return the code that is stored with a version: its script, or the cells of its notebook separated by a line."""
    return "\n\n".join(cells_of(version.environment))


def cells_of(environment: Mapping[str, Any]) -> list[str]:
    """Return the code that is stored with a version or run: the cells of its notebook, or its script as one cell.

    Examples
    --------
    >>> cells_of({"code": {"cells": ["a = 1", "a"]}}), cells_of({"code": {"source": "a = 1"}}), cells_of({})
    (['a = 1', 'a'], ['a = 1'], [])
    """
    kept = environment.get("code")
    if not isinstance(kept, dict):  # a run of `%%lmvp run` has the source of its cell instead
        return [str(environment["cell"])] if environment.get("cell") else []
    cells = kept.get("cells")
    found = [str(cell) for cell in cells] if isinstance(cells, list) else [str(kept.get("source", ""))]
    return [cell for cell in found if cell]


def code_changes(before: Version, after: Version) -> Iterable[str]:
    """Yield the lines of a unified diff of the code of two versions; none if it is equal or not stored with both."""
    old, new = code_of(before), code_of(after)
    if old and new:
        yield from unified_diff(old.splitlines(), new.splitlines(), before.name, after.name)


def unified_diff(old: Sequence[str], new: Sequence[str], before: str, after: str) -> Iterable[str]:
    """Yield the lines of a unified diff, in limited time.

    `difflib` takes cubic time for texts whose lines repeat often. After `STEPS_LIMIT` comparisons, the diff replaces
    all lines between the common beginning and the common end: it is still correct, but not the shortest.

    Parameters
    ----------
    old, new : sequence of str
        The lines of both texts.
    before, after : str
        Their names in the first two lines of the diff.

    Examples
    --------
    >>> list(unified_diff(["a", "b"], ["a", "c"], "v1", "v2"))
    ['--- v1', '+++ v2', '@@ -1,2 +1,2 @@', ' a', '-b', '+c']
    """
    matcher = _Matcher(old, new)
    try:
        matcher.get_opcodes()
    except _TooManySteps:
        matcher.opcodes = _replaced(old, new)
    for number, group in enumerate(matcher.get_grouped_opcodes(CONTEXT)):
        yield from () if number else (f"--- {before}", f"+++ {after}")
        yield f"@@ -{_span(group[0][1], group[-1][2])} +{_span(group[0][3], group[-1][4])} @@"
        for kind, i, i_end, j, j_end in group:
            if kind == "equal":
                yield from (f" {line}" for line in old[i:i_end])
            else:
                yield from (f"-{line}" for line in old[i:i_end])
                yield from (f"+{line}" for line in new[j:j_end])


class _TooManySteps(Exception):
    """The diff needs more than `STEPS_LIMIT` comparisons."""


class _Matcher(SequenceMatcher[str]):
    """A matcher that counts its comparisons and raises `_TooManySteps` at the limit."""

    def __init__(self, old: Sequence[str], new: Sequence[str]) -> None:
        super().__init__(None, old, new)
        self.opcodes: Any = None
        self.steps = 0
        self._old = old

    def find_longest_match(self, alo: int = 0, ahi: int | None = None, blo: int = 0, bhi: int | None = None) -> Any:
        places: Mapping[str, Sequence[int]] = self.b2j  # type: ignore[attr-defined] # public, typeshed omits it
        self.steps += sum(1 + len(places.get(line, ())) for line in self._old[alo:ahi])
        if self.steps > STEPS_LIMIT:
            raise _TooManySteps
        return super().find_longest_match(alo, ahi, blo, bhi)


def _replaced(old: Sequence[str], new: Sequence[str]) -> list[tuple[str, int, int, int, int]]:
    """Return the operations that replace all lines between the common beginning and the common end."""
    most = min(len(old), len(new))
    first = next((at for at in range(most) if old[at] != new[at]), most)
    last = next((at for at in range(most - first) if old[-1 - at] != new[-1 - at]), most - first)
    i, j = len(old) - last, len(new) - last
    found = [("equal", 0, first, 0, first), ("replace", first, i, first, j), ("equal", i, len(old), j, len(new))]
    return [one for one in found if one[1] < one[2] or one[3] < one[4]]


def _span(start: int, stop: int) -> str:
    """Format a range of lines for an `@@` line. The format states the line before an empty range."""
    length = stop - start
    return f"{start + 1}" if length == 1 else f"{start + (length > 0)},{length}"
