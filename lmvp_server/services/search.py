"""Search in names, messages, params and descriptions of the projects that a caller can read."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from lmvp_server.process import cancellation
from lmvp_server.services.access import Caller
from lmvp_server.services.catalog import Catalog
from lmvp_server.services.paging import Page
from lmvp_server.stores.base import Document, Record, RecordStore

WORDS_LIMIT = 200
"""The maximum length of a query in characters."""
_TERMS = 16
"""The maximum number of different words in a query. Each word reads every text once."""
_TEXT, _PARAMS = 20_000, 100
"""Characters of each text, and params of a run or version, that are searched."""
_PROJECTS, _EACH, _CUT = 1000, 25, 160  # projects that are searched, results of each kind, characters of an excerpt


class Search:
    """Use case of the search page and the command palette."""

    def __init__(self, records: RecordStore, catalog: Catalog) -> None:
        self._records, self._catalog = records, catalog

    def find(self, caller: Caller, words: str, limit: int = 50) -> tuple[list[Document], bool]:
        """Return projects, models, runs and versions that contain all words, grouped by kind, newest first.

        Returns
        -------
        list of dict, bool
            The results, with `kind`, `project`, `name`, `url` (relative to the home page) and `words` (an excerpt);
            and whether there are more results.
        """
        # Bounds the work: anyone with read access can send long queries.
        wanted = list(dict.fromkeys(words[:WORDS_LIMIT].lower().split()))[:_TERMS]
        projects = self._catalog.projects(caller, Page(_PROJECTS))["items"]
        if not wanted:
            return [], False
        kinds = (self._projects, self._models, self._runs, self._versions)
        found: list[Document] = []
        more = False
        for kind in kinds:
            # One more than is shown, to know whether there are more.
            some = list(islice(kind(caller, projects, wanted), _EACH + 1))
            more |= len(some) > _EACH
            found += some[:_EACH]
        return found[:limit], more or len(found) > limit

    def _projects(self, _: Caller, projects: list[Document], wanted: list[str]) -> Iterator[Document]:
        for one in projects:
            if _has(wanted, one["name"], one["description"]):
                yield _told("project", one["name"], one["name"], f"p/{one['name']}", one["description"])

    def _models(self, caller: Caller, projects: list[Document], wanted: list[str]) -> Iterator[Document]:
        for name, record in self._every(caller, projects, "models"):
            model = record.data
            if _has(wanted, f"{name}/{model['name']}", model.get("description", "")):
                yield _told("model", name, model["name"], f"p/{name}/{model['name']}", model.get("description", ""))

    def _runs(self, caller: Caller, projects: list[Document], wanted: list[str]) -> Iterator[Document]:
        for name, record in self._every(caller, projects, "runs"):
            run = record.data
            params = _params(run.get("params", {}))
            if _has(wanted, run["name"], record.id, run.get("author", ""), params):
                yield _told("run", name, run["name"], f"p/{name}/-/runs/{record.id}", params)

    def _versions(self, caller: Caller, projects: list[Document], wanted: list[str]) -> Iterator[Document]:
        models: dict[str, str] = {}
        for _, record in self._every(caller, projects, "models"):
            models[record.id] = record.data["name"]
        for name, record in self._every(caller, projects, "versions"):
            version = record.data
            # Skip contributions, and versions in the trash.
            if version.get("contribution") or version["model"] not in models:
                continue
            called = f"{models[version['model']]} v{version['number']}"
            params = _params(version.get("params", {}))
            if _has(wanted, called, version["message"], version["author"], params):
                url = f"p/{name}/{models[version['model']]}@v{version['number']}"
                yield _told("version", name, called, url, version["message"] or params)

    def _every(self, caller: Caller, projects: list[Document], kind: str) -> Iterator[tuple[str, Record]]:
        for one in projects:
            home = self._catalog.find_project(caller, one["name"])
            for record in self._records.find(home.id, kind, newest_first=True):
                cancellation.check()
                yield home.data["name"], record


def _has(wanted: list[str], *texts: str) -> bool:
    text = "\n".join(text[:_TEXT] for text in texts).lower()
    return all(word in text for word in wanted)


def _params(params: dict[str, Any]) -> str:
    return ", ".join(f"{key}={str(value)[:_TEXT]}" for key, value in islice(params.items(), _PARAMS))


def _told(kind: str, project: str, name: str, url: str, words: str) -> Document:
    return {
        "kind": kind,
        "project": project,
        "name": name,
        "url": url,
        "words": " ".join(words[: 4 * _CUT].split())[:_CUT],
    }
