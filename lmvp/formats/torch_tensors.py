"""Torch tensors as bytes, and bytes as torch tensors."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from lmvp.errors import DamagedFile, InvalidArgument, MissingDependency, UnknownFormat
from lmvp.formats import tensors
from lmvp.formats.base import Bytes, Reader, Source
from lmvp.formats.tensors import Elements, Packed, Stored

_DTYPES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int16": "I16",
    "uint32": "U32",
    "int32": "I32",
    "uint64": "U64",
    "int64": "I64",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
    "complex64": "C64",
    "complex128": "F64",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2": "F8_E5M2",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "float8_e8m0fnu": "F8_E8M0",
}
_PLAIN = {name: dtype for dtype, name in _DTYPES.items() if dtype != "complex128"}
_COMPLEX = "complex128"


def is_tensor(obj: Any) -> bool:
    """Tell whether this is a torch tensor of any kind, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(obj, torch.Tensor)


def is_module(obj: Any) -> bool:
    """Tell whether this is a torch module, without importing torch."""
    return any(cls.__module__ == "torch.nn.modules.module" and cls.__name__ == "Module" for cls in type(obj).__mro__)


def uncompiled(obj: Any) -> Any:
    """Return the module that `torch.compile` wrapped; anything else as it is.

    The wrapper is code of this machine, and puts its own name before that of every tensor.
    """
    cls = type(obj)
    wraps = (cls.__module__, cls.__name__) == ("torch._dynamo.eval_frame", "OptimizedModule")
    return obj._orig_mod if wraps else obj  # noqa: SLF001 - torch has no other name for it


def view_of(tensor: Any) -> tuple[Any, ...] | None:
    """Return what is equal for tensors that see the same memory in the same way; None for an empty one."""
    if not tensor.numel() or tensor.device.type == "meta":
        return None
    storage = tensor.untyped_storage().data_ptr()
    return storage, tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), str(tensor.dtype), str(tensor.device)


def packed(name: str, tensor: Any) -> Packed:
    """Make a tensor ready to be read; nothing is copied yet. `name` is what errors call it."""
    check_kind(name, tensor)
    tensor = tensor.detach()
    code = str(tensor.dtype).removeprefix("torch.")
    shape = tuple(tensor.shape)
    if code == _COMPLEX:
        return Packed("F64", (*shape, 2), _source(tensor), view_of(tensor), _COMPLEX)
    return Packed(_DTYPES[code], shape, _source(tensor), view_of(tensor))


def check_kind(name: str, tensor: Any) -> None:
    """Refuse what has no plain numbers in it.

    Raises
    ------
    UnknownFormat
        Naming the tensor and why.
    """
    import torch

    if torch.nn.parameter.is_lazy(tensor):
        raise UnknownFormat(f"{name!r} has no shape yet", hint="run the model once, so that its lazy layers settle")
    if tensor.device.type == "meta":
        raise UnknownFormat(f"{name!r} is on the device 'meta': it has no values")
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested:
        kind = "quantized" if tensor.is_quantized else "nested" if tensor.is_nested else "sparse"
        raise UnknownFormat(
            f"{name!r} is a {kind} tensor, which cannot be kept", hint="keep .to_dense() or .dequantize() of it"
        )
    if type(tensor) not in {torch.Tensor, torch.nn.Parameter}:
        raise UnknownFormat(f"{name!r} is a {type(tensor).__module__}.{type(tensor).__qualname__}, no plain tensor")
    if str(tensor.dtype).removeprefix("torch.") not in _DTYPES:
        raise UnknownFormat(f"{name!r} is of dtype {tensor.dtype}, which safetensors cannot hold")


def _is_direct(tensor: Any) -> bool:
    """Tell whether the bytes lie in main memory as they are to be stored."""
    return bool(tensor.device.type == "cpu" and tensor.is_contiguous() and not tensor.is_conj() and not tensor.is_neg())


def _source(tensor: Any) -> Source:
    if not tensor.numel():
        return Bytes.of(b"")
    if _is_direct(tensor):
        return Bytes(memory(tensor))
    item = tensor.element_size()
    return Elements(tensor.numel() * item, item, _take_strided(tensor) or _take_anywhere(tensor))


def memory(tensor: Any) -> memoryview:
    """Return the bytes of a contiguous tensor in main memory: writable, not copied."""
    import torch

    row = tensor.detach().as_strided((tensor.numel(),), (1,))  # a lone item may have any stride, which view() minds
    return memoryview(row.view(torch.uint8).numpy())


def _take_strided(tensor: Any) -> Any:
    """Read a strided tensor in main memory item by item: only what is read is copied."""
    import torch

    integer = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}.get(tensor.element_size())
    if integer is None or tensor.device.type != "cpu" or tensor.is_conj() or tensor.is_neg():
        return None
    array = tensor.view(integer).numpy()
    return lambda first, last: memoryview(array.flat[first:last].view("u1"))


def _take_anywhere(tensor: Any) -> Any:
    """Read from another device; a tensor that does not lie in a row there is put in one for the moment, on it."""

    def take(first: int, last: int) -> memoryview:
        return memory(tensor.reshape(-1)[first:last].resolve_conj().resolve_neg().contiguous().cpu())

    return take


def _shape_and_dtype(stored: Stored) -> tuple[tuple[int, ...], Any]:
    """Return the shape and dtype that the tensor has in torch."""
    import torch

    if stored.true_dtype == _COMPLEX and stored.dtype == "F64" and stored.shape[-1:] == (2,):
        return stored.shape[:-1], torch.complex128
    if stored.true_dtype is not None:
        raise DamagedFile(f"the version says {stored.name!r} is {stored.true_dtype[:80]!r}, stored as {stored.dtype}")
    dtype = getattr(torch, _PLAIN.get(stored.dtype, ""), None)
    if dtype is None:
        raise MissingDependency(f"this torch has no dtype for {stored.dtype}, which {stored.name!r} has")
    return stored.shape, dtype


def load(reader: Reader, stored: Mapping[str, Stored]) -> dict[str, Any]:
    """Read tensors into new ones in main memory; a tie is the same tensor."""
    import torch

    once = {(tensor.path, tensor.name): tensor for tensor in stored.values()}
    kinds = {key: _shape_and_dtype(tensor) for key, tensor in once.items()}
    made = {key: torch.empty(shape, dtype=dtype) for key, (shape, dtype) in kinds.items()}
    tensors.fill(reader, [(once[key], memory(made[key])) for key in once if once[key].size])
    return {name: made[tensor.path, tensor.name] for name, tensor in stored.items()}


def fill(reader: Reader, into: Mapping[str, Any], stored: Mapping[str, Stored]) -> None:
    """Check that `into` has these tensors and no others, then fill it in place.

    Raises
    ------
    Mismatch
        Where they differ; nothing is changed then.
    """
    targets = {name: packed(name, tensor) for name, tensor in into.items()}
    shown = {name: Stored(name, "", t.dtype, t.shape, 0, "", t.true_dtype).kind for name, t in targets.items()}
    tensors.check(stored, shown, tensors.shared(targets))
    for name, tensor in into.items():
        if 0 in tensor.stride() and tensor.numel() > 1:
            raise InvalidArgument(f"{name!r} in `into` is expanded and cannot be written to", hint="use .clone() of it")
    direct = {name for name, tensor in into.items() if _is_direct(tensor)}
    tensors.fill(reader, [(stored[name], memory(into[name])) for name in into if name in direct and stored[name].size])
    _fill_by_copy(reader, {name: into[name] for name in into if name not in direct and stored[name].size}, stored)


def _fill_by_copy(reader: Reader, into: Mapping[str, Any], stored: Mapping[str, Stored]) -> None:
    """Fill tensors that lie elsewhere or not in a row, one after the other, through one buffer."""
    import torch

    buffer = torch.empty(max((stored[name].size for name in into), default=0), dtype=torch.uint8)
    for name, tensor in into.items():
        shape, dtype = _shape_and_dtype(stored[name])
        part = buffer[: stored[name].size]
        tensors.fill(reader, [(stored[name], memory(part))])
        with torch.no_grad():
            tensor.copy_(part.view(dtype).reshape(shape))
