"""Base classes of requests and responses, floats in JSON, schemas of errors and of the server's state.

The mappings and lists of records are immutable: a change would not reach the server.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeAlias

import msgspec

from lmvp.errors import InvalidArgument

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


Refusal: TypeAlias = Callable[[str, str], tuple[str, str | None]]
"""Takes the names of a field and of its object, and returns the message and the hint of the error."""


class FrozenDict(dict[str, Any]):
    """A dict that raises `InvalidArgument` on every change.

    Parameters
    ----------
    values : mapping
        The content. Nested dicts and lists are frozen too.
    refusal : callable
        Returns the message and the hint of the error. It is called only for an error: a list of 10,000 versions has
        40,000 mappings, so building the texts in advance is too expensive.
    field, owner : str
        The names of the field and of the object, for the error.

    Examples
    --------
    >>> tags = FrozenDict({"by": "ada"}, lambda *names: ("the {} of {} are a copy".format(*names), None), "tags", "v3")
    >>> tags["by"], dict(tags) | {"gpu": "1"}
    ('ada', {'by': 'ada', 'gpu': '1'})
    >>> tags["by"] = "grace"
    Traceback (most recent call last):
    lmvp.errors.InvalidArgument: the tags of v3 are a copy
    """

    __slots__ = ("_told",)

    def __init__(self, values: Mapping[str, Any], refusal: Refusal, field: str, owner: str) -> None:
        self._told = refusal, field, owner
        super().__init__(values)
        for key, value in values.items():
            if isinstance(value, (dict, list)):
                super().__setitem__(key, freeze(value, refusal, field, owner))

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise _error(*self._told)

    __setitem__ = __delitem__ = __ior__ = update = setdefault = pop = popitem = clear = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        # Copies and pickles are plain dicts, so that the user can change them.
        return dict, (dict(self),)


class FrozenList(list[Any]):
    """A list inside a mapping of a record; see `FrozenDict`."""

    __slots__ = ("_told",)

    def __init__(self, values: list[Any], refusal: Refusal, field: str, owner: str) -> None:
        self._told = refusal, field, owner
        super().__init__(freeze(value, refusal, field, owner) for value in values)

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise _error(*self._told)

    __setitem__ = __delitem__ = __iadd__ = __imul__ = append = extend = insert = _refuse
    pop = remove = clear = sort = reverse = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)


def _error(refusal: Refusal, field: str, owner: str) -> InvalidArgument:
    message, hint = refusal(field, owner)
    return InvalidArgument(message, hint=hint)


def freeze(value: Any, refusal: Refusal, field: str, owner: str) -> Any:
    """Return a frozen copy of a dict or list; return any other value unchanged."""
    if isinstance(value, dict):
        return FrozenDict(value, refusal, field, owner)
    return FrozenList(value, refusal, field, owner) if isinstance(value, list) else value


def freeze_fields(record: msgspec.Struct, fields: tuple[str, ...], refusal: Refusal, owner: str) -> None:
    """Freeze the mappings and lists of a new record in place."""
    # Structs are frozen, so a normal assignment raises an error.
    for field in fields:
        msgspec.structs.force_setattr(record, field, freeze(getattr(record, field), refusal, field, owner))


def copied(field: str, owner: str) -> tuple[str, str | None]:
    """Return message and hint for a record that cannot be changed through the API."""
    return f"the {field} of {owner} cannot be changed: this is a copy of the server's record", None


API = 1
API_HEADER = "LMVP-API"
INCOMPLETE_HEADER = "LMVP-Incomplete"
"""Header with the reason for missing data in a response, for example a damaged file of the server."""
