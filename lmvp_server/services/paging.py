"""Paging of lists with a limit and a cursor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lmvp.errors import InvalidArgument
from lmvp_server.stores.base import Document, Record

PAGE_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list.

    Attributes
    ----------
    limit : int
        The maximum number of items.
    cursor : int or None
        The `seq` of the last item of the previous page. None: the first page.
    """

    limit: int = 100
    cursor: int | None = None

    @classmethod
    def parse(cls, limit: str | None, cursor: str | None) -> Page:
        """Parse the query parameters of a request."""
        return cls(_number("limit", limit, 100, 1, PAGE_LIMIT) or 1, _number("cursor", cursor, None, 0, 1 << 62))


def _number(name: str, text: str | None, default: int | None, least: int, most: int) -> int | None:
    if text is None:
        return default
    # `int` alone would accept signs, spaces, underscores and digits of other scripts.
    if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
        raise InvalidArgument(f"{name}={text[:40]!r} is not a number from {least} to {most}")
    return int(text)


def listing(page: Page, found: Sequence[Record], total: int, present: Callable[[Record], Document]) -> Document:
    """Return the answer for a page. `found` has one record more than the page if there is a next page."""
    shown = found[: page.limit]
    more = len(found) > page.limit
    return {
        "items": [present(record) for record in shown],
        # `seq` as cursor: the next page stays correct if items are added or deleted in between.
        "next": str(shown[-1].seq) if more else None,
        "total": total,
    }


def names(records: Sequence[Record]) -> list[Any]:
    """Return the names of records, for "did you mean" hints."""
    return [record.data["name"] for record in records]
