"""The caller of a request, and the table of rights. Every use case checks a right here first.

A right is looked up when it is used, so disabling an account or removing a role takes effect immediately. A missing
value never grants a right: the server's operator has an explicit identity (`OPERATOR`), and a record without an
account grants nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol

from lmvp.errors import AccessDenied, NotAuthenticated, NotFound

OPERATOR = "server"
"""The holder of a grant of the server's operator. The ids of accounts are `u` and hexadecimal digits, so an account
cannot have this id."""

VIEWER, CONTRIBUTOR, MAINTAINER, OWNER = ROLES = ("viewer", "contributor", "maintainer", "owner")
"""The roles in a project, from the fewest rights to the most. Each has the rights of those before it."""

# The values of the rights complete sentences of error messages: "… has no right to move aliases".
READ, LOG, PROPOSE, ALIAS = "read", "log runs", "propose", "move aliases"
WRITE, MAINTAIN, OWN = "write", "maintain", "own"
ENTER, CREATE, GRANT, ADMIN = "look around", "make projects", "make tokens", "administer this server"
ACCOUNT = "change its account"
"""The right to change the caller's own password, sessions, sign-in providers and memberships."""

NEEDS = {
    READ: VIEWER,
    LOG: CONTRIBUTOR,
    PROPOSE: CONTRIBUTOR,
    ALIAS: CONTRIBUTOR,
    WRITE: MAINTAINER,
    MAINTAIN: MAINTAINER,
    OWN: OWNER,
}
"""The lowest role in a project that has each right."""

_IN_WORDS = {MAINTAIN: "remove things or set rules", OWN: "manage members and settings"}
"""Rights as messages name them, where the name of the right alone is not clear."""

SERVER_WIDE = {
    ENTER: "an account",
    CREATE: "an account",
    GRANT: "an account",
    ACCOUNT: "an account",
    ADMIN: "an admin",
}
"""The rights that do not belong to a project, with their holders for error messages."""

LEAST_SCOPE, LOGIN_SCOPE = "read", "write"
"""The default scope of a new token, and the scope that `lmvp login` requests."""

SCOPES = {
    "read": frozenset({READ, ENTER}),
    "write": frozenset({READ, LOG, PROPOSE, ALIAS, WRITE, MAINTAIN, ENTER, CREATE}),
    "admin": frozenset({*NEEDS, *SERVER_WIDE}),
}
"""The rights that each scope allows. A token has those of them that its account also has. Only `admin` allows creating
tokens and changing the account: otherwise a token that expires or leaks could create one that lasts, or set a
password."""

FRESH = 600.0
"""Seconds after a sign-in during which a session can change its account without the password."""


class Roles(Protocol):
    """A lookup of roles. `lmvp_server.services.members.ProjectRoles` implements it."""

    def role(self, caller: Caller, project: str) -> str | None:
        """Return the role of a caller in a project, by its name; None without a role or without such a project."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a request.

    Attributes
    ----------
    name : str
        The author of changes, as events show it.
    is_operator : bool
        Whether the caller is the server's operator, who has every right and can name another author (`on_behalf`).
        Not the role `owner` of a project.
    user : str
        The id of the account; empty for the operator and for anonymous callers.
    admin : bool
        Whether the account is an admin, who has every right in every project and on the server.
    scope : str
        One of `SCOPES`. It has no default, so that each place that builds a caller states it.
    only : str
        The id of the project that the token is limited to; empty for all projects.
    roles : Roles or None
        The lookup of roles in projects. Without it, only the operator has a role.
    credential : str
        The token or session that sent the request (`token:ID`, `session:DIGEST`); empty without one.
    generation : int
        The generation of the account's grants at the time of the request; see `Users.generation`.
    signed_in_at : float
        The time of the sign-in that began the session, in seconds since 1970; 0 for tokens, and for sessions that a
        token began.
    again : callable or None
        Looks up the credential again and returns its caller, or None if it has ended. None for the server's own token
        and for anonymous callers, whose rights do not end.
    """

    name: str
    is_operator: bool = False
    user: str = ""
    admin: bool = False
    scope: str = field(kw_only=True)
    only: str = ""
    roles: Roles | None = field(default=None, repr=False, compare=False)
    credential: str = field(default="", repr=False, compare=False)
    generation: int = field(default=0, repr=False, compare=False)
    signed_in_at: float = field(default=0.0, repr=False, compare=False)
    again: Callable[[], Caller | None] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.scope not in SCOPES:
            raise ValueError(f"no scope {self.scope!r}")
        if self.user == OPERATOR or (self.is_operator and self.user):
            raise ValueError("a caller is the operator or an account, not both")

    @property
    def known(self) -> bool:
        """Whether the caller is the operator or an account."""
        return self.is_operator or bool(self.user)

    @property
    def holder(self) -> str:
        """The id stored in grant records: the account id, or `OPERATOR`.

        Raises
        ------
        NotAuthenticated
            For an anonymous caller, who cannot hold a grant.
        """
        if not self.known:
            raise NotAuthenticated("no token was sent", hint="`lmvp login URL` gets a token for a server")
        return OPERATOR if self.is_operator else self.user

    @property
    def is_fresh(self) -> bool:
        """Whether the caller signed in within the last `FRESH` seconds."""
        return 0.0 <= time.time() - self.signed_in_at < FRESH

    @property
    def everything(self) -> bool:
        """Whether the caller has access to every project."""
        return (self.is_operator or self.admin) and not self.only

    def on_behalf(self, author: str) -> str:
        """Return the author to record. Only the operator can name another author."""
        return author if self.is_operator and author else self.name

    def role(self, project: str) -> str | None:
        """Return the role in a project, by its name."""
        if self.is_operator and not self.only:
            return OWNER
        return self.roles.role(self, project) if self.roles else None

    def may(self, right: str, project: str = "") -> bool:
        """Return whether the caller has a right."""
        if right not in SCOPES[self.scope]:  # also for admins and the operator
            return False
        if right in SERVER_WIDE:
            return self.known if right == ENTER else self._may_here(right)
        return at_least(self.role(project), NEEDS[right])

    def _may_here(self, right: str) -> bool:
        """Return whether the caller has a server-wide right other than `ENTER`. A token for one project has none."""
        if self.only or not self.known:
            return False
        return self.is_operator or self.admin or right in {CREATE, GRANT, ACCOUNT}


def at_least(role: str | None, needed: str) -> bool:
    """Return whether a role has all rights of another one.

    Examples
    --------
    >>> at_least("owner", "viewer"), at_least("viewer", "contributor"), at_least(None, "viewer")
    (True, False, False)
    """
    return role is not None and ROLES.index(role) >= ROLES.index(needed)


def highest(roles: Iterable[str]) -> str | None:
    """Return the role with the most rights; None without roles.

    Examples
    --------
    >>> highest(["viewer", "maintainer", ""]), highest([])
    ('maintainer', None)
    """
    return max((role for role in roles if role), key=ROLES.index, default=None)


def require(caller: Caller, right: str, project: str = "") -> None:
    """Check that the caller has a right.

    Raises
    ------
    NotAuthenticated
        If the caller is anonymous.
    NotFound
        If the caller cannot read the project, so that its existence stays hidden.
    AccessDenied
        If the caller lacks the right.
    """
    if caller.may(right, project):
        return
    if not caller.known:
        raise NotAuthenticated("no token was sent", hint="`lmvp login URL` gets a token for a server")
    # Checked before scope and role, because an error about these would reveal that the project exists.
    if right not in SERVER_WIDE and not caller.may(READ, project):
        raise NotFound(f"no project {project!r}", hint="or it is none of yours; `lmvp ls` lists them")
    where = f" in {project!r}" if project else ""
    if right not in SCOPES[caller.scope]:
        least = next(scope for scope, rights in SCOPES.items() if right in rights)
        raise AccessDenied(
            f"this token is for scope {caller.scope!r}: it cannot {_IN_WORDS.get(right, right)}{where}",
            hint=f"`lmvp login URL --scope {least}` gets one that can, if your account has the right",
        )
    only = " by a token for one project" if caller.only and right in SERVER_WIDE else ""
    needed = f"that is for {SERVER_WIDE[right]}" if right in SERVER_WIDE else f"that needs the role {NEEDS[right]}"
    words = _IN_WORDS.get(right, right)
    raise AccessDenied(f"{caller.name} has no right to {words}{where}{only}", hint=needed)


def current(caller: Caller) -> Caller:
    """Return the caller with its current rights.

    Raises
    ------
    NotAuthenticated
        If its token or session has ended, or its account is disabled or deleted.
    """
    if caller.again is None:
        return caller
    found = caller.again()
    # The holder must be the same, because a token id has only 8 digits and another token can get it later. A new
    # generation ends all grants of the account, for example after a password change.
    if found is None or (found.holder, found.generation) != (caller.holder, caller.generation):
        raise NotAuthenticated(
            f"the token or session of {caller.name} ended before this change was made",
            hint="`lmvp login URL` gets another token; in the console, sign in again",
        )
    return replace(found, roles=caller.roles)


def still(caller: Caller, right: str) -> Callable[[], None]:
    """Return a check for `RecordStore.commit`: the caller has a server-wide right at the time of the commit.

    A request can wait between the lookup of its caller and the commit. Every commit that creates or changes a grant or
    a right passes this check, or `grants.still` for a right in a project.
    """
    return lambda: require(current(caller), right)


def made_by(caller: Caller, account: str | None, author: str = "") -> bool:
    """Return whether the caller created an object. The operator counts as the creator of every object.

    The ids of the accounts are compared. An anonymous caller has no id and created nothing.

    Parameters
    ----------
    caller : Caller
        The caller to check.
    account : str or None
        The account id in the record; empty for the server's operator, None in a record of an earlier release.
    author : str, default ""
        The name in the record. It is compared only if the record has no id.

    Returns
    -------
    bool
        Whether the caller created the object.

    Examples
    --------
    >>> ada = Caller("ada", user="u1", scope="admin")
    >>> made_by(ada, "u1"), made_by(ada, "u2", "ada"), made_by(ada, ""), made_by(ada, None, "ada")
    (True, False, False, True)
    """
    if caller.is_operator:
        return True
    if not caller.user:
        return False
    return caller.name == author if account is None else caller.user == account
