"""Modules with parametrizations: `torch.nn.utils.parametrizations.spectral_norm`, `weight_norm`, `orthogonal`, others.

Torch gives such a module a class made up for it alone, with a property for each parametrized tensor, and refuses to
pickle it. What the module *is* lies in its attributes; so it is kept as one of the class that it had before, and gets
a class of its own again when it is loaded.
"""

from __future__ import annotations

from typing import Any

from lmvp.errors import DamagedFile


def plain_type(module: Any) -> type:
    """Return the class of a module, that of before where it was parametrized."""
    if not _lists(module):
        return type(module)
    from torch.nn.utils import parametrize

    kind: type = parametrize.type_before_parametrizations(module)
    return kind


def state(module: Any) -> dict[str, Any]:
    """Return the attributes of a module, as its class of before would have them pickled.

    `weight_norm` hangs a function on a module that reads the state dicts of the years before 2023; it cannot be
    pickled, and a module that is loaded does without it.
    """
    kept = getattr(plain_type(module), "__getstate__", None)  # Python 3.10: torch's alone
    attributes = dict(kept(module) if kept else vars(module))
    hooks = attributes.get("_load_state_dict_pre_hooks") or {}
    attributes["_load_state_dict_pre_hooks"] = type(hooks)((k, hook) for k, hook in hooks.items() if not _compat(hook))
    return attributes


def _compat(hook: Any) -> bool:
    function = getattr(hook, "hook", hook)
    name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"
    return name == "torch.nn.utils.parametrizations.weight_norm.<locals>._weight_norm_compat_hook"


def _lists(module: Any) -> dict[str, Any]:
    """Return the parametrizations of a module by the name of their tensor; it may have a part of that name itself."""
    import torch
    from torch.nn.utils.parametrize import ParametrizationList

    found = vars(module).get("_modules", {}).get("parametrizations")
    if not isinstance(found, torch.nn.ModuleDict):
        return {}
    lists = dict(found.items())
    return lists if all(isinstance(each, ParametrizationList) for each in lists.values()) else {}


def restore(module: Any) -> None:
    """Give all parts of a loaded module that have parametrizations their class and their properties.

    Raises
    ------
    DamagedFile
        If a parametrization is of what cannot be a tensor.
    """
    from torch.nn.utils import parametrize

    for part, lists in [(part, lists) for part in module.modules() if (lists := _lists(part))]:
        parametrize._inject_new_class(part)  # noqa: SLF001 - torch has no other way to say it
        for name in lists:
            if not name.isidentifier() or name.startswith("__") or hasattr(part, name):
                raise DamagedFile(f"{name!r} cannot be a parametrized tensor")
            parametrize._inject_property(part, name)  # noqa: SLF001
