"""Handlers of accounts, groups and members."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from lmvp.core.schemas import (
    NewUser,
    SetGroup,
    SetRole,
    UserChange,
)
from lmvp_server.api.base import Handler
from lmvp_server.api.query import PAGE, Parameter
from lmvp_server.services import access


class Me(Handler):
    """`/me`."""

    async def get(self) -> None:
        """Return the caller's account."""
        self.answer(await self.run(self.services.users.me, self.caller))


class UserList(Handler):
    """`/users`."""

    queries: ClassVar[Mapping[str, tuple[Parameter[Any], ...]]] = {"GET": PAGE}
    needs: ClassVar[Mapping[str, str]] = {"POST": access.ADMIN}

    async def get(self) -> None:
        """List the accounts."""
        self.answer(await self.run(self.services.users.every, self.caller, self.page()))

    async def post(self) -> None:
        """Create an account."""
        new = self.read(NewUser)
        run = self.run_password if new.password or new.current_password else self.run
        self.answer(await run(self.services.users.add, self.caller, new), 201)


class User(Handler):
    """`/users/{user}`."""

    needs: ClassVar[Mapping[str, str]] = {"PATCH": access.ENTER}

    async def patch(self, user: str) -> None:
        """Update an account: disable or enable it, change whether it is an admin, or set its password."""
        change = self.read(UserChange)
        run = self.run_password if change.password or change.current_password else self.run
        self.answer(await run(self.services.users.change, self.caller, user, change))


class GroupList(Handler):
    """`/groups`."""

    async def get(self) -> None:
        """List the groups."""
        self.answer(await self.run(self.services.members.groups, self.caller))


class Group(Handler):
    """`/groups/{group}`."""

    needs: ClassVar[Mapping[str, str]] = {"PUT": access.ADMIN}

    async def put(self, group: str) -> None:
        """Set the members of a group; create the group if necessary."""
        users = self.read(SetGroup).users
        self.answer(await self.run(self.services.members.set_group, self.caller, group, users))

    async def delete(self, group: str) -> None:
        """Delete a group."""
        await self.run(self.services.members.remove_group, self.caller, group)
        self.set_status(204)
        self.finish()


class MemberList(Handler):
    """`/projects/{project}/members`."""

    async def get(self, project: str) -> None:
        """List the members of a project."""
        self.answer(await self.run(self.services.members.of_project, self.caller, project))


class Member(Handler):
    """`/projects/{project}/members/{member}`."""

    needs: ClassVar[Mapping[str, str]] = {"PUT": access.OWN}

    async def put(self, project: str, member: str) -> None:
        """Set the role of a member; add the member if necessary."""
        role = self.read(SetRole).role
        self.answer(await self.run(self.services.members.set_member, self.caller, project, member, role))

    async def delete(self, project: str, member: str) -> None:
        """Remove a member from a project."""
        await self.run(self.services.members.remove, self.caller, project, member)
        self.set_status(204)
        self.finish()
