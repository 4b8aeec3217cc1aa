"""The records of runs: what is checked, what is kept, and what becomes of it. No stores in here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from lmvp.errors import InvalidArgument, InvalidRequest
from lmvp.records import Amendment, encode_float
from lmvp.tracking.records import NewRun, RunEnd, RunUpdate
from lmvp_server.services import metadata
from lmvp_server.services.clock import checked_stamp, is_in_range, now
from lmvp_server.stores.base import Document, Record

ID = re.compile(r"[0-9a-f]{32}")
PREFIX = re.compile(r"[0-9a-f]{6,32}")
NAME_LIMIT, NOTES_LIMIT = 250, 20_000
OPEN, ENDED, SETTLED = "open", "ended", "settled"
"""What is left to do for a run: it goes on; it has ended, and its points may lie in disorder; nothing."""
PRIVATE = {"key", "phase", "began_at", "heard_at", "spent", "by", "resumed", "attempts"}
"""Fields that callers do not see."""
_MAPPINGS = ("params", "tags", "summary", "environment")
_TEXTS = ("name", "notes")


def check_new(new: NewRun) -> None:
    """Refuse a run that cannot be kept."""
    checked_id("run", new.run)
    if new.format != 1:
        raise InvalidRequest(f"frames of format {new.format}", hint="update lmvp on the server")
    if len(new.name) > NAME_LIMIT or not (new.name or "-").isprintable():
        raise InvalidArgument(f"bad name of a run {new.name[:60]!r}: at most {NAME_LIMIT} printable characters")
    metadata.checked(Amendment(params=new.params, tags=new.tags))
    metadata.check_environment(new.environment)


def fresh(new: NewRun, author: str, account: str) -> Document:
    """Return the record of a run that begins, of the account with that id; empty for the server's operator."""
    at = checked_stamp(new.started_at, "started_at") if new.started_at else now()
    data: Document = {
        "name": new.name or new.run[:8],
        "key": (new.name or new.run[:8]).lower(),
        "status": "running",
        "phase": OPEN,
        "created_at": at,
        "began_at": at,
        "heard_at": now(),
        "spent": 0.0,
        "ended_at": None,
        "author": author,
        "by": account,
        "error": "",
        "params": _plain(new.params),
        "tags": dict(new.tags),
        "summary": {},
        "environment": new.environment,
        "epoch": new.epoch,
        "metrics": {},
        "points": 0,
        "keys": 0,
        "resumed": new.epoch,
    }
    given = {"params": new.params, "tags": new.tags, "environment": new.environment}
    return data | _attempts(data, given, new.epoch)


def resumed_at(data: Document) -> int:
    """Return the attempt of the start or of the last resume: frames of lower attempts are old.

    Rewinds raise the epoch of points as well, but not this one: other processes of the same attempt still write.
    """
    return int(data.get("resumed", 0))


def is_newer_resume(data: Document, new: NewRun) -> bool:
    """Whether a start resumes a run after its last resume; records of earlier releases have the highest epoch alone."""
    return new.resume and new.epoch > int(data["resumed"] if "resumed" in data else data["epoch"])


def applicable(data: Document, given: RunUpdate, attempt: int) -> RunUpdate:
    """Return the part of an update of an attempt that no later attempt has set already."""
    attempts = data.get("attempts", {})
    if not attempts:
        return given
    kept: dict[str, Any] = {}
    for field in _MAPPINGS:
        later = attempts.get(field, {})
        kept[field] = {key: value for key, value in getattr(given, field).items() if later.get(key, 0) <= attempt}
    for field in _TEXTS:
        kept[field] = getattr(given, field) if attempts.get(field, 0) <= attempt else None
    return RunUpdate(**kept)


def _attempts(data: Document, given: Document, attempt: int) -> Document:
    """Return the field `attempts` of a run: for each value that an attempt above 0 has set or removed, the attempt."""
    if attempt <= 0:
        return {}
    attempts = dict(data.get("attempts", {}))
    for field in _MAPPINGS:
        if given.get(field):
            attempts[field] = attempts.get(field, {}) | dict.fromkeys(given[field], attempt)
    attempts |= {field: attempt for field in _TEXTS if given.get(field) is not None}
    return {"attempts": attempts} if attempts else {}


def resumed(run: Record, new: NewRun) -> Document:
    """Return a run that goes on: it was at work until it ended, or its last sign of life is not known any more."""
    before = run.data
    spent = before["spent"]
    if before["ended_at"]:
        spent += max(0.0, seconds(before["ended_at"]) - seconds(before["began_at"]))
    at = checked_stamp(new.started_at, "started_at") if new.started_at else now()
    said = {"params": before["params"] | _plain(new.params), "tags": before["tags"] | dict(new.tags)}
    fresh = {"status": "running", "phase": OPEN, "ended_at": None, "error": "", "began_at": at, "spent": spent}
    epochs = {"epoch": max(before["epoch"], new.epoch), "resumed": new.epoch}
    attempts = _attempts(before, {"params": new.params, "tags": new.tags}, new.epoch)
    return {**before, **said, **fresh, **attempts, "heard_at": now(), **epochs}


def lasted(data: Document, seen: float) -> float:
    """Return the seconds since a run began or was resumed: up to its end, or to its last sign of life.

    Start and end are by the clock of the client, a sign of life is by that of the server. A clock that is fast would
    let a run begin after the server has heard of it.
    """
    began = seconds(data["began_at"])
    if data["ended_at"]:
        return max(0.0, seconds(data["ended_at"]) - began)
    return max(0.0, seen - min(began, seconds(data.get("heard_at") or data["began_at"])))


def together(updates: Iterable[RunUpdate]) -> RunUpdate:
    """Return one update that says what several say, one after the other.

    Examples
    --------
    >>> together([RunUpdate(tags={"a": "b"}, name="x"), RunUpdate(tags={"a": None}), RunUpdate(name="y")])
    RunUpdate(params={}, tags={'a': None}, summary={}, environment={}, name='y', notes=None)
    """
    name: str | None = None
    notes: str | None = None
    said: dict[str, dict[str, Any]] = {"params": {}, "tags": {}, "summary": {}, "environment": {}}
    for one in updates:
        for field, known in said.items():
            known.update(getattr(one, field))
        name = name if one.name is None else one.name
        notes = notes if one.notes is None else one.notes
    return RunUpdate(**said, name=name, notes=notes)


def merged(run: Record, given: RunUpdate, attempt: int | None = None) -> Document:
    """Return a run after an update.

    Parameters
    ----------
    attempt : int, optional
        The attempt that the update is of; without it, or if it is not old, the current one. An update of an old
        attempt that arrives late does not replace values of later attempts.
    """
    current = resumed_at(run.data)
    attempt = current if attempt is None else min(attempt, current)
    said = {key: value for key, value in given.tags.items() if value is not None}
    metadata.checked(Amendment(params=given.params, tags=said))
    metadata.check_environment({"summary": given.summary, "environment": given.environment})
    given = applicable(run.data, given, attempt)
    data = run.data | _attempts(run.data, {field: getattr(given, field) for field in (*_MAPPINGS, *_TEXTS)}, attempt)
    data["params"] = data["params"] | _plain(given.params)
    data["environment"] = data["environment"] | given.environment
    for field in ("tags", "summary"):
        merged = data[field] | _plain(getattr(given, field))
        data[field] = {key: value for key, value in merged.items() if value is not None}
    if given.name is not None:
        if not given.name or len(given.name) > NAME_LIMIT or not given.name.isprintable():
            raise InvalidArgument(f"bad name of a run {given.name[:60]!r}: 1 to {NAME_LIMIT} printable characters")
        data |= {"name": given.name, "key": given.name.lower()}
    if given.notes is not None:
        if len(given.notes) > NOTES_LIMIT:
            raise InvalidArgument(f"notes of {len(given.notes):,} characters; at most {NOTES_LIMIT:,}")
        data["notes"] = given.notes
    return data


def _plain(values: Any) -> Document:
    """Return values with those that JSON lacks as texts."""
    return {key: encode_float(value) if isinstance(value, float) else value for key, value in values.items()}


def checked_id(what: str, given: str) -> str:
    """Return an id if it may be one of a run or a writer."""
    if not ID.fullmatch(given):
        raise InvalidArgument(f"{given[:60]!r} cannot be the id of a {what}: 32 hex digits, small letters")
    return given


def seconds(text: str) -> float:
    """Return a time of a record in seconds since 1970."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def with_server_start(new: NewRun) -> NewRun:
    """Return a start frame whose time the server can keep: without a time, the run starts at the server's time."""
    if new.started_at is None or is_in_range(new.started_at):
        return new
    return msgspec.structs.replace(new, started_at=None)


def ended_by_journal(run: Record, given: RunEnd, attempt: int) -> Document:
    """Return a run that its journal ended; the server's time replaces an end that is out of range.

    The end of an attempt before the last resume changes nothing.

    A writer cannot change a frame of its journal, so refusing it would block all later frames. A frame that is sent
    again keeps the first end.
    """
    if attempt < resumed_at(run.data):
        return run.data
    if not is_in_range(given.ended_at):
        kept = datetime.fromisoformat((run.data["ended_at"] or now()).replace("Z", "+00:00"))
        given = msgspec.structs.replace(given, ended_at=kept)
    return ended(run, given)


def ended(run: Record, given: RunEnd) -> Document:
    """Return a run that has ended."""
    at = checked_stamp(given.ended_at, "ended_at")
    return {**run.data, "phase": ENDED, "status": given.status, "ended_at": at, "error": given.error[:2000]}
