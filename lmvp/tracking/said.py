"""Params, tags and summary of a run: what is said of it, as the wire has it, without secrets."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from lmvp.errors import InvalidArgument
from lmvp.records import encode_float
from lmvp.redaction import redact
from lmvp.tracking.numbers import checked, floats

if TYPE_CHECKING:
    from lmvp.tracking.active import ActiveRun


class Said(MutableMapping[str, Any]):
    """What is said of a run: a change is on its way to the server at once."""

    def __init__(self, run: ActiveRun, field: str, values: Mapping[str, Any]) -> None:
        self._run, self._field, self._values = weakref.proxy(run), field, dict(values)

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.update({key: value})

    def __delitem__(self, key: str) -> None:
        if self._field == "params":
            raise InvalidArgument("a param of a run can be changed, not taken away")
        del self._values[key]
        self._run.say(**{self._field: {key: None}})

    def update(self, *others: Any, **more: Any) -> None:
        """Say several things at once."""
        given = dict(*others, **more)
        read = {str(key): plain(self._field, str(key), value) for key, value in given.items()}
        self._run.say(**{self._field: read})
        self._values.update(read)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(self._values)


def plain(field: str, key: str, value: Any) -> Any:
    """Return a value as the wire has it: params are scalars, tags texts, numbers of numpy and torch plain ones."""
    if field == "tags":
        return str(value)
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return value if abs(value) < 1 << 63 else str(value)
    with suppress(InvalidArgument):
        number = floats({key: value})[key]
        return encode_float(number)
    return str(value)[:10_000]


def said(field: str, values: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return params or tags as they go over the wire; nested ones flat, with secrets blotted out."""
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise InvalidArgument(f"{field}= is {type(values).__name__}, not a mapping", hint=f'{field}={{"name": value}}')
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}/{name}": each for name, each in said(field, value).items()}
        else:
            flat[checked(str(key))] = plain(field, str(key), value)
    return redact(flat)  # type: ignore[no-any-return]
