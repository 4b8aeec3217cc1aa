"""The audit log: filtered lists of events, and verification against heads that are stored elsewhere.

Each log is chained by digests, so its head, the number and chain digest of its newest entry, covers all entries before
it. If the heads are stored where the operator of the server cannot write, they show later whether an entry was altered
or cut off.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone

from lmvp.core.schemas import Head, Problem
from lmvp.errors import InvalidArgument, LmvpError
from lmvp_server.process import cancellation
from lmvp_server.services import access
from lmvp_server.services.access import Caller
from lmvp_server.services.catalog import SERVER, Catalog, every_project
from lmvp_server.services.clock import now
from lmvp_server.services.paging import Page
from lmvp_server.stores.base import Document, RecordStore

_BATCH = 1000
"""Events that are read from the store at once."""

_HINT = "compare with a backup: `lmvp restore` makes a data folder of it, whose events can be read"


def _moment(name: str, text: str) -> str:
    """Return a time in the format of events, whose order as text is the order in time."""
    if not text:
        return ""
    try:
        at = datetime.fromisoformat(text.replace("Z", "+00:00"))
        at = at.replace(tzinfo=timezone.utc) if at.tzinfo is None else at.astimezone(timezone.utc)
    except (ValueError, OverflowError):  # a zone can move a time out of the years 1 to 9999
        raise InvalidArgument(f"{name}={text[:40]!r} is no time", hint="2026-11-26, or 2026-11-26T12:00") from None
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass(frozen=True)
class Filter:
    """A filter of events. An empty field matches all events.

    Attributes
    ----------
    who : str
        The author, without regard to case.
    action, what : str
        The beginning of the action and of the object's name; the latter without regard to case.
    since, until : str
        ISO 8601 times, the first inclusive and the second exclusive. A time without a zone is UTC.
    """

    who: str = ""
    action: str = ""
    what: str = ""
    since: str = ""
    until: str = ""

    def __post_init__(self) -> None:
        for name in ("since", "until"):  # `object.__setattr__`, because the class is frozen
            object.__setattr__(self, name, _moment(name, getattr(self, name)))

    def matches(self, event: Document) -> bool:
        """Return whether an event matches."""
        return (
            (not self.who or event["who"].lower() == self.who.lower())
            and event["action"].startswith(self.action)
            and event["what"].lower().startswith(self.what.lower())
            and (not self.since or event["at"] >= self.since)
            and (not self.until or event["at"] < self.until)
        )


EVERYTHING = Filter()
"""The filter that matches all events."""


class Audit:
    """Use cases of the audit logs."""

    def __init__(self, records: RecordStore, catalog: Catalog) -> None:
        self._records, self._catalog = records, catalog

    def of_project(self, caller: Caller, project: str, page: Page, wanted: Filter = EVERYTHING) -> Document:
        """List the events of a project, newest first."""
        home = self._catalog.find_project(caller, project)
        access.require(caller, access.READ, project)
        return self._of_space(home.id, page, wanted)

    def of_server(self, caller: Caller, page: Page, wanted: Filter = EVERYTHING) -> Document:
        """List the events of the server, newest first. They are not those of its projects."""
        access.require(caller, access.ADMIN)
        return self._of_space(SERVER, page, wanted)

    def _of_space(self, space: str, page: Page, wanted: Filter) -> Document:
        """Return a page of the events that match.

        `total` counts the whole log even with a filter: counting the matches would read all events.
        """
        newest = self._records.events(space, newest_first=True, limit=1)  # numbered from 1, without gaps
        found: list[Document] = []
        for event in self._backwards(space, page.cursor, page.limit + 1):
            if wanted.matches(event):
                found.append(event)
            if len(found) > page.limit:  # the one beyond the page shows that there is a next page
                break
        shown = found[: page.limit]
        return {
            "items": shown,
            "next": str(shown[-1]["seq"]) if len(found) > page.limit else None,
            "total": newest[0]["seq"] if newest else 0,
        }

    def _backwards(self, space: str, after: int | None, at_once: int) -> Iterator[Document]:
        """Yield events from the newest to the oldest; `at_once` is the size of the first batch only."""
        while some := self._records.events(space, newest_first=True, after=after, limit=min(at_once, _BATCH)):
            cancellation.check()
            yield from some
            after, at_once = some[-1]["seq"], _BATCH

    def heads(self, caller: Caller) -> Document:
        """Return the head of each log, to be stored elsewhere."""
        access.require(caller, access.ADMIN)
        spaces = [(SERVER, ""), *((one.id, one.data["name"]) for one in every_project(self._records))]
        items = [head_of(self._records, space, name) for space, name in spaces]
        return {"items": items, "next": None, "total": len(items)}

    def prove(self, heads: tuple[Head, ...]) -> Iterator[Problem]:
        """Yield a problem for each log that does not contain its head.

        `RecordStore.verify` checks that the entries of each log are chained. Both checks together show that no entry
        up to the head was altered, removed or cut off.
        """
        for head in dict.fromkeys(heads):  # without duplicates
            name = f"the events of {head.name or 'the server'}"
            found = self._records.events(head.space, after=head.seq - 1, limit=1) if head.seq else []
            if found and found[0]["chain"] == head.chain:
                continue
            if not head.seq or self._was_removed(head):  # an empty log has no entry to find
                continue
            damage = "were altered: entry" if found else "were cut off: of"
            rest = f"{head.seq:,} is another one than it was" if found else f"{head.seq:,} entries, not all are there"
            yield Problem(kind="events", what=f"{name} {damage} {rest}", hint=_HINT)

    def _was_removed(self, head: Head) -> bool:
        """Return whether the server's log records the permanent deletion of the project with this head or a later one.

        The log of a deleted project is deleted too, which is not damage.
        """
        if any(one.id == head.space for one in every_project(self._records)):
            return False
        for event in self._backwards(SERVER, None, _BATCH):
            gone = event.get("before")
            if event["action"] == "project.remove" and isinstance(gone, dict) and gone.get("id") == head.space:
                return bool(gone.get("events", 0) >= head.seq)
        return False


def head_of(records: RecordStore, space: str, name: str) -> Head:
    """Return the head of a log; number 0 and an empty chain digest for an empty log."""
    newest = records.events(space, newest_first=True, limit=1)
    seq, chain = (newest[0]["seq"], newest[0]["chain"]) if newest else (0, "")
    return Head(space=space, name=name, seq=seq, chain=chain)


_logger = logging.getLogger("lmvp_server")


def event(who: str, action: str, what: str, before: object = None, after: object = None) -> Document:
    """Return an event with the current time.

    Examples
    --------
    >>> event("ada", "user.add", "grace")["action"]
    'user.add'
    """
    return {"at": now(), "who": who, "action": action, "what": what, "before": before, "after": after}


@contextmanager
def recorded(records: RecordStore, who: str, action: str, what: str) -> Iterator[Document]:
    """Record an action on the server with its result, or with its failure.

    The body of the `with` statement puts the result into the yielded document.
    """
    result: Document = {}
    try:
        yield result
    except Exception as error:
        failure = {"failed": error.message if isinstance(error, LmvpError) else type(error).__name__}
        try:
            records.commit(SERVER, [], [event(who, action, what, None, failure)])
        except (LmvpError, OSError) as failed:  # often the same cause as that of the failure, such as a full disk
            _logger.warning("the failure of %s could not be recorded as an event: %s", action, failed)
        raise
    records.commit(SERVER, [], [event(who, action, what, None, result)])
