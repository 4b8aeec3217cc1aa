"""Modules with parametrizations, for example of `torch.nn.utils.parametrizations.spectral_norm` and `weight_norm`.

torch generates a class for such a module, with a property for each parametrized tensor, and refuses to pickle it. The
state of the module is in its attributes. So it is stored as an instance of its original class, and a class is generated
again when it is loaded.
"""

from __future__ import annotations

from typing import Any

from lmvp.errors import DamagedFile


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
