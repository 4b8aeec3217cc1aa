"""Routes of tokens and OpenID identities."""

from __future__ import annotations

from lmvp.core import schemas
from lmvp_server.api.base import Handler
from lmvp_server.api.query import PAGE, Text
from lmvp_server.api.route import Route
from lmvp_server.services import access

USER: Text[str] = Text(name="user", description="For admins: only the identities of this account.")


class TokensHandler(
    Handler,
    path="/tokens",
    routes=(
        Route(
            "GET",
            "List tokens.",
            schemas.TokenRecord,
            many=True,
            right=access.GRANT,
            query=PAGE,
            note="The list contains no secrets.",
            call=lambda services, caller, given: services.tokens.every(caller, given.page),
        ),
        Route(
            "POST",
            "Create a token.",
            schemas.NewToken,
            request=schemas.MakeToken,
            status=201,
            right=access.GRANT,
            note="Only this response contains the secret. The default scope is `read`. "
            '409 if the account has 1,000 tokens. See "Changes of an account".',
            call=lambda services, caller, given: services.tokens.create(caller, given.body),
        ),
    ),
):
    """The tokens of an account."""


class TokenHandler(
    Handler,
    path="/tokens/{token}",
    routes=(
        Route(
            "DELETE",
            "Revoke a token.",
            None,
            status=204,
            right=access.GRANT,
            call=lambda services, caller, given: services.tokens.revoke(caller, given.token),
        ),
    ),
):
    """One token."""


class IdentitiesHandler(
    Handler,
    path="/identities",
    routes=(
        Route(
            "GET",
            "List the OpenID identities of the caller's account; for admins, of all accounts.",
            schemas.IdentityRecord,
            many=True,
            right=access.ACCOUNT,
            query=(*PAGE, USER),
            note="`ended` states why an identity does not sign in any more.",
            call=lambda services, caller, given: services.identities.every(caller, given.page, given.user),
        ),
    ),
):
    """The identities at an OpenID provider."""


class IdentityHandler(
    Handler,
    path="/identities/{identity}",
    routes=(
        Route(
            "DELETE",
            "Disconnect an identity from its account.",
            None,
            request=schemas.Disconnect,
            is_body_required=False,
            status=204,
            right=access.ACCOUNT,
            admission="",  # the body is a password at most
            note='The sessions that it began end. See "Changes of an account".',
        ),
    ),
):
    """One identity."""

    async def delete(self, identity: str) -> None:
        """Disconnect an identity; it depends on the provider whether the account can still sign in."""
        given = self.read(schemas.Disconnect) if self.has_body else schemas.Disconnect()
        disconnect, password = self.services.identities.disconnect, given.current_password
        run = self.run_password if password else self.run
        await run(disconnect, self.caller, identity, self.issuer, password)
        self.set_status(204)
        self.finish()
