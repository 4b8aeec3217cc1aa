"""Parsing of `--versions`: revisions and ranges, for example `3,5-9,production`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from lmvp.errors import InvalidArgument, NotFound

_RANGE = re.compile(r"v?([0-9]{1,9})-v?([0-9]{1,9})", re.IGNORECASE)


def chosen(given: str | Iterable[str | int] | None, there: Sequence[int], find: Callable[[str], int]) -> list[int]:
    """Return the version numbers of a selection, sorted and unique; all numbers if there is no selection.

    Parameters
    ----------
    given : str or iterable of str or int, optional
        Revisions and ranges of numbers; separated by commas in a string.
    there : sequence of int
        The existing version numbers.
    find : callable
        Returns the version number of a revision.

    Raises
    ------
    NotFound
        If a range contains no version.
    InvalidArgument
        If the selection is empty.

    Examples
    --------
    >>> chosen("v1,4-9,best", [1, 2, 4, 5, 8], {"v1": 1, "best": 2}.__getitem__)
    [1, 2, 4, 5, 8]
    >>> chosen(None, [3, 1], int)
    [1, 3]
    """
    if given is None:
        return sorted(there)
    if not isinstance(given, Iterable):
        raise InvalidArgument(
            f"`--versions` is {given!r}"[:80], hint='write "3,5-9,production", or a list of revisions'
        )
    words = given.split(",") if isinstance(given, str) else [str(one) for one in given]
    words = [word.strip() for word in words if word.strip()]
    if not words:
        raise InvalidArgument("`--versions` names no version", hint="write 3,5-9,production, or leave it out for all")
    return sorted({number for word in words for number in _meant(word, there, find)})


def _meant(word: str, there: Sequence[int], find: Callable[[str], int]) -> list[int]:
    found = _RANGE.fullmatch(word)
    if found is None:
        return [find(word)]
    first, last = int(found[1]), int(found[2])
    # Removed versions leave gaps, so a range selects only the numbers that exist.
    inside = [number for number in there if first <= number <= last]
    if not inside:
        raise NotFound(f"there is no version from v{first} to v{last}")
    return inside
