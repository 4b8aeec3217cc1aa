"""Verbs for accounts, groups, and the members and invitations of projects."""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lmvp.cli.access import (
    ask_password,
    check_secret,
    day,
    with_proof,
)
from lmvp.cli.tables import Line, Table
from lmvp.client.models import Client
from lmvp.errors import InvalidArgument

if TYPE_CHECKING:
    from lmvp.cli.verbs import Host
    from lmvp.core.schemas import User, Webhook


def users(options: Namespace, host: Host) -> Any:
    """List, create, disable or enable accounts, or set a password."""
    client = Client()
    if options.what == "list":
        accounts = client.users()
        rows = [(account.name, _kind(account), day(account.created_at)) for account in accounts]
        return Table(
            ("User", "Kind", "Made (UTC)"), rows, empty="no accounts; `lmvp users add NAME` adds one", data=accounts
        )
    if not options.name:
        raise InvalidArgument("user name missing", hint=f"`lmvp users {options.what} NAME`")
    if options.what == "passwd" or (options.what == "add" and not options.service):
        check_secret(host)
    if options.what == "add":
        password = "" if options.service else _new_password(options.name)
        made = with_proof(
            lambda own: client.add_user(options.name, password, admin=options.admin, current_password=own), host
        )
        return Line(f"{options.name} has an account", made)
    if options.what == "passwd":
        new = _new_password(options.name)
        keep = {"keep_tokens": options.keep_tokens, "keep_identities": options.keep_identities}
        made = with_proof(
            lambda own: client.change_user(options.name, password=new, current_password=own, **keep), host
        )
        return Line(f"the password of {made.name} is changed{_ended(made)}", made)
    made = client.change_user(options.name, disabled=options.what == "disable")
    return Line(f"{made.name} is {options.what}d{_ended(made)}", made)


def _ended(user: User) -> str:
    """State how many tokens, sessions, invitations and identities a change revoked; empty if it revoked none."""
    if user.ended is None:
        return ""
    again = "\n`lmvp login URL` gets a new token" if user.ended.tokens else ""
    return f"\nended: {user.ended}{again}"


def groups(options: Namespace, _host: Host) -> Any:
    """List, change or remove groups of accounts."""
    client = Client()
    if options.what == "list":
        records = client.groups()
        rows = [(f"@{group.name}", ", ".join(group.users)) for group in records]
        return Table(("Group", "People"), rows, empty="no groups; `lmvp groups add NAME USER …` adds one", data=records)
    if not options.name:
        raise InvalidArgument("which group?", hint=f"`lmvp groups {options.what} NAME`")
    if options.what == "remove":
        client.remove_group(options.name)
        return Line(f"@{options.name} is gone, with the roles that it gave")
    # The API replaces all users of a group, so `add` sends those that it has and the new ones.
    there = next((group.users for group in client.groups() if group.name.lower() == options.name.lower()), ())
    made = client.set_group(options.name, [*there, *options.users])
    return Line(f"@{made.name}: {', '.join(made.users) or 'nobody'}", made)


def members(options: Namespace, host: Host) -> Any:
    """List, change or invite the members of a project."""
    client = Client()
    project = options.project or client.project
    if options.what == "list":
        return _members(client, project)
    if options.what == "public":
        client.change_project(project, public=not options.off)
        return Line(f"{project} is {'for members alone' if options.off else 'read by everybody, without an account'}")
    if options.what == "everyone":
        client.change_project(project, everyone=options.role or "")
        return Line(f"everybody with an account is {options.role or 'nothing'} in {project}")
    if options.what == "invite":
        check_secret(host)
        link = client.invite(project, options.role or "viewer", days=options.days)
        message = f"(makes one account that is {link.role} in {link.project}, for {options.days} days)"
        return Line(f"{link.url}\n{message}", link, essential=True)
    if options.what == "invitations":
        return _invitations(client, project, options.revoke)
    if not options.name:
        raise InvalidArgument("whom?", hint=f"`lmvp members {project} {options.what} NAME`")
    if options.what == "remove":
        client.remove_member(project, options.name)
        return Line(f"{options.name} is no member of {project} any more")
    made = client.set_member(project, options.name, options.role or "viewer")
    return Line(f"{made.name} is {made.role} in {project}", made)


def _members(client: Client, project: str) -> Table:
    """List the members of a project, with the roles of all accounts and of the public."""
    record = next((each for each in client.projects() if each.name.lower() == project.lower()), None)
    members = client.members(project)
    rows = [(each.name, f"{each.role}{' (disabled)' if each.disabled else ''}") for each in members]
    if record and record.everyone:
        rows.append(("everyone", record.everyone))
    if record and record.public:
        rows.append(("the public", "viewer"))
    data = {
        "members": members,
        "everyone": record.everyone if record else "",
        "public": bool(record and record.public),
    }
    empty = f"no members; `lmvp members {project} add NAME --role contributor` adds one"
    return Table(("Member", "Role"), rows, empty=empty, data=data)


def _invitations(client: Client, project: str, revoke: str | None) -> Any:
    """List the invitations to a project, or revoke one."""
    if revoke:
        client.revoke_invitation(revoke)
        return Line(f"the invitation {revoke} is revoked")
    records = client.invitations(project)
    rows = [(invitation.id, invitation.role, invitation.by, day(invitation.created_at), day(invitation.expires_at),
             invitation.ended or "can be used")
            for invitation in records]  # fmt: skip
    head = ("Id", "Role", "By", "Made", "Until (UTC)", "Status")
    empty = f"no invitations; `lmvp members {project} invite --role contributor` makes one"
    return Table(head, rows, empty=empty, data=records)


def _kind(user: Any) -> str:
    """Describe the kind of an account: `person`, or a list of `admin`, `service` and `disabled`."""
    words = ["admin"] if user.admin else []
    words += ["service"] if user.service else []
    return ", ".join([*words, *(["disabled"] if user.disabled else [])]) or "person"


def _new_password(name: str) -> str:
    """Prompt twice for a new password, or read one line from a pipe."""
    hint = "`lmvp users add NAME --service` makes an account that acts by tokens alone"
    given = ask_password(f"new password for {name}: ", hint)
    if sys.stdin.isatty() and given != ask_password("once more: "):
        raise InvalidArgument("the two passwords differ", hint="try again")
    return given


def webhooks(options: Namespace, host: Host) -> Any:
    """List, create, remove, enable or test the webhooks of a project."""
    client = Client()
    project = options.project or client.project
    if options.what == "list":
        records = client.webhooks(project)
        rows = [(webhook.id, webhook.url, ", ".join(webhook.events), _webhook_state(webhook)) for webhook in records]
        empty = f"no webhooks; `lmvp webhooks {project} add URL` adds one"
        return Table(("Id", "URL", "Events", "State"), rows, empty=empty, data=records)
    if not options.target:
        raise InvalidArgument(f"{options.what} what?", hint=_HINTS[options.what].format(project))
    if options.what == "add":
        check_secret(host)
        made = client.add_webhook(project, options.target, options.event)
        message = f"{project} sends {', '.join(made.events)} to {urlsplit(made.url).hostname} as {made.id}"
        return Line(f"{message}\nits secret, shown this once: {made.secret}", made, essential=True)
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


def _webhook_state(webhook: Webhook) -> str:
    """Describe the last delivery of a webhook."""
    if webhook.disabled:
        return f"given up: {webhook.error}"
    if webhook.error:
        return f"tried {webhook.tries} times: {webhook.error}"
    return f"arrived {day(webhook.arrived_at)}" if webhook.arrived_at else "nothing sent yet"
