"""Validation and conversion of the arguments of public functions.

Each error names the argument, shows its value and suggests a valid one.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import shlex
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from lmvp.core.references import check_alias
from lmvp.core.sanitize import escaped_text
from lmvp.core.schemas import Version, WireFloat, encode_float
from lmvp.errors import InvalidArgument, InvalidReference

T = TypeVar("T")
Params: TypeAlias = object
"""Params of a version or a run: a mapping, a dataclass, a Namespace, an attrs class, a pydantic model, or a config of
OmegaConf or ml_collections. Nested params are flattened: `optimizer/lr`."""
_DEPTH = 50
"""Maximum nesting of params. Real configurations have fewer levels; a mapping that contains itself has more."""


def fields(
    message: str | None,
    metrics: Mapping[str, Any] | None,
    params: Params | None,
    tags: Mapping[str, str] | None,
) -> dict[str, Any]:
    """Return the fields of a version record in their JSON form, without those that are None."""
    if not isinstance(message, str | None):
        raise InvalidArgument(f"message= is {shown(message)}, not a text")
    given = {
        "message": None if message is None else escaped_text(message),
        "metrics": _read("metrics", metrics, _metric),
        "params": _read("params", params, _param),
        "tags": _read("tags", tags, lambda _, value: escaped_text(str(value))),
    }
    return {key: value for key, value in given.items() if value is not None}


def _read(what: str, given: Any, read: Callable[[str, Any], T]) -> dict[str, T] | None:
    """Convert each value of a mapping with `read`; return None for None."""
    if given is None:
        return None
    values = mapping(what, given)
    named = leaves(values) if what == "params" else values.items()
    return {escaped_text(str(key)): read(key, value) for key, value in named}


def mapping(field: str, given: Any) -> Mapping[Any, Any]:
    """Return params, tags or metrics as a mapping.

    The value can be a mapping, a dataclass, a Namespace, or the configuration object of a library.

    Raises
    ------
    InvalidArgument
        If the value cannot be read as a mapping.

    Examples
    --------
    >>> from argparse import Namespace
    >>> mapping("params", Namespace(lr=0.1))
    {'lr': 0.1}
    """
    values = as_mapping(given)
    if values is None and callable(getattr(given, "keys", None)) and hasattr(given, "__getitem__"):
        values = {key: given[key] for key in given.keys()}  # noqa: SIM118 - only keys() is sure to exist
    if values is None:
        hint = f'write {field}={{"name": value}}, or give a dataclass or a Namespace'
        raise InvalidArgument(f"{field}= is {shown(given)}, not a mapping", hint=hint)
    return values


def as_mapping(value: Any) -> Mapping[Any, Any] | None:
    """Return the fields of a mapping, dataclass, Namespace, attrs class, pydantic model or msgspec Struct, else None.

    The values are not copied: `dataclasses.asdict` copies them deeply, which can be slow or fail.
    """
    if isinstance(value, Mapping):
        return value
    if isinstance(value, type):  # a dataclass itself has fields too, but no values
        return None
    if isinstance(value, (argparse.Namespace, types.SimpleNamespace)):
        return vars(value)
    kind = type(value)
    # Detect the libraries by their attributes, because an import of them would take time.
    names = [field.name for field in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else None
    if names is None and isinstance(attributes := getattr(kind, "__attrs_attrs__", None), tuple):
        names = [attribute.name for attribute in attributes]
    for listed in ("model_fields", "__struct_fields__"):
        if names is None and isinstance(fields := getattr(kind, listed, None), (Mapping, tuple)):
            names = list(fields)
    return None if names is None else {name: getattr(value, name) for name in names}


def leaves(values: Mapping[Any, Any], before: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield the names and values of a nested mapping; nested names are joined by `/`.

    Raises
    ------
    InvalidArgument
        If the mapping is nested too deeply, for example because it contains itself.

    Examples
    --------
    >>> list(leaves({"optimizer": {"lr": 0.1}, "epochs": 3}))
    [('optimizer/lr', 0.1), ('epochs', 3)]
    """
    if depth > _DEPTH:
        raise InvalidArgument(f"{before[:60]!r} is nested more than {_DEPTH} levels deep")
    for key, value in values.items():
        name = f"{before}{escaped_text(str(key))}"
        nested = as_mapping(value)
        if nested is None:
            yield name, value
        else:
            yield from leaves(nested, f"{name}/", depth + 1)


def aliases(given: Any) -> tuple[str, ...]:
    """Return the aliases as a tuple; the argument is one name or a sequence of names."""
    if not isinstance(given, (str, Sequence)):
        raise InvalidArgument(f"alias= is {shown(given)}, not a text or a list of texts")
    return tuple(check_alias(one) for one in ([given] if isinstance(given, str) else given))


def check_order(name: Any, obj: Any) -> None:
    """Raise an error if the object comes before the name, as in other libraries (`save(model, "name")`)."""
    if isinstance(obj, str) and not isinstance(name, str):
        raise InvalidArgument(
            f"the name comes first, and then the {type(name).__name__}",
            hint=f"`lmvp push {shlex.quote(obj[:80])} FILE`",
        )


def check_folder(to: Any) -> None:
    """Raise an error if the value is neither a path nor None."""
    if to is not None and (not isinstance(to, (str, os.PathLike)) or to == ""):
        raise InvalidArgument(f"`--to` is {shown(to)}, not a folder", hint="`--to .` is the current folder")


def check_limit(limit: Any) -> None:
    """Raise an error if the value is neither an integer of at least 1 nor None."""
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise InvalidArgument(f"`--limit` is {shown(limit)}", hint="give a whole number above 0, or None for all")


def accepted(version: Version) -> Version:
    """Return the version if it is not a contribution. Contributions have no place in the history of a model.

    Raises
    ------
    InvalidReference
        If the version is a contribution.
    """
    if version.status:
        hint = f"`lmvp accept {version.reference}` makes it a version; this needs the role maintainer"
        raise InvalidReference(f"{version.reference} is a contribution, and no version yet", hint=hint)
    return version


def _metric(key: str, value: Any) -> WireFloat:
    """Return a metric as a float. Scalars of numpy and torch are numbers; strings are not."""
    if not isinstance(value, (str, bytes)):  # float("0.9") would accept a string
        try:
            return encode_float(float(value))
        except (TypeError, ValueError, RuntimeError, OverflowError):
            pass
    raise InvalidArgument(
        f"the metric {key!r} is {shown(value)}, not a number",
        hint="metrics are numbers; texts go into `--param` or `--tag`",
    )


def _param(key: str, value: Any) -> Any:
    """Return a param as a JSON value; scalars of numpy and torch become Python numbers, other objects become text."""
    if isinstance(value, float):
        return encode_float(value)
    if isinstance(value, str):
        return escaped_text(value)
    if value is None or isinstance(value, (bool, int)):
        return value
    item = getattr(value, "item", None)
    if callable(item):  # fails for arrays with more than one element
        try:
            return _param(key, item())
        except (TypeError, ValueError, RuntimeError):
            pass
    return escaped_text(str(value))


def path(given: Any, what: str) -> Path:
    """Return a string or path as a Path, with `~` expanded."""
    if not isinstance(given, (str, os.PathLike)) or given == "":
        raise InvalidArgument(f"{what}= is {shown(given)}, not a path", hint="give the path of a folder or of a file")
    return Path(given).expanduser()


def shown(value: Any) -> str:
    """Return the type and the value of an invalid argument for a message, at most 80 characters."""
    return f"{type(value).__name__} {value!r}"[:80]


_SIZE_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}
_BINARY_UNITS = {"ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40}
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
    return int(float(found[1]) * (_BINARY_UNITS | _SIZE_UNITS)[unit])
