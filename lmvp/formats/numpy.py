"""Format of numpy arrays, alone or in nested dicts, lists and tuples.

A pull restores dtypes, names and the order of names. Numbers are stored little-endian and in C order; an array in
Fortran order is restored with equal values in C order. Structured, object and text arrays are refused: they are not
tensors, or need pickle.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lmvp.errors import DamagedFile, InvalidArgument, MissingDependency, UnknownFormat
from lmvp.formats import tensors, tree
from lmvp.formats.base import Bytes, Package, Reader
from lmvp.formats.tensors import Elements, Packed, Stored

NAMES = ("numpy",)

_DTYPES = {
    "b1": "BOOL",
    "u1": "U8",
    "i1": "I8",
    "u2": "U16",
    "i2": "I16",
    "f2": "F16",
    "u4": "U32",
    "i4": "I32",
    "f4": "F32",
    "u8": "U64",
    "i8": "I64",
    "f8": "F64",
    "c8": "C64",
    "c16": "F64",
    "M8": "I64",
    "m8": "I64",
}
ML_DTYPES = {
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2": "F8_E5M2",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "float8_e8m0fnu": "F8_E8M0",
}
"""Dtypes of the package ml_dtypes, which JAX and TensorFlow use, with their names in safetensors."""

_ML_BYTES = frozenset(
    {
        *("float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz"),
        *("int1", "int2", "int4", "uint1", "uint2", "uint4"),
    }
)
"""Dtypes of ml_dtypes that safetensors lacks, or packs more densely than ml_dtypes. They are stored as one byte for
each number.
"""

PLAIN = {name: code for code, name in _DTYPES.items() if code not in {"c16", "M8", "m8"}}
# A true dtype comes from a manifest. It is validated before `numpy.dtype` parses it.
_TRUE_DTYPE = re.compile(r"[<>|][biufcmM]\d{1,2}(\[\d*[a-zA-Z]+\])?")


def recognises(obj: Any) -> bool:
    """Return whether the object is an array, or a dict, list or tuple that contains an array."""
    return any(kind(leaf) for leaf in tree.walk(obj))


def kind(obj: Any) -> str | None:
    """Return `array` or `scalar`, or None for any other object.

    Examples
    --------
    >>> import numpy
    >>> kind(numpy.zeros(3)), kind(numpy.float32(1)), kind(1.0)
    ('array', 'scalar', None)
    """
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    if type(obj) is numpy.ndarray or isinstance(obj, numpy.memmap):
        return "array"
    return "scalar" if isinstance(obj, numpy.generic) else None


def pack(obj: Any) -> Package:
    """Turn arrays into `weights.safetensors`, which is read from their memory."""
    skeleton, leaves = tree.flatten(obj, kind)
    files, meta = tensors.weights({name: packed(name, leaf) for name, leaf in leaves.items()}, "np")
    return Package("numpy", files, {**meta, "tree": skeleton})


def packed(name: str, leaf: Any) -> Packed:
    """Prepare an array for reading, without a copy; `name` is its name in errors."""
    import numpy as np

    array = np.asarray(leaf)
    if array.dtype.type.__module__ == "ml_dtypes":
        return _packed_ml(name, array)
    dtype = _DTYPES.get(f"{array.dtype.kind}{array.dtype.itemsize}")
    if dtype is None or array.dtype.names:
        raise UnknownFormat(
            f"{name!r} is an array of dtype {array.dtype}, which is not a plain number",
            hint="kept are bool, integers, floats of 2, 4 and 8 bytes, complex numbers, dates, and ml_dtypes",
        )
    little = _little(array.dtype)
    shape = (*array.shape, 2) if little.str == "<c16" else array.shape
    plain = np.dtype(PLAIN[dtype]) == array.dtype
    interface = array.__array_interface__
    # The key of ties; an empty array has no memory to share.
    view = (interface["data"][0], array.strides, array.shape, array.dtype.str) if array.size else None
    return Packed(dtype, shape, _source(array, little), view, None if plain else array.dtype.str)


def _packed_ml(name: str, array: Any) -> Packed:
    """Prepare an array of ml_dtypes: its bits as integers, because Python cannot share buffers of ml_dtypes."""
    import numpy as np

    code = array.dtype.name
    if code not in ML_DTYPES and code not in _ML_BYTES:
        raise UnknownFormat(
            f"{name!r} is an array of dtype {code}; safetensors defines no such dtype",
            hint="convert it with .astype() to a dtype that it defines",
        )
    bits = array.view(np.dtype(f"u{array.dtype.itemsize}"))
    little = np.dtype(f"<u{array.dtype.itemsize}")
    view = (bits.__array_interface__["data"][0], array.strides, array.shape, code) if array.size else None
    return Packed(
        ML_DTYPES.get(code, "U8"), array.shape, _source(bits, little), view, None if code in ML_DTYPES else code
    )


def _ml_dtype(name: str, tensor: Stored) -> Any:
    import numpy as np

    try:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, name))
    except (ImportError, AttributeError):
        raise MissingDependency(
            f"numpy has no dtype for {tensor.true_dtype or tensor.dtype}, which {tensor.name!r} has",
            hint="pip install ml_dtypes; or pip install torch, and a safetensors file comes back as torch tensors",
        ) from None


def _little(dtype: Any) -> Any:
    """Return the little-endian dtype in numpy's canonical form."""
    import numpy as np

    return np.dtype(dtype.newbyteorder("<").str)


def _source(array: Any, little: Any) -> Bytes | Elements:
    import numpy as np

    if array.flags.c_contiguous and array.dtype == little:
        return Bytes.of(array.reshape(-1).view(np.uint8)) if array.size else Bytes.of(b"")

    def take(first: int, last: int) -> memoryview:
        # `flat` copies only the items of the range.
        return memoryview(array.flat[first:last].astype(little, copy=False).view(np.uint8))

    return Elements(array.nbytes, array.itemsize, take)


def unpack(reader: Reader, *, into: Any = None, trust: Sequence[str | type] = ()) -> Any:  # noqa: ARG001 - no code here
    """Build the arrays, or fill those of `into`."""
    stored = tensors.stored(reader.manifest)
    if into is not None:
        return fill(reader, into, stored)
    skeleton = reader.manifest.meta.get("tree")
    kinds = tree.names(skeleton)
    made = load(reader, {name: stored[name] for name in kinds if name in stored})
    # `[()]` converts an array without dimensions to a scalar.
    return tree.rebuild(skeleton, lambda name, kind: made[name][()] if kind == "scalar" else made[name])


def load(reader: Reader, stored: Mapping[str, Stored]) -> dict[str, Any]:
    """Read tensors into new arrays; a tie becomes the same array."""
    import numpy as np

    made: dict[tuple[str, str], Any] = {}
    for tensor in stored.values():
        if (tensor.path, tensor.name) not in made:
            made[tensor.path, tensor.name] = np.empty(*_shape_and_dtype(tensor))
    tensors.fill(reader, [(t, _bytes(made[t.path, t.name])) for t in stored.values() if t.size])
    for tensor in {(t.path, t.name): t for t in stored.values()}.values():
        key = tensor.path, tensor.name
        if tensor.true_dtype and tensor.true_dtype.startswith(">"):
            # Stored little-endian; the dtype of the pushed array was big-endian.
            made[key] = made[key].byteswap(inplace=True).view(tensor.true_dtype)
    return {name: made[t.path, t.name] for name, t in stored.items()}


def _shape_and_dtype(tensor: Stored) -> tuple[tuple[int, ...], Any]:
    """Return the shape of the array and its dtype as stored, little-endian."""
    import numpy as np

    if tensor.true_dtype is None and tensor.dtype in ML_DTYPES.values():
        name = next(name for name, dtype in ML_DTYPES.items() if dtype == tensor.dtype)
        return tensor.shape, _ml_dtype(name, tensor)
    if tensor.true_dtype in _ML_BYTES and tensor.dtype == "U8":
        return tensor.shape, _ml_dtype(str(tensor.true_dtype), tensor)
    if tensor.true_dtype is None:
        return tensor.shape, _little(np.dtype(_code(tensor)))
    dtype = np.dtype(tensor.true_dtype) if _TRUE_DTYPE.fullmatch(tensor.true_dtype) else None
    code = f"{dtype.kind}{dtype.itemsize}" if dtype is not None else None
    if dtype is None or code not in _DTYPES or _DTYPES[code] != tensor.dtype:
        raise DamagedFile(f"the version says {tensor.name!r} is {tensor.true_dtype[:80]!r}, stored as {tensor.dtype}")
    return tensor.shape[:-1] if code == "c16" else tensor.shape, _little(dtype)


def _code(tensor: Stored) -> str:
    if tensor.dtype not in PLAIN:
        raise MissingDependency(
            f"numpy has no dtype for {tensor.dtype}, which {tensor.name!r} has",
            hint="pip install torch, and it comes back as a torch tensor",
        )
    return PLAIN[tensor.dtype]


def _bytes(array: Any) -> memoryview:
    return Bytes.of(array.reshape(-1).view("u1")).data


def fill(reader: Reader, into: Any, stored: Mapping[str, Stored]) -> Any:
    """Fill the arrays of a tree in place; ignore all other objects in the tree."""
    leaves = tree.leaves(into, kind)
    targets = {name: packed(name, leaf) for name, leaf in leaves.items()}
    for name, leaf in leaves.items():
        if kind(leaf) == "scalar" or not leaf.flags.writeable:
            raise InvalidArgument(f"{name!r} in `into` cannot be written to", hint="give arrays that own their memory")
    shown = {n: Stored(n, "", t.dtype, t.shape, 0, "", _native(t.true_dtype)).kind for n, t in targets.items()}
    tensors.check({n: _as_native(t) for n, t in stored.items()}, shown, tensors.shared(targets))
    direct = {name for name, target in targets.items() if isinstance(target.source, Bytes)}
    tensors.fill(reader, [(stored[n], _bytes(leaves[n])) for n in leaves if n in direct and stored[n].size])
    for group in tensors.groups({name: stored[name].size for name in leaves if name not in direct}):
        for name, array in load(reader, {name: stored[name] for name in group}).items():
            leaves[name][...] = array
    return into


def _native(true_dtype: str | None) -> str | None:
    """Return the dtype without its byte order: `into` keeps its byte order."""
    if true_dtype is None or not true_dtype.startswith(">"):
        return true_dtype
    return None if true_dtype[1:] in PLAIN.values() else f"<{true_dtype[1:]}"


def _as_native(tensor: Stored) -> Stored:
    return replace(tensor, true_dtype=_native(tensor.true_dtype))
