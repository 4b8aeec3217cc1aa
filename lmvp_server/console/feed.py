"""Events as sentences: past tense, who first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from html import escape
from typing import Any, NamedTuple
from urllib.parse import quote

from lmvp.render.words import clean
from lmvp_server.console.marks import moment
from lmvp_server.services import Services
from lmvp_server.services.access import Caller

_DONE = {
    "version.create": "published",
    "version.amend": "amended",
    "version.remove": "removed",
    "version.prune": "pruned",
    "version.undelete": "brought back",
    "version.purge": "deleted for good",
    "model.create": "made",
    "model.amend": "changed the settings of",
    "model.remove": "removed",
    "model.undelete": "brought back",
    "model.purge": "deleted for good",
    "model.fork": "forked",
    "contribution.propose": "proposed",
    "contribution.accept": "accepted",
    "contribution.decline": "declined",
    "contribution.withdraw": "withdrew",
    "contribution.comment": "commented on",
    "run.start": "began run",
    "run.resume": "went on with run",
    "run.end": "ended run",
    "run.amend": "changed run",
    "run.remove": "removed run",
    "event.damaged": "",
}

QUIET = frozenset({"run.amend"})
"""What is no news: the params that a run says after its beginning. The audit log has it."""

_NO_NAMES: Mapping[str, str] = {}


class Entry(NamedTuple):
    """A line of a feed: a sentence, as HTML, and when it happened."""

    words: str
    at: datetime


def entries(
    services: Services, caller: Caller, project: str, events: Iterable[dict[str, Any]], root: str
) -> list[Entry]:
    """Return events of a project, the newest first, as lines, but what is no news; runs by their names.

    That a run has ended tells that it began.
    """
    names: dict[str, str] = {}
    ended: set[str] = set()
    lines = []
    for event in events:
        if event["action"] in QUIET or (event["action"] == "run.start" and event["what"] in ended):
            continue
        ended |= {event["what"]} if event["action"] == "run.end" else set()
        run = event["what"].rpartition("/runs/")[2]
        if "/runs/" in event["what"] and run not in names:
            names[run] = services.runs.name_of(caller, project, run) or run[:8]
        lines.append(entry(event, root, names))
    return lines


def entry(event: dict[str, Any], root: str, names: Mapping[str, str] = _NO_NAMES) -> Entry:
    """Return an event as a line.

    Parameters
    ----------
    root : str
        What leads to the first page: `"../"`, as often as the page lies deep.
    names : dict of str to str
        The names of runs, by their ids.

    Examples
    --------
    >>> told = {"at": "2026-11-20T13:41:00Z", "who": "ada", "action": "version.create", "what": "digits/mlp@v3"}
    >>> entry(told, "../").words
    'ada published <a href="../p/digits/mlp@v3">mlp v3</a>'
    """
    return Entry(f"{escape(clean(event['who']))} {_what(event, root, names)}", moment(event["at"]))


def _what(event: dict[str, Any], root: str, names: Mapping[str, str]) -> str:
    action, what = event["action"], event["what"]
    if action in {"alias.move", "alias.remove"}:
        return _moved(event, root)
    project, _, run = what.partition("/runs/")
    if run:
        called = escape(clean(names.get(run, run[:8])))
        where = f'<a href="{root}p/{quote(project)}/-/runs/{quote(run)}">{called}</a>'
        return f"{_DONE.get(action, action)} {called if action == 'run.remove' else where}"
    verb = _DONE.get(action, action.replace(".", " "))
    gone = action.endswith((".remove", ".prune", ".purge"))
    return f"{verb} {_named(what) if gone else _link(what, root)}"


def _moved(event: dict[str, Any], root: str) -> str:
    """Tell where an alias went: to a version, or away."""
    model, _, alias = event["what"].rpartition("@")
    name = f'<span class="alias">{escape(clean(alias))}</span>'
    number = event.get("after")
    if not number:
        return f"took {name} away from {_link(model, root)}"
    return f"moved {name} to {_link(f'{model}@v{number}', root)}"


def _link(what: str, root: str) -> str:
    project, _, rest = what.partition("/")
    if not rest:
        return _named(what)
    return f'<a href="{root}p/{quote(project)}/{quote(rest, safe="@")}">{_named(what)}</a>'


def _named(what: str) -> str:
    """Write the name of something inside its project: `mlp v3`."""
    inside = what.partition("/")[2] or what
    return escape(clean(inside.replace("@", " ")))
