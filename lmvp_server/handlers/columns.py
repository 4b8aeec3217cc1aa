"""Points on the wire: as JSON for people, as columns for machines. docs/api.md, Columns."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from lmvp.records import encode_float
from lmvp.tracking.records import Curve, Curves

if TYPE_CHECKING:
    from lmvp_server.services.metrics import Drawn

COLUMNS = "application/x-lmvp-columns"
_LENGTH = struct.Struct("<I")


def as_json(curves: Iterable[Drawn]) -> Curves:
    """Return curves as a struct."""
    return Curves(
        curves=tuple(
            Curve(
                run=curve.run,
                key=curve.key,
                count=curve.count,
                steps=tuple(curve.columns.steps.tolist()),
                values=floats(curve.columns.values),
                times=tuple(curve.columns.times.tolist()),
                axis=() if curve.axis is None else floats(curve.axis),
            )
            for curve in curves
        )
    )


def floats(values: Any) -> tuple[Any, ...]:
    """Return an array of floats as JSON has them."""
    return tuple(map(encode_float, values.tolist()))


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
