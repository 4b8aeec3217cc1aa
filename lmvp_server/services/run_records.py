"""Records of runs: validation, changes and merging of updates. This module does not access stores."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from lmvp.core.schemas import Amendment, encode_float
from lmvp.core.schemas.runs import NewRun, RunEnd, RunUpdate
from lmvp.errors import InvalidArgument, InvalidRequest
from lmvp_server.services import metadata
from lmvp_server.services.clock import checked_stamp, is_in_range, now
from lmvp_server.stores.base import Document, Record

# Lower case only: an id is also the name of a folder, and some file systems ignore case.
ID = re.compile(r"[0-9a-f]{32}")
PREFIX = re.compile(r"[0-9a-f]{6,32}")
NAME_LIMIT, NOTES_LIMIT = 250, 20_000
OPEN, ENDED, SETTLED = "open", "ended", "settled"
"""Phases of a run: it is open; it has ended, but its series is not sealed yet; its series is sealed."""
PRIVATE = {"key", "phase", "began_at", "heard_at", "spent", "by", "resumed", "attempts"}
"""Fields that answers do not contain."""
_MAPPINGS = ("params", "tags", "summary", "environment")
_TEXTS = ("name", "notes")


def check_new(new: NewRun) -> None:
    """Validate a new run; raise an error if it is invalid."""
    checked_id("run", new.run)
    if new.format != 1:
        raise InvalidRequest(f"frames of format {new.format}", hint="update lmvp on the server")
    if len(new.name) > NAME_LIMIT or not (new.name or "-").isprintable():
        raise InvalidArgument(f"bad name of a run {new.name[:60]!r}: at most {NAME_LIMIT} printable characters")
    metadata.checked(Amendment(params=new.params, tags=new.tags))
    metadata.check_environment(new.environment)


def fresh(new: NewRun, author: str, account: str) -> Document:
    """Return the record of a new run. `account` is the id of its account, empty for the operator."""
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
    """Return the attempt of the start or of the last resume. Frames of lower attempts are outdated.

    A rewind also raises the attempt of points (`epoch`), but not this one, because other processes of the run continue.
    """
    return int(data.get("resumed", 0))


def is_newer_resume(data: Document, new: NewRun) -> bool:
    """Whether a start resumes a run after its last resume. Records of earlier releases have only the highest epoch."""
    return new.resume and new.epoch > int(data["resumed"] if "resumed" in data else data["epoch"])


def applicable(data: Document, given: RunUpdate, attempt: int) -> RunUpdate:
    """Return the part of an update of an attempt that does not override values of later attempts."""
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
    """Return the field `attempts` of a run: for each value, the attempt (above 0) that set or removed it last."""
    if attempt <= 0:
        return {}
    attempts = dict(data.get("attempts", {}))
    for field in _MAPPINGS:
        if given.get(field):
            attempts[field] = attempts.get(field, {}) | dict.fromkeys(given[field], attempt)
    attempts |= {field: attempt for field in _TEXTS if given.get(field) is not None}
    return {"attempts": attempts} if attempts else {}


def resumed(run: Record, new: NewRun) -> Document:
    """Return the record of a resumed run. The time before counts for its duration only if its end is known."""
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
    """Return the seconds from the start or resume of a run to its end, or to its last sign of life.

    Start and end are times of the client's clock, a sign of life is a time of the server's clock. If the client's clock
    is ahead, the run can start after the server has heard of it, so the earlier of the two times counts.
    """
    began = seconds(data["began_at"])
    if data["ended_at"]:
        return max(0.0, seconds(data["ended_at"]) - began)
    return max(0.0, seen - min(began, seconds(data.get("heard_at") or data["began_at"])))


def together(updates: Iterable[RunUpdate]) -> RunUpdate:
    """Merge updates in their order into one update.

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
    """Return the record of a run after an update.

    Parameters
    ----------
    attempt : int, optional
        The attempt that sent the update. Default: the current attempt. A late update of an outdated attempt does not
        replace values of later attempts.
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
    """Return values with NaN and infinity as text, because JSON lacks them."""
    return {key: encode_float(value) if isinstance(value, float) else value for key, value in values.items()}


def checked_id(what: str, given: str) -> str:
    """Return an id if it is valid for a run or a writer."""
    if not ID.fullmatch(given):
        raise InvalidArgument(f"{given[:60]!r} cannot be the id of a {what}: 32 hex digits, small letters")
    return given


def seconds(text: str) -> float:
    """Convert a time of a record to seconds since 1970."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def with_server_start(new: NewRun) -> NewRun:
    """Return a start frame with a valid time. If its time is out of range, the run starts at the server's time."""
    if new.started_at is None or is_in_range(new.started_at):
        return new
    return msgspec.structs.replace(new, started_at=None)


def ended_by_journal(run: Record, given: RunEnd, attempt: int) -> Document:
    """Return the record of a run that its journal ended. The server's time replaces an end time out of range.

    The end of an attempt before the last resume is ignored.

    An invalid time is not an error, because a writer cannot change a frame of its journal: an error would block all
    later frames. If the frame is sent again, the first end time stays.
    """
    if attempt < resumed_at(run.data):
        return run.data
    if not is_in_range(given.ended_at):
        kept = datetime.fromisoformat((run.data["ended_at"] or now()).replace("Z", "+00:00"))
        given = msgspec.structs.replace(given, ended_at=kept)
    return ended(run, given)


def ended(run: Record, given: RunEnd) -> Document:
    """Return the record of a run that has ended."""
    at = checked_stamp(given.ended_at, "ended_at")
    return {**run.data, "phase": ENDED, "status": given.status, "ended_at": at, "error": given.error[:2000]}
