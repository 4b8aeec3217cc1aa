"""Params, tags and summary of a run as plain data: flat names, numbers with their type, redacted text."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import suppress
from typing import Any, Final, Protocol

import msgspec

from lmvp.core.metric_values import checked, floats
from lmvp.core.redaction import redact
from lmvp.core.sanitize import escaped_text
from lmvp.core.schemas import encode_float
from lmvp.core.validation import as_mapping, leaves, mapping
from lmvp.errors import InvalidArgument, LmvpError

KEY_LIMIT: Final = 250
"""Largest length of the name of a param, a tag or an entry of the summary, in characters."""
SIZE_LIMIT: Final = 120_000
"""Largest size of params, tags and summary as JSON, each in bytes. Together they fit into the server's limit for a
record, 1 MiB.
"""
# Characters that are stored of the text of any other object.
_OBJECT_LIMIT = 10_000


class FieldSender(Protocol):
    """An active run, as far as its fields need it."""

    def say(self, **stored_fields: Any) -> None:
        """Send changes of fields to the server."""


class ActiveRunFields(MutableMapping[str, Any]):
    """Params, tags or summary of an active run, as a mapping; each change is sent to the server."""

    def __init__(self, run: FieldSender, field: str, values: Mapping[str, Any]) -> None:
        self._run, self._field, self._values = weakref.proxy(run), field, dict(values)

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.update({key: value})

    def __delitem__(self, key: str) -> None:
        if self._field == "params":
            raise InvalidArgument("a param of a run can be changed, but not removed")
        del self._values[key]
        self._run.say(**{self._field: {key: None}})

    def update(self, *others: Any, **more: Any) -> None:
        """Set several values at once; a nested mapping `{"a": {"b": 1}}` sets `a/b`."""
        with readable(self._field):
            named = [pairs for other in others if (pairs := as_mapping(other)) is not None]
            given = dict(*(named or others), **more)
        values = flat(self._field, given)
        check_size(self._field, {**self._values, **values})
        self._run.say(**{self._field: encoded(values)})
        self._values.update(values)

    def __iter__(self) -> Iterator[str]:
        return iter(dict(self._values))

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(self._values)


class readable:  # noqa: N801 - a context manager, used like a function
    """A context manager that turns exceptions of a caller's objects into `InvalidArgument`.

    It is a class because a generator raises if a signal handler enters it while it runs.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, LmvpError):
            raise InvalidArgument(f"{self._name} cannot be read: {reason(error)}") from error


def reason(error: Exception) -> str:
    """Return the type and the message of an exception, or only the type if its `__str__` fails."""
    kind = type(error).__name__
    with suppress(Exception):
        return escaped_text(f"{kind}: {error}"[:200])
    return kind


def plain(field: str, key: str, value: Any) -> Any:
    """Return a value as plain data: tags become text, numbers of numpy and torch become numbers of Python.

    A number keeps its type: int stays int, bool stays bool, float stays float.
    """
    if field == "tags":
        return escaped_text(_text(value))
    if value is None or type(value) in (bool, int, float):
        return value
    if isinstance(value, str):
        return escaped_text(_text(value))
    if isinstance(value, int):
        return int(value)
    item = getattr(value, "item", None)
    if callable(item):
        with suppress(Exception):  # `item` raises for an array with several numbers
            scalar = item()
            if scalar is None or isinstance(scalar, (bool, int, float, str)):
                return plain(field, key, scalar)
    with suppress(Exception):
        return int(value.__index__())
    with suppress(InvalidArgument):
        return floats({key: value})[key]
    return escaped_text(str(value)[:_OBJECT_LIMIT])


def _text(value: Any) -> str:
    """Return a value as text; of a subclass of `str`, such as an Enum, its characters."""
    return str.__str__(value) if isinstance(value, str) else str(value)


def flat(field: str, values: Mapping[Any, Any]) -> dict[str, Any]:
    """Return params, tags or a summary as plain data; nested names become `a/b`.

    Raises
    ------
    InvalidArgument
        If a name or a value cannot be stored. The message names it.
    """
    fields: dict[str, Any] = {}
    with readable(field):
        for name, value in leaves(values):
            if len(name) > KEY_LIMIT:
                raise InvalidArgument(
                    f"the name {name[:60]!r}… in {field} has {len(name):,} characters, more than {KEY_LIMIT}"
                )
            fields[checked(name)] = plain(field, name, value)
    return fields


def encoded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain data for JSON: NaN and infinities, which JSON lacks, become their names."""
    return {key: encode_float(value) if isinstance(value, float) else value for key, value in values.items()}


def check_size(field: str, values: Mapping[str, Any]) -> None:
    """Refuse values that exceed `SIZE_LIMIT`.

    The server would refuse the whole frame, and a refused frame blocks all later frames of the journal.
    """
    try:
        size = len(msgspec.json.encode(encoded(values)))
    except (ValueError, OverflowError) as error:
        raise InvalidArgument(f"{field} cannot be stored: {reason(error)}") from None
    if size > SIZE_LIMIT:
        raise InvalidArgument(
            f"{field} of the run have {size:,} bytes; the limit is {SIZE_LIMIT:,}",
            hint="store long data as a file of a version: run.update(name, path)",
        )


def stored_fields(field: str, values: Any) -> dict[str, Any]:
    """Return the params or tags of a call as redacted plain data."""
    if values is None:
        return {}
    with readable(field):
        given = mapping(field, values)
    fields = flat(field, given)
    check_size(field, fields)
    return redact(fields)  # type: ignore[no-any-return]
