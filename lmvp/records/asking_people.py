"""The bodies of what clients ask about accounts, roles and tokens."""

from __future__ import annotations

from lmvp.records.values import Request


class AskCode(Request, frozen=True, kw_only=True, omit_defaults=True):
    """The body of `POST device/code`.

    Attributes
    ----------
    client_name : str
        The name that the client gives itself: `ada@laptop`.
    scope : str
        The scope of the token that it asks for: `read`, `write` or `admin`.
    """

    client_name: str = ""
    scope: str = "write"


class AskToken(Request, frozen=True, kw_only=True):
    """The body of `POST device/token`."""

    device_code: str


class Decide(Request, frozen=True, kw_only=True, omit_defaults=True):
    """The body of `POST device/decision`.

    Attributes
    ----------
    scope : str
        The scope to approve, at most the one that the client asks for. Empty: that one, but never `admin`, which must
        be named.
    current_password : str
        The caller's own password, as a proof: a session that began more than ten minutes ago needs it to approve.
    """

    user_code: str
    approve: bool = True
    scope: str = ""
    current_password: str = ""


class NewSignInLink(Request, frozen=True, kw_only=True, omit_defaults=True):
    """The body of `POST signin-links`.

    Attributes
    ----------
    page : str
        The page that the link leads to, relative to the first page of the console: `p/digits/cnn`. Empty: that page.
    """

    page: str = ""


class MakeToken(Request, frozen=True, kw_only=True, omit_defaults=True):
    """The body of `POST tokens`; without days it never expires.

    Attributes
    ----------
    scope : str
        `read`, `write` or `admin`; empty: `read`.
    project : str
        The one project that it is for; empty: all.
    user : str
        Whose it is; an admin makes them for others. Empty: the caller's own.
    current_password : str
        The caller's password: needed in a session that is older than ten minutes, and by an admin who makes a token
        for another person.
    """

    name: str
    expires_days: int | None = None
    scope: str = ""
    project: str = ""
    user: str = ""
    current_password: str = ""


class NewUser(Request, frozen=True, kw_only=True, omit_defaults=True):
    """The body of `POST users`; without a password the account acts by tokens alone.

    Attributes
    ----------
    current_password : str
        The caller's own password, which an admin needs to make another admin; see `UserChange`.
    """

    name: str
    password: str = ""
    admin: bool = False
    current_password: str = ""


class UserChange(Request, frozen=True, kw_only=True, omit_defaults=True):
    """The body of `PATCH users/{user}`: fields that are None stay as they are.

    Attributes
    ----------
    current_password : str
        The caller's own password. It is needed to set a password and to make an admin, unless the caller is the
        server's operator or signed in to the console within the last ten minutes.
    keep_tokens : bool
        Keep tokens and invitations. Without it, a new password ends them; it ends sessions in any case.
    keep_identities : bool
        Keep the connected identities of an OpenID provider. Without it, a new password disconnects them.
    """

    disabled: bool | None = None
    admin: bool | None = None
    password: str | None = None
    current_password: str = ""
    keep_tokens: bool = False
    keep_identities: bool = False


class Disconnect(Request, frozen=True, kw_only=True, omit_defaults=True):
    """The body of `DELETE identities/{identity}`; it may be missing.

    Attributes
    ----------
    current_password : str
        The caller's own password; see `UserChange`.
    """

    current_password: str = ""


class SetRole(Request, frozen=True, kw_only=True):
    """The body of `PUT …/members/{member}`: `viewer`, `contributor`, `maintainer` or `owner`."""

    role: str


class NewWebhook(Request, frozen=True, kw_only=True):
    """The body of `POST …/webhooks`: where to, and what, by the beginnings of actions; none: all there is."""

    url: str
    events: tuple[str, ...] = ()


class Invite(Request, frozen=True, kw_only=True):
    """The body of `POST invitations`."""

    project: str
    role: str = "viewer"
    days: int = 7


class SetGroup(Request, frozen=True, kw_only=True):
    """The body of `PUT groups/{group}`: who is in it from now on."""

    users: tuple[str, ...] = ()
