"""Credentials: the token or session that sent a request, checked again at a later moment."""

from __future__ import annotations

from dataclasses import replace

from lmvp_server.services.access import Caller, Roles
from lmvp_server.services.sessions import Sessions
from lmvp_server.services.tokens import Tokens
from lmvp_server.services.users import Users


class Credentials:
    """Tells what a caller of an earlier request may do now: for approvals, streams, and other long work."""

    def __init__(self, users: Users, tokens: Tokens, sessions: Sessions, roles: Roles) -> None:
        self._users, self._tokens, self._sessions, self._roles = users, tokens, sessions, roles

    def again(self, caller: Caller, operator: str) -> Caller | None:
        """Return the caller with the rights that it has at this moment; None if its credential has ended.

        The account must be the same and active, no grant of it may have ended since (`Users.generation`), and the
        token or session must still be valid. The server's own token and anonymous callers have no credential that
        ends.

        Parameters
        ----------
        operator : str
            The name of the server's operator.
        """
        kind, _, id_ = caller.credential.partition(":")
        if kind == "token":
            found = self._tokens.again(id_, operator)
        elif kind == "session":
            found = self._sessions.again(id_, operator)
        elif caller.user:
            grant = {"user": caller.user, "generation": caller.generation}
            found = self._users.caller(grant, operator, scope=caller.scope, only=caller.only)
        else:
            return caller
        same = found is not None and (found.holder, found.generation) == (caller.holder, caller.generation)
        return replace(found, roles=self._roles) if found is not None and same else None
