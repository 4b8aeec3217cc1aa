"""Credentials: the token or session that sent a request, checked again at a later time."""

from __future__ import annotations

from dataclasses import replace

from lmvp_server.services.access import Caller, Roles
from lmvp_server.services.sessions import Sessions
from lmvp_server.services.tokens import Tokens
from lmvp_server.services.users import Users


class Credentials:
    """Looks up the current rights of the caller of an earlier request, for approvals, streams and other long work."""

    def __init__(self, users: Users, tokens: Tokens, sessions: Sessions, roles: Roles) -> None:
        self._users, self._tokens, self._sessions, self._roles = users, tokens, sessions, roles

    def again(self, caller: Caller, operator: str) -> Caller | None:
        """Return the caller with its current rights; None if its credential has ended.

        The account must be the same and active, its grants must not have ended since (`Users.generation`), and the
        token or session must still be valid. The credentials of the server's own token and of anonymous callers do
        not end.

        Parameters
        ----------
        caller : Caller
            The caller at the time of the earlier request.
        operator : str
            The name of the server's operator.

        Returns
        -------
        Caller or None
            The same caller with its current rights.
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
        # A higher generation means that all earlier grants of the account have ended.
        same = found is not None and (found.holder, found.generation) == (caller.holder, caller.generation)
        return replace(found, roles=self._roles) if found is not None and same else None
