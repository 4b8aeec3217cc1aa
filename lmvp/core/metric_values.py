"""Conversion of logged values to floats by key: nested dicts, numpy and torch scalars.

Neither numpy nor torch is imported here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from lmvp.core.run_frames import AUTO, check_key
from lmvp.errors import InvalidArgument, InvalidRequest

# Levels of nesting. The limit also stops a mapping that contains itself.
_DEPTH = 50
TIME_LIMIT = 9.2e12
"""Largest distance of a point's time from 1970, in seconds. Parquet files store times as int64 microseconds, which end
there.
"""


def floats(values: Any) -> dict[str, float]:
    """Return logged values as floats; `{"a": {"b": 1}}` becomes `a/b`.

    Raises
    ------
    InvalidArgument
        If a value is not a number. The message names its key.

    Examples
    --------
    >>> floats({"loss": 1, "val": {"acc": True}})
    {'loss': 1.0, 'val/acc': 1.0}
    """
    if not isinstance(values, Mapping):
        raise InvalidArgument(
            f"log() takes a mapping of names to numbers, not {_shown(values)}", hint='run.log({"loss": loss}, step=i)'
        )
    found = dict(_flat(values, "", 0))
    with suppress(Exception):  # a tensor on the meta device has no value; the next line raises the error that names it
        _fetch(found)
    return {key: _float(key, value) for key, value in found.items()}


def _flat(values: Mapping[Any, Any], before: str, depth: int) -> Iterator[tuple[str, Any]]:
    if depth > _DEPTH:
        raise InvalidArgument(f"{before[:60]!r} is nested more than {_DEPTH} levels deep")
    for key, value in values.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}/", depth + 1)
        else:
            yield checked(name), value


def checked(name: Any) -> str:
    """Return a key if it is valid.

    Raises
    ------
    InvalidArgument
        If it is empty, too long, or contains control characters.
    """
    try:
        return check_key(name)
    except InvalidRequest as error:
        raise InvalidArgument(error.message, hint=error.hint) from None


def _fetch(found: dict[str, Any]) -> None:
    """Copy the tensors on accelerators to the CPU with one transfer; a copy of each would wait for the device."""
    torch = sys.modules.get("torch")
    if torch is None:
        return
    away = {
        key: value
        for key, value in found.items()
        if isinstance(value, torch.Tensor) and value.device.type != "cpu" and value.numel() == 1
    }
    if len(away) > 1:
        # MPS, the GPU of Apple, has no float64.
        wide = torch.float32 if any(value.device.type == "mps" for value in away.values()) else torch.float64
        rows = torch.stack([value.detach().reshape(()).to(wide) for value in away.values()])
        found.update(zip(away, rows.tolist(), strict=True))


def _float(key: str, value: Any) -> float:
    if type(value) in (int, float, bool):
        return _checked_float(key, value)
    with suppress(Exception):  # a foreign type can raise anything in its conversion; then it is not a number
        if isinstance(value, (str, bytes, complex)) or value is None:
            raise TypeError
        if isinstance(value, (int, float)):
            return float(value)
        if _count(value) == 1:
            item = getattr(value, "item", None)
            return float(item() if callable(item) else value)
    raise InvalidArgument(f"the metric {key!r} is {_shown(value)}, not a number", hint="log one number for each key")


def _count(value: Any) -> int:
    """Return the number of elements of a value; 1 for a type without a size."""
    size = getattr(value, "numel", None) or getattr(value, "size", 1)
    size = size() if callable(size) else size
    return size if isinstance(size, int) else 1


def _checked_float(key: str, value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        raise InvalidArgument(f"the metric {key!r} is too large for a float64") from None


def step_of(step: Any) -> int:
    """Return a step as an int; `AUTO` for None.

    Raises
    ------
    InvalidArgument
        If the step is not an integer, or not between -2**63 + 1 and 2**63 - 2.
    """
    if step is None:
        return AUTO
    number = None
    with suppress(Exception):  # a foreign type can raise anything in `__index__`
        number = None if isinstance(step, bool) else int(step.__index__())
    # A bool is an int in Python, but `step=True` is a mistake of the caller.
    if number is None:
        raise InvalidArgument(f"step= is {_shown(step)}, not an integer", hint="log an epoch or a time as a metric")
    if not AUTO < number < -AUTO - 1:
        raise InvalidArgument(f"step={_digits(number)} is not between -2**63 + 1 and 2**63 - 2")
    return number


def _digits(number: int) -> str:
    return str(number) if number.bit_length() < 256 else f"an integer of {number.bit_length():,} bits"


def time_of(time: Any) -> float:
    """Return a time in seconds since 1970.

    Raises
    ------
    InvalidArgument
        If the time is neither a datetime nor a number, or too far from 1970.
    """
    with suppress(Exception):
        if isinstance(time, datetime):
            seconds = float(time.timestamp())
        elif isinstance(time, (int, float)) and not isinstance(time, bool):
            seconds = float(time)
        else:
            raise TypeError
        # NaN is refused here too, because it compares as false.
        if abs(seconds) <= TIME_LIMIT:
            return seconds
    raise InvalidArgument(f"time= is {_shown(time)}, not a datetime or seconds since 1970, at most ±{TIME_LIMIT:g}")


def _shown(value: Any) -> str:
    """Return the type of a value, with the value if its text is short."""
    text = kind = type(value).__name__
    if type(value) in (str, int, float, bytes):
        with suppress(Exception):  # Python refuses to convert integers of more than 4,300 digits to text
            text = f"{kind} {value!r}"
    return text if len(text) <= 60 else text[:59] + "…"
