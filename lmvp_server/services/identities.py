"""Identities at a provider of OpenID Connect, and the accounts that they sign in to.

An identity is the issuer and the permanent id of a person there (`sub`), never a name or an address, which can change
hands. It signs in as long as its record has the generation of the account (`Users.generation`): a password change
deletes the record unless identities are kept, and a disabled account keeps it as ended, so that its owner cannot sign
up for another account.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime

from lmvp.errors import AlreadyExists, Conflict, NotAuthenticated, NotFound
from lmvp.records import IdentityRecord, NewUser
from lmvp_server.services import access
from lmvp_server.services.access import Caller
from lmvp_server.services.catalog import SERVER
from lmvp_server.services.clock import now
from lmvp_server.services.credentials import Credentials
from lmvp_server.services.events import event
from lmvp_server.services.invitations import Invitations
from lmvp_server.services.paging import Page
from lmvp_server.services.users import Users, new_id
from lmvp_server.stores.base import Change, ConcurrentChange, Delete, Document, Put, Record, RecordStore

_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")
_TABLE = "identities"


@dataclass(frozen=True, slots=True)
class Identity:
    """A person whom a provider has signed in.

    Attributes
    ----------
    subject : str
        The permanent id of the person at the provider.
    name : str
        The name that the person prefers; it proves nothing.
    """

    issuer: str
    subject: str
    name: str

    @property
    def id(self) -> str:
        """The id of the record that names the account."""
        return hashlib.sha256(f"{self.issuer}\n{self.subject}".encode()).hexdigest()

    @property
    def account_name(self) -> str:
        """The name of an account that is made for the person.

        Examples
        --------
        >>> Identity("https://x", "1", "Ada Lovelace").account_name, Identity("https://x", "1", "").account_name
        ('Ada-Lovelace', 'user-26bb5e')
        """
        return _UNFIT.sub("-", self.name).strip("-._")[:60] or f"user-{self.id[:6]}"


class Identities:
    """The use cases around identities: sign in, sign up, connect, list, disconnect."""

    def __init__(self, records: RecordStore, users: Users, invitations: Invitations, credentials: Credentials) -> None:
        self._records, self._users, self._invitations = records, users, invitations
        self._credentials = credentials

    def account(self, identity: Identity) -> Record | None:
        """Return the account of an identity; None if it has no record.

        Raises
        ------
        NotAuthenticated
            If the account is disabled or deleted, or the identity has ended.
        """
        found = self._records.get(SERVER, _TABLE, identity.id)
        if found is None:
            return None
        account = self._users.active(found.data["user"])
        if account is None:
            raise NotAuthenticated("this account cannot sign in", hint="ask an admin of the server")
        if self._ended(found):
            raise NotAuthenticated(
                "this identity is no longer connected to its account",
                hint="sign in with the password and connect it again, or ask an admin",
            )
        return account

    def is_connected(self, user: str) -> bool:
        """Tell whether an identity signs in to an account."""
        return any(not self._ended(one) for one in self._records.find(SERVER, _TABLE, {"user": user}))

    def every(self, caller: Caller, page: Page, user: str = "") -> Document:
        """List the caller's own identities; for admins, those of all accounts, or of one.

        Parameters
        ----------
        user : str
            The name of an account.

        Raises
        ------
        AccessDenied
            If the caller's token is limited, or the account is another one's and the caller is no admin.
        """
        access.require(caller, access.ACCOUNT)
        if user and not (caller.user and self._users.is_named(caller.user, user)):
            access.require(caller, access.ADMIN)
            where: Document | None = {"user": self._users.find(user).id}
        else:
            where = {"user": caller.holder} if user or not caller.may(access.ADMIN) else None
        found = self._records.find(SERVER, _TABLE, where)
        first = page.cursor or 0
        more = str(first + page.limit) if len(found) > first + page.limit else None
        return {"items": [self._shown(one) for one in found[first:][: page.limit]], "next": more, "total": len(found)}

    def disconnect(self, caller: Caller, id_: str, issuer: str, password: str = "") -> IdentityRecord:
        """Disconnect an identity, named by its id, and end the sessions that it began.

        Parameters
        ----------
        issuer : str
            The provider at which users can sign in now; empty if there is none. Identities of other providers are no
            way to sign in.
        password : str
            The caller's own password; see `Users.prove`.

        Raises
        ------
        NotFound
            If the caller has no identity of that id.
        AccessDenied
            If the caller's token is limited, or there is no proof; see `Passwords.prove`.
        Conflict
            If it is the last way to sign in to the caller's own account.
        """
        access.require(caller, access.ACCOUNT)
        self._find(caller, id_)
        self._users.prove(caller, password)
        while True:
            found = self._find(caller, id_)
            account = self._records.get(SERVER, "users", found.data["user"])
            changes: list[Change] = [Delete(_TABLE, found.id, expect=found.rev)]
            if account is not None:
                if account.id == caller.user and self._is_last(account, found, issuer):
                    raise Conflict(
                        f"this identity is the only way to sign in to {account.data['name']!r}",
                        hint="set a password or connect another identity first, or ask another admin",
                    )
                # Two requests at once must not disconnect one identity each, of the last two.
                changes.append(Put("users", account.id, account.data, expect=account.rev))
                changes += [Delete("sessions", one.id) for one in self._sessions(account, found)]
            name = account.data["name"] if account is not None else found.data["user"]
            told = event(caller.name, "user.disconnect", name, _told(found.id, found.data["issuer"]), None)
            shown = self._shown(found)
            try:
                self._records.commit(SERVER, changes, [told], check=access.still(caller, access.ACCOUNT))
            except ConcurrentChange:
                continue
            return shown

    def connect(self, caller: Caller, identity: Identity, operator: str) -> Record:
        """Connect an identity to the account of a caller who signed in at the provider from its session.

        Parameters
        ----------
        caller : Caller
            As it was when the sign-in began; its session must still be valid.
        operator : str
            The name of the server's operator.

        Raises
        ------
        NotAuthenticated
            If the session has ended, or the account is disabled.
        AccessDenied
            If the caller's token is limited.
        Conflict
            If the identity belongs to another account.
        """
        current = self._credentials.again(caller, operator)
        account = self._users.active(current.user) if current is not None else None
        if current is None or account is None:
            raise NotAuthenticated("this session has ended", hint="sign in, and connect the provider again")
        access.require(current, access.ACCOUNT)
        old = self._records.get(SERVER, _TABLE, identity.id)
        if old is not None and not (self._ended(old) and self._may_take(old, account)):
            raise _anothers()
        put = _connected(identity, account.id, current.generation, old.rev if old is not None else 0)
        name = account.data["name"]
        told = event(name, "user.connect", name, None, _told(identity.id, identity.issuer))
        try:
            self._records.commit(SERVER, [put], [told], check=access.still(current, access.ACCOUNT))
        except ConcurrentChange:
            raise _anothers() from None
        return account

    def sign_up(self, identity: Identity, invitation: str, address: str, runs_it: str, *, free: bool) -> Record:
        """Make an account for an identity that has none.

        Parameters
        ----------
        invitation : str
            The code of an invitation; empty if there is none.
        runs_it : str
            The name of the server's operator, which no account may take.
        free : bool
            Whether everybody may sign up without an invitation.

        Raises
        ------
        NotAuthenticated
            If an invitation is needed.
        AlreadyExists
            If there is an account of that name: a name proves nothing.
        """
        name, id_ = identity.account_name, new_id()
        put = _connected(identity, id_, 0, 0)
        if invitation:
            return self._invitations.accept(invitation, name, "", address, runs_it, identity=put)
        if not free:
            raise NotAuthenticated(
                "no account is connected to this identity",
                hint="sign in with a password and connect it on the account page, or ask for an invitation",
            )
        if name.lower() == runs_it.lower():
            raise _taken(name)
        try:
            return self._users.insert(name, NewUser(name=name), id_, identity=put)
        except ConcurrentChange:
            raise _taken(name) from None

    def _find(self, caller: Caller, id_: str) -> Record:
        where = None if caller.may(access.ADMIN) else {"user": caller.holder}
        for one in self._records.find(SERVER, _TABLE, where):
            if _id(one) == id_:
                return one
        raise NotFound(f"no identity {id_[:40]!r}", hint="`lmvp identities` lists them by their ids")

    def _ended(self, record: Record) -> str:
        """Return the reason why an identity signs in no longer; empty while it does."""
        account = self._users.active(record.data["user"])
        if account is None:
            return "account disabled or deleted"
        same = self._users.generation(account) == record.data.get("generation", 0)
        return "" if same else "ended by a change of the account"

    def _may_take(self, old: Record, account: Record) -> bool:
        """Tell whether an account may connect an identity that has ended: its own one, or one of an active account.

        That of a disabled account stays with it until an admin disconnects it.
        """
        return old.data["user"] == account.id or self._users.active(old.data["user"]) is not None

    def _is_last(self, account: Record, leaving: Record, issuer: str) -> bool:
        """Tell whether an identity is the last way to sign in to an account."""
        if account.data.get("password"):
            return False
        ways = [
            one.id
            for one in self._records.find(SERVER, _TABLE, {"user": account.id})
            if one.data["issuer"] == issuer and not self._ended(one)
        ]
        return ways == [leaving.id]

    def _sessions(self, account: Record, identity: Record) -> list[Record]:
        """Return the sessions that an identity began."""
        found = self._records.find(SERVER, "sessions", {"user": account.id})
        return [one for one in found if one.data.get("token") == f"identity:{identity.id}"]

    def _shown(self, record: Record) -> IdentityRecord:
        data = record.data
        account, since = self._records.get(SERVER, "users", data["user"]), data.get("connected_at")
        return IdentityRecord(
            id=_id(record),
            issuer=data["issuer"],
            subject=data["subject"],
            user=account.data["name"] if account is not None else "",
            connected_at=datetime.fromisoformat(since.replace("Z", "+00:00")) if since else None,
            ended=self._ended(record),
        )


def _id(record: Record) -> str:
    """Return the id that an identity is listed by."""
    return record.id[:12]


def _connected(identity: Identity, user: str, generation: int, expect: int) -> Put:
    data: Document = {
        "user": user,
        "generation": generation,
        "issuer": identity.issuer,
        "subject": identity.subject,
        "connected_at": now(),
    }
    return Put(_TABLE, identity.id, data, expect=expect)


def _told(id_: str, issuer: str) -> Document:
    return {"id": id_[:12], "issuer": issuer}


def _anothers() -> Conflict:
    return Conflict(
        "this identity is connected to an account already",
        hint="sign in with it, or disconnect it from that account first",
    )


def _taken(name: str) -> AlreadyExists:
    hint = "if it is yours, sign in with its password and connect it; else ask for an invitation"
    return AlreadyExists(f"there is a user {name!r}", hint=hint)
