"""Format of Keras 3 models: weights as tensors, all other data as the JSON that Keras writes.

A pull builds the model with Keras' loader in safe mode, after a check of its JSON: Keras' classes are trusted, others
must be listed in `trust=`. A model that is passed as `into=` is filled from any version with the same names, and no
code runs.

The name of a tensor consists of the layers on its path: `lstm/lstm_cell/kernel`. Keras numbers layers across the whole
process (`dense_7`), so their names depend on models that were built before. LMVP renumbers layers within each parent.
So a model that is built again, in another process or by the same cell, has the same names.
"""

from __future__ import annotations

import json
import re
import threading
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from math import prod
from typing import Any

from lmvp.core.safetensors import tensor_size
from lmvp.errors import DamagedFile, InvalidArgument, MissingDependency, UnknownFormat
from lmvp.formats import keras_trust, numpy, tensors
from lmvp.formats.base import Bytes, Package, PackedFile, Reader, parse_json
from lmvp.formats.tensors import Fetched, Packed, Shelf, Stored

NAMES = ("keras",)
MODEL = "model.json"

_SLACK, _COPIES = 1 << 20, 4
"""Limit for the number of elements in all variables of a built model: a constant, plus a multiple of the elements of
the version, because an optimizer has some variables for each weight.
"""

# Held while a method of Keras is replaced; see `_at_most`.
_patching = threading.Lock()

_NUMBERED = re.compile(r"(.*?)(?:_(\d+))?")
# Prefixes that `Bidirectional` adds to the names of its layers.
_INNER = ("forward_", "backward_")
_CUSTOM_FLOATS = {"bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2"}
"""Dtypes that numpy only has with `ml_dtypes`, with their names in safetensors."""


def recognises(obj: Any) -> bool:
    """Return whether the object is a Keras 3 model, without importing Keras."""
    return any(cls.__module__ == "keras.src.models.model" and cls.__name__ == "Model" for cls in type(obj).__mro__)


def _keras() -> Any:
    try:
        return import_module("keras")
    except ImportError as error:
        raise MissingDependency(
            "this version is a Keras model", hint='pip install "keras>=3.3" and a backend'
        ) from error


def pack(obj: Any) -> Package:
    """Convert a model to its weights and a JSON description. The optimizer state is not stored.

    Raises
    ------
    UnknownFormat
        If the model is not built yet, or a layer has data besides weights, for example a vocabulary.
    """
    _check(obj)
    shelf = Shelf()
    files, meta = tensors.weights({name: _packed(name, one, shelf) for name, one in named(obj).items()}, "np")
    meta["class"] = f"{type(obj).__module__}.{type(obj).__qualname__}"
    pull: dict[str, Any] = {}
    try:
        structure = _serialise(obj)
        files.append(PackedFile(MODEL, [Bytes.of(structure)]))
        if unknown := keras_trust.unknown_in(json.loads(structure)):
            pull["trust"] = unknown
    except keras_trust.NotData as error:
        meta["not_data"] = str(error)
        pull["into"] = True
    return Package("keras", files, meta, pull=pull)


def _check(model: Any) -> None:
    if not model.built:
        raise UnknownFormat(
            f"this {type(model).__qualname__} has no weights yet",
            hint="call it once, or .build(input_shape), and push it",
        )
    for layer in _layers(model):
        if hasattr(layer, "save_assets"):
            raise UnknownFormat(
                f"the layer {layer.name!r} keeps more than weights",
                hint='model.save("model.keras") and push that file, which has it all',
            )


def _layers(model: Any) -> list[Any]:
    return list(model._flatten_layers(include_self=False))  # noqa: SLF001 - .layers lacks nested layers


def _serialise(model: Any) -> bytes:
    """Return the JSON that Keras writes about a model, if it contains no code."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about lambdas, which are refused below
            config = _keras().saving.serialize_keras_object(model)
        keras_trust.check_data(config)
        return json.dumps(keras_trust.portable(config), ensure_ascii=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, OSError, NotImplementedError, RecursionError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise keras_trust.NotData(f"Keras cannot write it down: {reason}") from error


def unpack(reader: Reader, *, into: Any = None, trust: Sequence[str | type] = ()) -> Any:
    """Build the model, or fill the weights of `into`.

    Raises
    ------
    Untrusted
        If the model needs a class or function that neither belongs to Keras nor is listed in `trust`.
    InvalidArgument
        If the version has no model structure, because the model contains a lambda.
    DamagedFile
        If Keras cannot build the model from its JSON.
    """
    stored = tensors.stored(reader.manifest)
    if into is not None:
        _fill(reader, into, stored)
        return into
    model = _rebuilt(reader, trust)
    if not model.built:
        raise InvalidArgument(
            f"Keras cannot tell the shapes of this {type(model).__qualname__}",
            hint="build the model, and fill it: `--into MODEL`",
        )
    _fill(reader, model, stored)
    return model


def _rebuilt(reader: Reader, trust: Sequence[str | type]) -> Any:
    meta = reader.manifest.meta
    if "not_data" in meta:
        raise InvalidArgument(
            f"the structure of this {meta.get('class')} could not be kept: {meta['not_data']}",
            hint="build the model, and fill it: `--into MODEL`; to have it kept, write such a layer as a class",
        )
    try:
        config = parse_json(reader, MODEL)
    except (ValueError, RecursionError) as error:
        raise DamagedFile(f"{MODEL} is damaged: {error}") from error
    keras = _keras()
    custom = keras_trust.allow(config, trust)
    numbers = sum(prod(tensor.shape) for tensor in reader.manifest.tensors)
    try:
        with _at_most(keras, _SLACK + _COPIES * numbers):
            model = keras.saving.deserialize_keras_object(config, custom_objects=custom, safe_mode=True)
    except (TypeError, ValueError, LookupError, AttributeError, ImportError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise DamagedFile(
            f"this model cannot be built again: {reason[:300]}", hint="build the model, and fill it: `--into MODEL`"
        ) from error
    if not recognises(model):
        raise DamagedFile(f"{MODEL} is a {type(model).__qualname__}, not a model")
    return model


@contextmanager
def _at_most(keras: Any, numbers: int) -> Iterator[None]:
    """Limit the number of elements in all variables that are created in the context.

    The check runs before memory is allocated. A config of a few bytes can describe a layer of any size, and Keras
    cannot build a layer without its variables. All variables validate their shape in one method before they are filled,
    so this method is replaced within the context. Variables of other threads are not counted.
    """
    owner = next((cls for cls in keras.Variable.__mro__ if "_validate_shape" in vars(cls)), None)
    if owner is None:  # another version of Keras without this method: the limit does not apply
        yield
        return
    thread, left = threading.get_ident(), [numbers]
    with _patching:
        original = owner._validate_shape  # noqa: SLF001 - see the docstring

        def validated(self: Any, shape: Any) -> Any:
            found = original(self, shape)
            if threading.get_ident() == thread:
                left[0] -= prod(found)
                if left[0] < 0:
                    raise ValueError(f"it has variables of {found}, far more than the version has numbers")
            return found

        owner._validate_shape = validated  # noqa: SLF001
        try:
            yield
        finally:
            owner._validate_shape = original  # noqa: SLF001


# Names


def named(model: Any) -> dict[str, Any]:
    """Return the variables of a model by name, in the model's order."""
    names = {id(variable): name for name, variable in reversed(list(_walk(model, (), set())))}
    found: dict[str, Any] = {}
    for variable in model.weights:
        stem = name = names.get(id(variable), variable.path)
        number = 1
        while name in found:
            number += 1
            name = f"{stem}#{number}"
        found[name] = variable
    return found


def _walk(layer: Any, above: tuple[str, ...], seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Yield the variables of a layer and of its nested layers; `variable.path` depends on the order of building."""
    seen.add(id(layer))
    # The attribute `weights` includes nested layers.
    own = [*layer._trainable_variables, *layer._non_trainable_variables]  # noqa: SLF001
    for name, variable in zip(_counted(own), own, strict=True):
        yield "/".join((*above, name)), variable
    inner = list(layer._layers)  # noqa: SLF001 - see `_layers`
    for name, child in zip(_counted(inner), inner, strict=True):
        if id(child) not in seen:
            yield from _walk(child, (*above, name), seen)


def _counted(things: Sequence[Any]) -> Iterator[str]:
    """Yield the names of layers or variables; automatic names are numbered again within their parent."""
    taken = {thing.name for thing in things if _automatic(thing) is None}
    counts: Counter[str] = Counter()
    for thing in things:
        base = _automatic(thing)
        name = thing.name
        while base is not None:
            name = f"{base}_{counts[base]}" if counts[base] else base
            counts[base] += 1
            base = base if name in taken else None
        yield name


def _automatic(thing: Any) -> str | None:
    """Return the name without its number if Keras derived it from the class, otherwise None."""
    match = _NUMBERED.fullmatch(thing.name)
    base = match[1] if match else ""
    kind = next((base.removeprefix(prefix) for prefix in _INNER if base.startswith(prefix)), base)
    return base if kind.replace("_", "") == type(thing).__name__.replace("_", "").lower() else None


# Numbers


def _backend_is_torch() -> bool:
    return bool(_keras().backend.backend() == "torch")


def _packed(name: str, variable: Any, shelf: Shelf) -> Packed:
    """Prepare a variable for reading; with the torch backend, from its memory."""
    if _backend_is_torch():
        from lmvp.formats import torch_tensors

        return torch_tensors.packed(name, variable.value)
    import numpy as np

    shape, dtype = tuple(variable.shape), _CUSTOM_FLOATS.get(variable.dtype)
    if dtype is None:
        dtype = numpy.packed(name, np.empty(0, variable.dtype)).dtype
    return Packed(dtype, shape, Fetched(tensor_size(dtype, shape) or 0, lambda: _bytes(variable), shelf))


def _bytes(variable: Any) -> memoryview:
    """Copy the values of a variable from the Keras backend."""
    import numpy as np

    array = np.ascontiguousarray(_keras().ops.convert_to_numpy(variable.value))
    return Bytes.of(array.reshape(-1).view("u1")).data


def _fill(reader: Reader, model: Any, stored: Mapping[str, Stored]) -> None:
    """Check that a model has the same variables as the version, then fill them."""
    variables = named(model)
    if _backend_is_torch():
        from lmvp.formats import torch_tensors

        torch_tensors.fill(reader, {name: variable.value for name, variable in variables.items()}, stored)
    else:
        kinds = {name: _packed(name, variable, Shelf()) for name, variable in variables.items()}
        shown = {n: Stored(n, "", k.dtype, k.shape, 0, "", k.true_dtype).kind for n, k in kinds.items()}
        tensors.check(stored, shown)
        for group in tensors.groups({name: stored[name].size for name in variables}):
            _assign(reader, {name: variables[name] for name in group}, stored)
    for layer in _layers(model):
        # A layer can derive state from its weights, for example normalization.
        if callable(finish := getattr(layer, "finalize_state", None)):
            finish()


def _assign(reader: Reader, variables: Mapping[str, Any], stored: Mapping[str, Stored]) -> None:
    import numpy as np

    buffers = {name: np.empty(stored[name].size, "u1") for name in variables}
    tensors.fill(reader, [(stored[name], Bytes.of(buffer).data) for name, buffer in buffers.items() if buffer.size])
    for name, variable in variables.items():
        source = import_module("ml_dtypes") if variable.dtype in _CUSTOM_FLOATS else np
        dtype = np.dtype(getattr(source, variable.dtype))
        variable.assign(buffers[name].view(dtype).reshape(tuple(variable.shape)))
