"""Invitations: links with which a person creates an account and gets a role in a project. Each works once.

An invitation has the rights that its creator has when it is used. It ends when the creator is disabled or is no longer
an owner of the project. It is then deleted, so that it does not work again when the creator becomes an owner again.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial

import msgspec

from lmvp.core.schemas import Invitation, Invite, NewUser
from lmvp.errors import AccessDenied, AlreadyExists, Conflict, InvalidArgument, NotFound
from lmvp_server.services import access, grants
from lmvp_server.services.access import ROLES, Caller, Roles, highest
from lmvp_server.services.audit import event
from lmvp_server.services.catalog import SERVER, Catalog
from lmvp_server.services.clock import now
from lmvp_server.services.grants import member_id
from lmvp_server.services.rate_limit import Throttle, network_of
from lmvp_server.services.users import Users, new_id
from lmvp_server.stores.base import Change, ConcurrentChange, Delete, Document, Put, Record, RecordStore

DAYS_MOST = 30
"""The longest lifetime of an invitation, in days."""

_SETUP = Caller("setup", is_operator=True, scope="admin")
"""The creator of the invitation of the first admin, before there is an account."""


class Invitations:
    """Use cases of invitations."""

    def __init__(self, records: RecordStore, catalog: Catalog, users: Users, roles: Roles) -> None:
        self._records, self._catalog, self._users, self._roles = records, catalog, users, roles
        self._tries = Throttle(20, 300.0, "invitations tried")

    def create(self, caller: Caller, asked: Invite) -> Invitation:
        """Create an invitation to a project. Only this answer contains its secret; the server stores the digest of it.

        Raises
        ------
        InvalidArgument
            If there is no such role, or the lifetime is not from 1 to 30 days.
        """
        if asked.role not in ROLES:
            raise InvalidArgument(f"no role {asked.role[:40]!r}", hint=f"there are {', '.join(ROLES)}")
        if not 1 <= asked.days <= DAYS_MOST:
            raise InvalidArgument(f"days={asked.days}: from 1 to {DAYS_MOST}")
        home = self._catalog.find_project(caller, asked.project)
        access.require(caller, access.OWN, asked.project)
        data = {"project": home.id, "role": asked.role, "admin": False}
        what = f"{home.data['name']} as {asked.role}"
        check = grants.still(self._records, caller, access.OWN, home)
        secret, record = self._keep(caller, data, asked.days * 86400.0, what, check)
        grants.end_lost(self._records, caller.name)  # the caller can have lost its role at the same time
        return msgspec.structs.replace(self._shown(record, home), secret=secret)

    def of_project(self, caller: Caller, project: str) -> Document:
        """List the invitations to a project, newest first, without their secrets. Only owners can do this."""
        home = self._catalog.find_project(caller, project)
        access.require(caller, access.OWN, project)
        return self._listed([(one, home) for one in self._of(home)])

    def every(self, caller: Caller) -> Document:
        """List the invitations to all projects that the caller owns, newest first, without their secrets."""
        access.require(caller, access.ENTER)
        homes = [one for one in self._records.find(SERVER, "projects") if caller.may(access.OWN, one.data["name"])]
        return self._listed([(one, home) for home in homes for one in self._of(home)])

    def revoke(self, caller: Caller, id_: str) -> None:
        """Revoke an invitation by its id. Only owners of its project can do this.

        Raises
        ------
        NotFound
            If there is no such invitation, or the caller is not an owner of its project.
        """
        access.require(caller, access.ENTER)
        found = [one for one in self._records.find(SERVER, "invitations") if _id(one) == id_ and one.data["project"]]
        for one in found:
            home = self._records.get(SERVER, "projects", one.data["project"])
            if home is None or not caller.may(access.OWN, home.data["name"]):
                continue
            what = f"{home.data['name']} as {one.data['role']}"
            entry = event(caller.name, "invitation.revoke", what, {"id": id_, "by": one.data["by"]}, None)
            check = grants.still(self._records, caller, access.OWN, home)
            self._records.commit(SERVER, [Delete("invitations", one.id)], [entry], check=check)
            return
        raise NotFound(f"no invitation {id_[:20]!r}", hint="`lmvp members PROJECT invitations` lists them by their ids")

    def _of(self, home: Record) -> list[Record]:
        return self._records.find(SERVER, "invitations", {"project": home.id}, newest_first=True)

    def _listed(self, found: list[tuple[Record, Record]]) -> Document:
        items = [self._shown(one, home) for one, home in found]
        return {"items": items, "next": None, "total": len(items)}

    def _shown(self, record: Record, home: Record | None) -> Invitation:
        data, created = record.data, record.data.get("created_at")
        return Invitation(
            id=_id(record),
            project=home.data["name"] if home else "",
            role=data["role"],
            expires_at=datetime.fromtimestamp(data["ends"], timezone.utc),
            by=data["by"],
            created_at=datetime.fromisoformat(created.replace("Z", "+00:00")) if created else None,
            ended=self._ended(record),
        )

    def _ended(self, record: Record) -> str:
        """Return the reason why an invitation is not valid; empty if it is valid."""
        data, by = record.data, record.data["by"]
        if data["ends"] < time.time():
            return "it has expired"
        if not data.get("user"):
            return "it names no account"
        creator = self._users.caller(data, by, scope="admin")
        if creator is None:
            return f"the account of {by} was disabled or deleted, or has ended its invitations"
        home = self._records.get(SERVER, "projects", data["project"]) if data["project"] else None
        if data["project"] and home is None:
            return "its project was removed"
        if home is not None and not replace(creator, roles=self._roles).may(access.OWN, home.data["name"]):
            return f"{by} does not own {home.data['name']!r} any more"
        return ""

    def setup(self) -> str | None:
        """Return a new secret that creates the first admin; None if an account exists. Earlier secrets end."""
        if self._records.count(SERVER, "users"):
            return None
        for old in self._records.find(SERVER, "invitations", {"project": ""}):
            self._records.commit(SERVER, [Delete("invitations", old.id)])
        setup = replace(_SETUP, generation=self._users.operator_generation)
        return self._keep(setup, {"project": "", "role": "", "admin": True}, 86400.0, "the first admin")[0]

    def _keep(
        self, caller: Caller, data: Document, seconds: float, what: str, check: Callable[[], object] | None = None
    ) -> tuple[str, Record]:
        """Store an invitation; return its secret and its record."""
        secret, ends = secrets.token_urlsafe(24), time.time() + seconds
        grant = {"user": caller.holder, "generation": caller.generation, "by": caller.name}
        whole = {**data, **grant, "created_at": now(), "ends": ends}
        entry = event(caller.name, "invitation.create", what)
        id_ = _digest(secret)
        self._records.commit(SERVER, [Put("invitations", id_, whole, expect=0)], [entry], check=check)
        return secret, Record(id=id_, seq=0, rev=1, data=whole)

    def look(self, secret: str, address: str) -> Invitation:
        """Return the project and the role of an invitation.

        Raises
        ------
        NotFound
            If there is no such invitation: it was used or revoked, or has expired.
        AccessDenied
            If its creator has lost the right to invite.
        TooManyRequests
            After too many wrong secrets from this address.
        """
        invitation = self._find(secret, address)
        home = self._records.get(SERVER, "projects", invitation.data["project"])
        return msgspec.structs.replace(self._shown(invitation, home), id="")

    def accept(
        self, secret: str, name: str, password: str, address: str, runs_it: str, identity: Put | None = None
    ) -> Record:
        """Create the account of an invited person, with the role of the invitation; return its record.

        Parameters
        ----------
        secret : str
            The secret of the invitation.
        name, password : str
            The name and the password of the new account.
        address : str
            The address of the client, for the limit of wrong secrets.
        runs_it : str
            The name of the server's operator, which events show. Only the first admin can take it.
        identity : Put, optional
            Connects an identity at an OpenID provider to the account, which then needs no password.

        Raises
        ------
        NotFound, AccessDenied, TooManyRequests
            If the invitation is not valid; see `look`.
        AlreadyExists
            If an account of this name exists. The invitation can still be used with another name.
        Conflict
            If the invitation creates the first admin, and there is an account already.
        InvalidArgument
            If the name or the password is not valid.
        """
        invitation = self._find(secret, address)
        by = invitation.data["by"]
        if not password and identity is None:
            raise InvalidArgument("an account that was invited has a password")
        if name.lower() == runs_it.lower() and not invitation.data["admin"]:
            raise AlreadyExists(f"{name!r} is whoever runs this server", hint="take another name")
        if invitation.data["admin"] and self._records.count(SERVER, "users"):
            raise Conflict("the first admin is there already")
        new = NewUser(name=name, password=password, admin=invitation.data["admin"])
        id_, project = identity.data["user"] if identity else new_id(), invitation.data["project"]
        also: list[Change] = [Delete("invitations", invitation.id, expect=invitation.rev)]
        entries = []
        if project:
            member = {"project": project, "subject": id_, "kind": "user", "role": invitation.data["role"]}
            also.append(Put("members", member_id(project, id_), member))
            entries.append(event(by, "member.set", f"{name} as {invitation.data['role']}, by invitation"))
        try:
            check = partial(self._require_valid, invitation)
            return self._users.insert(by, new, id_, also, entries, identity=identity, check=check)
        except ConcurrentChange:
            self._find(secret, address)  # raises NotFound if the invitation was used at the same time
            raise AlreadyExists(f"there is a user {name!r}", hint="take another name") from None

    def accept_as(self, caller: Caller, secret: str, address: str) -> str:
        """Set the role of an invitation for the caller's account; return the project. A higher role stays.

        Raises
        ------
        NotFound, TooManyRequests
            If the invitation is not valid; see `look`.
        AccessDenied
            If the scope or project of the caller's token does not allow it, or the creator has lost the right to
            invite.
        Conflict
            If the invitation creates the first admin, or its project does not exist any more.
        """
        invitation = self._find(secret, address)
        home = self._records.get(SERVER, "projects", invitation.data["project"])
        if caller.known:
            access.require(caller, access.ACCOUNT)
        if not caller.user or home is None:
            raise Conflict("this invitation is for a new account", hint="sign out, and open it again")
        id_ = member_id(home.id, caller.user)
        old = self._records.get(SERVER, "members", id_)
        role = highest([invitation.data["role"], old.data["role"] if old else ""])
        member = {"project": home.id, "subject": caller.user, "kind": "user", "role": role}
        changes: list[Change] = [
            Delete("invitations", invitation.id, expect=invitation.rev),
            Put("members", id_, member, expect=old.rev if old else 0),
        ]
        entry = event(invitation.data["by"], "member.set", f"{caller.name} as {role}, by invitation")

        def check() -> None:
            self._require_valid(invitation)
            access.require(access.current(caller), access.ACCOUNT)

        try:
            self._records.commit(SERVER, changes, [entry], check=check)
        except ConcurrentChange:
            self._find(secret, address)  # raises NotFound if the invitation was used at the same time
            raise Conflict("your role was changed in this moment", hint="open the link again") from None
        return str(home.data["name"])

    def _find(self, secret: str, address: str) -> Record:
        """Return the record of a valid invitation; see `look` for the errors."""
        invitation = self._records.get(SERVER, "invitations", _digest(secret)) if secret else None
        if invitation is None or invitation.data["ends"] < time.time():
            self._tries.count(network_of(address))
            raise NotFound("this invitation was used or revoked, or is too old", hint="ask for another one")
        try:
            self._require_valid(invitation)
        except AccessDenied:
            grants.end_lost(self._records, invitation.data["by"])  # earlier releases did not delete such invitations
            raise
        return invitation

    def _require_valid(self, invitation: Record) -> None:
        ended = self._ended(invitation)
        if ended:
            raise AccessDenied(f"this invitation has ended: {ended}", hint="ask for another one")


def _id(record: Record) -> str:
    """Return the id that lists show. It is the beginning of the digest, so it does not reveal the secret."""
    return record.id[:12]


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
