"""Invitations: links by which somebody makes an account of their own, once, and has a role then."""

from __future__ import annotations

import hashlib
import secrets
import time
from datetime import datetime, timezone

from lmvp.errors import AlreadyExists, Conflict, InvalidArgument, NotFound
from lmvp.records import Invitation, Invite, NewUser
from lmvp_server.services import access
from lmvp_server.services.access import ROLES, Caller, highest
from lmvp_server.services.catalog import SERVER, Catalog
from lmvp_server.services.clock import now
from lmvp_server.services.events import event
from lmvp_server.services.members import member_id
from lmvp_server.services.throttle import Throttle
from lmvp_server.services.users import Users, new_id
from lmvp_server.stores.base import Change, ConcurrentChange, Delete, Document, Put, Record, RecordStore

DAYS_MOST = 30
_SETUP = Caller("setup", owner=True)


class Invitations:
    """The use cases around invitations."""

    def __init__(self, records: RecordStore, catalog: Catalog, users: Users) -> None:
        self._records, self._catalog, self._users = records, catalog, users
        self._tries = Throttle(20, 300.0, "invitations tried")

    def create(self, caller: Caller, asked: Invite) -> Invitation:
        """Make an invitation to a project; only this answer has its secret.

        Raises
        ------
        InvalidArgument
            If there is no such role, or the days are not from 1 to 30.
        """
        if asked.role not in ROLES:
            raise InvalidArgument(f"no role {asked.role[:40]!r}", hint=f"there are {', '.join(ROLES)}")
        if not 1 <= asked.days <= DAYS_MOST:
            raise InvalidArgument(f"days={asked.days}: from 1 to {DAYS_MOST}")
        home = self._catalog.find_project(caller, asked.project)
        access.require(caller, access.OWN, asked.project)
        data = {"project": home.id, "role": asked.role, "admin": False}
        what = f"{home.data['name']} as {asked.role}"
        secret, ends = self._keep(caller, data, asked.days * 86400.0, what)
        return Invitation(project=home.data["name"], role=asked.role, expires_at=ends, secret=secret)

    def setup(self) -> str | None:
        """Return the secret that makes the first admin; None where there is an account already. The last one counts."""
        if self._records.count(SERVER, "users"):
            return None
        for old in self._records.find(SERVER, "invitations", {"project": ""}):
            self._records.commit(SERVER, [Delete("invitations", old.id)])
        return self._keep(_SETUP, {"project": "", "role": "", "admin": True}, 86400.0, "the first admin")[0]

    def _keep(self, caller: Caller, data: Document, seconds: float, what: str) -> tuple[str, datetime]:
        secret, ends = secrets.token_urlsafe(24), time.time() + seconds
        whole = {**data, "by": caller.name, "created_at": now(), "ends": ends}
        entry = event(caller.name, "invitation.create", what)
        self._records.commit(SERVER, [Put("invitations", _digest(secret), whole, expect=0)], [entry])
        return secret, datetime.fromtimestamp(ends, timezone.utc)

    def look(self, secret: str, address: str) -> Invitation:
        """Return what an invitation is for.

        Raises
        ------
        NotFound
            If it is none, was used, or is too old.
        TooManyRequests
            After too many that were none.
        """
        found = self._find(secret, address)
        home = self._records.get(SERVER, "projects", found.data["project"])
        return Invitation(
            project=home.data["name"] if home else "",
            role=found.data["role"],
            expires_at=datetime.fromtimestamp(found.data["ends"], timezone.utc),
            by=found.data["by"],
        )

    def accept(
        self, secret: str, name: str, password: str, address: str, runs_it: str, identity: Put | None = None
    ) -> Record:
        """Make the account of somebody who was invited, with its role; return its record. An invitation works once.

        Parameters
        ----------
        runs_it : str
            The name of whoever runs the server, which events carry: only its first admin may take it.
        identity : Put, optional
            Binds the account to whom a provider knows; it needs no password then.

        Raises
        ------
        AlreadyExists
            If there is an account of that name; the invitation can be used with another one.
        InvalidArgument
            If name or password will not do.
        """
        found = self._find(secret, address)
        who = Caller(found.data["by"], owner=True)
        if not password and identity is None:
            raise InvalidArgument("an account that was invited has a password")
        if name.lower() == runs_it.lower() and not found.data["admin"]:
            raise AlreadyExists(f"{name!r} is whoever runs this server", hint="take another name")
        if found.data["admin"] and self._records.count(SERVER, "users"):
            raise Conflict("the first admin is there already")
        new = NewUser(name=name, password=password, admin=found.data["admin"])
        id_, project = identity.data["user"] if identity else new_id(), found.data["project"]
        also: list[Change] = [Delete("invitations", found.id, expect=found.rev), *([identity] if identity else [])]
        told = []
        if project:
            member = {"project": project, "subject": id_, "kind": "user", "role": found.data["role"]}
            also.append(Put("members", member_id(project, id_), member))
            told.append(event(who.name, "member.set", f"{name} as {found.data['role']}, by invitation"))
        try:
            return self._users.insert(who, new, id_, also, told, openid=identity is not None)
        except ConcurrentChange:
            self._find(secret, address)  # or it was used in this moment
            raise AlreadyExists(f"there is a user {name!r}", hint="take another name") from None

    def accept_as(self, caller: Caller, secret: str, address: str) -> str:
        """Give the role of an invitation to somebody who has an account; return the project. A higher role stays.

        Raises
        ------
        Conflict
            If the invitation makes a first admin, or its project is there no more.
        """
        found = self._find(secret, address)
        home = self._records.get(SERVER, "projects", found.data["project"])
        if not caller.user or home is None:
            raise Conflict("this invitation is for a new account", hint="sign out, and open it again")
        id_ = member_id(home.id, caller.user)
        old = self._records.get(SERVER, "members", id_)
        role = highest([found.data["role"], old.data["role"] if old else ""])
        member = {"project": home.id, "subject": caller.user, "kind": "user", "role": role}
        changes: list[Change] = [
            Delete("invitations", found.id, expect=found.rev),
            Put("members", id_, member, expect=old.rev if old else 0),
        ]
        told = event(found.data["by"], "member.set", f"{caller.name} as {role}, by invitation")
        try:
            self._records.commit(SERVER, changes, [told])
        except ConcurrentChange:
            self._find(secret, address)  # it was used in this moment
            raise Conflict("your role was changed in this moment", hint="open the link again") from None
        return str(home.data["name"])

    def _find(self, secret: str, address: str) -> Record:
        found = self._records.get(SERVER, "invitations", _digest(secret)) if secret else None
        if found is None or found.data["ends"] < time.time():
            self._tries.count(address)
            raise _none()
        return found


def _none() -> NotFound:
    return NotFound("this invitation was used, or is too old", hint="ask for another one")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
