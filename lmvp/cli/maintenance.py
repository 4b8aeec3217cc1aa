"""Maintenance verbs: remove and restore, retention, gc, compaction, fsck, disk usage and the download cache."""

from __future__ import annotations

import re
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lmvp import config
from lmvp.cli.tables import Line, Table
from lmvp.cli.verbs import Host, confirmed
from lmvp.client.maintenance import Told, run_path
from lmvp.client.models import Client
from lmvp.core import number_format
from lmvp.core.sanitize import clean, one_line
from lmvp.core.schemas import Checked, Head, Usage
from lmvp.errors import IntegrityError, InvalidArgument

if TYPE_CHECKING:
    from lmvp.cli.verbs import Host

_SHOWN = 20
"""Maximum number of versions or problems that a message lists."""


def rm(options: Namespace, host: Host) -> Any:
    """Remove a version, run, model or project."""
    client = Client()
    agreed = options.yes or _ask_removal(options, host)
    if run_path(options.name):
        project, _, name = options.name.partition("/runs/")
        run = client.run(project, name)
        run.delete(now=options.now)
        back = "" if options.now else f"; `lmvp undelete {run.project}/runs/{run.id}` restores it"
        return Line(f"the run {run.name} is removed{back}", run)
    done = client.remove(options.name, now=options.now, yes=agreed)
    message = f"{number_format.plural(done.versions, 'version')} removed"
    if done.until is None:
        return Line(f"{message}, {number_format.size(done.bytes)} freed", done)
    back = f"`lmvp undelete {options.name}` restores what you removed, until {day(done.until)}"
    return Line(f"{message}; {back}", done)


def _ask_removal(options: Namespace, host: Host) -> bool:
    """Ask on a terminal whether to remove an object; return False where nobody can answer.

    Raises
    ------
    InvalidArgument
        If the user declines.
    """
    if host.pipes or host.is_saved:
        return False
    whole = "" if "@" in options.name or run_path(options.name) else " with all its versions"
    then = "permanently" if options.now else f"; `lmvp undelete {options.name}` restores it"
    verb = "Delete" if options.now else "Remove"
    if not host.confirm(f"{verb} {options.name}{whole}{' ' if options.now else ''}{then}. Continue?"):
        raise InvalidArgument(f"{options.name} was not removed", hint="`--yes` removes it without a question")
    return True


def undelete(options: Namespace, _host: object) -> Any:
    """Restore a removed object, or list the removed objects."""
    client = Client()
    if options.name:
        restored = client.undelete(options.name)
        return Line(f"{getattr(restored, 'reference', options.name)} is back", restored)
    removed = client.removed()
    rows = [
        (f"{item.name} ({item.title})" if item.title else item.name, str(item.versions or ""), item.removed_by,
         day(item.removed_at), day(item.until))
        for item in removed
    ]  # fmt: skip
    empty = "nothing was removed that you could bring back"
    head = ("Name", "Versions", "Removed by", "On", "Until")
    return Table(head, rows, empty=empty, right=frozenset({1}), data=removed)


def day(at: datetime) -> str:
    """Format a time in the local time zone, to the minute."""
    try:
        return f"{at.astimezone():%Y-%m-%d %H:%M}"
    except (OverflowError, ValueError):  # near year 1 or 9999, the local time is out of the range of datetime
        return f"{at:%Y-%m-%d %H:%M}"


def prune(options: Namespace, _host: object) -> Any:
    """Delete the versions that a retention rule does not keep."""
    client = Client()
    if options.forget:
        client.set_retention(options.model, "")
        return Line(f"{options.model} has no rule any more; all its versions stay")
    if options.save and not options.keep:
        hint = f"`lmvp prune {options.model} --keep last:5 --save`"
        raise InvalidArgument("`--save` needs the rule to save", hint=hint)
    done = client.prune(options.model, keep=options.keep, dry_run=options.dry_run)
    if options.save and not options.dry_run:
        client.set_retention(options.model, done.keep)
    named = ", ".join(f"v{number}" for number in done.versions[:_SHOWN])
    more = f" and {len(done.versions) - _SHOWN} more" if len(done.versions) > _SHOWN else ""
    what = f"{number_format.plural(len(done.versions), 'version')} ({named}{more})" if done.versions else "no version"
    go, free = ("would go", "would be freed") if done.dry_run else ("removed", "freed")
    return Line(f"{what} {go}, {number_format.size(done.bytes)} {free}", done)


def gc(options: Namespace, _host: object) -> Any:
    """Delete data that is no longer referenced."""
    done = Client().collect_garbage(removed=options.removed)
    message = f"{number_format.plural(done.chunks, 'chunk')} deleted, {number_format.size(done.bytes)} freed"
    lines = [message]
    if done.waiting and done.until is not None:
        waiting = number_format.plural(done.waiting, "removed object")
        stays = f"{waiting} can be restored until {day(done.until)}; the bytes stay until then"
        lines.append(f"{stays}: `lmvp undelete` lists them, `lmvp gc --removed` deletes them now")
    if done.decided and done.decided_until is not None:
        decided = number_format.plural(done.decided, "decided contribution")
        stays = f"{decided} can be downloaded until {day(done.decided_until)}; the bytes stay until then"
        lines.append(f"{stays}: `lmvp contributions --all` lists them, `lmvp gc --removed` deletes their files now")
    return Line("\n".join(lines), done)


def compact(_options: Namespace, _host: object) -> Any:
    """Encode older versions as deltas now."""
    done = Client().compact()
    saved = number_format.size(done.before - done.after)
    chunks, versions = number_format.plural(done.chunks, "chunk"), number_format.plural(done.versions, "version")
    return Line(f"{chunks} of {versions} encoded, {saved} saved", done)


def fsck(options: Namespace, _host: object) -> Any:
    """Verify every digest on the server."""
    with _bar(not options.no_progress and sys.stderr.isatty()) as on_progress:
        heads = kept(options.head) if options.head else []
        checked = Client().check(repair=options.repair, told=on_progress, heads=heads)
    if checked.problems:
        raise _broken(checked)
    return Line(f"{_looked_at(checked)}: no problem found", checked)


def cache(options: Namespace, _host: object) -> Any:
    """Show or clear the download cache of this machine."""
    from lmvp.transfer.model_cache import Cache, opened

    kept = opened()
    folder = config.cache_home()
    if options.clear:
        freed = (kept or Cache(folder, 0)).clear()
        message = (
            f"{number_format.plural(freed.files, 'file')} deleted, {number_format.size(freed.bytes)} freed in {folder}"
        )
        return Line(message, {"folder": str(folder), "files": freed.files, "bytes": freed.bytes})
    if kept is None:
        return Line(f"no cache: LMVP_CACHE_LIMIT is 0, or no room is left on the disk of {folder}")
    usage = kept.usage()
    data = {"folder": str(folder), "files": usage.files, "bytes": usage.bytes, "limit": kept.limit}
    return Line(f"{number_format.size(usage.bytes)} of {number_format.size(kept.limit)} in {folder}", data)


def du(options: Namespace, _host: object) -> Any:
    """Show the size of projects, models or versions."""
    return usage_table(Client().usage(options.name))


def usage_table(usage: Usage) -> Table:
    """Format disk usage as a table, with a total if there are several rows."""
    size = number_format.size
    rows = [
        (row.name, str(row.versions), size(row.logical), size(row.stored), _saved(row.logical, row.stored))
        for row in usage.rows
    ]
    if len(rows) > 1:
        count = str(sum(row.versions for row in usage.rows))
        rows.append(("all", count, size(usage.logical), size(usage.stored), _saved(usage.logical, usage.stored)))
    kinds = ", ".join(f"{kind} {size(count)}" for kind, count in sorted(usage.disk.items()) if count)
    where = f"the project {usage.name.partition('/')[0]}" if usage.name else "the server"
    note = f"On the disk of {where}: {size(usage.total)} ({kinds or 'nothing'})"
    heads = ("Name", "Versions", "As they are", "As kept", "Saved")
    return Table(heads, rows, empty="nothing is kept yet", right=frozenset({1, 2, 3, 4}), note=note, data=usage)


def _saved(logical: int, stored: int) -> str:
    """Format the saved share of the logical size; overhead that exceeds the savings counts as 0 %."""
    return f"{max(0, round(100 * (1 - stored / logical)))} %" if logical else "0 %"


def _looked_at(checked: Checked) -> str:
    versions = number_format.versions_with_trash(checked.versions, checked.removed)
    return f"{versions}, {number_format.plural(checked.chunks, 'chunk')}, {number_format.size(checked.bytes)}"


def _broken(checked: Checked) -> IntegrityError:
    """Return the error that lists the problems of a failed check."""
    lines = [f"{problem.what}\n    {problem.hint}" for problem in checked.problems[:_SHOWN]]
    more = len(checked.problems) - len(lines)
    lines += [f"and {more} more"] if more else []
    head = f"{number_format.plural(len(checked.problems), 'problem')} in {_looked_at(checked)}"
    hint = None if checked.repaired else "`lmvp fsck --repair` sets damaged frames aside, so that a push can heal them"
    return IntegrityError("\n  ".join([head, *lines]), hint=hint)


@contextmanager
def _bar(shown: bool) -> Iterator[Told]:
    """Yield the progress callback of fsck, which draws a bar if `shown`."""
    if not shown:
        yield lambda *_: None
        return
    from tqdm.auto import tqdm

    with tqdm(desc="fsck", unit=" chunks", leave=False, delay=0.5) as bar:

        def on_progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)  # `done` is absolute, tqdm adds

        yield on_progress


def export(options: Namespace, _host: object) -> Any:
    """Write a model with its history to a folder or a .tar file."""
    how = {"versions": options.versions, "force": options.force, "progress": _progress(options)}
    done = Client().export_model(options.model, options.to, **how)
    kept = f" ({done.kept} there already)" if done.kept else ""
    versions = number_format.plural(done.versions, "version")
    return Line(f"{versions} in {done.path}{kept}, {number_format.size(done.bytes)} written", done)


def import_(options: Namespace, host: Host) -> Any:
    """Import a model from an export."""
    how = {"progress": _progress(options)}
    client = Client()
    # An import can move a protected alias of an existing model, which needs a confirmation.
    done = confirmed(
        lambda yes: client.import_model(options.source, options.model, yes=yes, **how), host, yes=options.yes
    )
    kept = f" ({done.kept} there already)" if done.kept else ""
    return Line(
        f"{done.name}: {number_format.plural(done.versions, 'version')}{kept}, {number_format.size(done.bytes)} sent",
        done,
    )


def backup(options: Namespace, _host: object) -> Any:
    """Back up the whole server to a folder."""
    done = Client().back_up(options.to, quick=options.quick, progress=_progress(options))
    versions = number_format.versions_with_trash(done.versions, done.removed)
    what = f"{number_format.plural(done.projects, 'project')}, {versions}"
    chunks = number_format.plural(done.chunks, "chunk")
    return Line(
        f"{what}, {chunks} in {done.path}; {done.copied} copied, {number_format.size(done.written)} written", done
    )


def _progress(options: Namespace) -> bool | None:
    """Return False for `--no-progress`; None shows a bar only on a terminal."""
    return False if options.no_progress else None


# -- the audit log


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
    heads = [_read(line) for line in lines if line.strip()]
    if not heads:
        raise InvalidArgument(f"{path!r} is empty", hint="the output of `lmvp audit head` is such a file")
    return heads


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
