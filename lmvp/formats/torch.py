"""Format of torch modules, state dicts, checkpoints and single tensors.

A module with a trusted class is restored as a module, with weights, buffers, ties, flags and training mode. Its weights
are never in a pickle. Its structure is a pickle (see `lmvp.formats.torch_structure`), which torch's safe loader reads.
A module or a dict of tensors that is passed as `into=` is filled from any version with the same names, and no code
runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from lmvp.errors import InvalidArgument, UnknownFormat
from lmvp.formats import numpy, tensors, torch_calls, torch_structure, torch_trust, tree
from lmvp.formats.base import Bytes, Package, PackedFile, Reader, check_small
from lmvp.formats.tensors import Packed, Stored
from lmvp.formats.torch_structure import plain_type
from lmvp.formats.torch_tensors import (
    fill,
    is_module,
    is_scripted,
    is_tensor,
    load,
    memory_format,
    packed,
    unwrapped,
    wrapped_name,
)

MODULE, STATE = NAMES = ("torch.module", "torch.state")
STRUCTURE = "structure.pt"
_WRAPPED = {"module", "_orig_mod"}


def recognises(obj: Any) -> bool:
    """Return whether the object is a module, a tensor, or a tree that contains a tensor."""
    return is_module(obj) or any(is_tensor(leaf) for leaf in tree.walk(obj))


def pack(obj: Any) -> Package:
    """Turn a module or a tree of tensors into files; tensors are read from their memory.

    If the module is compiled, or wrapped by DataParallel or DistributedDataParallel, the wrapped module is stored.
    """
    obj = unwrapped(obj)
    return _pack_module(obj) if is_module(obj) else _pack_state(obj)


def unpack(reader: Reader, *, into: Any = None, trust: Sequence[str | type] = ()) -> Any:
    """Build the object, or fill the tensors of `into`."""
    if into is not None:
        fill_into(reader, into)
        return into
    return _unpack_module(reader, trust) if reader.manifest.format == MODULE else _unpack_state(reader)


# State dicts, checkpoints, lone tensors


def _kind(obj: Any) -> str | None:
    return "tensor" if is_tensor(obj) else numpy.kind(obj)


def _pack(name: str, leaf: Any) -> Packed:
    return packed(name, leaf) if is_tensor(leaf) else numpy.packed(name, leaf)


def _pack_state(obj: Any) -> Package:
    skeleton, leaves = tree.flatten(obj, _kind, _plain)
    files, meta = tensors.weights({name: _pack(name, leaf) for name, leaf in leaves.items()}, "pt")
    formats = {name: form for name, leaf in leaves.items() if is_tensor(leaf) and (form := memory_format(leaf))}
    if formats:  # numbers are always stored in C order, so that every reader of safetensors can use them
        meta["memory_formats"] = formats
    return Package(STATE, files, {**meta, "tree": skeleton})


def _plain(obj: Any) -> dict[str, Any] | None:
    """Return the skeleton node of one of torch's plain values (Size, dtype, device); None for any other object."""
    import torch

    if type(obj) is torch.Size:
        return {"torch.Size": list(obj)}
    if type(obj) in {torch.dtype, torch.device}:
        return {f"torch.{type(obj).__name__}": str(obj).removeprefix("torch.")}
    return None


def _unplain(node: dict[str, Any]) -> Any:
    import torch

    match node:
        case {"torch.Size": list(lengths)}:
            return torch.Size(lengths)
        case {"torch.device": str(name)}:
            return torch.device(name)
        case {"torch.dtype": str(name)} if isinstance(dtype := getattr(torch, name, None), torch.dtype):
            return dtype
    raise ValueError(f"no such node: {str(node)[:80]}")


def _unpack_state(reader: Reader) -> Any:
    skeleton = reader.manifest.meta.get("tree")
    stored = tensors.stored(reader.manifest)
    kinds = tree.names(skeleton)
    made: dict[str, Any] = {}
    for load_them, group in ((load, {"tensor"}), (numpy.load, {"array", "scalar"})):
        made |= load_them(reader, {n: stored[n] for n, kind in kinds.items() if kind in group and n in stored})
    return tree.rebuild(skeleton, lambda n, kind: made[n][()] if kind == "scalar" else made[n], _unplain)


# Modules


def _pack_module(module: Any) -> Package:
    names = _Names(module)
    inner = _inner_names(module)
    parts = list(
        {
            inner(f"{name}.")[:-1]: [inner(f"{name}.")[:-1], _class(part)] for name, part in module.named_modules()
        }.values()
    )
    meta: dict[str, Any] = {"class": _class(module), "modules": parts}
    files = []
    pull: dict[str, Any] = {}
    try:
        structure = torch_structure.dump(module, names)
        files.append(PackedFile(STRUCTURE, [Bytes.of(structure)]))
        if unknown := torch_trust.unknown_in(torch_trust.names_in(structure)):
            pull["trust"] = unknown
    except torch_structure.CannotPickle as error:
        meta["unpicklable"] = str(error)
        pull["into"] = True
        names = _Names(module)
        for _, tensor in loose_tensors(module):
            names(tensor)
    weights, about = tensors.weights({name: packed(name, tensor) for name, tensor in names.found.items()}, "pt")
    if names.extra:
        meta["extra"] = names.extra
    return Package(MODULE, [*weights, *files], {**meta, **about, **_extra_state(names.other)}, pull=pull)


def _class(module: Any) -> str:
    module = unwrapped(module)
    if is_scripted(module):
        return f"torch.jit.ScriptModule({module.original_name})"
    kind = plain_type(module)
    return f"{kind.__module__}.{kind.__qualname__}"


def _extra_state(other: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a state dict that are not tensors, if they are plain data, for `into=`.

    The structure contains them too, but a pull with `into=` does not read the structure.
    """
    try:
        return {"extra_state": tree.flatten(other, tree.no, _plain)[0]} if other else {}
    except UnknownFormat:
        return {}


def loose_tensors(module: Any) -> Iterator[tuple[str, Any]]:
    """Yield the tensors of a module by the attribute that holds them: buffers, parameters, plain attributes."""
    inner = _inner_names(module)
    for prefix, part in module.named_modules():
        if is_scripted(part):  # its buffers and parameters are in C++, behind mappings that are not dicts
            groups: list[Iterable[tuple[str, Any]]] = [
                part.named_buffers(recurse=False),
                part.named_parameters(recurse=False),
            ]
        else:
            # `named_buffers` skips ties.
            groups = [g.items() for g in (part._buffers, part._parameters, vars(part))]  # noqa: SLF001
        for group in groups:
            for name, value in group:
                if is_tensor(value):
                    yield inner(f"{prefix}.{name}".removeprefix(".")), value


def _inner_names(module: Any) -> Callable[[str], str]:
    """Return a function that removes the names of nested wrappers from the name of a tensor."""
    wrappers = {f"{name}.{own}." for name, part in module.named_modules() if name and (own := wrapped_name(part))}

    def inner(name: str) -> str:
        for prefix in sorted((each for each in wrappers if name.startswith(each)), key=len, reverse=True):
            name = f"{prefix.removesuffix('.').rpartition('.')[0]}.{name[len(prefix) :]}"
        return name

    return inner


class _Names:
    """Names for all tensors of a module: the name in its state dict, otherwise the attribute that holds the tensor.

    Attributes
    ----------
    found : dict
        All tensors of the state dict, and those that were requested, by name.
    extra : list of str
        Names that the state dict does not contain.
    other : dict
        Values of the state dict that are not tensors.
    """

    def __init__(self, module: Any) -> None:
        inner = _inner_names(module)
        state = {inner(name): value for name, value in module.state_dict(keep_vars=True).items()}
        self.found = {name: value for name, value in state.items() if is_tensor(value)}
        self.other = {name: value for name, value in state.items() if not is_tensor(value)}
        self.extra: list[str] = []
        self._names: dict[int, str] = {id(tensor): name for name, tensor in reversed(self.found.items())}
        self._attributes = {id(tensor): name for name, tensor in loose_tensors(module)}

    def __call__(self, tensor: Any) -> str:
        if id(tensor) not in self._names:
            self._add(tensor)
        return self._names[id(tensor)]

    def _add(self, tensor: Any) -> None:
        stem = name = self._attributes.get(id(tensor), "unnamed")
        number = 1
        while name in self.found:
            number += 1
            name = f"{stem}#{number}"
        self.found[name] = tensor
        self.extra.append(name)
        self._names[id(tensor)] = name


def _unpack_module(reader: Reader, trust: Sequence[str | type]) -> Any:
    meta = reader.manifest.meta
    if "unpicklable" in meta:
        raise InvalidArgument(
            f"the structure of this {meta.get('class')} could not be kept: {meta['unpicklable']}",
            hint="build the module, and fill it: `--into MODEL`",
        )
    check_small(reader.manifest, STRUCTURE, torch_calls.LIMIT)
    module, empty = torch_structure.load(reader.read(STRUCTURE), trust)
    stored = tensors.stored(reader.manifest)
    torch_structure.place(module, empty, load(reader, {name: stored[name] for name in empty if name in stored}))
    return module


# into=


def fill_into(reader: Reader, into: Any) -> Any:
    """Fill a module or a tree of tensors from any version with the same names."""
    into = unwrapped(into)
    extra = set(reader.manifest.meta.get("extra", ()))
    targets = _state_of(into) if is_module(into) else tree.leaves(into, _kind)
    stored = tensors.stored(reader.manifest)
    own_names = _without_wrappers(stored, targets)
    stored = {own_names.get(name, name): tensor for name, tensor in stored.items()}
    if is_module(into):
        targets |= {n: t for n, t in loose_tensors(into) if n in extra and _fits(t, stored[n])}
    fill(reader, targets, {n: t for n, t in stored.items() if n not in extra or n in targets})
    if is_module(into):
        _set_extra_state(reader, into)
    return into


def _without_wrappers(stored: Iterable[str], targets: Iterable[str]) -> dict[str, str]:
    """Map names of the version to names of targets that differ only by the names of wrappers.

    The state dict of a wrapper has its name in the name of each tensor: `module.`, `_orig_mod.`, or both.
    """
    stored, targets = set(stored), set(targets)
    found = {_unwrapped_name(name): name for name in targets - stored}
    lacking = [name for name in stored - targets if _unwrapped_name(name) in found]
    renamed = {name: found[_unwrapped_name(name)] for name in lacking}
    # Two names of the version that map to one target are ambiguous, so none is renamed.
    return renamed if len(set(renamed.values())) == len(renamed) else {}


def _unwrapped_name(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPED)


def _state_of(module: Any) -> dict[str, Any]:
    inner = _inner_names(module)
    return {inner(name): value for name, value in module.state_dict(keep_vars=True).items() if is_tensor(value)}


def _fits(tensor: Any, stored: Stored) -> bool:
    mine = packed(stored.name, tensor)
    return (mine.dtype, mine.shape, mine.true_dtype) == (stored.dtype, stored.shape, stored.true_dtype)


def _set_extra_state(reader: Reader, module: Any) -> None:
    skeleton = reader.manifest.meta.get("extra_state")
    if skeleton is None:
        return
    values = tree.rebuild(skeleton, tree.no_leaf, _unplain)
    inner = _inner_names(module)
    for name, part in module.named_modules():
        key = inner(f"{name}._extra_state".removeprefix("."))
        if key in values and wrapped_name(part) is None:
            part.set_extra_state(values[key])
