"""Conversion of objects to files and back, with one module for each framework.

`pack` finds the format by the type of the object without importing a framework. The module of a format is loaded on
first use.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, cast

from lmvp.errors import InvalidArgument, TooLarge, UnknownFormat
from lmvp.formats.base import Format, Package, Reader
from lmvp.formats.tree import walk, way_out

__all__ = ["pack", "unpack"]

_MODULES = {
    "keras": "keras",
    "torch.module": "torch",
    "torch.state": "torch",
    "sklearn": "sklearn",
    "numpy": "numpy",
    "onnx": "onnx",
    "files": "files",
}
"""The module of each format. `pack` uses the first module that recognises the object, so the order matters: a Keras
model on the torch backend is also a torch module.
"""


_FRAMEWORKS = frozenset({"keras", "torch", "sklearn", "onnx"})
"""Formats named as the package of their framework. Without this package, the process has no object of the format."""


def _load(name: str) -> Format:
    return cast("Format", import_module(f"lmvp.formats.{name}"))


def _is_loaded(name: str) -> bool:
    """Return whether the framework of a format is imported. This saves the import of the format, too."""
    return name not in _FRAMEWORKS or name in sys.modules


def pack(obj: Any) -> Package:
    """Turn an object into files.

    Parameters
    ----------
    obj : object
        A model or tensors of a supported framework, or a path.

    Returns
    -------
    Package
        The files. Tensor bytes are read later, during the push.

    Raises
    ------
    UnknownFormat
        If the object does not belong to a supported framework.

    Examples
    --------
    >>> import numpy
    >>> package = pack({"w": numpy.zeros((2, 3))})
    >>> package.format, [(span.name, span.shape) for span in package.files[0].tensors]
    ('numpy', [('w', (2, 3))])
    """
    for name in dict.fromkeys(_MODULES.values()):
        if _is_loaded(name) and _load(name).recognises(obj):
            return _load(name).pack(obj)
    if any(map(way_out, walk(obj))):
        return _load("numpy").pack(obj)  # its error names the position of the array in the object
    if isinstance(obj, type):
        raise UnknownFormat(
            f"{obj.__module__}.{obj.__qualname__} is a class", hint=f"give an object of it: {obj.__name__}(…)"
        )
    raise UnknownFormat(
        f"no format keeps a {type(obj).__module__}.{type(obj).__qualname__}{_emptiness(obj)}",
        hint="kept are: a torch module, tensor or state dict; numpy arrays, alone or in dicts, lists and tuples; "
        "a scikit-learn estimator; a Keras 3 model; an ONNX model; a path to a file or a folder",
    )


def _emptiness(obj: Any) -> str:
    return " without a tensor in it" if isinstance(obj, (dict, list, tuple)) else ""


def unpack(reader: Reader, *, into: Any = None, trust: Sequence[str | type] = ()) -> Any:
    """Build the object of a version, or fill the tensors of `into` and return it.

    Parameters
    ----------
    reader : Reader
        The version.
    into : object, optional
        A torch module, a Keras model, or a tensor, array or tree of them. It is filled from any version whose tensors
        have the same names, shapes and dtypes, also from one that another framework pushed.
    trust : sequence of str or type
        Classes that may run code: `"my_pkg.Net"`, `"my_pkg.*"`, or the class itself.

    Returns
    -------
    object
        A new object, or `into`.

    Raises
    ------
    Untrusted
        If the object needs a class that is neither known to be safe nor listed in `trust`.
    Mismatch
        If `into` has other names, shapes or dtypes. It is unchanged then.
    UnknownFormat
        If this release of lmvp does not know the format.
    TooLarge
        If the tensors do not fit into memory.
    """
    trust = [trust] if isinstance(trust, (str, type)) else trust
    if into is not None:
        return _filler(into).unpack(reader, into=into, trust=trust)
    name = _MODULES.get(reader.manifest.format)
    if name is None:
        raise UnknownFormat(f"unknown format {reader.manifest.format!r}", hint="update lmvp on this side")
    try:
        return _load(name).unpack(reader, trust=trust)
    except MemoryError:
        raise TooLarge(
            f"the tensors of this version have {sum(tensor.size for tensor in reader.manifest.tensors):,} bytes, "
            "more than the memory of this process",
            hint="`--to folder/` gives the files",
        ) from None


def _filler(into: Any) -> Format:
    """Return the format that fills `into`; it can differ from the format that was pushed."""
    for name in ("keras", "torch", "numpy", "sklearn", "onnx"):
        if _is_loaded(name) and _load(name).recognises(into):
            return _load(name)
    kind = f"{type(into).__module__}.{type(into).__qualname__}"
    raise InvalidArgument(
        f"`--into` is a {kind}, which has no tensors to fill",
        hint="give a module, or arrays; `--to folder/` gives the files"
        if not _is_path(into)
        else f"did you mean `--to {shlex.quote(os.fspath(into))}`?",
    )


def _is_path(obj: Any) -> bool:
    return isinstance(obj, (str, os.PathLike))
