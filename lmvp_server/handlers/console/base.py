"""What the pages of the console share: who may look, forms that do something, and what is shown when they cannot."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias
from urllib.parse import quote

from lmvp.errors import InvalidRequest, LmvpError, NotAuthenticated, NotFound
from lmvp.render import numbers
from lmvp.render.words import clean
from lmvp_server.console import marks
from lmvp_server.handlers.pages import Page as WebPage
from lmvp_server.services import access

Fields: TypeAlias = dict[str, str]
Shown: TypeAlias = tuple[str, dict[str, Any]]
"""The template of a page, and what it draws."""

RIGHTS = ("PROPOSE", "ALIAS", "WRITE", "MAINTAIN", "OWN")


class ConsolePage(WebPage, ABC):
    """A page of the console.

    Who may not see it is led to the page to sign in, and back. A form says in `do` what it is for; what cannot be done
    is told on the same page, with what was typed.
    """

    framed = True
    acts: ClassVar[frozenset[str]] = frozenset()
    """What a form may say in `do`: the name of the method that does it, which returns where to go then."""

    @abstractmethod
    def look(self, *place: str) -> Shown:
        """Return what there is to see; runs off the loop."""

    async def get(self, *place: str) -> None:
        """Show the page."""
        await self._draw(place)

    async def post(self, *place: str) -> None:
        """Do what a form asks for."""
        fields = self.form()
        name = fields.get("do", "")
        if name not in self.acts:
            raise InvalidRequest("this form does nothing here", hint="load the page again")
        act: Callable[..., str] = getattr(self, name)
        try:
            where = await self.run(act, fields, *place)
        except NotAuthenticated:
            self._to_login()
        except LmvpError as error:
            self.set_status(error.http_status)
            await self._draw(place, wrong=error, typed=fields)
        else:
            await self.done(where, place)

    async def done(self, where: str, place: tuple[str, ...]) -> None:  # noqa: ARG002 - some pages show more
        """Lead to where something was done to: loading that again does nothing twice."""
        self.set_status(303)
        self.set_header("Location", self.root + where)
        self.finish()

    def rights(self, project: str) -> dict[str, bool]:
        """Return which of the rights in a project the caller has, to show what can be done."""
        return {name: self.caller.may(getattr(access, name), project) for name in RIGHTS}

    async def _draw(self, place: tuple[str, ...], **more: Any) -> None:
        try:
            template, fields = await self.run(self.look, *place)
        except NotAuthenticated:
            self._to_login()
            return
        common = {"marks": marks, "numbers": numbers, "clean": clean, "wrong": None, "typed": {}}
        self.show(template, **{**common, **fields, **more})

    def _to_login(self) -> None:
        self.set_status(303)
        here = quote(self.request.path.lstrip("/"), safe="/@")
        self.set_header("Location", f"{self.root}login?next={here}")
        self.finish()


class NoSuchPage(WebPage):
    """Answers below `/p` for what is no page."""

    async def get(self, *_place: str) -> None:
        """Say so."""
        raise NotFound("there is no such page", hint="the first page lists the projects")
