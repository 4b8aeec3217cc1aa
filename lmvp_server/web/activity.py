"""Events as sentences in the past tense that begin with the user's name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from html import escape
from typing import Any, NamedTuple
from urllib.parse import quote

from lmvp.core.sanitize import clean
from lmvp_server.services import Services
from lmvp_server.services.access import Caller
from lmvp_server.web.svg_marks import moment

SENTENCES: Mapping[str, str] = {
    "version.create": "published {}",
    "version.import": "imported {}",
    "version.amend": "amended {}",
    "version.remove": "removed {}",
    "version.prune": "pruned {}",
    "version.undelete": "restored {}",
    "version.purge": "deleted {} permanently",
    "model.create": "created {}",
    "model.amend": "changed the settings of {}",
    "model.remove": "removed {}",
    "model.undelete": "restored {}",
    "model.purge": "deleted {} permanently",
    "model.fork": "forked {}",
    "alias.move": "moved an alias: {}",
    "alias.remove": "removed an alias: {}",
    "contribution.propose": "proposed {}",
    "contribution.accept": "accepted {}",
    "contribution.decline": "declined {}",
    "contribution.withdraw": "withdrew {}",
    "contribution.comment": "commented on {}",
    "contribution.purge": "deleted the files of {} permanently",
    "run.start": "started run {}",
    "run.resume": "resumed run {}",
    "run.rewind": "rewound run {}",
    "run.end": "ended run {}",
    "run.amend": "changed run {}",
    "run.remove": "removed run {}",
    "run.undelete": "restored run {}",
    "run.purge": "deleted run {} permanently",
    "project.create": "created the project {}",
    "project.change": "changed the settings of the project {}",
    "project.remove": "removed the project {}",
    "project.undelete": "restored the project {}",
    "project.purge": "deleted the project {} permanently",
    "member.set": "set a role: {}",
    "member.remove": "removed a member: {}",
    "group.set": "changed the group {}",
    "group.remove": "removed the group {}",
    "invitation.create": "created an invitation: {}",
    "invitation.revoke": "revoked an invitation: {}",
    "invitation.end": "ended an invitation: {}",
    "user.add": "added the account {}",
    "user.change": "changed the account {}",
    "user.connect": "connected the account {} with an identity provider",
    "user.disconnect": "disconnected the account {} from an identity provider",
    "server.token": "replaced {}",
    "device.approve": "approved the login of a device: {}",
    "device.deny": "denied the login of a device: {}",
    "token.create": "created a token: {}",
    "token.revoke": "revoked a token: {}",
    "session.begin": "signed in from {}",
    "session.link": "created a sign-in link to {}",
    "session.end": "signed out: {}",
    "session.fail": "failed to sign in: {}",
    "webhook.add": "added a webhook: {}",
    "webhook.remove": "removed a webhook: {}",
    "webhook.enable": "enabled a webhook: {}",
    "webhook.disable": "disabled a webhook: {}",
    "webhook.test": "tested a webhook: {}",
    "server.gc": "deleted unreferenced data of {}",
    "server.compact": "compacted {}",
    "server.repair": "verified and repaired {}",
    "server.restore": "restored {}",
    "backup.begin": "started the backup {}",
    "backup.end": "ended the backup {}",
    "event.damaged": "recorded an event that is damaged: {}",
}
"""For each action of an event, the predicate after the name of the user; `{}` is the object."""

QUIET = frozenset({"run.amend"})
"""Actions that a feed omits: params that a run logs after its start. The audit log has them."""

_INSIDE = frozenset({"version", "model", "contribution", "alias"})
"""Kinds of events whose object is shown without the name of the project."""

_NO_NAMES: Mapping[str, str] = {}


class Entry(NamedTuple):
    """A line of a feed: a sentence as HTML, and the time of the event."""

    words: str
    at: datetime


def entries(
    services: Services, caller: Caller, project: str, events: Iterable[dict[str, Any]], root: str
) -> list[Entry]:
    """Return the lines of a feed for events of a project, newest first. Runs are shown by name.

    Actions in `QUIET` are omitted, and so is the start of a run whose end is in the feed.
    """
    names: dict[str, str] = {}
    ended: set[str] = set()
    lines = []
    for event in events:
        if event["action"] in QUIET or (event["action"] == "run.start" and event["what"] in ended):
            continue
        ended |= {event["what"]} if event["action"] == "run.end" else set()
        # Names are read once for each run, because a feed has many events of the same run.
        run = event["what"].rpartition("/runs/")[2]
        if "/runs/" in event["what"] and run not in names:
            names[run] = services.runs.name_of(caller, project, run)
        lines.append(entry(event, root, names))
    return lines


def entry(event: dict[str, Any], root: str, names: Mapping[str, str] = _NO_NAMES) -> Entry:
    """Return an event as a line of a feed.

    Parameters
    ----------
    root : str
        The relative path to the first page: `"../"` for each level of the page.
    names : dict of str to str
        The names of runs, by id.

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
    sentence = SENTENCES.get(action, f"did {escape(clean(action))} with {{}}")
    gone = action.endswith((".remove", ".prune", ".purge")) and action != "contribution.purge"  # its page still exists
    project, _, run = what.partition("/runs/")
    if run:
        # A deleted run has no record, but its event may have the name.
        known = event.get("before") or event.get("after")
        name = names.get(run) or (known.get("name") if isinstance(known, dict) else "") or run[:8]
        called = escape(clean(str(name)))
        where = f'<a href="{root}p/{quote(project)}/-/runs/{quote(run)}">{called}</a>'
        return sentence.format(called if gone else where)
    kind = action.partition(".")[0]
    linked = kind in ("version", "model", "contribution") and not gone
    return sentence.format(_link(what, root) if linked else _named(what) if kind in _INSIDE else escape(clean(what)))


def _moved(event: dict[str, Any], root: str) -> str:
    """Return the sentence for an alias that was moved to a version or removed."""
    model, _, alias = event["what"].rpartition("@")
    name = f'<span class="alias">{escape(clean(alias))}</span>'
    number = event.get("after")
    if not number:
        return f"removed {name} from {_link(model, root)}"
    return f"moved {name} to {_link(f'{model}@v{number}', root)}"


def _link(what: str, root: str) -> str:
    project, _, rest = what.partition("/")
    if not rest:
        return _named(what)
    return f'<a href="{root}p/{quote(project)}/{quote(rest, safe="@")}">{_named(what)}</a>'


def _named(what: str) -> str:
    """Return the name of an object inside its project: `mlp v3`."""
    inside = what.partition("/")[2] or what
    return escape(clean(inside.replace("@", " ")))
