"""Canonical form of skops files: equal estimators produce equal bytes, and their arrays become tensors.

A skops file is a zip of `schema.json` and one file for each array. The schema contains memory addresses (`__id__`),
also in the names of the files, and sets in the order of their hashes, so two dumps of one estimator differ. In the
canonical form, an id exists only for an object that occurs twice, and ids are numbered; sets are sorted; an array is
named after the attribute that contains it. The node of an array has `"tensor"` instead of `"file"`:

==================  =========================================================
`"tensor": name`    an array of numbers, by the name of its tensor
`"text": dtype`     in addition, for an array of texts, stored as character codes
`"fields": descr`   in addition, for a structured array: a tensor for each field
`"order": "F"`      in addition, for an array in Fortran order
`"parts": {…}`      a sparse matrix: its arrays, as nodes
`"blob": path`      any other data: a file of the version
==================  =========================================================
"""

from __future__ import annotations

import io
import json
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any, TypeAlias

from lmvp.errors import DamagedFile
from lmvp.formats.tree import Names

Node: TypeAlias = dict[str, Any]

# Nodes of objects whose identity does not matter, so their ids are dropped.
_IMMUTABLE = {"JsonNode", "TypeNode", "TupleNode", "FunctionNode", "OperatorFuncNode", "SliceNode"}
# Keys of the schema that are not attributes, and so not part of names.
_TRANSPARENT = {"content", "__reduce__"}
SCHEMA = "schema.json"
SPARSE = ("bsr", "coo", "csc", "csr", "dia")
"""The formats of sparse matrices that scipy reads from a file."""


_SLACK, _COPIES = 64 << 20, 4
"""Greatest size of the files of an estimator: a fixed number of bytes, plus a multiple of its tensors."""

_WIDTH = 1 << 16
"""Greatest size of a row of a structured array, in bytes."""


class Canonical:
    """A parsed skops file.

    Attributes
    ----------
    schema : dict
        The canonical schema.
    arrays : dict
        Arrays of plain numbers, by tensor name.
    blobs : dict
        Other files, by path.
    """

    def __init__(self, data: bytes) -> None:
        self.arrays: dict[str, Any] = {}
        self.blobs: dict[str, bytes] = {}
        self._names = Names()
        self._known: dict[str, Node] = {}
        with zipfile.ZipFile(io.BytesIO(data)) as self._archive:
            self.schema = json.loads(self._archive.read(SCHEMA))
            # The version of skops must not change the digest of an equal estimator.
            self.schema.pop("_skops_version", None)
            _sort_sets(self.schema)
            _renumber(self.schema)
            self._replace(self.schema, ())

    def _replace(self, value: Any, path: tuple[str, ...]) -> None:
        """Replace the names of files in a node and below, in order; `path` is the attribute of the node."""
        if isinstance(value, list):
            for index, child in enumerate(value):
                self._replace(child, (*path, _step_name(child) or str(index)))
        elif isinstance(value, dict):
            if isinstance(value.get("file"), str) and "__loader__" in value:
                self._take_file(value, path)
            pair = _step_name(value) is not None
            for key, child in value.items():
                if pair and key == "content":
                    self._replace(child[1], path)
                else:
                    self._replace(child, path if key in _TRANSPARENT and "__loader__" in value else (*path, key))

    def _take_file(self, node: Node, path: tuple[str, ...]) -> None:
        file = node.pop("file")
        if file not in self._known:
            self._known[file] = self._read(file, path)
        node.update(self._known[file])

    def _read(self, file: str, path: tuple[str, ...]) -> Node:
        import numpy as np

        data = self._archive.read(file)
        if file.endswith(".npy"):
            return self._array(np.load(io.BytesIO(data), allow_pickle=False), path) or self._blob(data, ".npy")
        if file.endswith(".npz"):
            with np.load(io.BytesIO(data), allow_pickle=False) as parts:
                nodes = {key: self._array(parts[key], (*path, key)) for key in sorted(parts.files)}
            if all(nodes.values()):
                return {"parts": nodes}
            raise ValueError(f"{'.'.join(path)} is a sparse matrix of what are no numbers")
        return self._blob(data, "." + file.rpartition(".")[2])

    def _blob(self, data: bytes, suffix: str) -> Node:
        path = f"blobs/{len(self.blobs)}{suffix}"
        self.blobs[path] = data
        return {"blob": path}

    def _array(self, array: Any, path: tuple[str, ...]) -> Node | None:
        """Store an array as one or more tensors; return None if that is not possible."""
        if array.dtype.names:
            return self._structured(array, path)
        if array.dtype.kind in "US" and array.dtype.itemsize:
            item = "u4" if array.dtype.kind == "U" else "u1"
            codes = array.reshape(-1).view(array.dtype.byteorder.replace("|", "<") + item)
            return {"tensor": self._keep(codes.reshape(*array.shape, -1), path), "text": array.dtype.str}
        if array.dtype.kind not in "biufcMm" or array.dtype.itemsize > (16 if array.dtype.kind == "c" else 8):
            return None
        order = {"order": "F"} if array.flags.fnc else {}
        return {"tensor": self._keep(array, path), **order}

    def _structured(self, array: Any, path: tuple[str, ...]) -> Node | None:
        """Store each field as a tensor, because the bytes between fields in memory are undefined."""
        from numpy.lib.format import dtype_to_descr

        fields = [array.dtype[name] for name in array.dtype.names]
        if any(field.names or field.shape or field.kind not in "biuf" or field.itemsize > 8 for field in fields):
            return None
        tensors = {name: self._keep(array[name], (*path, name)) for name in array.dtype.names}
        return {"tensor": tensors, "fields": dtype_to_descr(array.dtype)}

    def _keep(self, array: Any, path: tuple[str, ...]) -> str:
        name = self._names(path or ("array",))
        self.arrays[name] = array
        return name


def _step_name(node: Any) -> str | None:
    """Return the name of a step of a pipeline, a tuple of name and estimator; None for any other node."""
    match node:
        case {
            "__loader__": "TupleNode",
            "content": [{"__loader__": "JsonNode", "content": str(text)}, {"content": _}, *_],
        }:
            name = json.loads(text)
            return name if isinstance(name, str) and name else None
    return None


def _nodes(value: Any) -> Iterator[Node]:
    if isinstance(value, dict):
        if "__loader__" in value:
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for child in value:
            yield from _nodes(child)


def _sort_sets(schema: Node) -> None:
    for node in _nodes(schema):
        if node["__loader__"] == "SetNode":
            node["content"].sort(key=_text_without_ids)


def _text_without_ids(node: Node) -> str:
    return json.dumps({key: value for key, value in node.items() if key not in {"__id__", "file"}}, sort_keys=True)


def _renumber(schema: Node) -> None:
    """Drop ids of objects that occur once, and number the others from 1."""
    for node in _nodes(schema):
        if node["__loader__"] in _IMMUTABLE:
            node.pop("__id__", None)
    times = Counter(node["__id__"] for node in _nodes(schema) if "__id__" in node)
    numbers: dict[int, int] = {}
    for node in _nodes(schema):
        if "__id__" in node:
            old = node.pop("__id__")
            if times[old] > 1:
                node["__id__"] = numbers.setdefault(old, len(numbers) + 1)


def assemble(schema: Node, arrays: Mapping[str, Any], blob: Callable[[str], bytes]) -> bytes:
    """Return the skops file of a canonical schema; `blob` returns the other files.

    Raises
    ------
    DamagedFile
        If the schema refers to a tensor or file that does not exist.
    """
    buffer = io.BytesIO()
    written: dict[str, str] = {}
    budget = _SLACK + _COPIES * sum(array.nbytes for array in arrays.values())
    with zipfile.ZipFile(buffer, "w") as archive:
        try:
            for node in _nodes(schema):
                if (key := _key(node)) is None:
                    continue
                if key not in written:
                    suffix, data = _file(node, arrays, blob)
                    budget -= len(data) if "blob" not in node else 0
                    if budget < 0:  # a hostile schema can repeat one tensor with many dtypes and orders
                        raise ValueError("they are written out many times over")  # noqa: TRY301
                    written[key] = f"{len(written)}{suffix}"
                    archive.writestr(written[key], data)
                node["file"] = written[key]
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise DamagedFile(f"the estimator's arrays are damaged: {error}") from error
        archive.writestr(SCHEMA, json.dumps(schema))
    return buffer.getvalue()


def _key(node: Node) -> str | None:
    """Return a key that is equal for nodes that share a file; None for a node without a file."""
    if "file" in node or ("blob" in node and node["__loader__"] == "SparseMatrixNode"):
        raise ValueError("a node has a file that nobody checked")
    about = {key: node[key] for key in ("tensor", "parts", "blob", "text", "fields", "order") if key in node}
    return json.dumps(about, sort_keys=True) if about else None


def _file(node: Node, arrays: Mapping[str, Any], blob: Callable[[str], bytes]) -> tuple[str, bytes]:
    """Return the suffix and the content of a node's file."""
    import numpy as np

    if "tensor" in node:
        return ".npy", _saved(np.save, _array(node, arrays))
    if "parts" in node:
        data = _saved(np.savez, **{name: _array(part, arrays) for name, part in node["parts"].items()})
        _check_sparse(data)
        return ".npz", data
    return ".bin", blob(node["blob"])


def _check_sparse(data: bytes) -> None:
    """Check that the indices of a sparse matrix are within its shape; scipy's kernels do not check them."""
    matrix = import_module("scipy.sparse").load_npz(io.BytesIO(data))
    if matrix.format not in SPARSE:
        raise ValueError(f"no sparse matrix of format {matrix.format}")
    if matrix.format in {"bsr", "csc", "csr"}:
        matrix.check_format(full_check=True)


def _saved(save: Callable[..., None], *arrays: Any, **named: Any) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *arrays, **named, allow_pickle=False)
    return buffer.getvalue()


def _array(node: Node, arrays: Mapping[str, Any]) -> Any:
    import numpy as np

    if "fields" in node:
        return _join_fields(node, arrays)
    array = arrays[node["tensor"]]
    if "text" in node:
        dtype = np.dtype(str(node["text"]))
        if dtype.kind not in "US":
            raise ValueError(f"no dtype of texts: {dtype}")
        return array.reshape(-1).view(dtype).reshape(array.shape[:-1])
    return np.asfortranarray(array) if node.get("order") == "F" else array


def _join_fields(node: Node, arrays: Mapping[str, Any]) -> Any:
    import numpy as np
    from numpy.lib.format import descr_to_dtype

    dtype = descr_to_dtype([(str(name), str(code)) for name, code in node["fields"]])
    kinds = [dtype[name] for name in dtype.names or ()]
    wide = [one for one in kinds if one.kind not in "biufV" or one.itemsize > 8 * (len(kinds) + 1)]
    if wide or dtype.itemsize > _WIDTH:  # checked before memory is allocated
        raise ValueError(f"no structured array of {dtype.itemsize:,} bytes per row")
    first, *_ = parts = {name: arrays[tensor] for name, tensor in node["tensor"].items()}
    joined = np.zeros(parts[first].shape, dtype)
    for name, part in parts.items():
        joined[name] = part
    return joined
