"""Accounts, groups and members."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from lmvp.records import NewUser, SetGroup, SetRole, UserChange
from lmvp_server.handlers.base import Handler
from lmvp_server.handlers.query import PAGE, Parameter
from lmvp_server.services import access


class Me(Handler):
    """`/me`."""

    async def get(self) -> None:
        """Return the account of whoever asks."""
        self.answer(await self.run(self.services.users.me, self.caller))


class UserList(Handler):
    """`/users`."""

    queries: ClassVar[Mapping[str, tuple[Parameter[Any], ...]]] = {"GET": PAGE}
    needs: ClassVar[Mapping[str, str]] = {"POST": access.ADMIN}

    async def get(self) -> None:
        """List the accounts."""
        self.answer(await self.run(self.services.users.every, self.caller, self.page()))

    async def post(self) -> None:
        """Make one."""
        new = self.read(NewUser)
        run = self.run_password if new.password or new.current_password else self.run
        self.answer(await run(self.services.users.add, self.caller, new), 201)


class User(Handler):
    """`/users/{user}`."""

    needs: ClassVar[Mapping[str, str]] = {"PATCH": access.ENTER}

    async def patch(self, user: str) -> None:
        """Disable or enable it, make it an admin, or set its password."""
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
        """Say who is in it; make it if it is new."""
        users = self.read(SetGroup).users
        self.answer(await self.run(self.services.members.set_group, self.caller, group, users))

    async def delete(self, group: str) -> None:
        """Take it away."""
        await self.run(self.services.members.remove_group, self.caller, group)
        self.set_status(204)
        self.finish()


class MemberList(Handler):
    """`/projects/{project}/members`."""

    async def get(self, project: str) -> None:
        """List the members."""
        self.answer(await self.run(self.services.members.of_project, self.caller, project))


class Member(Handler):
    """`/projects/{project}/members/{member}`."""

    needs: ClassVar[Mapping[str, str]] = {"PUT": access.OWN}

    async def put(self, project: str, member: str) -> None:
        """Give somebody a role."""
        role = self.read(SetRole).role
        self.answer(await self.run(self.services.members.set_member, self.caller, project, member, role))

    async def delete(self, project: str, member: str) -> None:
        """Take somebody's role away."""
        await self.run(self.services.members.remove, self.caller, project, member)
        self.set_status(204)
        self.finish()
