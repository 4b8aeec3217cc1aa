"""Who calls, and what they may: one table. Every use case asks here first.

A right is looked up when it is used: who is disabled, or loses a role, loses it at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from lmvp.errors import AccessDenied, NotAuthenticated, NotFound

VIEWER, CONTRIBUTOR, MAINTAINER, OWNER = ROLES = ("viewer", "contributor", "maintainer", "owner")
"""From the one that may least to the one that may most."""

READ, LOG, PROPOSE, ALIAS = "read", "log runs", "propose", "move aliases"
WRITE, MAINTAIN, OWN = "write", "maintain", "own"
ENTER, CREATE, GRANT, ADMIN = "look around", "make projects", "make tokens", "administer this server"

NEEDS = {
    READ: VIEWER,
    LOG: CONTRIBUTOR,
    PROPOSE: CONTRIBUTOR,
    ALIAS: CONTRIBUTOR,
    WRITE: MAINTAINER,
    MAINTAIN: MAINTAINER,
    OWN: OWNER,
}
"""Which role in a project each right takes, at least."""

SERVER_WIDE = {ENTER: "an account", CREATE: "an account", GRANT: "an account", ADMIN: "an admin"}
"""Who has the rights that belong to no project."""

SCOPES = {
    "read": frozenset({READ, ENTER}),
    "write": frozenset({READ, LOG, PROPOSE, ALIAS, WRITE, MAINTAIN, ENTER, CREATE}),
    "admin": frozenset({*NEEDS, *SERVER_WIDE}),
}
"""Which rights a token passes on, of those that its account has. Only `admin` makes tokens: else one that expires, or
leaked, could make one that lasts."""


class Roles(Protocol):
    """What tells a caller's role; `lmvp_server.services.members` is the real one."""

    def role(self, caller: Caller, project: str) -> str | None:
        """Return the role of a caller in the project of some name; None without one, or if there is no such project."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent a request.

    Attributes
    ----------
    name : str
        Written as the author of what they do.
    owner : bool
        Holds the server's own token: may do all, and may say for whom (`on_behalf`).
    user : str
        The id of the account; empty for nobody.
    admin : bool
    scope : str
        Of the token; one of `SCOPES`.
    only : str
        The id of the one project that the token is for; empty: all.
    """

    name: str
    owner: bool = False
    user: str = ""
    admin: bool = False
    scope: str = "admin"
    only: str = ""
    roles: Roles | None = field(default=None, repr=False, compare=False)

    @property
    def known(self) -> bool:
        """Whether this is anybody."""
        return self.owner or bool(self.user)

    @property
    def everything(self) -> bool:
        """Whether every project is theirs."""
        return (self.owner or self.admin) and not self.only

    def on_behalf(self, author: str) -> str:
        """Return the name to write down, given the name that the caller claims."""
        return author if self.owner and author else self.name

    def role(self, project: str) -> str | None:
        """Return the role in a project, by its name."""
        if self.owner and not self.only:
            return OWNER
        return self.roles.role(self, project) if self.roles else None

    def may(self, right: str, project: str = "") -> bool:
        """Tell whether the caller has a right."""
        if right not in SCOPES[self.scope]:
            return False
        if right in SERVER_WIDE:
            return self.known if right == ENTER else self._may_here(right)
        return at_least(self.role(project), NEEDS[right])

    def _may_here(self, right: str) -> bool:
        """Tell whether they have a right that belongs to no project: a token for one project passes none of them on."""
        return not self.only and (self.owner or self.admin or (right in {CREATE, GRANT} and bool(self.user)))


def at_least(role: str | None, needed: str) -> bool:
    """Tell whether a role may what another one may.

    Examples
    --------
    >>> at_least("owner", "viewer"), at_least("viewer", "contributor"), at_least(None, "viewer")
    (True, False, False)
    """
    return role is not None and ROLES.index(role) >= ROLES.index(needed)


def highest(roles: Iterable[str]) -> str | None:
    """Return the role that may most.

    Examples
    --------
    >>> highest(["viewer", "maintainer", ""]), highest([])
    ('maintainer', None)
    """
    return max((role for role in roles if role), key=ROLES.index, default=None)


def require(caller: Caller, right: str, project: str = "") -> None:
    """Let the caller pass, or raise.

    Raises
    ------
    NotAuthenticated
        If nobody may do this without an account.
    NotFound
        If the caller may not know that there is such a project.
    AccessDenied
        If the caller lacks the right.
    """
    if caller.may(right, project):
        return
    if not caller.known:
        raise NotAuthenticated("no token was sent", hint="`lmvp login URL` gets a token for a server")
    if right not in SERVER_WIDE and not caller.may(READ, project):
        raise NotFound(f"no project {project!r}", hint="or it is none of yours; `lmvp ls` lists them")
    where = f" in {project!r}" if project else ""
    if right not in SCOPES[caller.scope]:
        least = next(scope for scope, rights in SCOPES.items() if right in rights)
        raise AccessDenied(
            f"this token is for scope {caller.scope!r}: it cannot {right}{where}",
            hint=f"`lmvp tokens create NAME --scope {least}` makes another one, for whoever has the right",
        )
    needed = SERVER_WIDE[right] if right in SERVER_WIDE else f"{NEEDS[right]}s"
    only = " by a token for one project" if caller.only and right in SERVER_WIDE else ""
    raise AccessDenied(f"{caller.name} has no right to {right}{where}{only}", hint=f"that is for {needed}")


def made_by(caller: Caller, account: str | None, author: str = "") -> bool:
    """Tell whether the caller made something: by the id of the account that the record names, never by an absent one.

    Parameters
    ----------
    account : str or None
        The id in the record; empty for the server's operator, None in a record of an earlier version of LMVP.
    author : str
        The name in the record, which counts where it has no id.

    Examples
    --------
    >>> ada = Caller("ada", user="u1", scope="admin")
    >>> made_by(ada, "u1"), made_by(ada, "u2", "ada"), made_by(ada, ""), made_by(ada, None, "ada")
    (True, False, False, True)
    """
    if caller.owner:
        return True
    if not caller.user:
        return False
    return caller.name == author if account is None else caller.user == account
