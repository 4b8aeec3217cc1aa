"""What callers log, as floats by key: nested dicts, numpy and torch scalars, without importing either."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from lmvp.errors import InvalidArgument, InvalidRequest
from lmvp.tracking.frames import AUTO, check_key

_DEPTH = 50


def floats(values: Any) -> dict[str, float]:
    """Return what was logged as floats; `{"a": {"b": 1}}` gives `a/b`.

    Raises
    ------
    InvalidArgument
        Naming the key of what is no number.

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
    """Return a key if it may be one.

    Raises
    ------
    InvalidArgument
        If not.
    """
    try:
        return check_key(name)
    except InvalidRequest as error:
        raise InvalidArgument(error.message, hint=error.hint) from None


def _fetch(found: dict[str, Any]) -> None:
    """Bring tensors that lie on an accelerator over, all in one go: each by itself would wait for the device."""
    torch = sys.modules.get("torch")
    if torch is None:
        return
    away = {
        key: value
        for key, value in found.items()
        if isinstance(value, torch.Tensor) and value.device.type != "cpu" and value.numel() == 1
    }
    if len(away) > 1:
        wide = torch.float32 if any(value.device.type == "mps" for value in away.values()) else torch.float64
        rows = torch.stack([value.detach().reshape(()).to(wide) for value in away.values()])
        found.update(zip(away, rows.tolist(), strict=True))


def _float(key: str, value: Any) -> float:
    if isinstance(value, (int, float)):
        return _checked_float(key, value)
    if isinstance(value, (str, bytes, complex)) or value is None or _count(value) != 1:
        raise InvalidArgument(
            f"the metric {key!r} is {_shown(value)}, not a number", hint="log one number for each key"
        )
    item = getattr(value, "item", None)
    return _checked_float(key, item() if callable(item) else value)


def _count(value: Any) -> int:
    """Return how many numbers a value holds; 1 for what has no such notion."""
    size = getattr(value, "numel", None) or getattr(value, "size", 1)
    size = size() if callable(size) else size
    return size if isinstance(size, int) else 1


def _checked_float(key: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InvalidArgument(f"the metric {key!r} is {_shown(value)}, not a number") from None
    except OverflowError:
        raise InvalidArgument(f"the metric {key!r} is too large for a float64") from None


def step_of(step: Any) -> int:
    """Return a step as an int; `AUTO` for None.

    Raises
    ------
    InvalidArgument
        If it is no integer, or not between -2**63 + 1 and 2**63 - 2.
    """
    if step is None:
        return AUTO
    index = getattr(step, "__index__", None)
    if index is None or isinstance(step, bool):
        raise InvalidArgument(f"step= is {_shown(step)}, not an integer", hint="log an epoch or a time as a metric")
    number = int(index())
    if not AUTO < number < -AUTO - 1:
        raise InvalidArgument(f"step={number} is not between -2**63 + 1 and 2**63 - 2")
    return number


def time_of(time: Any) -> float:
    """Return a time in seconds since 1970."""
    if isinstance(time, datetime):
        return time.timestamp()
    if isinstance(time, (int, float)) and not isinstance(time, bool) and math.isfinite(time):
        return float(time)
    raise InvalidArgument(f"time= is {_shown(time)}, not seconds since 1970 or a datetime")


def _shown(value: Any) -> str:
    text = f"{type(value).__name__} {value!r}" if isinstance(value, (str, int, float, bytes)) else type(value).__name__
    return text if len(text) <= 60 else text[:59] + "…"
