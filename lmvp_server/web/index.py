"""Handlers of the index page, which lists projects and models, and of static files."""

from __future__ import annotations

from typing import Any

from tornado.web import StaticFileHandler

from lmvp.errors import AccessDenied, NotAuthenticated, NotFound
from lmvp_server.api.errors import as_lmvp, log_failure
from lmvp_server.http.compression import may_compress
from lmvp_server.http.host_check import foreign_host
from lmvp_server.services import access
from lmvp_server.services.paging import Page
from lmvp_server.web import activity
from lmvp_server.web.base_page import WebPage

PROJECTS, MODELS, RECENT = 100, 200, 50
OPENED, SHOWN = 20, 8
"""Maximum number of projects with models on the index page, and of models per project. Their own pages list all."""
WAITING, LINES = 5, 12


class HomePage(WebPage):
    """`/`."""

    framed = True
    compressed = True

    async def get(self) -> None:
        """Show the projects and models that the caller can read."""
        try:
            shown = await self.run_costly(self._look)
        # A server without public projects shows the login page first.
        except NotAuthenticated:
            self.go("login")
        else:
            await self.show_large("home.html", **shown)

    def _look(self) -> dict[str, Any]:
        found = self.services.catalog.projects(self.caller, Page(PROJECTS))
        names = [one["name"] for one in found["items"]]
        return {
            "projects": [{**one, **self._models(one["name"])} for one in found["items"][:OPENED]],
            "others": names[OPENED:],
            "total": found["total"],
            "waiting": [one for name in names for one in self._waiting(name)],
            "feed": self._recent_activity(names),
            "connectable": self._connectable(),
            "server": self.address_of_server(),
        }

    def _connectable(self) -> bool:
        """Return whether the caller can connect their account to the OpenID provider."""
        user = self.caller.user if self.settings["openid"] else ""
        return bool(user) and not self.services.identities.is_connected(user)

    def _models(self, project: str) -> dict[str, Any]:
        """Return the models of a project, sorted by their newest version."""
        found = self.services.catalog.models(self.caller, project, Page(MODELS))
        recent = self.services.versions.of_project(self.caller, project, Page(RECENT))["items"]
        order = {name: at for at, name in enumerate(dict.fromkeys(one["model"] for one in recent))}
        models = sorted(found["items"], key=lambda one: order.get(one["name"], len(order)))[:SHOWN]
        return {
            "list": [{**model, "newest": self._newest(project, model)} for model in models],
            "count": found["total"],
        }

    def _newest(self, project: str, model: dict[str, Any]) -> dict[str, Any] | None:
        if not model["latest"]:
            return None
        return dict(self.services.versions.version(self.caller, project, model["name"], str(model["latest"])))

    def _waiting(self, project: str) -> list[dict[str, Any]]:
        """Return the proposed contributions that the caller can accept."""
        if not self.caller.may(access.WRITE, project):
            return []
        found = self.services.contributions.of_project(self.caller, project, Page(WAITING), "proposed")["items"]
        return [{**one, "project": project} for one in found]

    def _recent_activity(self, projects: list[str]) -> list[activity.Entry]:
        """Return the most recent events of all projects."""
        lines = [entry for project in projects for entry in self._of_project(project)]
        return sorted(lines, key=lambda line: line.at, reverse=True)[:LINES]

    def _of_project(self, project: str) -> list[activity.Entry]:
        """Return the most recent events of a project."""
        # The feed omits some events, so more events than lines are read.
        found = self.services.audit.of_project(self.caller, project, Page(2 * LINES))["items"]
        return activity.entries(self.services, self.caller, project, found, self.root)[:LINES]


class StaticFile(StaticFileHandler):
    """`/static/…`: stylesheets and scripts, the same for all users."""

    def set_default_headers(self) -> None:
        """Hide the name of the server software and disable type sniffing, also in errors."""
        self.clear_header("Server")
        self.set_header("X-Content-Type-Options", "nosniff")

    def prepare(self) -> None:
        """Refuse a request for a foreign host."""
        if foreign_host(self.request, self.settings["server"]):
            raise AccessDenied("this server does not answer for that host")

    def validate_absolute_path(self, root: str, absolute_path: str) -> str | None:
        """Return the path of a file below `root`. An invalid path is not found."""
        try:
            return super().validate_absolute_path(root, absolute_path)
        except (ValueError, OSError):  # a NUL in the path, or a name that is too long
            raise NotFound("there is no such file") from None

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Send an error as plain text."""
        error = as_lmvp(status_code, kwargs.get("exc_info", (None, None, None))[1])
        self.set_status(error.http_status)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{error.message}\n")

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log server faults."""
        log_failure(self, typ, value, tb)

    def set_extra_headers(self, path: str) -> None:  # noqa: ARG002 - the signature is Tornado's
        """Disable type sniffing and allow compression."""
        self.set_header("X-Content-Type-Options", "nosniff")
        # Static files contain no secret.
        may_compress(self)
