"""Routes of invitations and sign-in links."""

from __future__ import annotations

import msgspec

from lmvp.core import schemas
from lmvp_server.api.base import Handler
from lmvp_server.api.route import Route
from lmvp_server.services import access


class SignInLinksHandler(
    Handler,
    path="/signin-links",
    routes=(
        Route(
            "POST",
            "Create a one-time sign-in link for a browser with the rights of the caller's token.",
            schemas.SignInLink,
            request=schemas.NewSignInLink,
            status=201,
            right=access.ENTER,
            admission="",  # the body is short
            body_limit=4096,
            note="`{server}/open#{code}` signs a browser in once.",
            call=lambda services, caller, given: services.signin_links.create(caller, given.body),
        ),
    ),
):
    """Sign-in links."""


class InvitationsHandler(
    Handler,
    path="/invitations",
    routes=(
        Route(
            "GET",
            "List the invitations to the projects that the caller owns.",
            schemas.Invitation,
            many=True,
            right=access.ENTER,
            note="`ended` states why an invitation cannot be used any more. The list contains no secrets.",
            call=lambda services, caller, _: services.invitations.every(caller),
        ),
        Route(
            "POST",
            "Create an invitation.",
            schemas.Invitation,
            request=schemas.Invite,
            status=201,
            right=access.OWN,
            admission="",  # the body names the project
            note="The project is in the body. Only this response contains the `url`.",
        ),
    ),
):
    """The invitations to projects."""

    async def post(self) -> None:
        """Create an invitation with the URL of this server."""
        made = await self.run(self.services.invitations.create, self.caller, self.read(schemas.Invite))
        url = f"{self.address_of_server()}/join?code={made.secret}"
        self.answer(msgspec.structs.replace(made, url=url), 201)


class InvitationHandler(
    Handler,
    path="/invitations/{invitation}",
    routes=(
        Route(
            "DELETE",
            "Revoke an invitation.",
            None,
            status=204,
            right=access.ENTER,
            note="Needs the role owner in its project.",
            call=lambda services, caller, given: services.invitations.revoke(caller, given.invitation),
        ),
    ),
):
    """One invitation."""
