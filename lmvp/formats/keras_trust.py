"""The classes and functions that the JSON of a Keras model may use. A name that is not listed is never imported.

The JSON is a tree of nodes with `module`, `class_name`, `registered_name` and `config`; Keras creates an object for
each node. This module permits Keras' layers, models, optimizers and similar classes, and those that the caller trusts.
The JSON is checked before Keras reads it, because older releases of Keras permit more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from lmvp.errors import DamagedFile, InvalidArgument, MissingDependency, Untrusted
from lmvp.formats.trust import Trust, find, option

_PLAIN = {"__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__"}
_LAMBDA = "__lambda__"
_FUNCTIONS = ("activations", "constraints", "initializers", "losses", "metrics", "ops", "regularizers")
"""Modules of Keras whose functions compute values without side effects."""

_NO_MATHS = {"deserialize", "get", "serialize"}
"""Functions of those modules that build objects, and so are not trusted."""

_BASES = (
    "keras.Operation",  # the base of layers and models
    "keras.optimizers.Optimizer",
    "keras.optimizers.schedules.LearningRateSchedule",
    "keras.losses.Loss",
    "keras.metrics.Metric",
    "keras.initializers.Initializer",
    "keras.regularizers.Regularizer",
    "keras.constraints.Constraint",
    "keras.DTypePolicy",
    "keras.quantizers.Quantizer",
    "keras.quantizers.QuantizationConfig",
    "keras.random.SeedGenerator",
)
_OWN = re.compile(r"keras(\.\w+)*")
# Optimizers of the torch and TensorFlow backends have private modules.
_BACKEND = re.compile(r"keras\.src\.backend\.\w+\.optimizers\.\w+")
_FOREIGN = {"TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer"}
"""Layers of Keras that contain code of another framework."""

# Greatest depth of the JSON, below Python's limit of recursion.
_DEPTH = 200


class NotData(Exception):
    """The structure of a model contains code. Not raised outside of `lmvp.formats`."""


@dataclass(frozen=True, slots=True)
class _Node:
    """The object that a node refers to: its full `name`, and the `keys` by which Keras looks it up."""

    name: str
    keys: tuple[str, ...]


def check_data(config: Any) -> None:
    """Check that the JSON of a model contains no code.

    Raises
    ------
    NotData
        If a layer contains a lambda. The message names the layer.
    """
    for node, where in _nodes(config):
        if node["class_name"] == _LAMBDA:
            raise NotData(f"{where} has a lambda in it, which is code")


def portable(config: Any) -> Any:
    """Return the JSON with backend-independent names of optimizers.

    The torch and TensorFlow backends have private modules for them.
    """
    if isinstance(config, dict):
        if _BACKEND.fullmatch(str(config.get("module"))) and _symbol("keras.optimizers", str(config.get("class_name"))):
            config = {**config, "module": "keras.optimizers", "registered_name": None}
        return {key: portable(value) for key, value in config.items()}
    return [portable(value) for value in config] if isinstance(config, (list, tuple)) else config


def allow(config: Any, trust: Sequence[str | type]) -> dict[str, Any]:
    """Return the objects that do not belong to Keras, for its loader.

    Raises
    ------
    Untrusted
        If a name is not trusted (the message lists all of them), or a layer contains a lambda. Nothing has been
        imported then.
    MissingDependency
        If a trusted name is not found.
    """
    trusted = Trust.of(trust)
    wanted: dict[str, _Node] = {}
    for node, where in _nodes(config):
        if node["class_name"] == _LAMBDA:
            raise Untrusted(
                f"{where} has a lambda in it, which is code that nobody can vouch for",
                hint="build the model, and fill it: `--into MODEL`; to have it kept, write such a layer as a class",
            )
        if _is_foreign(node):
            found = _described(node)
            wanted[found.name] = found
    if unknown := _unknown(wanted, trusted):
        raise Untrusted(
            f"this model needs code that nobody vouched for: {', '.join(unknown)}",
            hint=f"if you trust who pushed it, give {_given_as(unknown)}; "
            "or build the model, and fill it: `--into MODEL`",
        )
    return {key: _found(node, trusted) for node in wanted.values() for key in node.keys}


def unknown_in(config: Any) -> list[str]:
    """Return the names of classes and functions that do not belong to Keras, sorted."""
    return _unknown({_described(node).name for node, _ in _nodes(config) if _is_foreign(node)}, Trust.of(()))


def _is_foreign(node: Mapping[str, Any]) -> bool:
    return node["class_name"] not in _PLAIN and not _is_safe(node)


def _unknown(names: Iterable[str], trusted: Trust) -> list[str]:
    return sorted(name for name in names if _given(trusted, name) is None and name not in trusted)


def _given_as(names: Sequence[str]) -> str:
    """Return the option that trusts these names; a function without a known module must be passed as an object."""
    if all("." in name for name in names):
        return option(names)
    return f"`trust=[{', '.join(repr(name) if '.' in name else name for name in names)}]`, in Python"


def _nodes(config: Any, where: str = "the model", depth: int = 0) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield all nodes, with the layer of each."""
    if depth > _DEPTH:
        raise InvalidArgument("the text about this model is nested too deeply")
    if isinstance(config, dict):
        where = _place(config, where, depth)
        if "class_name" in config:
            if not isinstance(config["class_name"], str):
                raise DamagedFile(f"{where} has a class whose name is no text")
            yield config, where
        elif _is_code(config):
            yield {"class_name": _LAMBDA}, where
        config = list(config.values())
    if isinstance(config, (list, tuple)):
        for child in config:
            yield from _nodes(child, where, depth + 1)


def _place(node: Mapping[str, Any], where: str, depth: int) -> str:
    """Return the layer that a node represents or belongs to."""
    inner = node.get("config")
    name = inner.get("name") if isinstance(inner, dict) else None
    is_layer = depth and isinstance(name, str) and ("build_config" in node or node.get("class_name") == "Lambda")
    return f"the layer {name!r}" if is_layer else where


def _is_code(node: Mapping[str, Any]) -> bool:
    """Return whether a node is a lambda that is stored as code without a class, the form for activations."""
    value = node.get("value")
    return len(node) == 1 and isinstance(value, (list, tuple)) and len(value) == 3 and isinstance(value[0], str)


def _described(node: Mapping[str, Any]) -> _Node:
    module, kind, registered = node.get("module"), node["class_name"], node.get("registered_name")
    name = node.get("config") if kind == "function" else kind
    name = name if isinstance(name, str) else kind
    bare = name.rpartition(">")[2]
    full = bare if module == "builtins" else f"{module or '__main__'}.{bare}"
    keys = {key for key in (name, bare, registered) if isinstance(key, str)}
    return _Node(full, tuple(sorted(keys)))


def _is_safe(node: Mapping[str, Any]) -> bool:
    """Return whether a node is a class or function of Keras that contains no foreign code."""
    module, kind, registered = node.get("module"), node["class_name"], node.get("registered_name")
    if kind == "function":
        return _is_function(module, node.get("config"))
    if not isinstance(module, str) or not _OWN.fullmatch(module) or registered not in (None, kind):
        return False
    inner = node.get("config")
    # A vocabulary that is a text is the path of a file, which Keras would open.
    reads_a_file = isinstance(inner, dict) and isinstance(inner.get("vocabulary"), str)
    return kind not in _FOREIGN and not reads_a_file and _is_class(module, kind)


def _is_function(module: Any, name: Any) -> bool:
    if not isinstance(name, str) or not isinstance(module, str) or name in _NO_MATHS:
        return False
    if module == "builtins":  # Keras writes its functions as `builtins` with their names
        return any(_symbol(f"keras.{part}", name) is not None for part in _FUNCTIONS)
    return module in {f"keras.{part}" for part in _FUNCTIONS} and _symbol(module, name) is not None


def _is_class(module: str, name: str) -> bool:
    found = _symbol(module, name)
    bases = tuple(base for base in (_symbol(*full.rsplit(".", 1)) for full in _BASES) if isinstance(base, type))
    return isinstance(found, type) and issubclass(found, bases)


def _symbol(module: str, name: str) -> Any:
    """Return the function or class with this name in a module of Keras, or None."""
    try:
        found = getattr(import_module(module), name, None)
    # Parts of Keras need packages that may be missing.
    except (ImportError, AttributeError, RuntimeError, TypeError, ValueError):
        return None
    return found if callable(found) else None


def _given(trusted: Trust, name: str) -> Any:
    """Look up a name among the caller's classes and functions.

    The last part is enough, because Keras shortens some names.
    """
    for full, given in trusted.given.items():
        short = f"{given.__module__}.{given.__name__}"
        if name in {full, short} or ("." not in name and given.__name__ == name):
            return given
    return None


def _found(node: _Node, trusted: Trust) -> Any:
    given = _given(trusted, node.name)
    if given is not None:
        return given
    saving = import_module("keras").saving
    for key in node.keys:
        registered = saving.get_registered_object(key)
        if registered is not None and f"{registered.__module__}.{registered.__name__}" == node.name:
            return registered
    if "." not in node.name:
        raise MissingDependency(
            f"this model needs a function {node.name}, of which only the name is known",
            hint=f"in Python, give the function itself: `trust=[{node.name}]`",
        )
    return find(node.name, exact=node.name in trusted.names, what="this model")
