"""Binary encoding of metric points as columns, described in docs/api.md, section Columns."""

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
    """Encode curves as consecutive blocks."""
    return b"".join(
        block({"run": curve.run, "key": curve.key, "count": curve.count}, curve.columns, curve.axis) for curve in curves
    )


def block(head: dict[str, Any], points: Any, axis: Any = None) -> bytes:
    """Encode a block: length of the header (uint32), header as JSON, then each column as 8-byte numbers."""
    columns = {"steps": points.steps, "values": points.values, "times": points.times}
    if axis is not None:
        columns["axis"] = axis
    # Little-endian on the wire, as numpy and `Float64Array` of browsers read it on common machines.
    dtypes = [[name, "<i8" if name == "steps" else "<f8"] for name in columns]
    told = msgspec.json.encode({**head, "rows": len(points), "columns": dtypes})
    return b"".join([_LENGTH.pack(len(told)), told, *(column.tobytes() for column in columns.values())])
