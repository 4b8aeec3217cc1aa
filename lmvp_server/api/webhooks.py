"""Handlers of the webhooks of a project."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from lmvp.core.schemas import NewWebhook, Ping
from lmvp_server.api.base import Handler
from lmvp_server.process.notifier import Notifier
from lmvp_server.services import access


class Webhooks(Handler):
    """`/projects/{project}/webhooks`."""

    needs: ClassVar[Mapping[str, str]] = {"POST": access.OWN}

    async def get(self, project: str) -> None:
        """List the webhooks of a project."""
        self.answer(await self.run(self.services.webhooks.of_project, self.caller, project))

    async def post(self, project: str) -> None:
        """Create a webhook; only this response contains its secret."""
        new = self.read(NewWebhook)
        self.answer(await self.run(self.services.webhooks.add, self.caller, project, new), 201)


class Webhook(Handler):
    """`…/webhooks/{webhook}`."""

    async def delete(self, project: str, webhook: str) -> None:
        """Delete a webhook."""
        await self.run(self.services.webhooks.remove, self.caller, project, webhook)
        self.set_status(204)
        self.finish()


class Enable(Handler):
    """`…/webhooks/{webhook}/enable`."""

    async def post(self, project: str, webhook: str) -> None:
        """Enable a disabled webhook and send its pending events."""
        self.answer(await self.run(self.services.webhooks.enable, self.caller, project, webhook))


class Test(Handler):
    """`…/webhooks/{webhook}/test`."""

    async def post(self, project: str, webhook: str) -> None:
        """Send a test event to a webhook now and return the result."""
        delivery = await self.run(self.services.webhooks.test, self.caller, project, webhook)
        notifier: Notifier = self.settings["notifier"]
        status, error = await notifier.send(delivery)
        await self.run(self.services.webhooks.tested, self.caller, project, delivery, status, error)
        self.answer(Ping(status=status, error=error))
