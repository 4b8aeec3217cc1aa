"""The bodies of what clients ask about accounts, roles and tokens."""

from __future__ import annotations

from lmvp.records.values import Request


class AskCode(Request, frozen=True, kw_only=True):
    """The body of `POST device/code`: what the client calls itself, `ada@laptop`."""

    client_name: str = ""


class AskToken(Request, frozen=True, kw_only=True):
    """The body of `POST device/token`."""

    device_code: str


class Decide(Request, frozen=True, kw_only=True):
    """The body of `POST device/decision`."""

    user_code: str
    approve: bool = True


class MakeToken(Request, frozen=True, kw_only=True):
    """The body of `POST tokens`; without days it never expires.

    Attributes
    ----------
    scope : str
        `read`, `write` or `admin`; empty: the most that whoever asks may pass on.
    project : str
        The one project that it is for; empty: all.
    user : str
        Whose it is; an admin makes them for others. Empty: the caller's own.
    """

    name: str
    expires_days: int | None = None
    scope: str = ""
    project: str = ""
    user: str = ""


class NewUser(Request, frozen=True, kw_only=True):
    """The body of `POST users`; without a password it acts by tokens alone."""

    name: str
    password: str = ""
    admin: bool = False


class UserChange(Request, frozen=True, kw_only=True):
    """The body of `PATCH users/{user}`: what is None stays as it is."""

    disabled: bool | None = None
    admin: bool | None = None
    password: str | None = None


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
