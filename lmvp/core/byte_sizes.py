"""Sizes such as `10GiB` in options and environment variables."""

from __future__ import annotations

import re

from lmvp.errors import InvalidArgument

_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}
_BINARY = {"ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40}
_SIZE = re.compile(r"\s*(\d{1,18}(?:\.\d{1,9})?)\s*([kmgt]i?)?b?\s*", re.IGNORECASE)


def size_of(text: str) -> int:
    """Parse a number of bytes.

    Raises
    ------
    InvalidArgument
        If it is not a size.

    Examples
    --------
    >>> size_of("10 GiB"), size_of("2.5MB"), size_of("0")
    (10737418240, 2500000, 0)
    """
    found = _SIZE.fullmatch(text)
    if found is None:
        raise InvalidArgument(
            f"LMVP_CACHE_LIMIT is {text[:40]!r}, not a size", hint="write 10GiB, 500MB, or 0 for none"
        )
    unit = (found[2] or "").lower()
    return int(float(found[1]) * (_BINARY | _UNITS)[unit])
