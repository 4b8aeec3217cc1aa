"""Whom a provider of OpenID Connect knows, and which account of ours that is.

An account belongs to what the provider calls somebody (`sub`), never to a name or an address, which can change hands.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from lmvp.errors import AlreadyExists, Conflict, NotAuthenticated
from lmvp.records import NewUser
from lmvp_server.services import access
from lmvp_server.services.access import Caller
from lmvp_server.services.catalog import SERVER
from lmvp_server.services.credentials import Credentials
from lmvp_server.services.events import event
from lmvp_server.services.invitations import Invitations
from lmvp_server.services.users import Users, new_id
from lmvp_server.stores.base import ConcurrentChange, Put, Record, RecordStore

_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")
_TABLE = "identities"


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody whom a provider has signed in.

    Attributes
    ----------
    subject : str
        What the provider calls them, for good.
    name : str
        What they like to be called; anybody could.
    """

    issuer: str
    subject: str
    name: str

    @property
    def id(self) -> str:
        """The id of the record that says whose it is."""
        return hashlib.sha256(f"{self.issuer}\n{self.subject}".encode()).hexdigest()

    @property
    def account_name(self) -> str:
        """The name of an account that is made for them.

        Examples
        --------
        >>> Identity("https://x", "1", "Ada Lovelace").account_name, Identity("https://x", "1", "").account_name
        ('Ada-Lovelace', 'user-26bb5e')
        """
        return _UNFIT.sub("-", self.name).strip("-._")[:60] or f"user-{self.id[:6]}"


class Identities:
    """The use cases around who signs in at a provider."""

    def __init__(self, records: RecordStore, users: Users, invitations: Invitations, credentials: Credentials) -> None:
        self._records, self._users, self._invitations = records, users, invitations
        self._credentials = credentials

    def account(self, identity: Identity) -> Record | None:
        """Return the account of somebody; None if there is none yet.

        Raises
        ------
        NotAuthenticated
            If it is disabled.
        """
        found = self._records.get(SERVER, _TABLE, identity.id)
        if found is None:
            return None
        account = self._users.active(found.data["user"])
        if account is None:
            raise NotAuthenticated("this account cannot sign in", hint="ask an admin of the server")
        return account

    def is_connected(self, user: str) -> bool:
        """Tell whether an account is somebody's whom a provider knows."""
        return bool(self._records.find(SERVER, _TABLE, {"user": user}, limit=1))

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
        user = account.id
        told = event(account.data["name"], "user.connect", account.data["name"], None, {"issuer": identity.issuer})
        try:
            self._records.commit(SERVER, [_bound(identity, user)], [told])
        except ConcurrentChange:
            raise Conflict(
                "that is the way to another account already", hint="sign in with it, or ask an admin"
            ) from None
        return account

    def sign_up(self, identity: Identity, invitation: str, address: str, runs_it: str, *, free: bool) -> Record:
        """Make the account of somebody whom the provider knows and we do not.

        Parameters
        ----------
        invitation : str
            Its code, if they came by one.
        runs_it : str
            The name of whoever runs the server, which nobody may take.
        free : bool
            Whether it takes no invitation.

        Raises
        ------
        NotAuthenticated
            If it takes one.
        AlreadyExists
            If somebody else has the name: an account is not given away for it.
        """
        name, id_ = identity.account_name, new_id()
        if invitation:
            return self._invitations.accept(invitation, name, "", address, runs_it, identity=_bound(identity, id_))
        if not free:
            raise NotAuthenticated("there is no account of yours here", hint="ask for an invitation")
        if name.lower() == runs_it.lower():
            raise _taken(name)
        try:
            new = NewUser(name=name)
            return self._users.insert(name, new, id_, [_bound(identity, id_)], openid=True)
        except ConcurrentChange:
            raise _taken(name) from None


def _bound(identity: Identity, user: str) -> Put:
    return Put(_TABLE, identity.id, {"user": user, "issuer": identity.issuer, "subject": identity.subject}, expect=0)


def _taken(name: str) -> AlreadyExists:
    hint = "if it is yours, sign in with its password and connect it; else ask for an invitation"
    return AlreadyExists(f"there is a user {name!r}", hint=hint)
