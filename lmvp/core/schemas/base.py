"""Base classes of requests and responses, floats in JSON, and the schemas of errors and of the server's state."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import msgspec

Scalar: TypeAlias = str | int | float | bool | None
"""A value of a param."""

WireFloat: TypeAlias = float | str
"""A float in JSON: a number, or the name of a value that JSON lacks."""

_NAMES = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def encode_float(value: float) -> WireFloat:
    """Return the JSON form of a float.

    Examples
    --------
    >>> encode_float(0.5), encode_float(float("nan")), encode_float(float("-inf"))
    (0.5, 'NaN', '-Infinity')
    """
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def decode_float(value: WireFloat) -> float:
    """Return the float that `encode_float` wrote.

    Raises
    ------
    ValueError
        If the string names no float. Inside a record, `msgspec` raises a `ValidationError` instead.
    """
    if isinstance(value, str) and value not in _NAMES:
        raise ValueError(f"{value[:40]!r} is not a number")
    return _NAMES[value] if isinstance(value, str) else float(value)


# Responses ignore unknown fields, so that an older client works with a newer server. Requests do not, see `Request`.
class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """Base class of all responses. They are immutable. A client ignores fields that a newer server adds."""


class Health(Struct, frozen=True, kw_only=True):
    """The public state of a server.

    Attributes
    ----------
    proof : str
        HMAC-SHA256 of the client's nonce with the server's token as key. It verifies that the server knows the token
        in `server.json`.
    bound : str
        The same HMAC over nonce and instance. It is not valid for another instance with the same token.
    """

    status: str
    version: str
    api: int
    instance: str
    proof: str = ""
    bound: str = ""


class ErrorBody(Struct, frozen=True, kw_only=True):
    """The content of `{"error": …}` in every response with a status of 400 or more."""

    code: str
    message: str
    hint: str | None = None
    details: dict[str, Any] | None = None


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base class of all requests. Unknown fields are an error, so that a misspelled field is not ignored."""
