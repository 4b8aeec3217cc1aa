"""The page of a model: history, aliases and model card."""

from __future__ import annotations

from typing import ClassVar

from lmvp import hints
from lmvp.core.schemas import ModelChange
from lmvp.errors import NotFound
from lmvp.views.metric_plot import plot_html
from lmvp.views.snippets import pull_code
from lmvp_server.services.paging import Page
from lmvp_server.web import histories
from lmvp_server.web.pages.base import (
    ConsolePage,
    Fields,
    PageContext,
    mark,
    see_that_it_is_unchanged,
)
from lmvp_server.web.rendering import Job
from lmvp_server.web.source import record
from lmvp_server.web.widget_embed import island


class ModelPage(ConsolePage):
    """`/p/{project}/{model}`."""

    actions: ClassVar[frozenset[str]] = frozenset({"rollback", "unalias", "describe", "remove"})

    def context(self, project: str, model: str) -> PageContext:  # type: ignore[override]
        """Return one page of the history of a model."""
        services, caller = self.services, self.caller
        about = services.catalog.model(caller, project, model)
        project, model = about["project"], about["name"]
        cursor = Page.parse(None, self.get_query_argument("before", None)).cursor
        aliases = services.aliases.of_model(caller, project, model)["items"]
        history = histories.history(services, caller, project, model, cursor)
        return "model.html", {
            "model": about,
            "aliases": [services.aliases.alias(caller, project, model, one["name"]) for one in aliases],
            "history": history,
            "pull": self._pull(project, model),
            "card": Job("card", about["description"]),
            "plot": self._plot(project, model) if cursor is None else "",
            "first": cursor is None,
            "server": self.address_of_server(),
            "may": self.rights(project),
            "was": mark(about["description"]),
        }

    def _pull(self, project: str, model: str) -> dict[str, str]:
        """Return code that pulls the newest version, for each environment; empty without a version."""
        try:
            newest = record(self.services.versions.version(self.caller, project, model, "latest"))
        except NotFound:
            return {}
        return {
            form: pull_code(newest, form, name=f"{project}/{model}")
            for form in (hints.MAGIC, hints.PYTHON, hints.SHELL)
        }

    def _plot(self, project: str, model: str) -> str:
        """Return a plot of a metric over all versions; empty if fewer than two versions have it."""
        metric = self.get_query_argument("metric", None)
        data = histories.plot(self.services, self.caller, project, model, metric)
        return island(self.root, "metrics", data, plot_html(data)) if len(data["points"]) > 1 else ""

    def rollback(self, fields: Fields, project: str, model: str) -> str:
        """Move an alias back to the version before its last move."""
        name = fields.get("alias", "")
        before = f"{name}@{{1}}"
        # A protected alias needs a confirmation: the form repeats its name in `yes`.
        if fields.get("yes") != name:
            self.services.aliases.check_move(self.caller, project, model, name, before)
        self.services.aliases.move(self.caller, project, model, name, before)
        return f"p/{project}/{model}"

    def unalias(self, fields: Fields, project: str, model: str) -> str:
        """Remove an alias."""
        name = fields.get("alias", "")
        if fields.get("yes") != name:
            self.services.aliases.check_move(self.caller, project, model, name, None)
        self.services.aliases.remove(self.caller, project, model, name)
        return f"p/{project}/{model}"

    def describe(self, fields: Fields, project: str, model: str) -> str:
        """Update the model card, unless another user changed it meanwhile."""
        about = self.services.catalog.model(self.caller, project, model)
        see_that_it_is_unchanged(fields, about["description"])
        words = fields.get("description", "").replace("\r\n", "\n").strip()
        self.services.retention.change_model(self.caller, project, model, ModelChange(description=words))
        return f"p/{project}/{model}"

    def remove(self, _fields: Fields, project: str, model: str) -> str:
        """Remove the model. It can be restored from the trash."""
        self.services.trash.remove_model(self.caller, project, model)
        return f"p/{project}/-/removed"
