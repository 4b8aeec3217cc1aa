"""The `audit` verb, and the text format of audit log heads.

A head is the newest entry of an audit log. A copy of it outside of the server shows later whether earlier entries
changed: `lmvp audit head > FILE`, then `lmvp fsck --head FILE`.
"""

from __future__ import annotations

import re
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lmvp.cli.tables import Line, Table
from lmvp.client.models import Client
from lmvp.core.sanitize import clean, one_line
from lmvp.core.schemas import Head
from lmvp.errors import InvalidArgument

if TYPE_CHECKING:
    from lmvp.cli.verbs import Host

_SEQ = re.compile("[0-9]{1,18}")
_FIRST = "lmvp-audit-1"
"""The first word of each line of a head. It names the version of the format."""


def audit(options: Namespace, _host: Host) -> Any:
    """Show the audit log, or print the heads of the logs."""
    client = Client()
    if options.what == "head":
        return Line("\n".join(map(written, client.audit_heads())), essential=True)
    wanted = {name: getattr(options, name) for name in ("who", "action", "target", "since", "until")}
    events = client.events(options.project, limit=options.limit, **wanted)
    if options.json_lines:  # one line per entry, for `jq` and log collectors; `--json` of other verbs prints one array
        return Line("\n".join(msgspec.json.encode(event).decode() for event in events), essential=True)
    rows = [
        (f"{one.at:%Y-%m-%d %H:%M:%S}", clean(one.who), one.action, clean(one.what), _brief(one.before, one.after))
        for one in events
    ]
    return Table(("When (UTC)", "Who", "Action", "What", "Before → after"), rows, empty="no entries", data=events)


def written(head: Head) -> str:
    """Format a head as one line; `-` is the digest of an empty log.

    Examples
    --------
    >>> written(Head(space="server", seq=3, chain="9f"))
    'lmvp-audit-1 server 3 9f'
    """
    return one_line(f"{_FIRST} {head.space} {head.seq} {head.chain or '-'} {head.name}".rstrip())


def kept(path: str) -> list[Head]:
    """Read the heads in a file that `lmvp audit head` wrote.

    Raises
    ------
    InvalidArgument
        If the file cannot be read, is empty or has an invalid line.
    """
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"the heads in {path!r} cannot be read: {error}") from None
    found = [_read(line) for line in lines if line.strip()]
    if not found:
        raise InvalidArgument(f"{path!r} is empty", hint="the output of `lmvp audit head` is such a file")
    return found


def _read(line: str) -> Head:
    words = line.split()
    if len(words) not in (4, 5) or words[0] != _FIRST or not _SEQ.fullmatch(words[2]):
        raise InvalidArgument(f"{line[:60]!r} is no head", hint="`lmvp audit head` prints them")
    chain = "" if words[3] == "-" else words[3]
    return Head(space=words[1], seq=int(words[2]), chain=chain, name=words[4] if len(words) == 5 else "")


def _brief(before: Any, after: Any) -> str:
    """Format the state before and after an event, cut to 60 characters; `--json` prints all of it."""
    sides = ["" if side is None else clean(str(side)) for side in (before, after)]
    words = " → ".join(sides) if any(sides) else ""
    return words if len(words) <= 60 else words[:59] + "…"
