"""The verbs around contributions."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from lmvp.client import Client
from lmvp.commands.tables import Line, Table
from lmvp.errors import InvalidArgument

if TYPE_CHECKING:
    from lmvp.commands.verbs import Host


def contributions(options: Namespace, _host: Host) -> Any:
    """List what is proposed to a project."""
    status = "" if options.all else "proposed"
    found = Client().contributions(options.project, status=status)
    rows = [
        (f"{one.version.model}@c{one.number}", f"{one.status} as v{one.accepted}" if one.accepted else one.status,
         one.version.message, one.version.author, f"{one.version.created_at:%Y-%m-%d %H:%M}")
        for one in found
    ]  # fmt: skip
    empty = "nothing is proposed: lmvp push MODEL OBJECT --propose"
    return Table(("Contribution", "Status", "Message", "By", "When (UTC)"), rows, empty=empty)


def fork(options: Namespace, _host: Host) -> Any:
    """Copy a model with its history to a project of your own, without storing it again."""
    client = Client()
    made = client.fork(options.model, options.to)
    return Line(f"{made.project}/{made.name} is a fork of {options.model}, up to v{made.latest}")


def contribute(options: Namespace, _host: Host) -> Any:
    """Propose a version of a fork to the model that it was forked from."""
    done = Client().contribute(options.version, options.message or "")
    return Line(f"{done.reference} is proposed")


def accept(options: Namespace, _host: Host) -> Any:
    """Make a contribution the next version of its model."""
    done = Client().accept(options.contribution)
    return Line(f"{done.version.model}@c{done.number} is v{done.accepted} now, by {done.version.author}")


def decline(options: Namespace, _host: Host) -> Any:
    """Say no to a contribution, and why."""
    if not options.message:
        raise InvalidArgument("a contribution is declined with a reason", hint="-m 'the test set has leaked'")
    done = Client().decline(options.contribution, options.message)
    return Line(f"{done.version.model}@c{done.number} is declined")


def withdraw(options: Namespace, _host: Host) -> Any:
    """Take your own contribution back."""
    done = Client().withdraw(options.contribution)
    return Line(f"{done.version.model}@c{done.number} is withdrawn")


def comment(options: Namespace, _host: Host) -> Any:
    """Say something about a contribution, or show what was said."""
    client = Client()
    if options.message:
        found = client.comment(options.contribution, options.message)
    else:
        found = client.contribution(options.contribution)
    rows = [(one.by, f"{one.at:%Y-%m-%d %H:%M}", one.words) for one in found.comments]
    return Table(("By", "When (UTC)", "Comment"), rows, empty="nothing was said yet")


def require(options: Namespace, _host: Host) -> Any:
    """Say what contributions to a model must meet to be accepted."""
    made = Client().require(options.model, "" if options.nothing else options.rule or "")
    return Line(f"{made.name}: contributions must meet {made.require}" if made.require else f"{made.name}: no rule")


def rollback(options: Namespace, _host: Host) -> Any:
    """Point an alias at the version that it pointed at before its last move."""
    from lmvp.commands.verbs import moved_line

    client = Client()
    before = client.alias_history(options.alias).number
    return moved_line(client.rollback(options.alias), before)
