"""Responses and requests for accounts, roles, tokens, audit logs and webhooks."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from lmvp.core.schemas.base import Request, Struct, copied, freeze_fields


class Ended(Struct, frozen=True, kw_only=True):
    """Counts of the tokens, sessions, invitations and identities that a change of an account revoked."""

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
    name : str
        Name for the login.
    admin : bool
        Whether the account has every right in every project and on the server.
    disabled : bool
        Whether the account cannot log in.
    service : bool
        Whether it is a service account: it has no password, only tokens.
    ended : Ended or None
        Counts of revoked tokens, sessions, invitations and identities. Only the response to a change has it.
    """

    name: str
    admin: bool = False
    disabled: bool = False
    service: bool = False
    created_at: datetime | None = None
    ended: Ended | None = None


class Member(Struct, frozen=True, kw_only=True):
    """A member of a project, an account or a group (`@vision`), and its role."""

    name: str
    role: str
    disabled: bool = False


class Invitation(Struct, frozen=True, kw_only=True):
    """An invitation: a link with which a person creates an account with a role in a project. It works once.

    Attributes
    ----------
    project, role : str
        Name of the project, and the role in it.
    expires_at : datetime
        Time at which the invitation expires.
    secret : str
        The secret of the link. Only the response that creates the invitation has it.
    by : str
        Name of the account that created it.
    id : str
        Id in the list of invitations, needed to revoke it.
    ended : str
        The reason why it is not valid any more; empty while it can be used.
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
    """A named set of accounts that can have a role in projects."""

    name: str
    users: tuple[str, ...] = ()


class Event(Struct, frozen=True, kw_only=True):
    """An entry of an append-only audit log.

    Attributes
    ----------
    seq : int
        Position in the log.
    at : datetime
        Time of the action.
    who : str
        Name of the account.
    action : str
        The action, for example `version.create`.
    what : str
        The object of the action.
    before, after : Any
        State of the object before and after the action.
    chain : str
        BLAKE3 over the previous entry and this entry. If an entry is removed or changed, all later chains differ.
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
    """The newest entry of an audit log. Its chain covers all entries before it.

    Attributes
    ----------
    space : str
        Id of a project, or `server`.
    name : str
        Name of the project at that time; empty for the server.
    """

    space: str
    seq: int
    chain: str
    name: str = ""


class DeviceCode(Struct, frozen=True, kw_only=True):
    """The codes of a device login, with the names and meanings of RFC 8628, section 3.2."""

    device_code: str
    user_code: str
    verification_uri: str
    verification_uri_complete: str
    expires_in: int
    interval: int


class DeviceToken(Struct, frozen=True, kw_only=True):
    """The token that a device login issued, with its name and scope."""

    access_token: str
    name: str
    scope: str = ""


class DeviceDecision(Struct, frozen=True, kw_only=True):
    """The decision about a device login. `scope` is the scope of the token if the login was approved."""

    client_name: str
    address: str
    approved: bool
    scope: str = ""


class TokenRecord(Struct, frozen=True, kw_only=True):
    """A token without its secret. The server stores only a digest of the secret.

    Attributes
    ----------
    used_at : datetime, optional
        Time of the last use. The server updates it at most once an hour.
    ended : str
        The reason why it is not valid any more; empty while it can be used.
    """

    id: str
    name: str
    created_at: datetime
    expires_at: datetime | None = None
    used_at: datetime | None = None
    user: str = ""
    """Name of its account; empty for a token of the operator and for a token that `ended`."""
    scope: str = "read"
    project: str = ""
    """The only project that it is valid for; empty for all projects."""
    ended: str = ""


class NewToken(TokenRecord, frozen=True, kw_only=True):
    """A new token with its secret. The secret is shown only once."""

    token: str = ""


class IdentityRecord(Struct, frozen=True, kw_only=True):
    """A user of an OpenID provider who can sign in to an account.

    Attributes
    ----------
    id : str
        Id of the identity, for `DELETE identities/{identity}`.
    subject : str
        The permanent id of the user at the provider (the claim `sub`).
    user : str
        Name of the account; empty if the account was deleted.
    connected_at : datetime or None
        Time of the connection; None if an earlier release connected it.
    ended : str
        The reason why it cannot sign in any more; empty while it can.
    """

    id: str
    issuer: str
    subject: str
    user: str = ""
    connected_at: datetime | None = None
    ended: str = ""


class SignInLink(Struct, frozen=True, kw_only=True):
    """A one-time link to the console: `{server}/open#{code}`. The code stays secret until a browser redeems it.

    Attributes
    ----------
    expires_in : int
        Lifetime in seconds.
    """

    code: str
    expires_in: int

    def __repr__(self) -> str:  # without the code, which is a secret
        return f"<SignInLink for {self.expires_in} s>"


class Webhook(Struct, frozen=True, kw_only=True):
    """A URL that the server calls after events of a project. See docs/webhooks.md.

    Attributes
    ----------
    events : tuple of str
        Prefixes of the actions that are sent.
    created_by : str
        Name of the account that created it.
    arrived_at : datetime or None
        Time of the last successful delivery; None before the first one.
    tries : int
        Number of failed deliveries of the next event.
    error : str
        Reason of the last failure; empty after a successful delivery.
    disabled : bool
        Whether the server stopped the deliveries.
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
    """A new webhook with its `secret`, which is shown only once. The secret signs every delivery."""

    id: str
    url: str
    events: tuple[str, ...]
    secret: str


class Ping(Struct, frozen=True, kw_only=True):
    """The result of a test of a webhook.

    Attributes
    ----------
    status : int
        HTTP status of the response; 0 if there was no response.
    error : str
        The reason of a failure; empty if the delivery succeeded.
    """

    status: int
    error: str = ""


# -- requests; unknown fields are an error


class AskCode(Request, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `POST device/code`.

    Attributes
    ----------
    client_name : str
        The name that the client chooses for itself, for example `ada@laptop`.
    scope : str
        The scope of the token that the client requests: `read`, `write` or `admin`.
    """

    client_name: str = ""
    scope: str = "write"


class AskToken(Request, frozen=True, kw_only=True):
    """Body of `POST device/token`."""

    device_code: str


class Decide(Request, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `POST device/decision`.

    Attributes
    ----------
    scope : str
        The scope to approve, at most the requested one. Empty means the requested one, except that `admin` must be
        named.
    current_password : str
        The caller's password. A session that is older than ten minutes needs it to approve.
    """

    # An `admin` token has every right of an admin, so a user must name that scope to approve it.
    user_code: str
    approve: bool = True
    scope: str = ""
    current_password: str = ""


class NewSignInLink(Request, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `POST signin-links`.

    Attributes
    ----------
    page : str
        The page to open, relative to the home page of the console: `p/digits/cnn`. Empty means the home page.
    """

    page: str = ""


class MakeToken(Request, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `POST tokens`. Without `expires_days` the token does not expire.

    Attributes
    ----------
    scope : str
        `read`, `write` or `admin`; `read` if empty.
    project : str
        The only project that the token is valid for; empty for all projects.
    user : str
        The account of the token; the caller's if empty. Only an admin can create tokens for other accounts.
    current_password : str
        The caller's password. Required if the session is older than ten minutes, or if an admin creates a token for
        another account.
    """

    name: str
    expires_days: int | None = None
    scope: str = ""
    project: str = ""
    user: str = ""
    current_password: str = ""


class NewUser(Request, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `POST users`. An account without a password is a service account, which has only tokens.

    Attributes
    ----------
    current_password : str
        The caller's password, which an admin needs to create another admin; see `UserChange`.
    """

    name: str
    password: str = ""
    admin: bool = False
    current_password: str = ""


class UserChange(Request, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `PATCH users/{user}`. Fields that are None stay unchanged.

    Attributes
    ----------
    current_password : str
        The caller's password. It is needed to set a password and to grant admin rights, unless the caller is
        the operator of the server or signed in to the console within the last ten minutes.
    keep_tokens : bool
        Keep tokens and invitations. Otherwise a new password revokes them. It ends sessions in any case.
    keep_identities : bool
        Keep the connected identities of an OpenID provider. Otherwise a new password disconnects them.
    """

    disabled: bool | None = None
    admin: bool | None = None
    password: str | None = None
    current_password: str = ""
    keep_tokens: bool = False
    keep_identities: bool = False


class Disconnect(Request, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `DELETE identities/{identity}`; optional.

    Attributes
    ----------
    current_password : str
        The caller's password; see `UserChange`.
    """

    current_password: str = ""


class SetRole(Request, frozen=True, kw_only=True):
    """Body of `PUT …/members/{member}`: `viewer`, `contributor`, `maintainer` or `owner`."""

    role: str


class NewWebhook(Request, frozen=True, kw_only=True):
    """Body of `POST …/webhooks`.

    Attributes
    ----------
    url : str
        The URL that the server calls.
    events : tuple of str
        Prefixes of the actions to send; empty for all actions.
    """

    url: str
    events: tuple[str, ...] = ()


class Invite(Request, frozen=True, kw_only=True):
    """Body of `POST invitations`.

    Attributes
    ----------
    days : int
        The number of days after which the invitation expires.
    """

    project: str
    role: str = "viewer"
    days: int = 7


class SetGroup(Request, frozen=True, kw_only=True):
    """Body of `PUT groups/{group}`: the complete list of members, which replaces the current one."""

    users: tuple[str, ...] = ()
