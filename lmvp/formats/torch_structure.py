"""The structure of a module: the module without its tensor values, as a torch file that is equal for equal modules.

The pickle contains `{"module": module, "tensors": {name: tensor}}`, each tensor as an empty one on the device 'meta'. A
pickle preserves identity, so after loading, the tensors of the dict *are* the tensors of the module, wherever they are.
Each is then swapped for the real one. So parameters, buffers, tensors in other attributes and ties need no special
rules.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import re
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from lmvp.errors import DamagedFile, MissingDependency, UnknownFormat
from lmvp.formats import torch_calls, torch_trust
from lmvp.formats.torch_tensors import in_format, is_module, is_scripted, is_tensor, memory_format, unwrapped

_ATOMS = {str, int, float, bool, type(None)}
# The protocol that `torch.load(weights_only=True)` supports.
_PROTOCOL = 2
# See `_check_version`.
_OLDEST = (2, 6)
# `safe_globals` changes global state of torch.
_lock = threading.Lock()


class CannotPickle(Exception):
    """The structure of the module cannot be stored; the message states the reason."""


def dump(module: Any, name_of: Callable[[Any], str]) -> bytes:
    """Return the structure of a module.

    Parameters
    ----------
    name_of : callable
        Returns the name of a tensor; called once for each tensor.

    Raises
    ------
    CannotPickle
        If Python cannot pickle the module: an attribute is a lambda, or a class is defined inside a function.
    """
    import torch

    if any(map(is_scripted, module.modules())):
        raise CannotPickle("it is a torch.jit module, a program in TorchScript; only its tensors are kept")
    tensors: dict[str, Any] = {}

    def take_out(tensor: Any) -> Any:
        tensors[name_of(tensor)] = tensor
        return _emptied(tensor).__reduce_ex__(_PROTOCOL)

    class Pickler(_Canonical):  # torch requires a class
        reduce_tensor = staticmethod(take_out)

    buffer = io.BytesIO()
    try:
        torch.save(
            {"module": module, "tensors": tensors},
            buffer,
            pickle_module=SimpleNamespace(Pickler=Pickler, __name__="pickle"),
            pickle_protocol=_PROTOCOL,
        )
    except UnknownFormat:
        raise
    except Exception as error:  # pickling runs code of the user's classes, which can raise anything
        raise CannotPickle(_reason(error)) from error
    if buffer.tell() > torch_calls.LIMIT:
        raise CannotPickle(f"it has {buffer.tell():,} bytes without its tensors; the limit is {torch_calls.LIMIT:,}")
    return buffer.getvalue()


def _reason(error: Exception) -> str:
    """Return the reason without memory addresses, so that it is the same in every process."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", f"{type(error).__name__}: {error}")[:500]


def _emptied(tensor: Any) -> Any:
    """Return the tensor without its values; attributes of a parameter are preserved."""
    import torch

    empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
    if isinstance(tensor, torch.nn.Parameter):
        empty = torch.nn.Parameter(empty, requires_grad=tensor.requires_grad)
    else:
        empty.requires_grad_(tensor.requires_grad)
    empty.__dict__.update(tensor.__dict__)
    return empty


class _Canonical(pickle._Pickler):  # noqa: SLF001 - the C implementation calls no method for str
    """Pickles equal objects to equal bytes.

    Sets are sorted. Equal texts, and equal tuples of plain values, become one object in the memo, because equal objects
    with different identities produce other bytes.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._known: dict[Any, Any] = {}

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if type(obj) is str or (type(obj) is tuple and _ATOMS.issuperset(map(type, obj))):
            obj = self._known.setdefault((type(obj), repr(obj)), obj)
        if is_module(obj):
            obj = unwrapped(obj)
        if is_module(obj) and (plain := plain_type(obj)) is not type(obj):
            self._save_as(plain, obj)
        else:
            super().save(obj, save_persistent_id)  # type: ignore[misc]

    def _save_as(self, plain: type, module: Any) -> None:
        """Pickle a parametrized module as an instance of its original class, once, and refer to it afterwards."""
        pickler: Any = self  # the type stubs describe the C implementation, which lacks these methods
        known = pickler.memo.get(id(module))
        if known is not None:
            pickler.write(pickler.get(known[0]))
            return
        pickler.save_reduce(copyreg.__newobj__, (plain,), state(module))  # type: ignore[attr-defined]
        pickler.memoize(module)

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) in {set, frozenset}:
            return type(obj), (sorted(obj, key=lambda item: (type(item).__qualname__, repr(item))),)
        if is_tensor(obj) and obj.device.type != "meta":
            return self.reduce_tensor(obj)
        return NotImplemented

    @staticmethod
    @abstractmethod
    def reduce_tensor(tensor: Any) -> Any:
        """Return the reduced value of a tensor, as `__reduce_ex__` does."""


def load(structure: bytes, trust: Sequence[str | type]) -> tuple[Any, dict[str, Any]]:
    """Return the module and its tensors by name, all on the device 'meta'.

    Raises
    ------
    Untrusted
        If the structure names a class that is not trusted. Nothing has been run then.
    MissingDependency
        If a trusted class is not found, or torch is too old to load the structure safely.
    DamagedFile
        If the structure was not written by `dump`.
    """
    import torch

    _check_version(torch.__version__)
    allowed: list[Any] = torch_trust.allow(torch_trust.names_in(structure), trust)
    pickled = torch_trust.program(structure)
    torch_trust.check_calls(pickled, trust)
    try:
        with _lock, torch.serialization.safe_globals(allowed):
            loaded = torch.load(torch_trust.alone(pickled), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError, ValueError, TypeError, LookupError, MemoryError) as error:
        raise DamagedFile(f"the structure of this version cannot be read: {error}") from error
    match loaded:
        case {"module": torch.nn.Module() as module, "tensors": dict(tensors)} if all(map(is_tensor, tensors.values())):
            restore(module)
            return module, tensors
    raise DamagedFile("the structure of this version holds no module")


def _check_version(version: str) -> None:
    """Refuse torch before 2.6, in which `weights_only=True` could be made to run code (CVE-2025-32434)."""
    found = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if found < _OLDEST:
        raise MissingDependency(
            f"torch {version} cannot load a module safely",
            hint="pip install 'torch>=2.6'; or build the module, and fill it: `--into MODEL`",
        )


def place(module: Any, tensors: Mapping[str, Any], real: Mapping[str, Any]) -> None:
    """Swap the empty tensors of a loaded module for real ones of the same shape and dtype.

    Raises
    ------
    DamagedFile
        If structure and tensors do not match.
    """
    if missing := sorted(set(tensors) - set(real)):
        raise DamagedFile(f"the structure needs tensors that are missing: {missing[:5]}")
    for name, empty in tensors.items():
        if empty.shape != real[name].shape or empty.dtype != real[name].dtype:
            raise DamagedFile(f"the structure says {name!r} is {empty.dtype} {tuple(empty.shape)}; it is not")
    with _without_weak_references(module):
        for name, empty in tensors.items():
            # Only the memory format of the strides is used: the strides of a hostile file could overlap.
            form = memory_format(empty)
            filled = real[name].detach()
            _swap(empty, in_format(filled, form) if form else filled)


def _swap(empty: Any, filled: Any) -> None:
    """Replace a tensor by another one for all references to it; attributes of a parameter are preserved."""
    import torch

    if isinstance(empty, torch.nn.Parameter):
        filled = torch.nn.Parameter(filled, requires_grad=empty.requires_grad)
    else:
        filled.requires_grad_(empty.requires_grad)
    filled.__dict__.update(empty.__dict__)
    torch.utils.swap_tensors(empty, filled)


@contextmanager
def _without_weak_references(module: Any) -> Iterator[None]:
    """Remove the weak references of RNN, LSTM and GRU to their weights, which prevent a swap; restore them afterwards.

    torch's `_apply` does the same when such a module moves to another device.
    """
    import torch

    recurrent = [part for part in module.modules() if isinstance(part, torch.nn.RNNBase)]
    for part in recurrent:
        part._flat_weight_refs = []  # noqa: SLF001
    yield
    for part in recurrent:
        part._init_flat_weights()  # noqa: SLF001


def plain_type(module: Any) -> type:
    """Return the class of a module, for a parametrized one the original class."""
    if not _lists(module):
        return type(module)
    from torch.nn.utils import parametrize

    kind: type = parametrize.type_before_parametrizations(module)
    return kind


def state(module: Any) -> dict[str, Any]:
    """Return the attributes of a module, as its original class pickles them.

    `weight_norm` adds a hook that reads state dicts from before 2023. The hook cannot be pickled, and a loaded module
    works without it, so it is left out.
    """
    kept = getattr(plain_type(module), "__getstate__", None)  # `object` has no `__getstate__` before Python 3.11
    attributes = dict(kept(module) if kept else vars(module))
    hooks = attributes.get("_load_state_dict_pre_hooks") or {}
    attributes["_load_state_dict_pre_hooks"] = type(hooks)((k, hook) for k, hook in hooks.items() if not _compat(hook))
    return attributes


def _compat(hook: Any) -> bool:
    function = getattr(hook, "hook", hook)
    name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"
    return name == "torch.nn.utils.parametrizations.weight_norm.<locals>._weight_norm_compat_hook"


def _lists(module: Any) -> dict[str, Any]:
    """Return the parametrizations of a module by the name of their tensor.

    A user's submodule can also be named `parametrizations`, so the types are checked.
    """
    import torch
    from torch.nn.utils.parametrize import ParametrizationList

    found = vars(module).get("_modules", {}).get("parametrizations")
    if not isinstance(found, torch.nn.ModuleDict):
        return {}
    lists = dict(found.items())
    return lists if all(isinstance(each, ParametrizationList) for each in lists.values()) else {}


def restore(module: Any) -> None:
    """Restore the class and the properties of all parametrized parts of a loaded module.

    Raises
    ------
    DamagedFile
        If the name of a parametrized tensor is invalid.
    """
    from torch.nn.utils import parametrize

    for part, lists in [(part, lists) for part in module.modules() if (lists := _lists(part))]:
        parametrize._inject_new_class(part)  # noqa: SLF001 - torch has no public function for it
        for name in lists:
            # The name becomes a property of a class. It must not replace a method.
            if not name.isidentifier() or name.startswith("__") or hasattr(part, name):
                raise DamagedFile(f"{name!r} cannot be a parametrized tensor")
            parametrize._inject_property(part, name)  # noqa: SLF001
