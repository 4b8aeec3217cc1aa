"""Accounts: people, and services that act by tokens alone."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any

from lmvp.errors import AccessDenied, AlreadyExists, Conflict, InvalidArgument, NotFound
from lmvp.records import NewUser, User, UserChange
from lmvp.references import check_name, suggest
from lmvp_server.services import access
from lmvp_server.services.access import Caller
from lmvp_server.services.catalog import SERVER
from lmvp_server.services.clock import now
from lmvp_server.services.events import event
from lmvp_server.services.paging import Page
from lmvp_server.stores.base import Change, ConcurrentChange, Delete, Document, Put, Record, RecordStore

PASSWORD_LEAST, PASSWORD_MOST = 10, 200
"""Characters of a password; NIST SP 800-63B wants length, and no rules about kinds of letters."""

RESERVED = frozenset({"anonymous", "setup"})


class Users:
    """The use cases around accounts."""

    def __init__(self, records: RecordStore) -> None:
        self._records = records

    def every(self, caller: Caller, page: Page) -> Document:
        """List the accounts, by name."""
        access.require(caller, access.ADMIN)
        found = sorted(self._records.find(SERVER, "users"), key=lambda one: str(one.data["key"]))
        first = page.cursor or 0
        more = str(first + page.limit) if len(found) > first + page.limit else None
        return {"items": [_shown(one) for one in found[first:][: page.limit]], "next": more, "total": len(found)}

    def any(self) -> bool:
        """Tell whether there is any account."""
        return self._records.count(SERVER, "users") > 0

    def me(self, caller: Caller) -> User:
        """Return the account of whoever asks; of the server's own token, one that may everything."""
        access.require(caller, access.ENTER)
        record = self._records.get(SERVER, "users", caller.user) if caller.user else None
        return _shown(record) if record else User(name=caller.name, admin=True, service=True)

    def add(self, caller: Caller, new: NewUser) -> User:
        """Make an account; without a password it acts by tokens alone.

        Raises
        ------
        AlreadyExists
            If there is one of that name, whatever the case of its letters.
        InvalidArgument
            If name or password will not do.
        """
        access.require(caller, access.ADMIN)
        try:
            return _shown(self.insert(caller, new, new_id()))
        except ConcurrentChange:
            raise AlreadyExists(f"there is a user {self.find(new.name).data['name']!r}") from None

    def insert(
        self,
        caller: Caller,
        new: NewUser,
        id_: str,
        also: Sequence[Change] = (),
        told: Sequence[Document] = (),
        *,
        openid: bool = False,
    ) -> Record:
        """Write the record of an account, with other changes that are to be made together with it or not at all.

        Raises
        ------
        ConcurrentChange
            If there is an account of that name, or one of the other changes cannot be made.
        """
        self.check(new)
        key = new.name.lower()
        data: Document = {
            "name": new.name,
            "key": key,
            "password": _hashed(new.password) if new.password else "",
            "admin": new.admin,
            "disabled": False,
            "created_at": now(),
        } | ({"openid": True} if openid else {})
        entry = event(
            caller.name, "user.add", new.name, None, {"admin": new.admin, "service": not (new.password or openid)}
        )
        changes = [Put("names", f"users:{key}", {"id": id_}, expect=0), Put("users", id_, data, expect=0), *also]
        self._records.commit(SERVER, changes, [entry, *told])
        return self.find(new.name)

    @staticmethod
    def check(new: NewUser) -> None:
        """Check that name and password will do."""
        check_name(new.name, "user name")
        if new.name.lower() in RESERVED:
            raise InvalidArgument(f"nobody can be called {new.name!r}: events say so of those without an account")
        if new.password:
            _check_password(new.password)

    def change(self, caller: Caller, name: str, given: UserChange) -> User:
        """Disable or enable an account, make it an admin, or set its password, as everybody may for themselves."""
        own = bool(caller.user) and self.is_named(caller.user, name)
        only_password = given.disabled is None and given.admin is None
        if not (own and only_password and caller.scope == "admin"):
            access.require(caller, access.ADMIN)
        record = self.find(name)
        if own and not access.SCOPES[caller.scope] >= {access.ADMIN}:
            raise AccessDenied("this token cannot change its account")
        while True:
            record = self.find(name)
            fields: Document = {}
            if given.disabled is not None:
                fields["disabled"] = given.disabled
            if given.admin is not None:
                fields["admin"] = given.admin
            if own and (given.disabled or given.admin is False):
                raise Conflict("nobody disables or demotes themselves", hint="another admin can")
            told = {key: record.data[key] for key in fields}
            after = dict(fields)
            if given.password is not None:
                fields["password"] = _hashed(given.password)
                after["password"] = "changed"  # noqa: S105 - the word, not one
            entry = event(caller.name, "user.change", record.data["name"], told, after)
            changes: list[Change] = [Put("users", record.id, {**record.data, **fields}, expect=record.rev)]
            if given.password is not None or given.disabled:
                ended = self._records.find(SERVER, "sessions", {"user": record.id})
                changes += [Delete("sessions", one.id) for one in ended]
            try:
                self._records.commit(SERVER, changes, [entry])
            except ConcurrentChange:
                continue
            return _shown(self.find(name))

    def find(self, name: str) -> Record:
        """Return the record of an account.

        Raises
        ------
        NotFound
            With the nearest name as the hint.
        """
        found = self._records.find(SERVER, "users", {"key": name.lower()}, limit=1)
        if not found:
            near = suggest(name, [one.data["name"] for one in self._records.find(SERVER, "users", limit=1000)])
            hint = f"did you mean {near!r}?" if near else f"an admin makes one: lmvp users add {name[:60]}"
            raise NotFound(f"no user {name[:60]!r}", hint=hint)
        return found[0]

    def is_named(self, user: str, name: str) -> bool:
        """Tell whether the account of some id has this name."""
        record = self._records.get(SERVER, "users", user)
        return record is not None and record.data["key"] == name.lower()

    def active(self, user: str) -> Record | None:
        """Return the record of an account by its id; None if it is disabled or gone."""
        record = self._records.get(SERVER, "users", user)
        return None if record is None or record.data["disabled"] else record

    def verify(self, name: str, password: str) -> Record | None:
        """Return the account of a name and password; None, after the same time, if they do not fit."""
        found = self._records.find(SERVER, "users", {"key": name.lower()}, limit=1)
        kept = found[0].data["password"] if found else ""
        fits = _fits(kept or _nobodys(), password) and bool(kept)
        return found[0] if fits and not found[0].data["disabled"] else None


def new_id() -> str:
    """Return the id of an account that is to be made."""
    return f"u{secrets.token_hex(8)}"


def _hasher() -> Any:
    from argon2 import PasswordHasher  # needed seldom, and never by an embedded server

    return PasswordHasher()


@cache
def _nobodys() -> str:
    """Return a hash that no password fits, so that an account that is not there takes as long as any other."""
    return str(_hasher().hash(secrets.token_hex(32)))


def _fits(kept: str, password: str) -> bool:
    from argon2.exceptions import Argon2Error

    try:
        return bool(_hasher().verify(kept, password[:PASSWORD_MOST]))
    except Argon2Error:
        return False


def _check_password(password: str) -> None:
    if not PASSWORD_LEAST <= len(password) <= PASSWORD_MOST:
        raise InvalidArgument(f"a password has {PASSWORD_LEAST} to {PASSWORD_MOST} characters")


def _hashed(password: str) -> str:
    _check_password(password)
    return str(_hasher().hash(password))


def _shown(record: Record) -> User:
    data = record.data
    return User(
        name=data["name"],
        admin=data["admin"],
        disabled=data["disabled"],
        service=not (data["password"] or data.get("openid")),
        created_at=datetime.fromisoformat(data["created_at"].replace("Z", "+00:00")),
    )
