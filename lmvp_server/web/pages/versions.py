"""The page of a version, and of a contribution with its review form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec

from lmvp.core import number_format
from lmvp.core.sanitize import clean_code
from lmvp.core.schemas import Contribution
from lmvp.core.schemas import Version as VersionRecord
from lmvp.core.schemas.models import version_facts
from lmvp.errors import NotFound
from lmvp.views import _text
from lmvp.views.code_diff import cells_of
from lmvp.views.diff import diff_data
from lmvp.views.snippets import comment, pull_code
from lmvp.views.version import show, showing_data
from lmvp_server.services.files import parts
from lmvp_server.services.paging import Page
from lmvp_server.web import code, versions
from lmvp_server.web.pages.base import ConsolePage, Fields, PageContext
from lmvp_server.web.rendering import Job
from lmvp_server.web.source import ServiceSource, record
from lmvp_server.web.widget_embed import island

CHOICES = 200
"""Number of versions to choose from for a comparison."""

_CELLS = 100
"""Maximum number of code cells on a page."""

_SAID = frozenset({"message", "aliases", "metrics", "params", "tags", "parents", "digest"})
"""Facts that the page shows in a separate place."""


class DiffPage(ConsolePage):
    """`/p/{project}/{model}/-/diff?from=…&to=…`."""

    def context(self, project: str, model: str) -> PageContext:  # type: ignore[override]
        """Return the differences between two versions."""
        services, caller = self.services, self.caller
        about = services.catalog.model(caller, project, model)
        project, model = about["project"], about["name"]
        after = self._named(model, self.get_query_argument("to", "latest"))
        before = self._named(model, self.get_query_argument("from", "") or self._parent(project, *after))
        limit = versions.tensors_limit(caller)
        found = versions.diff(services, caller, project, before, after)
        against = f"{found.before.model}@{found.before.name}"
        there = f"{self.root}p/{project}/{found.after.model}@{found.after.name}/-/histograms?against={against}"
        some = services.versions.of_model(caller, project, model, Page(CHOICES))["items"]
        return "diff.html", {
            "model": about,
            "diff": found,
            "cut": limit if len(found.tensors) >= limit else 0,
            "island": island(self.root, "diff", diff_data(found), found._repr_html_(), histograms=there),
            "names": [f"v{one['number']}" for one in some],
        }

    def _named(self, model: str, given: str) -> tuple[str, str]:
        """Parse a revision (`v3`, `production`) or a version of another model of the project (`cnn@v2`)."""
        other, _, revision = given.rpartition("@")
        return other or model, revision

    def _parent(self, project: str, model: str, revision: str) -> str:
        """Return the first parent of a version, or without parents the version before it."""
        found = record(self.services.versions.version(self.caller, project, model, revision))
        if found.parents:
            return f"{model}@{found.parents[0].digest}"
        return f"{model}@v{max(1, found.number - 1)}"


class VersionPage(ConsolePage):
    """`/p/{project}/{model}@{revision}`."""

    actions: ClassVar[frozenset[str]] = frozenset({"accept", "decline", "withdraw", "comment", "alias", "remove"})

    def context(self, project: str, model: str, revision: str) -> PageContext:  # type: ignore[override]
        """Return the facts of a version, its origin, its changes and its files."""
        services, caller = self.services, self.caller
        source = ServiceSource(services, caller)
        fields: dict[str, Any]
        deleted = services.contributions.deleted(caller, project, model, revision)
        if deleted is not None:
            version = record(deleted["version"])
            fields = {"version": version, "may": self.rights(version.project), "layers": None}
            return "contribution.html", {**fields, **self._contribution(version)}
        found = services.versions.version(caller, project, model, revision)
        version = record(found)
        _, manifest = services.versions.content(caller, project, model, revision)
        strip = source.layers(version)
        fields = {
            "version": version,
            "may": self.rights(version.project),
            "layers": strip,
            "facts": [fact for fact in version_facts(version) if fact[0] not in _SAID],
            "files": manifest.files,
            "pull": pull_code(version),
            "into": comment(version),
        }
        if version.status:
            return "contribution.html", {**fields, **self._contribution(version)}
        limit = versions.tensors_limit(caller)
        # The page shows at most `limit` tensors, and states it if there are more.
        showing = show(source, version, strip)
        there = f"{self.root}p/{version.project}/{version.model}@{version.name}/-/histograms"
        told = {**showing_data(versions.shown_part(showing, limit), card=False), "only": "tensors"}
        return "version.html", {
            **fields,
            "children": showing.children,
            "parameters": showing.parameters,
            "cut": limit if len(showing.tensors) > limit else 0,
            "tensors": island(self.root, "model", told, "", histograms=there) if manifest.tensors else "",
            "cells": code_cells(version.environment),
            "run": self._run(version),
        }

    def _run(self, version: VersionRecord) -> dict[str, Any] | None:
        """Return the run that created a version, if it exists."""
        try:
            return self.services.runs.run(self.caller, version.project, version.run) if version.run else None
        except NotFound:
            return None

    def _contribution(self, version: VersionRecord) -> dict[str, Any]:
        """Return the fields of a contribution, compared with the newest version."""
        services, caller, project, model = self.services, self.caller, version.project, version.model
        one = services.contributions.one(caller, project, model, version.name)
        about = services.catalog.model(caller, project, model)
        try:
            found = services.versions.version(caller, project, model, "latest")
            newest: VersionRecord | None = record(found)
        except NotFound:
            newest = None
        return {
            "one": msgspec.convert(one, Contribution),
            "newest": newest,
            "next": max(about["latest"], about.get("last", 0)) + 1,
            "require": about.get("require", ""),
            "metrics": _beside(newest, version),
            "own": version.author == caller.name,
        }

    # -- actions of forms

    def accept(self, fields: Fields, project: str, model: str, revision: str) -> str:
        """Accept a contribution as the next version, with a comment for its author."""
        contributions, words = self.services.contributions, fields.get("words", "")
        done = contributions.accept(self.caller, project, model, revision)
        if words.strip():  # after accepting: a repeated attempt must not repeat the comment
            contributions.comment(self.caller, project, model, revision, words)
        return f"p/{project}/{model}@v{done['accepted']}"

    def decline(self, fields: Fields, project: str, model: str, revision: str) -> str:
        """Decline a contribution with a reason."""
        self.services.contributions.decline(self.caller, project, model, revision, fields.get("words", ""))
        return f"p/{project}/{model}@{revision}"

    def withdraw(self, _fields: Fields, project: str, model: str, revision: str) -> str:
        """Withdraw a contribution of the caller."""
        self.services.contributions.withdraw(self.caller, project, model, revision)
        return f"p/{project}/{model}@{revision}"

    def comment(self, fields: Fields, project: str, model: str, revision: str) -> str:
        """Add a comment to a contribution."""
        self.services.contributions.comment(self.caller, project, model, revision, fields.get("words", ""))
        return f"p/{project}/{model}@{revision}"

    def alias(self, fields: Fields, project: str, model: str, revision: str) -> str:
        """Point an alias at this version."""
        name = fields.get("name", "").strip()
        # A protected alias needs a confirmation: the form repeats its name in `yes`.
        if fields.get("yes") != name:
            self.services.aliases.check_move(self.caller, project, model, name, revision)
        self.services.aliases.move(self.caller, project, model, name, revision)
        return f"p/{project}/{model}@{revision}"

    def remove(self, _fields: Fields, project: str, model: str, revision: str) -> str:
        """Remove the version. It can be restored from the trash."""
        self.services.trash.remove_version(self.caller, project, model, revision)
        return f"p/{project}/{model}"


class FilePage(ConsolePage):
    """`/p/{project}/{model}@{revision}/-/view/{path}`."""

    def context(self, project: str, model: str, revision: str, path: str) -> PageContext:  # type: ignore[override]
        """Return a file as text, or a notice if it is not a text file."""
        services = self.services
        version = record(services.versions.version(self.caller, project, model, revision))
        space, file = services.files.file(self.caller, project, model, revision, path)
        end = min(file.size, code.LIMIT)
        data = b"".join(services.files.read(space, part) for part in parts(file.chunks, 0, end))
        words = code.as_text(data, whole=end == file.size)
        return "file.html", {
            "version": version,
            "file": file,
            "words": None if words is None else Job("code", words, path.rpartition("/")[2]),
            "cut": end < file.size,
        }


def _beside(before: VersionRecord | None, after: VersionRecord) -> list[tuple[str, str, str, str, int]]:
    """Return rows of key, before, after, difference and rating: 1 is better, -1 is worse, 0 is neither."""
    old = before.metrics if before else {}
    rows = []
    for key in dict.fromkeys([*after.metrics, *old]):
        a, b = _text.value_of(before, key) if before else None, _text.value_of(after, key)
        was, now, step = number_format.pair(a, b)
        sign = 0 if a is None or b is None or a == b else (1 if b > a else -1) * number_format.better(key)
        rows.append((key, was, now, step, sign))
    return rows


def code_cells(environment: Mapping[str, Any]) -> list[Job]:
    """Return the recorded code of a version or run as highlighted blocks, one per cell; only the newest cells."""
    found = cells_of(environment)[-_CELLS:]
    return [Job("code", "\n".join(map(clean_code, cell.splitlines())), "code.py") for cell in found]
