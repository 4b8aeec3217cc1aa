"""Base classes of console pages: access, forms that change something, and their errors."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias
from urllib.parse import quote

from lmvp.errors import Conflict, InvalidRequest, LmvpError, NotAuthenticated, NotFound, ProtectedAlias
from lmvp_server.services import access
from lmvp_server.web.base_page import WebPage, too_old
from lmvp_server.web.rendering import Job, Rendering

Fields: TypeAlias = dict[str, str]
PageContext: TypeAlias = tuple[str, dict[str, Any]]
"""The template of a page and its fields."""

# Passwords are never sent back to the browser. `_UNSEEN` also has the control fields of a form.
_SECRETS = frozenset({"password", "old", "new"})
_UNSEEN = _SECRETS | {"do", "was", "yes", "_xsrf"}
_IN_URLS = "/?#@%=&+,;:!$'()*~"
"""Characters that are not quoted in a URL, besides letters and digits. The name of a run can contain any characters."""
RIGHTS = ("PROPOSE", "ALIAS", "WRITE", "MAINTAIN", "OWN")


class ConsolePage(WebPage, ABC):
    """Base class of console pages.

    A user without access is redirected to the login page and back. The field `do` of a form names its action. If the
    action fails, the same page shows the error and keeps the input.
    """

    framed = True
    compressed = True
    actions: ClassVar[frozenset[str]] = frozenset()
    """Allowed values of the field `do`: names of methods that perform an action and return the page to redirect to."""

    @abstractmethod
    def context(self, *place: str) -> PageContext:
        """Return the template and its fields. This method runs in a thread.

        A field that is a `Job` is rendered in a worker process. The template gets the `Rendered` result.
        """

    async def get(self, *place: str) -> None:
        """Show the page."""
        await self._draw(place)

    async def post(self, *place: str) -> None:
        """Perform the action of a form."""
        fields = self.fields()
        if not self.is_ours(fields):
            self._stale(fields)
            return
        name = fields.get("do", "")
        if name not in self.actions:
            raise InvalidRequest("this form does nothing here", hint="load the page again")
        # Safe: `actions` lists the allowed names.
        act: Callable[..., str] = getattr(self, name)
        try:
            run = self.run_password if any(fields.get(one) for one in _SECRETS) else self.run
            where = await run(self._act, act, fields, *place)
        except NotAuthenticated:
            self._keep(fields, 401)
        except ProtectedAlias as question:  # not an error: the page asks, and its form repeats the action
            await self._tell(question, fields, place)
        except LmvpError as error:
            self.set_status(error.http_status)
            await self._tell(error, fields, place)
        else:
            await self.done(where, place)

    def _act(self, act: Callable[..., str], fields: Fields, *place: str) -> str:
        self.expire_caller()  # the form can have waited for a thread
        return act(fields, *place)

    async def done(self, where: str, place: tuple[str, ...]) -> None:  # noqa: ARG002 - some pages show more
        """Redirect to the changed object, so that a reload does not repeat the action."""
        self.set_status(303)
        self.set_header("Location", self.root + quote(where, safe=_IN_URLS))
        self.finish()

    def rights(self, project: str) -> dict[str, bool]:
        """Return the rights of the caller in a project, to show the possible actions."""
        return {name: self.caller.may(getattr(access, name), project) for name in RIGHTS}

    def _stale(self, fields: Fields) -> None:
        """Handle a form of another session: the user can submit it again if a page of this server sent it."""
        if not self.is_of_this_origin():
            raise too_old()
        self._keep(fields, 403 if self.caller.known else 401)

    async def _tell(self, error: LmvpError, fields: Fields, place: tuple[str, ...]) -> None:
        """Show an error on the page of the form, or on a separate page if that one is not found. The input is kept."""
        try:
            await self._draw(place, wrong=error, typed=fields)
        except LmvpError as gone:
            self._keep(fields, gone.http_status, gone)

    def _keep(self, fields: Fields, status: int, wrong: LmvpError | None = None) -> None:
        """Show the input of a form, so that it can be submitted again after signing in. Passwords are not shown."""
        typed = {name: value for name, value in fields.items() if name not in _UNSEEN}
        # `was` stays the digest of the old text, so that the repeated form still detects concurrent changes.
        hidden = {name: fields[name] for name in ("do", "was") if name in fields}
        # A form with a password cannot be repeated without entering it again.
        complete = not _SECRETS & fields.keys()
        self.set_status(status)
        here = self.request.path.lstrip("/")
        self.show("again.html", typed=typed, kept=hidden, complete=complete, here=here, wrong=wrong)

    async def _draw(self, place: tuple[str, ...], **more: Any) -> None:
        try:
            template, fields = await self.run_costly(self.context, *place)
        except NotAuthenticated:
            self._to_login()
            return
        rendering: Rendering = self.settings["rendering"]
        for name, value in fields.items():
            if isinstance(value, Job):  # awaited here, so that no request thread waits for a worker
                fields[name] = await rendering.render(value)
            elif isinstance(value, list) and value and isinstance(value[0], Job):
                fields[name] = [await rendering.render(job) for job in value]
        await self.show_large(template, **{"wrong": None, "typed": {}, **fields, **more})

    def _to_login(self) -> None:
        self.set_status(303)
        here = quote(self.request.path.lstrip("/"), safe="/@")
        self.set_header("Location", f"{self.root}login?next={here}")
        self.finish()


def mark(text: str) -> str:
    """Return the digest of a text when editing begins, to detect concurrent changes."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def see_that_it_is_unchanged(fields: Fields, text: str) -> None:
    """Check that a text did not change since a form was shown. The form has its digest in the field `was`.

    Raises
    ------
    Conflict
        If another user changed the text.
    """
    if fields.get("was") != mark(text):
        raise Conflict("somebody else has changed it since you began", hint="what you typed is still here; look first")


class UnknownPage(WebPage):
    """Handler of unknown pages below `/p`."""

    async def get(self, *_place: str) -> None:
        """Raise NotFound."""
        raise NotFound("there is no such page", hint="the first page lists the projects")
