"""Identities at OpenID Connect providers, and the accounts that they sign in to.

An identity is an issuer and the permanent id of a person there (`sub`). It is never a name or an email address, which
can pass to another person. An identity can sign in as long as its record has the generation of the account
(`Users.generation`). A password change deletes the record unless `keep_identities` is set. A disabled account keeps the
record as ended, so that its owner cannot sign up for another account.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime

from lmvp.core.schemas import IdentityRecord, NewUser
from lmvp.errors import AlreadyExists, Conflict, NotAuthenticated, NotFound
from lmvp_server.services import access
from lmvp_server.services.access import Caller
from lmvp_server.services.audit import event
from lmvp_server.services.catalog import SERVER
from lmvp_server.services.clock import now
from lmvp_server.services.invitations import Invitations
from lmvp_server.services.paging import Page
from lmvp_server.services.sessions import Credentials
from lmvp_server.services.users import Users, new_id
from lmvp_server.stores.base import Change, ConcurrentChange, Delete, Document, Put, Record, RecordStore

_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")
"""Characters that the name of an account cannot have."""

_TABLE = "identities"


@dataclass(frozen=True, slots=True)
class Identity:
    """A person whom a provider has signed in.

    Attributes
    ----------
    issuer : str
        The URL of the provider.
    subject : str
        The permanent id of the person at the provider.
    name : str
        The preferred name of the person. It does not identify the person, because people can choose it.
    """

    issuer: str
    subject: str
    name: str

    @property
    def id(self) -> str:
        """The id of the record that connects the identity to an account."""
        return hashlib.sha256(f"{self.issuer}\n{self.subject}".encode()).hexdigest()

    @property
    def account_name(self) -> str:
        """The name of a new account for the person.

        Examples
        --------
        >>> Identity("https://x", "1", "Ada Lovelace").account_name, Identity("https://x", "1", "").account_name
        ('Ada-Lovelace', 'user-26bb5e')
        """
        # A name without any valid character, for example in Chinese, needs a replacement.
        return _UNFIT.sub("-", self.name).strip("-._")[:60] or f"user-{self.id[:6]}"


class Identities:
    """Use cases of identities: sign in, sign up, connect, list, disconnect."""

    def __init__(self, records: RecordStore, users: Users, invitations: Invitations, credentials: Credentials) -> None:
        self._records, self._users, self._invitations = records, users, invitations
        self._credentials = credentials

    def account(self, identity: Identity) -> Record | None:
        """Return the account of an identity; None if the identity is not connected to one.

        Raises
        ------
        NotAuthenticated
            If the account is disabled or deleted, or the identity has ended.
        """
        record = self._records.get(SERVER, _TABLE, identity.id)
        if record is None:
            return None
        account = self._users.active(record.data["user"])
        if account is None:
            raise NotAuthenticated("this account cannot sign in", hint="ask an admin of the server")
        if self._ended(record):
            raise NotAuthenticated(
                "this identity is no longer connected to its account",
                hint="sign in with the password and connect it again, or ask an admin",
            )
        return account

    def is_connected(self, user: str) -> bool:
        """Return whether an identity can sign in to an account."""
        return any(not self._ended(one) for one in self._records.find(SERVER, _TABLE, {"user": user}))

    def every(self, caller: Caller, page: Page, user: str = "") -> Document:
        """List the identities of the caller; for admins, those of all accounts, or of one.

        Parameters
        ----------
        user : str, default ""
            The name of an account.

        Raises
        ------
        AccessDenied
            If the scope or project of the caller's token does not allow it, or the caller names another account and is
            not an admin.
        """
        access.require(caller, access.ACCOUNT)
        if user and not (caller.user and self._users.is_named(caller.user, user)):
            access.require(caller, access.ADMIN)
            where: Document | None = {"user": self._users.find(user).id}
        else:
            where = {"user": caller.holder} if user or not caller.may(access.ADMIN) else None
        identities = self._records.find(SERVER, _TABLE, where)
        first = page.cursor or 0
        more = str(first + page.limit) if len(identities) > first + page.limit else None
        return {
            "items": [self._shown(one) for one in identities[first:][: page.limit]],
            "next": more,
            "total": len(identities),
        }

    def disconnect(self, caller: Caller, id_: str, issuer: str, password: str = "") -> IdentityRecord:
        """Disconnect an identity, by its id, and end the sessions that it started.

        Parameters
        ----------
        id_ : str
            The id of the identity, as lists show it.
        issuer : str
            The current provider of the server; empty without one. Nobody can sign in with identities of other
            providers.
        password : str, default ""
            The caller's password, as proof; see `Users.prove`.

        Raises
        ------
        NotFound
            If the caller has no identity with this id.
        AccessDenied
            If the scope or project of the caller's token does not allow it, or the proof is missing.
        Conflict
            If it is the last way to sign in to the caller's account.
        """
        access.require(caller, access.ACCOUNT)
        self._find(caller, id_)  # a wrong id is an error before the password is checked, which is slow and limited
        self._users.prove(caller, password)

        def attempt() -> IdentityRecord:
            identity = self._find(caller, id_)
            account = self._records.get(SERVER, "users", identity.data["user"])
            changes: list[Change] = [Delete(_TABLE, identity.id, expect=identity.rev)]
            if account is not None:
                if account.id == caller.user and self._is_last(account, identity, issuer):
                    raise Conflict(
                        f"this identity is the only way to sign in to {account.data['name']!r}",
                        hint="set a password or connect another identity first, or ask another admin",
                    )
                # Expects the revision of the account, so that two requests cannot each disconnect one of the last two.
                changes.append(Put("users", account.id, account.data, expect=account.rev))
                changes += [Delete("sessions", one.id) for one in self._sessions(account, identity)]
            name = account.data["name"] if account is not None else identity.data["user"]
            entry = event(caller.name, "user.disconnect", name, _told(identity.id, identity.data["issuer"]), None)
            shown = self._shown(identity)
            self._records.commit(SERVER, changes, [entry], check=access.still(caller, access.ACCOUNT))
            return shown

        return self._records.retry(attempt)

    def connect(self, caller: Caller, identity: Identity, operator: str) -> Record:
        """Connect an identity to the account whose session started the sign-in at the provider.

        Parameters
        ----------
        caller : Caller
            The caller at the start of the sign-in. Its session must still be valid.
        identity : Identity
            The result of the sign-in.
        operator : str
            The name of the server's operator.

        Raises
        ------
        NotAuthenticated
            If the session has ended, or the account is disabled.
        AccessDenied
            If the scope or project of the caller's token does not allow it.
        Conflict
            If the identity is connected to an account already.
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
        entry = event(name, "user.connect", name, None, _told(identity.id, identity.issuer))
        try:
            self._records.commit(SERVER, [put], [entry], check=access.still(current, access.ACCOUNT))
        except ConcurrentChange:  # another request has connected the identity at the same time
            raise _anothers() from None
        return account

    def sign_up(self, identity: Identity, invitation: str, address: str, runs_it: str, *, free: bool) -> Record:
        """Create an account for an identity that is not connected to one.

        Parameters
        ----------
        identity : Identity
            The identity to connect to the new account.
        invitation : str
            The code of an invitation; empty without one.
        address : str
            The address of the client, for the limit of wrong codes.
        runs_it : str
            The name of the server's operator, which an account cannot take.
        free : bool
            Whether everybody can sign up without an invitation.

        Raises
        ------
        NotAuthenticated
            If an invitation is needed.
        AlreadyExists
            If an account of this name exists. An equal name does not show that it is the same person.
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
        """Return the reason why an identity cannot sign in any more; empty if it can."""
        account = self._users.active(record.data["user"])
        if account is None:
            return "account disabled or deleted"
        same = self._users.generation(account) == record.data.get("generation", 0)
        return "" if same else "ended by a change of the account"

    def _may_take(self, old: Record, account: Record) -> bool:
        """Return whether an account can connect an ended identity: its own, or one of another active account.

        The identity of a disabled or deleted account stays with that account until an admin disconnects it.
        """
        return old.data["user"] == account.id or self._users.active(old.data["user"]) is not None

    def _is_last(self, account: Record, leaving: Record, issuer: str) -> bool:
        """Return whether an identity is the last way to sign in to an account."""
        if account.data.get("password"):
            return False
        ways = [
            one.id
            for one in self._records.find(SERVER, _TABLE, {"user": account.id})
            if one.data["issuer"] == issuer and not self._ended(one)
        ]
        return ways == [leaving.id]

    def _sessions(self, account: Record, identity: Record) -> list[Record]:
        """Return the sessions that an identity started."""
        sessions = self._records.find(SERVER, "sessions", {"user": account.id})
        return [one for one in sessions if one.data.get("token") == f"identity:{identity.id}"]

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
    """Return the id that lists show: the first 12 digits of the record's id."""
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
