"""Format of ONNX models: the graph as a protobuf message without its initialisers, which are tensors.

A pull restores a model that is equal to the pushed one. It never opens a file: initialisers with external data are
refused by both push and pull.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib import import_module
from math import prod
from typing import Any

from lmvp.core.containers.onnx import DTYPES
from lmvp.core.safetensors import RESERVED, tensor_size
from lmvp.errors import DamagedFile, InvalidArgument, MissingDependency
from lmvp.formats import tensors
from lmvp.formats.base import Bytes, Package, PackedFile, Reader, check_small
from lmvp.formats.tensors import Fetched, Packed, Shelf, Stored

NAMES = ("onnx",)
STRUCTURE = "structure.onnx"

_RAW = "raw_data"
_TYPED: Mapping[int, tuple[str, str]] = {
    1: ("float_data", "<f4"),
    6: ("int32_data", "<i4"),
    7: ("int64_data", "<i8"),
    11: ("double_data", "<f8"),
}
"""The field with the numbers of a tensor if they are not raw bytes, by data type, and their dtype in numpy."""

# `TensorProto.EXTERNAL`
_EXTERNAL = 1


def recognises(obj: Any) -> bool:
    """Return whether the object is an `onnx.ModelProto`, without importing onnx."""
    return getattr(getattr(type(obj), "DESCRIPTOR", None), "full_name", None) == "onnx.ModelProto"


def pack(obj: Any) -> Package:
    """Turn a model into its graph and its initialisers.

    Raises
    ------
    InvalidArgument
        If it was loaded without its external data.
    """
    outside = next(_external(obj), None)
    if outside is not None:
        raise InvalidArgument(
            f"the initialiser {outside!r} lies in another file, which was not loaded",
            hint="onnx.load(path) loads it too; or push the folder that the model lies in",
        )
    structure, shelf = type(obj)(), Shelf()
    _copy(obj, structure, {"graph"})
    if obj.HasField("graph"):
        _copy(obj.graph, structure.graph, {"initializer"})
    found: dict[str, Packed] = {}
    fields: dict[str, str] = {}
    for tensor in obj.graph.initializer:
        # Initialisers without a name, or with a repeated one, stay in the graph.
        field = _field(tensor) if tensor.name not in {"", RESERVED, *found} else None
        _copy(tensor, structure.graph.initializer.add(), {field} if field else ())
        if field is not None:
            found[tensor.name] = _packed(tensor, field, shelf)
            fields |= {tensor.name: field} if field != _RAW else {}
    files, meta = tensors.weights(found, "np")
    # Deterministic, so that equal models have equal digests.
    text = structure.SerializeToString(deterministic=True)
    return Package(
        "onnx", [*files, PackedFile(STRUCTURE, [Bytes.of(text)])], meta | ({"fields": fields} if fields else {})
    )


def _external(message: Any) -> Iterator[str]:
    """Yield the names of all tensors in a message that have external data."""
    if message.DESCRIPTOR.full_name == "onnx.TensorProto":
        if message.data_location == _EXTERNAL or message.external_data:
            yield message.name
        return
    for _, value in message.ListFields():
        for one in value if hasattr(value, "extend") else (value,):
            if hasattr(one, "ListFields"):
                yield from _external(one)


def _copy(source: Any, target: Any, but: Collection[str]) -> None:
    """Copy a message without some of its fields."""
    from google.protobuf.unknown_fields import UnknownFieldSet

    target.SetInParent()
    if len(UnknownFieldSet(source)):  # fields of a newer ONNX: only a copy of the whole message preserves them
        target.CopyFrom(source)
        for name in but:
            target.ClearField(name)
        return
    for field, value in source.ListFields():
        if field.name in but:
            continue
        if hasattr(value, "extend"):
            getattr(target, field.name).extend(value)
        elif hasattr(value, "ListFields"):
            getattr(target, field.name).CopyFrom(value)
        else:
            setattr(target, field.name, value)


def _field(tensor: Any) -> str | None:
    """Return the field with the numbers of a tensor, if their number matches its shape; None otherwise."""
    size = tensor_size(DTYPES.get(tensor.data_type, ""), tensor.dims)
    if not size:
        return None
    if tensor.HasField(_RAW):
        return _RAW if len(tensor.raw_data) == size else None
    field, _ = _TYPED.get(tensor.data_type, ("", ""))
    return field if field and len(getattr(tensor, field)) == prod(tensor.dims) else None


def _packed(tensor: Any, field: str, shelf: Shelf) -> Packed:
    dtype, shape = DTYPES[tensor.data_type], tuple(tensor.dims)
    return Packed(dtype, shape, Fetched(tensor_size(dtype, shape) or 0, lambda: _bytes(tensor, field), shelf))


def _bytes(tensor: Any, field: str) -> memoryview:
    if field == _RAW:
        return memoryview(tensor.raw_data)
    import numpy as np

    return Bytes.of(np.array(getattr(tensor, field), _TYPED[tensor.data_type][1])).data


def unpack(reader: Reader, *, into: Any = None, trust: Sequence[str | type] = ()) -> Any:  # noqa: ARG001 - no code here
    """Build the model.

    Raises
    ------
    InvalidArgument
        If `into` is passed: a graph cannot be filled.
    DamagedFile
        If graph and tensors do not match, or the graph refers to other files.
    """
    if into is not None:
        raise InvalidArgument("`--into` fills modules and arrays, not ONNX models", hint="leave `--into` out")
    check_small(reader.manifest, STRUCTURE)
    model = _structure(reader.read(STRUCTURE))
    stored = tensors.stored(reader.manifest)
    fields = reader.manifest.meta.get("fields", {})
    if not isinstance(fields, dict):
        raise DamagedFile("'fields' in the version's meta data is no object")
    left = dict(stored)
    for tensor in model.graph.initializer:
        if tensor.name in left:
            _place(reader, tensor, left.pop(tensor.name), fields.get(tensor.name, _RAW))
    if left:
        raise DamagedFile(f"the version has a tensor {next(iter(left))!r} that its graph lacks")
    return model


def _structure(data: bytes) -> Any:
    try:
        onnx = import_module("onnx")
    except ImportError as error:
        raise MissingDependency("this version is an ONNX model", hint="pip install onnx") from error
    from google.protobuf.message import DecodeError

    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise DamagedFile(f"{STRUCTURE} is damaged: {error}") from error
    outside = next(_external(model), None)
    if outside is not None:
        raise DamagedFile(f"the initialiser {outside!r} of this version would be read from another file")
    return model


def _place(reader: Reader, tensor: Any, stored: Stored, field: str) -> None:
    """Write the numbers of a tensor into its field."""
    if (DTYPES.get(tensor.data_type), tuple(tensor.dims)) != (stored.dtype, stored.shape):
        raise DamagedFile(f"the initialiser {tensor.name!r} is {stored.kind} in the version, another in its graph")
    data = memoryview(bytearray(stored.size))
    tensors.fill(reader, [(stored, data)])
    if field == _RAW:
        tensor.raw_data = bytes(data)
        return
    import numpy as np

    known, dtype = _TYPED.get(tensor.data_type, ("", ""))
    if field != known:
        raise DamagedFile(f"the initialiser {tensor.name!r} cannot have its numbers in {str(field)[:40]!r}")
    getattr(tensor, field).extend(np.frombuffer(data, dtype).tolist())
