"""Which versions of a list are wanted: those that match a filter, in an order of one's own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lmvp_server import cancellation
from lmvp_server.services import filters
from lmvp_server.services.paging import Page
from lmvp_server.stores.base import Document


@dataclass(frozen=True)
class Asked:
    """Which versions of a list are wanted, and in what order; see `filters`.

    Parameters
    ----------
    where, order : str
        Empty: all of them, newest first.
    """

    where: str = ""
    order: str = ""

    def page(self, every: Iterable[Document], page: Page) -> Document:
        """Return a page of those that match; its cursor counts them, since another order has no other marks."""
        match = filters.parse(self.where, filters.VERSION) if self.where else None
        found = [one for one in map(_with_text, every) if match is None or match(one)]
        if self.order:
            found.sort(key=filters.order(self.order, filters.VERSION))
        first = page.cursor or 0
        shown = [{key: value for key, value in one.items() if key not in _FOR_FILTERS} for one in found[first:]]
        more = str(first + page.limit) if len(shown) > page.limit else None
        return {"items": shown[: page.limit], "next": more, "total": len(found)}


EVERY = Asked()
_FOR_FILTERS = ("name", "text")


def _with_text(version: Document) -> Document:
    cancellation.check()
    name = f"v{version['number']}"
    words = (name, version["message"], version["author"], *version["aliases"])
    return {**version, "name": name, "text": " ".join(words).casefold()}
