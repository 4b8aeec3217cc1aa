"""Pages for administrators: accounts, groups, storage and the audit log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import msgspec

from lmvp.core.sanitize import short
from lmvp.core.schemas import NewUser, UserChange
from lmvp.errors import InvalidArgument, InvalidRequest
from lmvp_server.services import access
from lmvp_server.services.audit import Filter
from lmvp_server.services.paging import Page
from lmvp_server.web.pages.base import ConsolePage, Fields, PageContext

USERS, EVENTS = 1000, 200
LINES = "application/x-ndjson"


class AdminPage(ConsolePage):
    """Base class of pages for admins, with the tabs."""

    tab = ""

    def common(self) -> dict[str, Any]:
        """Return the fields that all admin pages need.

        Raises
        ------
        NotAuthenticated, AccessDenied
            If the caller is not an admin.
        """
        access.require(self.caller, access.ADMIN)
        pages = [("Accounts", ""), ("Groups", "/groups"), ("Storage", "/storage"), ("Audit log", "/audit")]
        pages += [("Settings", "/settings")]
        return {"tabs": [(words, f"admin{path}", None, words == self.tab) for words, path in pages]}


class UsersPage(AdminPage):
    """`/admin`."""

    tab = "Accounts"
    actions: ClassVar[frozenset[str]] = frozenset(
        {"add", "disable", "enable", "make_admin", "make_user", "set_password", "disconnect"}
    )

    def initialize(self) -> None:
        """Initialize the state of a request."""
        super().initialize()
        self._said = ""

    def context(self) -> PageContext:  # type: ignore[override]
        """Return the accounts and their identities."""
        common = self.common()
        identities = self.services.identities.every(self.caller, Page(USERS))
        found = self.services.users.every(self.caller, Page(USERS))
        return "users.html", {
            **common,
            "users": found["items"],
            "total": found["total"],
            "identities": identities["items"],
            "identities_total": identities["total"],
            "short": short,
            "said": self._said,
            "must_prove": not (self.caller.is_operator or self.caller.is_fresh),
        }

    def add(self, fields: Fields) -> str:
        """Create an account. Without a password, it can use only tokens."""
        new = NewUser(name=fields.get("name", "").strip(), password=fields.get("password", ""))  # never an admin
        self.services.users.add(self.caller, new)
        return "admin"

    def disable(self, fields: Fields) -> str:
        """Disable an account; its tokens, sessions, invitations and identities are deleted."""
        return self._change(fields, UserChange(disabled=True))

    def enable(self, fields: Fields) -> str:
        """Enable an account; what was deleted when it was disabled is not restored."""
        return self._change(fields, UserChange(disabled=False))

    def make_admin(self, fields: Fields) -> str:
        """Make an account an admin."""
        return self._change(fields, UserChange(admin=True, current_password=fields.get("old", "")))

    def make_user(self, fields: Fields) -> str:
        """Make an admin an ordinary account."""
        return self._change(fields, UserChange(admin=False))

    def set_password(self, fields: Fields) -> str:
        """Set the password of a user who forgot it."""
        given = UserChange(
            password=fields.get("password", ""),
            current_password=fields.get("old", ""),
            keep_identities=fields.get("keep_identities") == "1",
        )
        return self._change(fields, given)

    def disconnect(self, fields: Fields) -> str:
        """Disconnect an identity from its account."""
        identities = self.services.identities
        identities.disconnect(self.caller, fields.get("identity", ""), self.issuer, fields.get("old", ""))
        return "admin"

    def _change(self, fields: Fields, given: UserChange) -> str:
        changed = self.services.users.change(self.caller, fields.get("name", "").strip(), given)
        if changed.ended is not None:
            self._said = f"{changed.name} is changed. Ended: {changed.ended}."
        return "admin"

    async def done(self, where: str, place: tuple[str, ...]) -> None:
        """Show which tokens and sessions a change closed."""
        if self._said:
            await self._draw(place)
        else:
            await super().done(where, place)


class GroupsPage(AdminPage):
    """`/admin/groups`."""

    tab = "Groups"
    actions: ClassVar[frozenset[str]] = frozenset({"set_group", "remove_group"})

    def context(self) -> PageContext:  # type: ignore[override]
        """Return the groups and their members."""
        return "groups.html", {**self.common(), "groups": self.services.members.groups(self.caller)["items"]}

    def set_group(self, fields: Fields) -> str:
        """Set the members of a group; create the group if necessary."""
        names = tuple(fields.get("users", "").replace(",", " ").split())
        self.services.members.set_group(self.caller, fields.get("name", "").strip().removeprefix("@"), names)
        return "admin/groups"

    def remove_group(self, fields: Fields) -> str:
        """Delete a group."""
        self.services.members.remove_group(self.caller, fields.get("name", ""))
        return "admin/groups"


class StoragePage(AdminPage):
    """`/admin/storage`."""

    tab = "Storage"

    def initialize(self) -> None:
        """Initialize the state of a request."""
        super().initialize()
        self._result: Any = None

    def context(self) -> PageContext:  # type: ignore[override]
        """Return the storage usage and the result of the last action."""
        common = self.common()
        usage = self.services.usage.of_server(self.caller)
        return "storage.html", {**common, "usage": usage, "outcome": self._result}

    async def post(self, *place: str) -> None:
        """Run gc, compaction or fsck. A script gets progress lines; without JavaScript, the page is sent at the end."""
        fields = self.form()
        works: dict[str, Callable[[Callable[[int, int], None]], Any]] = {
            "gc": lambda _: self.services.trash.collect(self.caller, removed=fields.get("removed") == "1"),
            "compact": lambda _: self.services.upkeep.compact(self.caller),
            "fsck": lambda tell: self.services.fsck.check(self.caller, False, tell, ()),
        }
        if fields.get("do", "") not in works:
            raise InvalidRequest("this form does nothing here", hint="load the page again")
        work = works[fields["do"]]
        # Only the script requests JSON lines.
        if LINES in self.request.headers.get("Accept", ""):
            await self.answer_slowly(work)
            return
        self._result = (fields["do"], msgspec.to_builtins(await self.run(work, lambda *_: None)))
        await self._draw(place)


class AuditLogPage(AdminPage):
    """`/admin/audit?project=…&who=…&action=…&what=…&since=…&until=…`."""

    tab = "Audit log"

    def context(self) -> PageContext:  # type: ignore[override]
        """Return the requested audit log entries, of the server or of a project, newest first."""
        common = self.common()
        names = ("who", "action", "what", "since", "until")
        asked = {name: self.get_query_argument(name, "").strip() for name in names}
        project = self.get_query_argument("project", "").strip()
        cursor = Page.parse(None, self.get_query_argument("before", None)).cursor
        wrong: InvalidArgument | None = None
        found: dict[str, Any] = {"items": [], "next": None, "total": 0}
        audit = self.services.audit
        try:
            wanted, page = Filter(**asked), Page(EVENTS, cursor)
            found = (
                audit.of_project(self.caller, project, page, wanted)
                if project
                else audit.of_server(self.caller, page, wanted)
            )
        except InvalidArgument as error:
            wrong = error
            self.set_status(error.http_status)
        # The page shows the head of the log, so that it can be stored elsewhere and compared later.
        heads = audit.heads(self.caller)["items"]
        head = next((one for one in heads if one.name.lower() == project.lower()), None)
        return "audit.html", {
            **common,
            "asked": asked,
            "project": project,
            "found": found,
            "head": head,
            "projects": [one.name for one in heads if one.name],
            **({"wrong": wrong} if wrong else {}),
        }
