"""Members of projects, groups of accounts, and the roles that follow from both."""

from __future__ import annotations

from collections.abc import Iterator

from lmvp.core.references import check_name
from lmvp.core.schemas import Group, Member, ProjectChange
from lmvp.errors import Conflict, InvalidArgument, NotFound
from lmvp_server.services import access, grants
from lmvp_server.services.access import OWNER, ROLES, VIEWER, Caller, highest
from lmvp_server.services.audit import event
from lmvp_server.services.catalog import SERVER, Catalog
from lmvp_server.services.clock import now
from lmvp_server.services.grants import member_id
from lmvp_server.services.users import Users
from lmvp_server.stores.base import Change, Delete, Document, Put, Record, RecordStore

GROUP = "@"
"""The prefix of a group's name, where the name of an account is possible too."""


class ProjectRoles:
    """Looks up roles in the records; implements `access.Roles`."""

    def __init__(self, records: RecordStore) -> None:
        self._records = records

    def role(self, caller: Caller, project: str) -> str | None:
        """Return the highest role that a caller has in a project; None without a role."""
        projects = self._records.find(SERVER, "projects", {"key": project.lower()}, limit=1)
        if not projects or (caller.only and caller.only != projects[0].id):
            return None
        return OWNER if caller.admin or caller.is_operator else highest(self._roles(caller, projects[0]))

    def _roles(self, caller: Caller, project: Record) -> Iterator[str]:
        """Yield all roles of a caller: of the public, of everyone with an account, of the account and of its groups."""
        if project.data.get("public"):
            yield VIEWER
        if not caller.user:
            return
        yield project.data.get("everyone", "")
        subjects = [caller.user, *(one.data["group"] for one in self._groups_of(caller.user))]
        for subject in subjects:
            member = self._records.get(SERVER, "members", member_id(project.id, subject))
            if member is not None:
                yield member.data["role"]

    def _groups_of(self, user: str) -> list[Record]:
        return self._records.find(SERVER, "belongings", {"user": user})


class Members:
    """Use cases of members and groups."""

    def __init__(self, records: RecordStore, catalog: Catalog, users: Users) -> None:
        self._records, self._catalog, self._users = records, catalog, users

    # -- of a project

    def of_project(self, caller: Caller, project: str) -> Document:
        """List the members of a project: accounts, then groups."""
        home = self._catalog.find_project(caller, project)
        access.require(caller, access.ENTER)
        found = [self._shown(one) for one in self._records.find(SERVER, "members", {"project": home.id})]
        items = sorted((one for one in found if one), key=lambda one: (one.name.startswith(GROUP), one.name.lower()))
        return {"items": items, "next": None, "total": len(items)}

    def _shown(self, record: Record) -> Member | None:
        """Return a member as answers show it; None if its account or group is deleted."""
        data = record.data
        table = "groups" if data["kind"] == "group" else "users"
        subject = self._records.get(SERVER, table, data["subject"])
        if subject is None:
            return None
        prefix = GROUP if table == "groups" else ""
        return Member(
            name=prefix + subject.data["name"], role=data["role"], disabled=subject.data.get("disabled", False)
        )

    def set_member(self, caller: Caller, project: str, name: str, role: str) -> Member:
        """Set the role of an account or group in a project.

        Raises
        ------
        InvalidArgument
            If there is no such role.
        Conflict
            If the project would be left without an owner.
        """
        if role not in ROLES:
            raise InvalidArgument(f"no role {role[:40]!r}", hint=f"there are {', '.join(ROLES)}")
        self._change(caller, project, name, role)
        return Member(name=name, role=role)

    def remove(self, caller: Caller, project: str, name: str) -> None:
        """Remove a member from a project. Members can remove themselves; owners can remove all.

        Raises
        ------
        NotFound
            If there is no such member.
        Conflict
            If the project would be left without an owner.
        """
        self._change(caller, project, name, None)

    def _change(self, caller: Caller, project: str, name: str, role: str | None) -> None:
        """Set the role of a member, or with None remove it, and end the grants that depend on its owner role."""

        def attempt() -> None:
            home = self._catalog.find_project(caller, project)
            leaves = role is None and caller.user and self._users.is_named(caller.user, name)
            access.require(caller, *((access.ACCOUNT,) if leaves else (access.OWN, project)))
            own = grants.still(self._records, caller, access.OWN, home, expected=True)
            check = access.still(caller, access.ACCOUNT) if leaves else own
            kind, subject = self._subject(caller, home, name)
            id_ = member_id(home.id, subject.id)
            old = self._records.get(SERVER, "members", id_)
            if old is None and role is None:
                raise NotFound(f"{name!r} is no member of {home.data['name']!r}")
            if old is not None and old.data["role"] == OWNER and role != OWNER:
                self._keep_an_owner(home, old)
            data = {"project": home.id, "subject": subject.id, "kind": kind, "role": role}
            change: Change = Put("members", id_, data, expect=old.rev if old else 0)
            if role is None and old is not None:
                change = Delete("members", id_, expect=old.rev)
            before = old.data["role"] if old else None
            what = f"{home.data['name']}: {subject.data['name']}"
            entry = event(caller.name, "member.set" if role else "member.remove", what, before, role)
            # Expects the revision of the project, so that two owners cannot remove each other's role at the same time.
            hold = Put("projects", home.id, home.data, expect=home.rev)
            ended, endings = grants.lost(self._records, caller.name, without=() if role == OWNER else (id_,))
            self._records.commit(SERVER, [change, hold, *ended], [entry, *endings], check=check)
            grants.end_lost(self._records, caller.name)

        self._records.retry(attempt)

    def _keep_an_owner(self, home: Record, but: Record) -> None:
        """Check that a project has an active owner besides one member."""
        others = self._records.find(SERVER, "members", {"project": home.id})
        owners = [self._shown(one) for one in others if one.data["role"] == OWNER and one.id != but.id]
        if not any(one and not one.disabled for one in owners):
            raise Conflict(
                f"{home.data['name']!r} would have no owner",
                hint=f"`lmvp members {home.data['name']} add NAME --role owner` makes another member the owner",
            )

    def _subject(self, caller: Caller, home: Record, name: str) -> tuple[str, Record]:
        if name.startswith(GROUP):
            return "group", self._group(name.removeprefix(GROUP))
        visible = None if caller.may(access.ADMIN) else self._visible(caller, home)
        return "user", self._users.find(name, visible)

    def _visible(self, caller: Caller, home: Record) -> list[str]:
        """Return the names of the accounts that a caller can see: members of the project, and of all groups.

        A hint with a similar name must not reveal other accounts.
        """
        shown = [self._shown(one) for one in self._records.find(SERVER, "members", {"project": home.id})]
        names = {one.name for one in shown if one and not one.name.startswith(GROUP)}
        if not caller.only:
            names |= {name for group in self.groups(caller)["items"] for name in group.users}
        return sorted(names)

    def change_project(self, caller: Caller, project: str, given: ProjectChange) -> Document:
        """Change the description of a project, whether it is public, and the role of everyone with an account."""
        if given.everyone and given.everyone not in ROLES[:-1]:
            raise InvalidArgument(f"everyone={given.everyone[:40]!r}", hint=f"one of {', '.join(ROLES[:-1])}, or empty")
        given_fields = {"description": given.description, "public": given.public, "everyone": given.everyone}
        fields = {key: value for key, value in given_fields.items() if value is not None}

        def attempt() -> Document:
            home = self._catalog.find_project(caller, project)
            access.require(caller, access.OWN, project)
            before = {key: home.data.get(key) for key in fields}
            entry = event(caller.name, "project.change", home.data["name"], before, fields)
            changes = [Put("projects", home.id, {**home.data, **fields}, expect=home.rev)]
            check = grants.still(self._records, caller, access.OWN, home, expected=True)
            self._records.commit(SERVER, changes, [entry], check=check)
            return self._catalog.project(caller, project)

        return self._records.retry(attempt)

    # -- groups

    def groups(self, caller: Caller) -> Document:
        """List the groups with their accounts. A token for one project cannot list them."""
        # Such a token has no server-wide right, so the right of an admin refuses it.
        access.require(caller, access.ADMIN if caller.only else access.ENTER)
        items = [self._shown_group(one) for one in self._records.find(SERVER, "groups")]
        return {"items": sorted(items, key=lambda one: one.name.lower()), "next": None, "total": len(items)}

    def _shown_group(self, group: Record) -> Group:
        found = [self._records.get(SERVER, "users", one.data["user"]) for one in self._in_group(group.id)]
        return Group(name=group.data["name"], users=tuple(sorted(one.data["name"] for one in found if one)))

    def _in_group(self, group: str) -> list[Record]:
        return self._records.find(SERVER, "belongings", {"group": group})

    def set_group(self, caller: Caller, name: str, names: tuple[str, ...]) -> Group:
        """Set the accounts of a group. Create the group if it does not exist."""
        access.require(caller, access.ADMIN)
        check_name(name, "group name")
        users = list(dict.fromkeys(self._users.find(each).id for each in names))
        id_ = f"g-{name.lower()}"

        def attempt() -> Group:
            old = self._records.get(SERVER, "groups", id_)
            there = {one.data["user"]: one for one in self._in_group(id_)}
            leaving = [one for user, one in there.items() if user not in users]
            # Accounts that leave the group can lose the owner role of a project with it.
            ended, endings = grants.lost(self._records, caller.name, without=[one.id for one in leaving])
            changes: list[Change] = [
                Put("groups", id_, {"name": name, "created_at": now()}, expect=old.rev if old else 0),
                *(Put("belongings", f"{id_}-{user}", {"group": id_, "user": user}) for user in users),
                *(Delete("belongings", one.id, expect=one.rev) for one in leaving),
                *ended,
            ]
            before = list(self._shown_group(old).users) if old else None
            entry = event(caller.name, "group.set", name, before, list(names))
            check = access.still(caller, access.ADMIN)
            self._records.commit(SERVER, changes, [entry, *endings], check=check)
            grants.end_lost(self._records, caller.name)
            return self._shown_group(self._group(name))

        return self._records.retry(attempt)

    def remove_group(self, caller: Caller, name: str) -> None:
        """Delete a group and its roles in projects."""
        access.require(caller, access.ADMIN)

        def attempt() -> None:
            group = self._group(name)
            belongings = [one.id for one in self._in_group(group.id)]
            members = [one.id for one in self._records.find(SERVER, "members", {"subject": group.id})]
            ended, endings = grants.lost(self._records, caller.name, without=[*belongings, *members])
            changes: list[Change] = [
                Delete("groups", group.id, expect=group.rev),
                *(Delete("belongings", id_) for id_ in belongings),
                *(Delete("members", id_) for id_ in members),
                *ended,
            ]
            entry = event(caller.name, "group.remove", name, list(self._shown_group(group).users), None)
            check = access.still(caller, access.ADMIN)
            self._records.commit(SERVER, changes, [entry, *endings], check=check)
            grants.end_lost(self._records, caller.name)

        self._records.retry(attempt)

    def _group(self, name: str) -> Record:
        group = self._records.get(SERVER, "groups", f"g-{name.lower()}")
        if group is None:
            raise NotFound(f"no group {name[:60]!r}", hint=f"`lmvp groups add {name[:60]} USER` makes it")
        return group
