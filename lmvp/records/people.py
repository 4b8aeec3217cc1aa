"""Accounts, roles, tokens, and the record of who did what."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from lmvp.records.frozen import copied, freeze_fields
from lmvp.records.values import Struct


class Ended(Struct, frozen=True, kw_only=True):
    """The numbers of tokens, sessions, invitations and identities that a change of an account ended."""

    tokens: int = 0
    sessions: int = 0
    invitations: int = 0
    identities: int = 0

    def __str__(self) -> str:
        counts = [("token", self.tokens), ("session", self.sessions), ("invitation", self.invitations)]
        words = [f"{count} {noun}" if count == 1 else f"{count} {noun}s" for noun, count in counts]
        if self.identities:  # most servers have no provider
            words.append("1 identity" if self.identities == 1 else f"{self.identities} identities")
        return ", ".join(words)


class User(Struct, frozen=True, kw_only=True):
    """An account.

    Attributes
    ----------
    service : bool
        Has no password: acts by tokens alone.
    ended : Ended or None
        Only in the answer to a change that ended tokens, sessions, invitations or identities of the account.
    """

    name: str
    admin: bool = False
    disabled: bool = False
    service: bool = False
    created_at: datetime | None = None
    ended: Ended | None = None


class Member(Struct, frozen=True, kw_only=True):
    """A person, or a group (`@vision`), and its role in a project."""

    name: str
    role: str
    disabled: bool = False


class Invitation(Struct, frozen=True, kw_only=True):
    """A link by which somebody makes an account of their own, once, and has a role in a project then.

    Attributes
    ----------
    secret : str
        Only in the answer that creates it.
    by : str
        The name of its creator.
    id : str
        Names it in the list of invitations, and to revoke it.
    ended : str
        The reason why it grants nothing any more; empty while it can be used.
    """

    project: str
    role: str
    expires_at: datetime
    secret: str = ""
    by: str = ""
    url: str = ""
    id: str = ""
    created_at: datetime | None = None
    ended: str = ""


class Group(Struct, frozen=True, kw_only=True):
    """People who have roles together."""

    name: str
    users: tuple[str, ...] = ()


class Event(Struct, frozen=True, kw_only=True):
    """An entry of the append-only log: who did what to what.

    Attributes
    ----------
    chain : str
        BLAKE3 over the entry before and this one: a removed or altered entry breaks all that follow.
    """

    seq: int
    at: datetime
    who: str
    action: str
    what: str
    before: Any = None
    after: Any = None
    chain: str = ""

    def __post_init__(self) -> None:
        freeze_fields(self, ("before", "after"), copied, "an entry of the audit log")


class Head(Struct, frozen=True, kw_only=True):
    """The newest entry of a log of events: it stands for all that is before it.

    Attributes
    ----------
    space : str
        The id of a project, or `server`.
    name : str
        What the project was called; empty for the server.
    """

    space: str
    seq: int
    chain: str
    name: str = ""


class DeviceCode(Struct, frozen=True, kw_only=True):
    """What a client that has no token shows and waits for; names and meaning as in RFC 8628, section 3.2."""

    device_code: str
    user_code: str
    verification_uri: str
    verification_uri_complete: str
    expires_in: int
    interval: int


class DeviceToken(Struct, frozen=True, kw_only=True):
    """The token that a client got, its name and its scope."""

    access_token: str
    name: str
    scope: str = ""


class DeviceDecision(Struct, frozen=True, kw_only=True):
    """The decision about a client; `scope` is that of its token, if it was approved."""

    client_name: str
    address: str
    approved: bool
    scope: str = ""


class TokenRecord(Struct, frozen=True, kw_only=True):
    """A token without its secret, which is stored nowhere.

    Attributes
    ----------
    used_at : datetime, optional
        Its last use, to the hour or so.
    ended : str
        The reason why it grants nothing any more; empty while it can be used.
    """

    id: str
    name: str
    created_at: datetime
    expires_at: datetime | None = None
    used_at: datetime | None = None
    user: str = ""
    """The name of its account; empty for a token of the server's operator, and for one that `ended`."""
    scope: str = "read"
    project: str = ""
    """The one project that it is for; empty: all."""
    ended: str = ""


class NewToken(TokenRecord, frozen=True, kw_only=True):
    """A token that was just made, with its secret."""

    token: str = ""


class IdentityRecord(Struct, frozen=True, kw_only=True):
    """An identity at an OpenID provider that signs in to an account.

    Attributes
    ----------
    id : str
        The id of the identity, for `DELETE identities/{identity}`.
    subject : str
        The permanent id of the person at the provider (the claim `sub`).
    user : str
        The name of the account; empty if the account was deleted.
    connected_at : datetime or None
        None for an identity that an earlier release connected.
    ended : str
        The reason why it signs in no longer; empty while it does.
    """

    id: str
    issuer: str
    subject: str
    user: str = ""
    connected_at: datetime | None = None
    ended: str = ""


class SignInLink(Struct, frozen=True, kw_only=True):
    """A one-time link to the console: `{server}/open#{code}`. The code is a secret until a browser redeems it.

    Attributes
    ----------
    expires_in : int
        Seconds.
    """

    code: str
    expires_in: int

    def __repr__(self) -> str:
        return f"<SignInLink for {self.expires_in} s>"


class Webhook(Struct, frozen=True, kw_only=True):
    """Whom a project tells what happens in it; docs/webhooks.md says how.

    Attributes
    ----------
    events : tuple of str
        What it is told: actions that begin with one of these.
    arrived_at : datetime or None
        When the last event arrived; None before the first.
    tries : int
        How often the next event was sent in vain.
    error : str
        Why; empty where all is well.
    disabled : bool
        Whether it was given up.
    """

    id: str
    url: str
    events: tuple[str, ...]
    created_at: datetime
    created_by: str
    arrived_at: datetime | None = None
    tries: int = 0
    error: str = ""
    disabled: bool = False


class MadeWebhook(Struct, frozen=True, kw_only=True):
    """A webhook that was made, with its `secret`, which is shown this once: it signs all that is sent."""

    id: str
    url: str
    events: tuple[str, ...]
    secret: str


class Ping(Struct, frozen=True, kw_only=True):
    """What came of a test of a webhook.

    Attributes
    ----------
    status : int
        Of the answer; 0 where there was none.
    error : str
        What went wrong; empty if it arrived.
    """

    status: int
    error: str = ""
