"""Conversion of the result of a verb to JSON, for the option `--json`.

Records have the same fields as in the HTTP API (docs/api.md). JSON has no NaN or infinity: they are written as the
strings `"NaN"`, `"Infinity"` and `"-Infinity"`, as in the API.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import PurePath
from typing import Any

import msgspec

from lmvp.cli.tables import Line, Table
from lmvp.client.runs import Run, Runs
from lmvp.core.schemas import encode_float
from lmvp.views.curves import Curves, ModelCurves
from lmvp.views.history import History

_NOT_A_KEY = re.compile("[^a-z0-9]+")


def to_json(value: Any) -> str:
    """Return the result of a verb as indented JSON.

    A table without records becomes a list of objects whose keys are the column heads in lower case.

    Examples
    --------
    >>> print(to_json(Table(("Model", "Used (UTC)"), [("mlp", "never")], empty="")))
    [
      {
        "model": "mlp",
        "used_utc": "never"
      }
    ]
    >>> print(to_json(Line("3 versions removed")))
    {
      "message": "3 versions removed"
    }
    """
    return msgspec.json.format(msgspec.json.encode(_plain(value)), indent=2).decode()


def _plain(value: Any) -> Any:
    """Convert a value to dicts, lists, strings, numbers and times."""
    if isinstance(value, Line):
        return {"message": str(value)} if value.data is None else _plain(value.data)
    if isinstance(value, Table):
        return [_row(value.head, row) for row in value.rows] if value.data is None else _plain(value.data)
    if isinstance(value, Run):
        return _plain(value.record)
    if isinstance(value, Curves):
        found = {"runs": _plain(value.runs), "curves": [_curve(value, line) for line in value.lines]}
        if isinstance(value, ModelCurves):
            versions = {version.reference: version for history, _ in value.charts for version in history}
            found["versions"] = _plain(list(versions.values()))
        return found
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # Fields with `repr=False` are callbacks or internal state of the client, not data.
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value) if field.repr}
    if isinstance(value, msgspec.Struct):
        return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, History | Runs | list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return encode_float(value)
    if isinstance(value, str | int | bool | datetime | None):
        return value
    return str(value) if isinstance(value, PurePath) else repr(value)


def _row(head: Any, row: Any) -> dict[str, str]:
    """Return a table row as an object: the head "Used (UTC)" becomes the key `used_utc`."""
    keys = [_NOT_A_KEY.sub("_", name.lower()).strip("_") for name in head]
    return dict(zip(keys, row, strict=True))


def _curve(curves: Curves, line: Any) -> dict[str, Any]:
    """Return a curve with its run, metric, steps, values and times."""
    points = {"steps": line.steps, "values": line.values, "times": line.times}
    return {"run": curves.runs[line.run].id, "key": line.key, **{key: _plain(list(of)) for key, of in points.items()}}
