"""What all records share: their base, the floats that JSON lacks, and the form of an error."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import msgspec

Scalar: TypeAlias = str | int | float | bool | None
"""What a param may be."""

WireFloat: TypeAlias = float | str
"""A float on the wire: a number, or the name of a value that JSON lacks."""

_NAMES = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def encode_float(value: float) -> WireFloat:
    """Give the JSON form of a float.

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
        If it is a text that names no float; within a record, `msgspec` reports it as a `ValidationError`.
    """
    if isinstance(value, str) and value not in _NAMES:
        raise ValueError(f"{value[:40]!r} is not a number")
    return _NAMES[value] if isinstance(value, str) else float(value)


class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """The base of all records: immutable; a client ignores fields that a newer server adds."""


class Health(Struct, frozen=True, kw_only=True):
    """The public state of a server.

    Attributes
    ----------
    proof : str
        HMAC-SHA256 of the caller's nonce under the server's token: shows that this is the server of `server.json`.
    bound : str
        The same, of the nonce and the instance: no proof for another instance with the same token.
    """

    status: str
    version: str
    api: int
    instance: str
    proof: str = ""
    bound: str = ""


class ErrorBody(Struct, frozen=True, kw_only=True):
    """The inside of `{"error": …}`, in every answer from 400 upwards."""

    code: str
    message: str
    hint: str | None = None
    details: dict[str, Any] | None = None


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of what clients send: unknown fields are mistakes."""
