"""Validation of the record of a version: message, metrics, params, tags and environment."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from lmvp.core.manifest_validation import NESTING_LIMIT, too_deep
from lmvp.core.schemas import Amendment, encode_float
from lmvp.errors import InvalidArgument, TooLarge

KEY_LIMIT = 250
"""Characters of a key."""

MESSAGE_LIMIT = 10_000
"""Characters of a message."""

RECORD_LIMIT = 1 << 20
"""Bytes of message, metrics, params and tags together, as JSON."""

_SPECIAL = ("NaN", "Infinity", "-Infinity")
"""Values that JSON cannot represent as numbers, so requests and records have them as texts."""


def checked(given: Amendment) -> dict[str, Any]:
    """Validate the given fields, and return them in the format of records.

    Raises
    ------
    InvalidArgument
        If a key or a value is not valid.
    TooLarge
        If the message or all fields together are above the limit.
    """
    fields: dict[str, Any] = {}
    if given.message is not None:
        fields["message"] = _message(given.message)
    if given.metrics is not None:
        fields["metrics"] = {_key("metric", key): _metric(key, value) for key, value in given.metrics.items()}
    if given.params is not None:
        fields["params"] = {_key("param", key): _param(value) for key, value in given.params.items()}
    if given.tags is not None:
        fields["tags"] = {_key("tag", key): value for key, value in given.tags.items()}
    check_size(fields)
    return fields


def check_environment(environment: dict[str, Any]) -> None:
    """Refuse an environment that is too large, or nested too deeply: many JSON parsers limit the depth."""
    if too_deep(environment):
        raise InvalidArgument(f"the environment is nested more than {NESTING_LIMIT} levels deep")
    check_size(environment)


def check_size(fields: Mapping[str, Any]) -> None:
    """Refuse fields that are larger than `RECORD_LIMIT` as JSON."""
    length = len(msgspec.json.encode(fields))
    if length > RECORD_LIMIT:
        raise TooLarge(
            f"message, metrics, params and tags have {length:,} bytes; the limit is {RECORD_LIMIT:,}",
            hint="push what is long as a file beside the model",
        )


def _message(text: str) -> str:
    if len(text) > MESSAGE_LIMIT:
        raise TooLarge(f"a message of {len(text):,} characters; the limit is {MESSAGE_LIMIT:,}")
    return text


def _key(kind: str, key: str) -> str:
    if not key or len(key) > KEY_LIMIT or not key.isprintable():
        raise InvalidArgument(f"bad {kind} name {key[:60]!r}: 1 to {KEY_LIMIT} printable characters")
    return key


def _metric(key: str, value: float | str) -> float | str:
    # The type of the request allows any text here; only these three are numbers.
    if isinstance(value, str) and value not in _SPECIAL:
        raise InvalidArgument(f"the metric {key!r} is the text {value[:40]!r}, not a number")
    return value if isinstance(value, str) else encode_float(float(value))


def _param(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return encode_float(value)
    return value
