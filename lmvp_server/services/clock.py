"""The time as records keep it."""

from __future__ import annotations

from datetime import datetime, timezone


def now() -> str:
    """Return the time, ISO 8601 in UTC, to the microsecond: `2026-11-20T13:41:00.000000Z`."""
    return stamp(datetime.now(timezone.utc))


def stamp(at: datetime) -> str:
    """Return any time with a zone that way."""
    return at.astimezone(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")
