"""Verbs for runs and metrics, and the options and the start of `%%lmvp run`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from lmvp.cli.tables import Line, Table
from lmvp.cli.verbs import pairs, param_value
from lmvp.client.models import Client
from lmvp.core import number_format
from lmvp.errors import InvalidArgument, NotFound
from lmvp.tracking import unsent
from lmvp.tracking.unsent import Delivery

if TYPE_CHECKING:
    from lmvp.cli.verbs import Host
    from lmvp.tracking.active_run import ActiveRun

_PROJECTS = 50
"""Maximum number of projects that the hint of an empty list searches for runs; each takes a request."""
_CELL_LIMIT = 200_000
"""Maximum number of characters of the source of a cell that are stored with its run."""
# A removed run stays in its journal until the user restores or discards it, so it waits, too.
_WORDS = {"delivered": "delivered", "waiting": "waits", "running": "is running", "removed": "waits"}


def runs(options: Namespace, _host: object) -> Any:
    """List the runs of a project, newest first."""
    client = Client()
    try:
        records = client.runs(options.project, where=options.where, order=options.order, limit=options.limit)
    except NotFound as error:
        hint = None if options.project else _other_projects(client)
        raise NotFound(error.message, hint=hint or error.hint) from None
    if not records and "/" in (options.project or ""):  # `project/model` lists the runs that made its versions
        which = "no run that matches" if options.where else "no run"
        return Line(f"{which} made a version of {options.project}")
    if records or options.project or options.where or (hint := _other_projects(client)) is None:
        return records
    return Line(f"no runs in project {client.project!r}; {hint}")


def _other_projects(client: Client) -> str | None:
    """Return a hint that names up to three projects with runs; None if no other project has runs."""
    names = [each.name for each in client.projects()[:_PROJECTS] if each.name != client.project]
    full = [name for name in names if client.runs(name, limit=1)]
    return f"did you mean {' or '.join(f'`lmvp runs {name}`' for name in full[:3])}?" if full else None


def metrics(options: Namespace, _host: object) -> Any:
    """Plot the metrics of runs, a model or a project."""
    from lmvp.views.curve_queries import metrics_of

    return metrics_of(Client(), options.names, options.key, smooth=options.smooth, log=options.log, axis=options.x)


def annotate(options: Namespace, _host: object) -> Any:
    """Change the name, tags, params or notes of a run."""
    project, _, run = options.run.rpartition("/")
    tags: dict[str, str | None] = {**(pairs("tag", options.tag, str) or {}), **dict.fromkeys(options.untag)}
    params = pairs("param", options.param, param_value)
    if options.name is None and options.notes is None and not tags and not params:
        raise InvalidArgument("nothing to change", hint=f"`lmvp annotate {options.run} --tag by=ada`")
    client = Client()
    both = [key for key in options.untag if key in (pairs("tag", options.tag, str) or {})]
    if both:
        raise InvalidArgument(f"`--tag` and `--untag` both name {both[0]!r}", hint="choose one of them")
    if options.untag:  # the server ignores unknown tags, so a typing error is reported here
        there = client.run(project or None, run).tags
        missing = [key for key in options.untag if key not in there]
        if missing:
            known = f"its tags: {', '.join(there)}" if there else "it has no tags"
            raise NotFound(f"the run {run} has no tag {missing[0]!r}", hint=known)
    made = client.amend_run(project or None, run, name=options.name, notes=options.notes, params=params, tags=tags)
    said = "".join(f"\n  {key}: {value}" if value else f"\n  {key}" for key, value in made.tags.items())
    return Line(f"{made.project}/{made.name}{said}" + (f"\n{made.notes}" if made.notes else ""), made)


def compare(options: Namespace, _host: object) -> Any:
    """Compare the params, tags and metrics of runs."""
    from lmvp.views.curve_queries import compare_runs

    return compare_runs(Client(), options.runs, every=options.all)


def sync(options: Namespace, _host: object) -> Any:
    """Send the unsent run data of this machine to its servers."""
    if options.discard:
        size = unsent.discard(options.discard)
        return Line(f"{number_format.size(size)} of metrics discarded")
    deliveries = unsent.deliver(dry_run=options.dry_run, force=options.force)
    rows = [_row(delivery, dry_run=options.dry_run) for delivery in deliveries]
    head = ("Run", "Project", "Server", "Bytes", "What")
    return Table(head, rows, empty="nothing waits on this machine", right=frozenset({3}), data=deliveries)


def add_run_options(parser: ArgumentParser) -> None:
    """Add the options of `%%lmvp run` to a parser."""
    parser.add_argument("project", nargs="?", help="the project; the current one")
    parser.add_argument("--name", help="what to call the run")
    parser.add_argument("--param", action="append", default=[], metavar="KEY=VALUE", help="what it is made with")
    parser.add_argument("--tag", action="append", default=[], metavar="KEY=TEXT", help="a tag; may be given again")
    parser.add_argument("--resume", metavar="RUN", help="a run that goes on")
    parser.add_argument("--create", action="store_true", help="make the project on a shared server")


def begin(options: Namespace, cell: str, host: Host | None = None) -> ActiveRun:
    """Start the run of a cell and store the source of the cell with it, with secrets redacted.

    Parameters
    ----------
    options : argparse.Namespace
        The options of `%%lmvp run`.
    cell : str
        The source of the cell.
    host : Host, optional
        Returns the values of variables in `--param` and `--tag`.
    """
    run = Client().start_run(
        options.project,
        name=options.name,
        params=pairs("param", options.param, param_value, host),
        tags=pairs("tag", options.tag, str, host),
        resume=options.resume,
        create=options.create,
    )
    run.say(environment={"cell": cell[:_CELL_LIMIT]})
    return run


def _row(delivery: Delivery, *, dry_run: bool) -> tuple[str, ...]:
    """Return the row of a run in the table of `lmvp sync`."""
    word = _WORDS["waiting" if dry_run and delivery.state == "delivered" else delivery.state]
    why = f"{word}: {delivery.why}" if delivery.why and word == _WORDS["waiting"] else word
    if delivery.hint and delivery.state == "removed":
        why = f"{why} ({delivery.hint})"
    name = delivery.name or delivery.run[:8]
    return name, delivery.project, delivery.url, number_format.size(delivery.bytes), why
