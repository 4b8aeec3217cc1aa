"""Search, as a page and as JSON for the command palette."""

from __future__ import annotations

from lmvp_server.services.search import WORDS_LIMIT
from lmvp_server.web.pages.base import ConsolePage, PageContext


class SearchPage(ConsolePage):
    """`/search?q=…`."""

    async def get(self, *place: str) -> None:
        """Show the search page, or send the results as JSON."""
        if self.get_query_argument("as", "") == "json":
            found, more = await self.run_long(self.services.search.find, self.caller, self._words(), 20)
            self.answer({"items": found, "more": more})
        else:
            await super().get(*place)

    def context(self) -> PageContext:  # type: ignore[override]
        """Return the objects that contain the words."""
        words = self._words()
        found, more = self.services.search.find(self.caller, words, 100)
        return "search.html", {"words": words, "found": found, "more": more}

    def _words(self) -> str:
        return self.get_query_argument("q", "")[:WORDS_LIMIT]
