"""Settings pages of a project (with its webhooks), a model and the server."""

from __future__ import annotations

from typing import ClassVar

import lmvp
from lmvp.core import number_format
from lmvp.core.schemas import (
    MadeWebhook,
    ModelChange,
    NewWebhook,
    Ping,
    ProjectChange,
)
from lmvp_server.services import access
from lmvp_server.services.access import ROLES
from lmvp_server.services.webhooks import EVENTS, Delivery
from lmvp_server.web.pages.admin import AdminPage
from lmvp_server.web.pages.base import (
    ConsolePage,
    Fields,
    PageContext,
    mark,
    see_that_it_is_unchanged,
)
from lmvp_server.web.pages.projects import ProjectTabPage

EVERYONE = ROLES[:-1]
"""Roles that a project can give to all accounts."""


class ProjectSettingsPage(ProjectTabPage):
    """`/p/{project}/-/settings`."""

    tab = "Settings"
    actions: ClassVar[frozenset[str]] = frozenset(
        {"describe", "set_access", "add_webhook", "remove_webhook", "enable_webhook", "test_webhook", "remove"}
    )

    def initialize(self) -> None:
        """Initialize the state of a request."""
        super().initialize()
        self._made: MadeWebhook | None = None
        self._delivery: Delivery | None = None
        self._ping: Ping | None = None

    def context(self, project: str) -> PageContext:  # type: ignore[override]
        """Return the settings of a project."""
        common = self.common(project)
        name = common["project"]["name"]
        access.require(self.caller, access.OWN, name)
        targets = self.settings["server"].webhook_to
        return "project_settings.html", {
            **common,
            "was": mark(common["project"]["description"]),
            "everyone": EVERYONE,
            "webhooks": self.services.webhooks.of_project(self.caller, name)["items"],
            "events": EVENTS,
            "reachable": bool(targets.names or targets.networks),
            "made": self._made,
            "ping": self._ping,
        }

    def describe(self, fields: Fields, project: str) -> str:
        """Update the description of a project, unless another user changed it meanwhile."""
        about = self.services.catalog.project(self.caller, project)
        see_that_it_is_unchanged(fields, about["description"])
        self._change(project, ProjectChange(description=" ".join(fields.get("description", "").split())))
        return self._here(project)

    def set_access(self, fields: Fields, project: str) -> str:
        """Set whether a project is public, and the role of all accounts."""
        given = ProjectChange(public=fields.get("public") == "1", everyone=fields.get("everyone", ""))
        self._change(project, given)
        return self._here(project)

    def add_webhook(self, fields: Fields, project: str) -> str:
        """Create a webhook. Only this response shows its secret."""
        new = NewWebhook(url=fields.get("url", "").strip(), events=tuple(fields.get("events", "").split()))
        self._made = self.services.webhooks.add(self.caller, project, new)
        return ""

    def remove_webhook(self, fields: Fields, project: str) -> str:
        """Delete a webhook."""
        self.services.webhooks.remove(self.caller, project, fields.get("webhook", ""))
        return self._here(project)

    def enable_webhook(self, fields: Fields, project: str) -> str:
        """Enable a disabled webhook and send its pending events."""
        self.services.webhooks.enable(self.caller, project, fields.get("webhook", ""))
        return self._here(project)

    def test_webhook(self, fields: Fields, project: str) -> str:
        """Select a test event for a webhook. `done` sends it and shows the result."""
        self._delivery = self.services.webhooks.test(self.caller, project, fields.get("webhook", ""))
        return ""

    def remove(self, _fields: Fields, project: str) -> str:
        """Remove the project. An admin can restore it from the trash."""
        self.services.trash.remove_project(self.caller, project)
        return ""

    async def done(self, where: str, place: tuple[str, ...]) -> None:
        """Show a secret, which cannot be shown again, or the result of a test."""
        # Sent here, because `test_webhook` runs in a thread and the HTTP client belongs to the event loop.
        if self._delivery is not None:
            status, error = await self.settings["notifier"].send(self._delivery)
            await self.run(self.services.webhooks.tested, self.caller, place[0], self._delivery, status, error)
            self._ping = Ping(status=status, error=error)
        if self._made or self._ping:
            await self._draw(place)
        else:
            await super().done(where, place)

    def _change(self, project: str, given: ProjectChange) -> None:
        self.services.members.change_project(self.caller, project, given)

    def _here(self, project: str) -> str:
        return f"p/{project}/-/settings"


class ModelSettingsPage(ConsolePage):
    """`/p/{project}/{model}/-/settings`."""

    actions: ClassVar[frozenset[str]] = frozenset({"set_rules"})

    def context(self, project: str, model: str) -> PageContext:  # type: ignore[override]
        """Return the rules of a model."""
        about = self.services.catalog.model(self.caller, project, model)
        access.require(self.caller, access.MAINTAIN, about["project"])
        return "model_settings.html", {"model": about}

    def set_rules(self, fields: Fields, project: str, model: str) -> str:
        """Set the retention rule, the requirement for contributions and the protected aliases."""
        given = ModelChange(
            keep=fields.get("keep", "").strip(),
            require=fields.get("require", "").strip(),
            protected=tuple(fields.get("protected", "").replace(",", " ").split()),
        )
        self.services.retention.change_model(self.caller, project, model, given)
        return f"p/{project}/{model}/-/settings"


class ServerSettingsPage(AdminPage):
    """`/admin/settings`: the options of the running server. They are read-only; a restart changes them."""

    tab = "Settings"

    def context(self) -> PageContext:  # type: ignore[override]
        """Return the settings of the server with their command-line options."""
        return "server_settings.html", {**self.common(), "rows": self._rows()}

    def _rows(self) -> list[tuple[str, str, str]]:
        """Return rows of setting, value and option."""
        server = self.settings["server"]
        targets = [*server.webhook_to.names, *map(str, server.webhook_to.networks)]
        provider = server.openid
        days = server.keep_removed.total_seconds() / 86400
        idle = server.idle_seconds
        return [
            ("Release", lmvp.__version__, ""),
            ("Data folder", str(server.data), "--data"),
            ("Host", server.host, "--host, --port"),
            ("Public URL", server.public_url or "none", "--public-url"),
            ("Trash is kept for", f"{days:g} days" if days else "no time", "--keep-removed"),
            ("Open pushes per account", f"{server.push_limits.count:,}", "--open-pushes"),
            ("Bytes of open pushes per account", number_format.size(server.push_limits.size), "--open-push-bytes"),
            ("Allowed webhook hosts", ", ".join(targets) or "none", "--webhook-to"),
            ("OpenID provider", (provider.name or provider.issuer) if provider else "none", "--openid"),
            ("Stops when idle for", f"{idle:g} s" if idle else "never", "--idle"),
        ]
