"""Points on the wire: as JSON for people, as columns for machines. docs/api.md, Columns."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from lmvp_server.services.metrics import Drawn

COLUMNS = "application/x-lmvp-columns"
_LENGTH = struct.Struct("<I")


def as_bytes(curves: Iterable[Drawn]) -> bytes:
    """Return curves as blocks, one after the other."""
    return b"".join(
        block({"run": curve.run, "key": curve.key, "count": curve.count}, curve.columns, curve.axis) for curve in curves
    )


def block(head: dict[str, Any], points: Any, axis: Any = None) -> bytes:
    """Return a block: the length of its head, the head as JSON, and the columns."""
    columns = {"steps": points.steps, "values": points.values, "times": points.times}
    if axis is not None:
        columns["axis"] = axis
    dtypes = [[name, "<i8" if name == "steps" else "<f8"] for name in columns]
    told = msgspec.json.encode({**head, "rows": len(points), "columns": dtypes})
    return b"".join([_LENGTH.pack(len(told)), told, *(column.tobytes() for column in columns.values())])
