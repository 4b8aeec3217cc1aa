"""Routes of accounts, groups and members."""

from __future__ import annotations

from lmvp.core import schemas
from lmvp_server.api.base import Handler
from lmvp_server.api.query import PAGE
from lmvp_server.api.route import Route
from lmvp_server.services import access


class MeHandler(
    Handler,
    path="/me",
    routes=(
        Route(
            "GET",
            "Return the caller's account.",
            schemas.User,
            right=access.ENTER,
            call=lambda services, caller, _: services.users.me(caller),
        ),
    ),
):
    """The caller's account."""


class UsersHandler(
    Handler,
    path="/users",
    routes=(
        Route(
            "GET",
            "List the accounts.",
            schemas.User,
            many=True,
            right=access.ADMIN,
            query=PAGE,
            call=lambda services, caller, given: services.users.every(caller, given.page),
        ),
        Route(
            "POST",
            "Create an account.",
            schemas.User,
            request=schemas.NewUser,
            status=201,
            right=access.ADMIN,
            note="An account without a password acts by tokens only.",
            call=lambda services, caller, given: services.users.add(caller, given.body),
        ),
    ),
):
    """The accounts of the server."""


class UserHandler(
    Handler,
    path="/users/{user}",
    routes=(
        Route(
            "PATCH",
            "Update an account: disable or enable it, change whether it is an admin, or set its password.",
            schemas.User,
            request=schemas.UserChange,
            right=access.ADMIN,
            admission=access.ENTER,
            note='Accounts can set their own password; see "Changes of an account".',
            call=lambda services, caller, given: services.users.change(caller, given.user, given.body),
        ),
    ),
):
    """One account."""


class GroupsHandler(
    Handler,
    path="/groups",
    routes=(
        Route(
            "GET",
            "List the groups.",
            schemas.Group,
            many=True,
            right=access.ENTER,
            call=lambda services, caller, _: services.members.groups(caller),
        ),
    ),
):
    """The groups of the server."""


class GroupHandler(
    Handler,
    path="/groups/{group}",
    routes=(
        Route(
            "PUT",
            "Set the members of a group; create the group if necessary.",
            schemas.Group,
            request=schemas.SetGroup,
            right=access.ADMIN,
            call=lambda services, caller, given: services.members.set_group(caller, given.group, given.body.users),
        ),
        Route(
            "DELETE",
            "Delete a group.",
            None,
            status=204,
            right=access.ADMIN,
            call=lambda services, caller, given: services.members.remove_group(caller, given.group),
        ),
    ),
):
    """One group."""


class MembersHandler(
    Handler,
    path="/projects/{project}/members",
    routes=(
        Route(
            "GET",
            "List the members of a project.",
            schemas.Member,
            many=True,
            right=access.READ,
            call=lambda services, caller, given: services.members.of_project(caller, given.project),
        ),
    ),
):
    """The members of a project."""


class MemberHandler(
    Handler,
    path="/projects/{project}/members/{member}",
    routes=(
        Route(
            "PUT",
            "Set the role of a member; add the member if necessary.",
            schemas.Member,
            request=schemas.SetRole,
            right=access.OWN,
            note="The name of a group begins with `@`. 409 if the project would be left without an owner.",
            call=lambda services, caller, given: services.members.set_member(
                caller, given.project, given.member, given.body.role
            ),
        ),
        Route(
            "DELETE",
            "Remove a member from a project.",
            None,
            status=204,
            right=access.OWN,
            note="Members can remove themselves. 409 if the project would be left without an owner.",
            call=lambda services, caller, given: services.members.remove(caller, given.project, given.member),
        ),
    ),
):
    """One member of a project."""
