"""Routes of the webhooks of a project."""

from __future__ import annotations

from lmvp.core import schemas
from lmvp_server.api.base import Handler
from lmvp_server.api.route import Route
from lmvp_server.process.notifier import Notifier
from lmvp_server.services import access


class WebhooksHandler(
    Handler,
    path="/projects/{project}/webhooks",
    routes=(
        Route(
            "GET",
            "List the webhooks of a project.",
            schemas.Webhook,
            many=True,
            right=access.OWN,
            note="See [webhooks](webhooks.md).",
            call=lambda services, caller, given: services.webhooks.of_project(caller, given.project),
        ),
        Route(
            "POST",
            "Create a webhook; only this response contains its secret.",
            schemas.MadeWebhook,
            request=schemas.NewWebhook,
            status=201,
            right=access.OWN,
            note="403 if the server sends no webhooks to this host.",
            call=lambda services, caller, given: services.webhooks.add(caller, given.project, given.body),
        ),
    ),
):
    """The webhooks of a project."""


class WebhookHandler(
    Handler,
    path="/projects/{project}/webhooks/{webhook}",
    routes=(
        Route(
            "DELETE",
            "Delete a webhook.",
            None,
            status=204,
            right=access.OWN,
            call=lambda services, caller, given: services.webhooks.remove(caller, given.project, given.webhook),
        ),
    ),
):
    """One webhook."""


class WebhookEnableHandler(
    Handler,
    path="/projects/{project}/webhooks/{webhook}/enable",
    routes=(
        Route(
            "POST",
            "Enable a disabled webhook and send its pending events.",
            schemas.Webhook,
            right=access.OWN,
            call=lambda services, caller, given: services.webhooks.enable(caller, given.project, given.webhook),
        ),
    ),
):
    """Enabling of a webhook."""


class WebhookTestHandler(
    Handler,
    path="/projects/{project}/webhooks/{webhook}/test",
    routes=(
        Route("POST", "Send a test event to a webhook now and return the result.", schemas.Ping, right=access.OWN),
    ),
):
    """Test of a webhook."""

    async def post(self, project: str, webhook: str) -> None:
        """Send a test event."""
        delivery = await self.run(self.services.webhooks.test, self.caller, project, webhook)
        notifier: Notifier = self.settings["notifier"]
        status, error = await notifier.send(delivery)
        await self.run(self.services.webhooks.tested, self.caller, project, delivery, status, error)
        self.answer(schemas.Ping(status=status, error=error))
