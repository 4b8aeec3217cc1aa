"""The first page: projects and their models; and the files that pages need."""

from __future__ import annotations

from typing import Any

from tornado.web import StaticFileHandler

from lmvp.errors import AccessDenied, NotAuthenticated
from lmvp_server.handlers.hosts import foreign_host
from lmvp_server.handlers.pages import Page as WebPage
from lmvp_server.services.paging import Page

MODELS = 200


class Home(WebPage):
    """`/`."""

    framed = True

    async def get(self) -> None:
        """Show what there is, to those who may see any of it."""
        try:
            projects = await self.run(self._projects)
        except NotAuthenticated:
            self.go("login")
        else:
            self.show("home.html", projects=projects)

    def _projects(self) -> list[dict[str, Any]]:
        every = self.services.catalog.projects(self.caller, Page(MODELS))["items"]
        return [{**project, "list": self._models(project["name"])} for project in every]

    def _models(self, project: str) -> list[dict[str, Any]]:
        models = self.services.catalog.models(self.caller, project, Page(MODELS))["items"]
        return [{**model, "newest": self._newest(project, model)} for model in models]

    def _newest(self, project: str, model: dict[str, Any]) -> dict[str, Any] | None:
        if not model["latest"]:
            return None
        return dict(self.services.versions.version(self.caller, project, model["name"], str(model["latest"])))


class StaticFile(StaticFileHandler):
    """`/static/…`: styles and scripts of ours, the same for everybody."""

    def prepare(self) -> None:
        """Answer for the hosts that this server has."""
        if foreign_host(self.request, self.settings["server"]):
            raise AccessDenied("this server does not answer for that host")

    def set_extra_headers(self, path: str) -> None:  # noqa: ARG002 - as Tornado calls it
        """Let nobody guess what a file is."""
        self.set_header("X-Content-Type-Options", "nosniff")
