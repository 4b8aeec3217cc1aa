"""Accounts of people, and service accounts, which have only tokens."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from functools import partial

import msgspec

from lmvp.core.references import check_name, suggest
from lmvp.core.schemas import (
    Ended,
    NewUser,
    User,
    UserChange,
)
from lmvp.errors import AlreadyExists, Conflict, InvalidArgument, LmvpError, NotAuthenticated, NotFound
from lmvp_server.services import access, grants
from lmvp_server.services.access import OPERATOR, Caller
from lmvp_server.services.audit import event
from lmvp_server.services.catalog import SERVER
from lmvp_server.services.clock import now
from lmvp_server.services.paging import Page
from lmvp_server.services.passwords import Passwords, check_password, hashed
from lmvp_server.stores.base import Change, ConcurrentChange, Delete, Document, Put, Record, RecordStore

# Events use these names for requests without an account.
RESERVED = frozenset({"anonymous", "setup"})

log = logging.getLogger("lmvp_server")

_OPERATORS = "operators"
"""The table with one record: the name of the server's own token, and the generation of the operator's grants."""
GRANTS = ("tokens", "sessions", "invitations", "identities")
"""The tables of grants. Each record has the id of its holder in `user`."""


class Users:
    """Use cases of accounts."""

    def __init__(self, records: RecordStore, passwords: Passwords) -> None:
        self._records, self._passwords = records, passwords
        self._operator_generation = 0

    @property
    def operator_generation(self) -> int:
        """The generation of the operator's grants. Grants of an earlier generation are invalid.

        It is raised when the server's own token is replaced.
        """
        return self._operator_generation

    def note_operator(self, credential: str) -> None:
        """Revoke all grants of the operator if the server's own token was replaced since the last start.

        Parameters
        ----------
        credential : str
            The name of the token; see `sessions.own_credential`.
        """
        kept = self._records.get(SERVER, _OPERATORS, OPERATOR)
        # Earlier releases stored no record. The grants in such a folder belong to its current token.
        self._operator_generation = int(kept.data["generation"]) if kept else 0
        if kept is not None and kept.data["credential"] == credential:
            return
        changes: list[Change] = []
        entries: list[Document] = []
        if kept is not None:
            self._operator_generation += 1
            ended: dict[str, int] = {}
            for table in GRANTS:
                found = self._records.find(SERVER, table, {"user": OPERATOR})
                changes += [Delete(table, one.id) for one in found]
                ended[table] = len(found)
            log.warning(
                "the token of this server was replaced: the grants of the old one have ended: %s", Ended(**ended)
            )
            entries.append(event(OPERATOR, "server.token", "the token of this server", None, {"ended": ended}))
        data = {"credential": credential, "generation": self._operator_generation}
        changes.append(Put(_OPERATORS, OPERATOR, data, expect=kept.rev if kept else 0))
        try:
            self._records.commit(SERVER, changes, entries)
        except (OSError, LmvpError) as error:  # a read-only folder: the server still starts, and the grants are invalid
            log.warning("the token of this server could not be noted: %s", error)

    def every(self, caller: Caller, page: Page) -> Document:
        """List all accounts, sorted by name."""
        access.require(caller, access.ADMIN)
        found = sorted(self._records.find(SERVER, "users"), key=lambda one: str(one.data["key"]))
        first = page.cursor or 0
        more = str(first + page.limit) if len(found) > first + page.limit else None
        return {"items": [_shown(one) for one in found[first:][: page.limit]], "next": more, "total": len(found)}

    def any(self) -> bool:
        """Whether the server has an account."""
        return self._records.count(SERVER, "users") > 0

    def me(self, caller: Caller) -> User:
        """Return the account of the caller. For the operator, return an account with every right."""
        access.require(caller, access.ENTER)
        if caller.is_operator:
            return User(name=caller.name, admin=True, service=True)
        return _shown(self._own(caller))

    def _own(self, caller: Caller) -> Record:
        """Return the record of the caller's account.

        Raises
        ------
        NotAuthenticated
            If the account was disabled or deleted since the request began.
        """
        record = self.active(caller.user)
        if record is None:
            raise NotAuthenticated("this account is disabled or deleted", hint="ask an admin of the server")
        return record

    def add(self, caller: Caller, new: NewUser) -> User:
        """Create an account. Without a password it is a service account, which has only tokens.

        Raises
        ------
        AlreadyExists
            If the name is taken. Case is ignored.
        InvalidArgument
            If the name or the password is invalid.
        AccessDenied
            If the caller is not an admin.
        ProofRequired
            If the caller creates an admin without confirmation; see `Passwords.prove`.
        """
        access.require(caller, access.ADMIN)
        if new.admin:
            self.prove(caller, new.current_password)
        try:
            return _shown(self.insert(caller.name, new, new_id(), check=access.still(caller, access.ADMIN)))
        except ConcurrentChange:
            raise AlreadyExists(f"there is a user {self.find(new.name).data['name']!r}") from None

    def insert(
        self,
        by: str,
        new: NewUser,
        id_: str,
        also: Sequence[Change] = (),
        events: Sequence[Document] = (),
        *,
        identity: Put | None = None,
        check: Callable[[], object] | None = None,
    ) -> Record:
        """Write the record of an account, in one commit with other changes. Rights are not checked here.

        Parameters
        ----------
        by : str
            The author of the event.
        new : NewUser
            The account.
        id_ : str
            The id of the account.
        also : sequence of changes
            Further changes of the commit.
        events : sequence of dict
            Further events of the commit.
        identity : Put, optional
            A change that connects an identity of an OpenID provider with the account.
        check : callable, optional
            Checks the right at the commit; see `RecordStore.commit`.

        Raises
        ------
        ConcurrentChange
            If the name is taken, or one of the other changes cannot be applied.
        """
        self.check(new)
        # Names are unique without regard to case: the change of the table `names` fails if the key exists.
        key = new.name.lower()
        data: Document = {
            "name": new.name,
            "key": key,
            "password": hashed(new.password) if new.password else "",
            "admin": new.admin,
            "disabled": False,
            "created_at": now(),
        } | ({"openid": True} if identity else {})
        service = not (new.password or identity)
        entries = [event(by, "user.add", new.name, None, {"admin": new.admin, "service": service}), *events]
        changes = [Put("names", f"users:{key}", {"id": id_}, expect=0), Put("users", id_, data, expect=0), *also]
        if identity is not None:
            changes.append(identity)
            after = {"id": identity.id[:12], "issuer": identity.data["issuer"]}
            entries.append(event(new.name, "user.connect", new.name, None, after))
        self._records.commit(SERVER, changes, entries, check=check)
        return self.find(new.name)

    @staticmethod
    def check(new: NewUser) -> None:
        """Validate the name and the password of a new account."""
        check_name(new.name, "user name")
        if new.name.lower() in RESERVED:
            raise InvalidArgument(f"nobody can be called {new.name!r}: events say so of those without an account")
        if new.password:
            check_password(new.password)

    def prove(self, caller: Caller, password: str) -> None:
        """Verify that the holder of the account makes the request: by password, or by a recent sign-in.

        The operator needs no confirmation, because the token comes from the data folder.

        Raises
        ------
        ProofRequired
            If both are missing or wrong.
        """
        if not caller.is_operator:
            self._passwords.prove(caller, self._own(caller), password)

    def change(self, caller: Caller, name: str, given: UserChange) -> User:
        """Disable or enable an account, make it an admin, or set its password. Users can set their own password.

        A new password ends the sessions of the account. It also revokes tokens and invitations unless `keep_tokens` is
        set, and identities unless `keep_identities` is set. A disabled account loses all of them permanently.

        Raises
        ------
        AccessDenied
            If the caller lacks the right.
        ProofRequired
            If the caller sets a password or makes an admin without confirmation.
        Conflict
            If admins disable or demote themselves.
        """
        own = bool(caller.user) and self.is_named(caller.user, name)
        only_password = given.disabled is None and given.admin is None
        right = access.ACCOUNT if own and only_password else access.ADMIN
        access.require(caller, right)
        if given.password is not None or given.admin:
            self.prove(caller, given.current_password)
        password = None if given.password is None else hashed(given.password)

        def attempt() -> User:
            record = self.find(name)
            fields: Document = {}
            if given.disabled is not None:
                fields["disabled"] = given.disabled
            if given.admin is not None:
                fields["admin"] = given.admin
            # So at least one admin remains.
            if own and (given.disabled or given.admin is False):
                raise Conflict("nobody disables or demotes themselves", hint="another admin can")
            before = {key: record.data.get(key) for key in fields}
            after = dict(fields)
            changes: list[Change] = []
            ended: Ended | None = None
            if password is not None:
                fields["password"] = password
                after["password"] = "changed"  # noqa: S105 - the event must not contain the password
            if given.disabled or password is not None:
                fields["generation"] = generation = self.generation(record) + 1
                disabled = bool(fields.get("disabled", record.data["disabled"]))
                kept: set[str] = set()
                if not disabled:
                    kept |= {"tokens", "invitations"} if given.keep_tokens else set()
                    kept |= {"identities"} if given.keep_identities else set()
                changes, ended = self._end_grants(record, generation, kept, disabled=disabled)
                after["ended"] = msgspec.to_builtins(ended)
            entry = event(caller.name, "user.change", record.data["name"], before, after)
            changes.insert(0, Put("users", record.id, {**record.data, **fields}, expect=record.rev))
            loses = given.disabled or given.admin is False
            events = [entry]
            if loses:
                deleted = {change.id for change in changes if isinstance(change, Delete)}
                lost, why = grants.lost(
                    self._records,
                    caller.name,
                    demoted=record.id if given.admin is False else "",
                    disabled=record.id if given.disabled else "",
                )
                for change, one in zip(lost, why, strict=True):
                    if change.id not in deleted:
                        changes.append(change)
                        events.append(one)
            self._records.commit(SERVER, changes, events, check=access.still(caller, right))
            # A grant can be written between the check above and the commit.
            if loses:
                grants.end_lost(self._records, caller.name)
            return msgspec.structs.replace(_shown(self.find(name)), ended=ended)

        return self._records.retry(attempt)

    def _end_grants(
        self, account: Record, generation: int, kept: Collection[str], *, disabled: bool
    ) -> tuple[list[Change], Ended]:
        """Return the changes that revoke the grants of an account, and the number of revoked grants.

        A grant that is written at the same time has the old generation, so it is invalid too.

        Parameters
        ----------
        account : Record
            The account.
        generation : int
            The new generation of the account.
        kept : collection of str
            The tables whose grants stay valid: they get the new generation.
        disabled : bool
            Whether the account is disabled after the change. Its identities are then not deleted, but keep the old
            generation: otherwise their user could sign up for another account with them.
        """
        changes: list[Change] = []
        ended: dict[str, int] = {}
        for table in GRANTS:
            found = self._records.find(SERVER, table, {"user": account.id})
            valid = [one for one in found if one.data.get("generation", 0) == self.generation(account)]
            if table in kept:
                changes += [Put(table, one.id, {**one.data, "generation": generation}, expect=one.rev) for one in valid]
                continue
            stays = table == "identities" and disabled
            changes += [] if stays else [Delete(table, one.id) for one in found]
            ended[table] = len(valid) if table == "identities" else len(found)
        return changes, Ended(**ended)

    @staticmethod
    def generation(account: Record) -> int:
        """Return the generation of an account's grants. Grants of an earlier generation are invalid.

        It is raised when the account is disabled and when its password changes. Records of commit 9d7a6ec lack it.
        """
        return int(account.data.get("generation", 0))

    def caller(
        self,
        grant: Document,
        operator: str,
        *,
        scope: str,
        only: str = "",
        credential: str = "",
        signed_in_at: float = 0.0,
        again: Callable[[], Caller | None] | None = None,
    ) -> Caller | None:
        """Return the current caller of a stored grant; None if it grants nothing.

        Parameters
        ----------
        grant : dict
            The data of the grant. `user` is the id of its holder, or `OPERATOR`. Without it, the grant is invalid.
        operator : str
            The name of the server's operator.
        scope : str
            The scope of the caller.
        only : str, default ""
            The id of the only project that the caller can access. Empty: all projects.
        credential : str, default ""
            The kind and the id of the credential, for example `token:1a2b3c4d`.
        signed_in_at : float, default 0.0
            The time of the sign-in, in seconds since 1970. 0: the credential does not show that the user is present.
        again : callable, optional
            Looks the grant up again. By default, only the account is looked up again.
        """
        holder = grant.get("user")
        again = again or partial(self.caller, grant, operator, scope=scope, only=only)
        if holder == OPERATOR:
            generation = self.operator_generation
            if grant.get("generation", 0) != generation:
                return None
            return Caller(
                operator,
                is_operator=True,
                scope=scope,
                only=only,
                credential=credential,
                generation=generation,
                again=again,
            )
        account = self.active(holder)
        if account is None or self.generation(account) != grant.get("generation", 0):
            return None
        return Caller(
            account.data["name"],
            user=account.id,
            admin=account.data.get("admin") is True,
            scope=scope,
            only=only,
            credential=credential,
            generation=self.generation(account),
            signed_in_at=signed_in_at,
            again=again,
        )

    def find(self, name: str, visible: Sequence[str] | None = None) -> Record:
        """Return the record of an account by name.

        Parameters
        ----------
        visible : sequence of str, optional
            The names that the hint can suggest, if the caller can see only some accounts. Default: all names.

        Raises
        ------
        NotFound
            If there is no such account. The hint has a similar name.
        """
        accounts = self._records.find(SERVER, "users", {"key": name.lower()}, limit=1)
        if not accounts:
            if visible is None:
                visible = [one.data["name"] for one in self._records.find(SERVER, "users", limit=1000)]
            near = suggest(name, visible)
            hint = f"did you mean {near!r}?" if near else f"an admin makes one: `lmvp users add {name[:60]}`"
            raise NotFound(f"no user {name[:60]!r}", hint=hint)
        return accounts[0]

    def is_named(self, user: str, name: str) -> bool:
        """Whether the account with this id has this name."""
        record = self._records.get(SERVER, "users", user)
        return record is not None and record.data["key"] == name.lower()

    def active(self, user: object) -> Record | None:
        """Return the record of an account by id; None if it is disabled or deleted, or the id is empty."""
        record = self._records.get(SERVER, "users", user) if isinstance(user, str) and user else None
        return record if record is not None and record.data.get("disabled") is False else None


def new_id() -> str:
    """Return an id for a new account."""
    return f"u{secrets.token_hex(8)}"


def _shown(record: Record) -> User:
    data = record.data
    return User(
        name=data["name"],
        admin=data["admin"],
        disabled=data["disabled"],
        service=not (data["password"] or data.get("openid")),
        created_at=datetime.fromisoformat(data["created_at"].replace("Z", "+00:00")),
    )
