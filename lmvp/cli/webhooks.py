"""The `webhooks` verb."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lmvp.cli.access import check_secret, day
from lmvp.cli.tables import Line, Table
from lmvp.client.models import Client
from lmvp.errors import InvalidArgument

if TYPE_CHECKING:
    from lmvp.cli.verbs import Host
    from lmvp.core.schemas import Webhook


def webhooks(options: Namespace, host: Host) -> Any:
    """List, create, remove, enable or test the webhooks of a project."""
    client = Client()
    project = options.project or client.project
    if options.what == "list":
        found = client.webhooks(project)
        rows = [(one.id, one.url, ", ".join(one.events), _state(one)) for one in found]
        empty = f"no webhooks; `lmvp webhooks {project} add URL` adds one"
        return Table(("Id", "URL", "Events", "State"), rows, empty=empty, data=found)
    if not options.target:
        raise InvalidArgument(f"{options.what} what?", hint=_HINTS[options.what].format(project))
    if options.what == "add":
        check_secret(host)
        made = client.add_webhook(project, options.target, options.event)
        told = f"{project} sends {', '.join(made.events)} to {urlsplit(made.url).hostname} as {made.id}"
        return Line(f"{told}\nits secret, shown this once: {made.secret}", made, essential=True)
    if options.what == "remove":
        client.remove_webhook(project, options.target)
        return Line(f"{options.target} is told nothing any more")
    if options.what == "enable":
        enabled = client.enable_webhook(project, options.target)
        return Line(f"{options.target} is enabled; deliveries continue after the last one", enabled)
    done = client.test_webhook(project, options.target)
    return Line(f"it answered {done.status}" if not done.error else f"it did not arrive: {done.error}", done)


# The hint if the target of an action is missing. `{0}` is the project.
_BY_ID = ("remove", "enable", "test")
_HINTS = {"add": "`lmvp webhooks {0} add https://hooks.example.org/lmvp`"}
_HINTS |= {what: f"`lmvp webhooks {{0}} {what} ID`; `lmvp webhooks {{0}}` lists them" for what in _BY_ID}


def _state(one: Webhook) -> str:
    """Describe the last delivery of a webhook."""
    if one.disabled:
        return f"given up: {one.error}"
    if one.error:
        return f"tried {one.tries} times: {one.error}"
    return f"arrived {day(one.arrived_at)}" if one.arrived_at else "nothing sent yet"
