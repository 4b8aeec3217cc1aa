"""Conversion of torch tensors to bytes, and of bytes to torch tensors."""

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
    "float4_e2m1fn_x2": "F4",
}
_PLAIN = {name: dtype for dtype, name in _DTYPES.items() if dtype != "complex128"}
_COMPLEX = "complex128"
_PAIRS = "float4_e2m1fn_x2"
"""A dtype with two numbers of 4 bits in a byte. safetensors counts the numbers in the last dimension, torch counts
bytes.
"""

_WRAPPERS = {
    ("torch._dynamo.eval_frame", "OptimizedModule"): "_orig_mod",
    ("torch.nn.parallel.data_parallel", "DataParallel"): "module",
    ("torch.nn.parallel.distributed", "DistributedDataParallel"): "module",
}
"""Classes of torch that wrap a module, and the attribute with the wrapped module; torch has no common name for it."""

_FORMATS = {4: "channels_last", 5: "channels_last_3d"}


def is_tensor(obj: Any) -> bool:
    """Return whether the object is a torch tensor, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(obj, torch.Tensor)


def is_module(obj: Any) -> bool:
    """Return whether the object is a torch module, without importing torch."""
    return any(cls.__module__ == "torch.nn.modules.module" and cls.__name__ == "Module" for cls in type(obj).__mro__)


def in_format(tensor: Any, name: str) -> Any:
    """Return a copy of a tensor in a memory format; see `memory_format`."""
    import torch

    # Not `contiguous`: it does not change the strides of a kernel of one pixel.
    like = torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device, memory_format=getattr(torch, name))
    return like.copy_(tensor)


def wrapped_name(obj: Any) -> str | None:
    """Return the attribute with the wrapped module of a compiled or parallel one; None for any other object."""
    return next(
        (_WRAPPERS[key] for cls in type(obj).__mro__ if (key := (cls.__module__, cls.__name__)) in _WRAPPERS), None
    )


def unwrapped(obj: Any) -> Any:
    """Return the module that `torch.compile`, DataParallel or DistributedDataParallel wraps, otherwise the object.

    A wrapper belongs to one machine and its devices, and adds its name to the name of every tensor.
    """
    while (name := wrapped_name(obj)) is not None:
        obj = getattr(obj, name)
    return obj


def is_scripted(obj: Any) -> bool:
    """Return whether the object is a module of `torch.jit.script` or `torch.jit.trace`."""
    return any((cls.__module__, cls.__name__) == ("torch.jit._script", "ScriptModule") for cls in type(obj).__mro__)


def memory_format(tensor: Any) -> str | None:
    """Return `channels_last` or `channels_last_3d` if a tensor has these strides, otherwise None."""
    import torch

    name = _FORMATS.get(tensor.dim())
    if name is None or tensor.layout != torch.strided or not tensor.numel():
        return None
    form = getattr(torch, name)
    if not tensor.is_contiguous(memory_format=form):
        return None
    # A kernel of one pixel is contiguous in both formats; its strides determine which format convolutions use.
    like = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta", memory_format=form)
    plain = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
    return name if tensor.stride() == like.stride() != plain.stride() else None


def view_of(tensor: Any) -> tuple[Any, ...] | None:
    """Return a key that is equal for tensors that view the same memory in the same way; None for an empty tensor."""
    if not tensor.numel() or tensor.device.type == "meta":
        return None
    storage = tensor.untyped_storage().data_ptr()
    return storage, tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), str(tensor.dtype), str(tensor.device)


def packed(name: str, tensor: Any) -> Packed:
    """Prepare a tensor for reading, without a copy; `name` is its name in errors."""
    check_kind(name, tensor)
    tensor = tensor.detach()
    code = str(tensor.dtype).removeprefix("torch.")
    shape = tuple(tensor.shape)
    if code == _COMPLEX:
        return Packed("F64", (*shape, 2), _source(tensor), view_of(tensor), _COMPLEX)
    if code == _PAIRS:
        if not shape:
            raise UnknownFormat(
                f"{name!r} is a pair of 4-bit numbers without a dimension", hint="give it a shape: t[None]"
            )
        shape = *shape[:-1], 2 * shape[-1]
    return Packed(_DTYPES[code], shape, _source(tensor), view_of(tensor))


def check_kind(name: str, tensor: Any) -> None:
    """Refuse a tensor without plain numbers.

    Raises
    ------
    UnknownFormat
        If the tensor is lazy, on 'meta', sparse, quantized, nested, of a subclass, or of an unknown dtype. The message
        names the tensor.
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
        raise UnknownFormat(
            f"{name!r} is a {type(tensor).__module__}.{type(tensor).__qualname__}, not a plain tensor",
            hint=_way_to_plain(tensor),
        )
    if str(tensor.dtype).removeprefix("torch.") not in _DTYPES:
        raise UnknownFormat(
            f"{name!r} has dtype {tensor.dtype}; safetensors defines no such dtype",
            hint="convert it with .to() to a dtype that it defines, or push the file of torch.save()",
        )


def _way_to_plain(tensor: Any) -> str:
    """Return the hint for a subclass of Tensor."""
    if any(cls.__name__ == "DTensor" for cls in type(tensor).__mro__):
        return (
            "a DTensor holds one shard on each rank: call .full_tensor() on every rank, then push on rank 0; "
            "for a sharded module: torch.distributed.checkpoint.state_dict.get_model_state_dict with "
            "StateDictOptions(full_state_dict=True, cpu_offload=True)"
        )
    return "keep .as_subclass(torch.Tensor) of it, or what its class offers to convert it to a plain tensor"


def _is_direct(tensor: Any) -> bool:
    """Return whether a tensor's CPU memory can be stored without conversion."""
    return bool(tensor.device.type == "cpu" and tensor.is_contiguous() and not tensor.is_conj() and not tensor.is_neg())


def _source(tensor: Any) -> Source:
    if not tensor.numel():
        return Bytes.of(b"")
    if _is_direct(tensor):
        return Bytes(memory(tensor))
    item = tensor.element_size()
    return Elements(tensor.numel() * item, item, _take_strided(tensor) or _take_anywhere(tensor))


def memory(tensor: Any) -> memoryview:
    """Return a writable view of the bytes of a contiguous tensor in CPU memory."""
    import torch

    row = tensor.detach().as_strided((tensor.numel(),), (1,))  # a single item can have any stride, which view() refuses
    return memoryview(row.view(torch.uint8).numpy())


def _take_strided(tensor: Any) -> Any:
    """Return a function that copies a range of items of a strided tensor in main memory; None for other tensors."""
    import torch

    # numpy lacks bfloat16 and float8, so read the bits as integers.
    integer = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}.get(tensor.element_size())
    if integer is None or tensor.device.type != "cpu" or tensor.is_conj() or tensor.is_neg():
        return None
    array = tensor.view(integer).numpy()
    return lambda first, last: memoryview(array.flat[first:last].view("u1"))


def _take_anywhere(tensor: Any) -> Any:
    """Return a function that copies a range of items of any tensor.

    A tensor that is not contiguous is copied on its device for each range.
    """

    def take(first: int, last: int) -> memoryview:
        return memory(tensor.reshape(-1)[first:last].resolve_conj().resolve_neg().contiguous().cpu())

    return take


def _shape_and_dtype(stored: Stored) -> tuple[tuple[int, ...], Any]:
    """Return the shape and dtype of the tensor in torch."""
    import torch

    if stored.true_dtype == _COMPLEX and stored.dtype == "F64" and stored.shape[-1:] == (2,):
        return stored.shape[:-1], torch.complex128
    if stored.dtype == "F4" and stored.true_dtype is None and stored.shape and not stored.shape[-1] % 2:
        if (pairs := getattr(torch, _PAIRS, None)) is None:
            raise MissingDependency(f"torch {torch.__version__} has no dtype for F4", hint="pip install -U torch")
        return (*stored.shape[:-1], stored.shape[-1] // 2), pairs
    if stored.true_dtype is not None:
        raise DamagedFile(f"the version says {stored.name!r} is {stored.true_dtype[:80]!r}, stored as {stored.dtype}")
    dtype = getattr(torch, _PLAIN.get(stored.dtype, ""), None)
    if dtype is None:
        raise MissingDependency(f"this torch has no dtype for {stored.dtype}, which {stored.name!r} has")
    return stored.shape, dtype


def load(reader: Reader, stored: Mapping[str, Stored]) -> dict[str, Any]:
    """Read tensors into new tensors in CPU memory; tied names get the same tensor."""
    import torch

    once = {(tensor.path, tensor.name): tensor for tensor in stored.values()}
    kinds = {key: _shape_and_dtype(tensor) for key, tensor in once.items()}
    # "cpu" is explicit here and below: torch.set_default_device() must not move the buffer that bytes are read into.
    made = {key: torch.empty(shape, dtype=dtype, device="cpu") for key, (shape, dtype) in kinds.items()}
    tensors.fill(reader, [(once[key], memory(made[key])) for key in once if once[key].size])
    formats = _formats(reader, stored)
    for key, name in formats.items():
        if made[key].dim() in _FORMATS and _FORMATS[made[key].dim()] == name:
            made[key] = in_format(made[key], name)
    return {name: made[tensor.path, tensor.name] for name, tensor in stored.items()}


def _formats(reader: Reader, stored: Mapping[str, Stored]) -> dict[tuple[str, str], str]:
    """Return the memory formats that the version states, by path and name of the stored tensor."""
    noted = reader.manifest.meta.get("memory_formats", {})
    if not isinstance(noted, dict) or not all(value in _FORMATS.values() for value in noted.values()):
        raise DamagedFile("'memory_formats' in the version's meta data names an unknown memory format")
    return {(stored[name].path, stored[name].name): value for name, value in noted.items() if name in stored}


def fill(reader: Reader, into: Mapping[str, Any], stored: Mapping[str, Stored]) -> None:
    """Check that `into` has exactly these tensors, then fill it in place.

    Raises
    ------
    Mismatch
        If the tensors differ. Then `into` is not changed.
    InvalidArgument
        If a tensor of `into` is expanded, so that several items share memory.
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
    """Fill tensors that are on a device or not contiguous, through buffers."""
    import torch

    for group in tensors.groups({name: stored[name].size for name in into}):
        buffers = {name: torch.empty(stored[name].size, dtype=torch.uint8, device="cpu") for name in group}
        tensors.fill(reader, [(stored[name], memory(buffer)) for name, buffer in buffers.items()])
        for name, buffer in buffers.items():
            shape, dtype = _shape_and_dtype(stored[name])
            with torch.no_grad():
                into[name].copy_(buffer.view(dtype).reshape(shape))
