"""Request schemas for accounts, roles, tokens and webhooks. Unknown fields are an error."""

from __future__ import annotations

from lmvp.core.schemas.base import Request


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
        The caller's password. It is needed in a session that is older than ten minutes, and by an admin who creates a
        token for another account.
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
