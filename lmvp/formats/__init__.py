"""Objects to files and back, one module per framework.

A format is found by the object's type, without importing any framework; its module is loaded when it is needed.
"""

from __future__ import annotations

import os
import shlex
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
"""The module of each format; the first that recognises an object takes it: a Keras model may be a torch module too."""


def _load(name: str) -> Format:
    return cast("Format", import_module(f"lmvp.formats.{name}"))


def pack(obj: Any) -> Package:
    """Turn an object into files.

    Raises
    ------
    UnknownFormat
        If no format keeps such an object.

    Examples
    --------
    >>> import numpy
    >>> package = pack({"w": numpy.zeros((2, 3))})
    >>> package.format, [(span.name, span.shape) for span in package.files[0].tensors]
    ('numpy', [('w', (2, 3))])
    """
    for name in dict.fromkeys(_MODULES.values()):
        if _load(name).recognises(obj):
            return _load(name).pack(obj)
    if any(map(way_out, walk(obj))):
        return _load("numpy").pack(obj)  # which says where in it the array stands
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
    into : object, optional
        A torch module, a Keras model, or a tensor, array or tree of them. Any version whose tensors have the same
        names, shapes and dtypes fills it, whatever it was pushed from.
    trust : sequence of str or type
        Classes whose code may run: `"my_pkg.Net"`, `"my_pkg.*"`, or the class itself.

    Raises
    ------
    Untrusted
        If a class is needed that is neither safe by itself nor named in `trust`.
    Mismatch
        If `into` has other names, shapes or dtypes; it is untouched then.
    UnknownFormat
        If this version of lmvp does not know the format.
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
    """Choose by what is to be filled, not by what was pushed."""
    for name in ("keras", "torch", "numpy", "sklearn", "onnx"):
        if _load(name).recognises(into):
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
