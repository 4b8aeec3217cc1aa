"""Verbs for forks, contributions and the rollback of aliases."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from lmvp.cli.maintenance import day
from lmvp.cli.tables import Line, Table
from lmvp.client.models import Client
from lmvp.errors import InvalidArgument

if TYPE_CHECKING:
    from lmvp.cli.verbs import Host
    from lmvp.core.schemas import Contribution


def contributions(options: Namespace, _host: Host) -> Any:
    """List the contributions to a project."""
    status = "" if options.all else "proposed"
    records = Client().contributions(options.project, status=status)
    rows = [
        (f"{record.version.model}@c{record.number}",
         f"{record.status} as v{record.accepted}" if record.accepted else record.status,
         record.version.message, record.version.author, f"{record.version.created_at:%Y-%m-%d %H:%M}")
        for record in records
    ]  # fmt: skip
    empty = "nothing is proposed; `lmvp push MODEL FILE --propose` proposes a version"
    return Table(("Contribution", "Status", "Message", "By", "When (UTC)"), rows, empty=empty, data=records)


def fork(options: Namespace, _host: Host) -> Any:
    """Copy a model with its history into another project."""
    client = Client()
    made = client.fork(options.model, options.to)
    return Line(f"{made.project}/{made.name} is a fork of {options.model}, up to v{made.latest}", made)


def contribute(options: Namespace, _host: Host) -> Any:
    """Propose a version of a fork to the original model."""
    done = Client().contribute(options.version, options.message or "")
    return Line(f"{done.reference} is proposed", done)


def accept(options: Namespace, _host: Host) -> Any:
    """Accept a contribution as the next version of its model."""
    done = Client().accept(options.contribution)
    return Line(f"{done.version.model}@c{done.number} is v{done.accepted} now, by {done.version.author}", done)


def decline(options: Namespace, _host: Host) -> Any:
    """Decline a contribution, with a reason."""
    if not options.message:
        raise InvalidArgument("a contribution is declined with a reason", hint="-m 'the test set has leaked'")
    done = Client().decline(options.contribution, options.message)
    return Line(f"{done.version.model}@c{done.number} is declined{_kept(done)}", done)


def withdraw(options: Namespace, _host: Host) -> Any:
    """Withdraw your own contribution."""
    done = Client().withdraw(options.contribution)
    return Line(f"{done.version.model}@c{done.number} is withdrawn{_kept(done)}", done)


def _kept(done: Contribution) -> str:
    """State the date until which the files of a declined or withdrawn contribution can be downloaded."""
    return f"; its files are kept until {day(done.until)}" if done.until is not None else ""


def comment(options: Namespace, _host: Host) -> Any:
    """Show the comments on a contribution, or add one."""
    client = Client()
    if options.message:
        contribution = client.comment(options.contribution, options.message)
    else:
        contribution = client.contribution(options.contribution)
    rows = [(entry.by, f"{entry.at:%Y-%m-%d %H:%M}", entry.words) for entry in contribution.comments]
    return Table(("By", "When (UTC)", "Comment"), rows, empty="no comments yet", data=contribution.comments)


def require(options: Namespace, _host: Host) -> Any:
    """Show or set the rule that contributions to a model must meet."""
    client = Client()
    if options.rule is None and not options.nothing:  # without a rule, the verb only shows the current one
        made = client.model(options.model)
    else:
        made = client.require(options.model, "" if options.nothing else options.rule)
    message = f"{made.name}: contributions must meet {made.require}" if made.require else f"{made.name}: no rule"
    return Line(message, made)


def rollback(options: Namespace, host: Host) -> Any:
    """Move an alias back to its previous version."""
    from lmvp.cli.verbs import confirmed, moved_line

    client = Client()
    client.check_alias_name(options.alias)
    before = client.alias_history(options.alias).number
    done = confirmed(lambda yes: client.rollback(options.alias, yes=yes), host, yes=options.yes)
    return moved_line(f"{done.project}/{done.model}@{done.name}", before, done.number, done)
