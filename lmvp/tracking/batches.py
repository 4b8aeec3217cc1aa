"""Validation of the arrays of `log_batch`. Needs numpy: import this module lazily."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lmvp.core.columns import Columns
from lmvp.core.metric_values import checked
from lmvp.core.run_frames import AUTO
from lmvp.errors import InvalidArgument


def batches(steps: Any, values: Mapping[str, Any], times: Any) -> dict[str, Columns]:
    """Return the columns of each key.

    Raises
    ------
    InvalidArgument
        If the arrays are not numeric or differ in length.
    """
    if not isinstance(values, Mapping):
        raise InvalidArgument("log_batch() takes a mapping of names to arrays", hint='{"loss": losses}')
    given = {checked(key): _floats(key, value) for key, value in values.items()}
    axis = None if steps is None else _steps(steps)
    found = {}
    for key, column in given.items():
        at = np.full(len(column), AUTO, np.int64) if axis is None else axis
        moments = np.broadcast_to(
            np.asarray(times, np.float64), column.shape if np.ndim(times) == 0 else np.shape(times)
        )
        if not len(at) == len(column) == len(moments):
            raise InvalidArgument(
                f"{key!r} has {len(column):,} values for {len(at):,} steps and {len(moments):,} times"
            )
        if not np.isfinite(moments).all():
            raise InvalidArgument("time= holds what is no time: seconds since 1970 are finite")
        if len(column):
            found[key] = Columns(at, column, moments)
    return found


def _floats(key: str, value: Any) -> Any:
    detach = getattr(value, "detach", None)
    try:
        # `double`, because numpy lacks bfloat16.
        column = np.asarray(detach().double().cpu().numpy() if callable(detach) else value, np.float64)
    except (TypeError, ValueError):
        raise InvalidArgument(f"{key!r} is no array of numbers") from None
    if column.ndim != 1:
        raise InvalidArgument(f"{key!r} has the shape {column.shape}, not one row of numbers")
    return column


def _steps(steps: Any) -> Any:
    detach = getattr(steps, "detach", None)
    axis = np.asarray(detach().cpu().numpy() if callable(detach) else steps)
    # An empty list has the dtype float64.
    if axis.ndim != 1 or (axis.dtype.kind not in "iu" and len(axis)):
        raise InvalidArgument("steps= is no row of integers", hint="range(n), or None")
    return axis.astype(np.int64)
