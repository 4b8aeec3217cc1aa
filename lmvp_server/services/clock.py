"""The time as records keep it."""

from __future__ import annotations

from datetime import datetime, timezone


def now() -> str:
    """Return the time, ISO 8601 in UTC, to the microsecond: `2026-11-20T13:41:00.000000Z`."""
    return datetime.now(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")
