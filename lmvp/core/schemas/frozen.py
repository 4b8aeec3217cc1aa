"""Immutable mappings and lists of records. They refuse changes because a change would not reach the server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeAlias

import msgspec

from lmvp.errors import InvalidArgument

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
