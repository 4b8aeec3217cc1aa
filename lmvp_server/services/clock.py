"""Times in the format of records: ISO 8601 in UTC, to the microsecond."""

from __future__ import annotations

from datetime import datetime, timezone

from lmvp.errors import InvalidArgument


def now() -> str:
    """Return the current time, ISO 8601 in UTC, to the microsecond: `2026-11-20T13:41:00.000000Z`.

    The length is fixed, so the order as text is the order in time.
    """
    return stamp(datetime.now(timezone.utc))


def is_in_range(at: datetime) -> bool:
    """Return whether records accept a time from a client: the years 1970 to 9998.

    A conversion from any zone to UTC then stays within the years 1 to 9999 that `datetime` supports.
    """
    return 1970 <= at.year < 9999


def checked_stamp(at: datetime, field: str) -> str:
    """Return a client's time in the format of records. A time without a zone is UTC.

    Raises
    ------
    InvalidArgument
        If the time is out of range.

    Examples
    --------
    >>> checked_stamp(datetime(2026, 11, 20, 13, 41), "ended_at")
    '2026-11-20T13:41:00.000000Z'
    """
    if not is_in_range(at):
        raise InvalidArgument(f"{field} is {at.isoformat()}: not in the years 1970 to 9998", hint="check the clock")
    return stamp(at if at.tzinfo else at.replace(tzinfo=timezone.utc))


def stamp(at: datetime) -> str:
    """Return a time in the format of `now`. The time must have a zone."""
    return at.astimezone(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")
