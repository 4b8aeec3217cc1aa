"""The filter and the sort order of a list of versions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lmvp_server.process import cancellation
from lmvp_server.services import filters
from lmvp_server.services.paging import Page
from lmvp_server.stores.base import Document


@dataclass(frozen=True)
class Asked:
    """A query for versions of a list; see `filters` for the language.

    Parameters
    ----------
    where : str
        A filter; empty for all versions.
    order : str
        A field to sort by, with `-` before it for descending order; empty for newest first.
    """

    where: str = ""
    order: str = ""

    def page(self, every: Iterable[Document], page: Page) -> Document:
        """Return a page of the versions that match.

        The cursor is a count of items, not the number of a version, because the order can be by any field.
        """
        match = filters.parse(self.where, filters.VERSION) if self.where else None
        found = [one for one in map(_with_text, every) if match is None or match(one)]
        if self.order:
            found.sort(key=filters.order(self.order, filters.VERSION))
        first = page.cursor or 0
        shown = [{key: value for key, value in one.items() if key not in _FOR_FILTERS} for one in found[first:]]
        more = str(first + page.limit) if len(shown) > page.limit else None
        return {"items": shown[: page.limit], "next": more, "total": len(found)}


EVERY = Asked()
"""The query for all versions, newest first."""

_FOR_FILTERS = ("name", "text")
"""Fields that `_with_text` adds for filters. They are not part of the answer."""


def _with_text(version: Document) -> Document:
    """Add the fields that only filters read."""
    cancellation.check()  # a model can have many versions, and the client may have disconnected
    name = f"v{version['number']}"
    words = (name, version["message"], version["author"], *version["aliases"])
    return {**version, "name": name, "text": " ".join(words).casefold()}
