"""Pages of a project: models, contributions, members, activity and trash."""

from __future__ import annotations

from typing import Any, ClassVar

from lmvp.core.schemas import Invite
from lmvp.errors import InvalidArgument
from lmvp_server.services.access import READ, ROLES
from lmvp_server.services.paging import Page
from lmvp_server.web import activity, histories
from lmvp_server.web.pages.base import ConsolePage, Fields, PageContext

MODELS, EVENTS, CONTRIBUTIONS = 50, 100, 100
LINES = 8
"""Number of events on the page of a project."""


class ProjectTabPage(ConsolePage):
    """Base class of the pages of a project, with the tabs."""

    tab = ""

    def common(self, project: str) -> dict[str, Any]:
        """Return the fields that all pages of a project need."""
        about = self.services.catalog.project(self.caller, project)
        name = about["name"]
        rights = self.rights(name)
        open_ = self.services.contributions.of_project(self.caller, name, Page(3), "proposed")
        runs = self.services.runs.count(self.caller, name)
        tabs = [
            ("Models", "", about["models"]),
            ("Runs", "/-/runs", runs),
            ("Contributions", "/-/contributions", open_["total"]),
        ]
        tabs += [("Members", "/-/members", None)] if self.caller.known else []
        tabs += [("Activity", "/-/activity", None)]
        tabs += [("Trash", "/-/removed", None)] if rights["MAINTAIN"] else []
        tabs += [("Settings", "/-/settings", None)] if rights["OWN"] else []
        shown = [(words, f"p/{name}{path}", count, words == self.tab) for words, path, count in tabs]
        return {"project": about, "may": rights, "tabs": shown, "proposed": open_["items"]}


class ProjectPage(ProjectTabPage):
    """`/p/{project}`."""

    tab = "Models"

    def context(self, project: str) -> PageContext:  # type: ignore[override]
        """Return the models of a project and its recent events."""
        common = self.common(project)
        name = common["project"]["name"]
        cursor = Page.parse(None, self.get_query_argument("after", None)).cursor
        found = self.services.catalog.models(self.caller, name, Page(MODELS, cursor))
        # The feed omits some events, so more events than entries are read.
        events = self.services.audit.of_project(self.caller, name, Page(5 * LINES))
        rows = [histories.summary(self.services, self.caller, name, model) for model in found["items"]]
        versions = self.services.versions.of_project(self.caller, name, Page(1))["total"]
        lines = activity.entries(self.services, self.caller, name, events["items"], self.root)[:LINES]
        return "project.html", {
            **common,
            "models": rows,
            "total": found["total"],
            "first": cursor is None,
            "after": found["next"],
            "versions": versions,
            "feed": lines,
        }


class ContributionsPage(ProjectTabPage):
    """`/p/{project}/-/contributions`."""

    tab = "Contributions"

    def context(self, project: str) -> PageContext:  # type: ignore[override]
        """Return the contributions, newest first."""
        common = self.common(project)
        cursor = Page.parse(None, self.get_query_argument("before", None)).cursor
        name = common["project"]["name"]
        found = self.services.contributions.of_project(self.caller, name, Page(CONTRIBUTIONS, cursor))
        return "contributions.html", {**common, "found": found["items"], "older": found["next"]}


class MembersPage(ProjectTabPage):
    """`/p/{project}/-/members`."""

    tab = "Members"
    actions: ClassVar[frozenset[str]] = frozenset({"invite", "revoke", "set_role", "remove"})

    def initialize(self) -> None:
        """Initialize the state of a request."""
        super().initialize()
        self._link = ""

    def context(self, project: str) -> PageContext:  # type: ignore[override]
        """Return the members and their roles."""
        common = self.common(project)
        found = self.services.members.of_project(self.caller, common["project"]["name"])
        name = common["project"]["name"]
        owns = common["may"]["OWN"]
        invited = self.services.invitations.of_project(self.caller, name)["items"] if owns else []
        return "members.html", {
            **common,
            "members": found["items"],
            "roles": ROLES,
            "link": self._link,
            "invitations": invited,
        }

    def revoke(self, fields: Fields, project: str) -> str:
        """Revoke an invitation."""
        self.services.invitations.revoke(self.caller, fields.get("invitation", ""))
        return f"p/{project}/-/members"

    def invite(self, fields: Fields, project: str) -> str:
        """Create an invitation. Only this response shows its link."""
        days = fields.get("days", "7")
        if not (days.isascii() and days.isdigit() and len(days) < 4):
            raise InvalidArgument(f"{days[:20]!r} is not a number of days", hint="7, say")
        asked = Invite(project=project, role=fields.get("role", ""), days=int(days))
        made = self.services.invitations.create(self.caller, asked)
        # Not stored on the server, and shown only in the response to this POST.
        self._link = f"{self.address_of_server()}/join?code={made.secret}"
        return ""

    def set_role(self, fields: Fields, project: str) -> str:
        """Set the role of a member; add the member if necessary."""
        name = fields.get("name", "").strip()
        self.services.members.set_member(self.caller, project, name, fields.get("role", ""))
        return f"p/{project}/-/members"

    def remove(self, fields: Fields, project: str) -> str:
        """Remove a member. A user who leaves a private project can no longer see it."""
        self.services.members.remove(self.caller, project, fields.get("name", ""))
        return f"p/{project}/-/members" if self.caller.may(READ, project) else ""

    async def done(self, where: str, place: tuple[str, ...]) -> None:
        """Show the link of a new invitation, which cannot be shown again."""
        if self._link:
            await self._draw(place)
        else:
            await super().done(where, place)


class ActivityPage(ProjectTabPage):
    """`/p/{project}/-/activity`."""

    tab = "Activity"

    def context(self, project: str) -> PageContext:  # type: ignore[override]
        """Return the events, newest first."""
        common = self.common(project)
        cursor = Page.parse(None, self.get_query_argument("before", None)).cursor
        events = self.services.audit.of_project(self.caller, common["project"]["name"], Page(EVENTS, cursor))
        lines = activity.entries(self.services, self.caller, common["project"]["name"], events["items"], self.root)
        return "activity.html", {**common, "feed": lines, "older": events["next"], "total": events["total"]}


class TrashPage(ProjectTabPage):
    """`/p/{project}/-/removed`."""

    tab = "Trash"
    actions: ClassVar[frozenset[str]] = frozenset({"undelete"})

    def context(self, project: str) -> PageContext:  # type: ignore[override]
        """Return the objects in the trash."""
        common = self.common(project)
        return "removed.html", {**common, "items": self.services.trash.items_of_project(self.caller, project)["items"]}

    def undelete(self, fields: Fields, project: str) -> str:
        """Restore an object from the trash."""
        run = fields.get("name", "").partition("/runs/")[2]
        if run:
            self.services.runs.restore(self.caller, project, run)
            return f"p/{project}/-/runs/{run}"
        model, _, revision = fields.get("name", "").partition("/")[2].partition("@")
        if revision:
            self.services.trash.restore_version(self.caller, project, model, revision)
        else:
            self.services.trash.restore_model(self.caller, project, model)
        return f"p/{project}/{model}" + (f"@{revision}" if revision else "")
