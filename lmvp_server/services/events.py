"""Events: who did what to what."""

from __future__ import annotations

from lmvp_server.services import access
from lmvp_server.services.access import Caller
from lmvp_server.services.catalog import SERVER, Catalog
from lmvp_server.services.paging import Page
from lmvp_server.stores.base import Document, RecordStore


class Events:
    """The use cases around the logs of events."""

    def __init__(self, records: RecordStore, catalog: Catalog) -> None:
        self._records, self._catalog = records, catalog

    def of_project(self, caller: Caller, project: str, page: Page) -> Document:
        """List the events of a project, newest first."""
        home = self._catalog.find_project(caller, project)
        access.require(caller, access.READ, project)
        return self._of_space(home.id, page)

    def of_server(self, caller: Caller, page: Page) -> Document:
        """List the events of the server itself, newest first."""
        access.require(caller, access.ADMIN)
        return self._of_space(SERVER, page)

    def _of_space(self, space: str, page: Page) -> Document:
        found = self._records.events(space, newest_first=True, after=page.cursor, limit=page.limit + 1)
        newest = self._records.events(space, newest_first=True, limit=1)  # numbered from 1, without gaps
        shown = found[: page.limit]
        return {
            "items": shown,
            "next": str(shown[-1]["seq"]) if len(found) > page.limit else None,
            "total": newest[0]["seq"] if newest else 0,
        }
