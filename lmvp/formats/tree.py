"""Conversion of nested dicts, lists and tuples to named leaves and a JSON skeleton, and back without loss.

The skeleton preserves information that plain JSON loses: tuples, the order of an OrderedDict, keys that are not
strings, and exact floats. A leaf (a tensor) is represented by its kind, a short text. The name of a leaf consists of
the keys on its path, joined by dots. It is not stored: the same walk produces it again.

==================  =============================================================
node                meaning
==================  =============================================================
`"tensor"`          a leaf of that kind
`null true 3`       the value
`{"float": hex}`    a float; likewise `str`, `int` (a long one), `bytes` (base64)
`{"list": [node]}`  a list; likewise `tuple`
`{"dict": [[k,n]]}`  a dict; likewise `ordered`; a key is a text or another node
==================  =============================================================
"""

from __future__ import annotations

import base64
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from lmvp.core.safetensors import RESERVED
from lmvp.errors import DamagedFile, UnknownFormat

Node: TypeAlias = Any
"""A JSON value."""

DEPTH = 64
"""Greatest depth of nested containers."""

# JSON parsers of other languages read numbers as float64, which is exact up to this value.
_SAFE_INT = 1 << 53


def no(_: Any) -> None:
    """Accept no object: the default of `flatten` for the values of a framework."""


class Names:
    """Generates a unique name for each path.

    Examples
    --------
    >>> name = Names()
    >>> name(("a", "b")), name(("a.b",)), name(())
    ('a.b', 'a.b#2', 'tensor')
    """

    def __init__(self) -> None:
        self._taken = {RESERVED}
        # The last number of each name: a hostile skeleton can repeat one path 100,000 times.
        self._numbers: dict[str, int] = {}

    def __call__(self, path: tuple[Any, ...]) -> str:
        """Return the path joined by dots, with a number if that name is taken."""
        stem = name = ".".join(map(str, path)) or "tensor"
        number = self._numbers.get(stem, 1)
        while name in self._taken:
            number += 1
            name = f"{stem}#{number}"
        self._numbers[stem] = number
        self._taken.add(name)
        return name


def walk(obj: Any, depth: int = 0) -> Iterator[Any]:
    """Yield all objects that are not containers, in order; objects that are nested too deeply are left out."""
    if depth > DEPTH:
        return
    if isinstance(obj, dict):
        obj = obj.values()
    elif not isinstance(obj, (list, tuple)):
        yield obj
        return
    for child in obj:
        yield from walk(child, depth + 1)


def flatten(
    obj: Any, kind: Callable[[Any], str | None], other: Callable[[Any], Node | None] = no
) -> tuple[Node, dict[str, Any]]:
    """Split a tree into a skeleton and its leaves.

    Parameters
    ----------
    kind : callable
        Returns the kind of a leaf, or None for any other object.
    other : callable
        Returns the node of a framework's plain value (a dtype), or None.

    Returns
    -------
    tuple of node and dict
        The skeleton, and the leaves by name.

    Raises
    ------
    UnknownFormat
        If a part cannot be stored. The message states its path and type.

    Examples
    --------
    >>> flatten({"w": b"..", "steps": (1, 0.5)}, lambda obj: "tensor" if isinstance(obj, bytes) else None)
    ({'dict': [['w', 'tensor'], ['steps', {'tuple': [1, {'float': '0x1.0000000000000p-1'}]}]]}, {'w': b'..'})
    """
    names, found = Names(), {}

    def node(obj: Any, path: tuple[Any, ...]) -> Node:
        if (leaf := kind(obj)) is not None:
            found[names(path)] = obj
            return leaf
        if len(path) > DEPTH:
            raise UnknownFormat(f"{_where(path[:3])} is nested more than {DEPTH} deep, or contains itself")
        container = _CONTAINERS.get(type(obj))
        if container is None:
            return _plain(obj, path, other)
        if container in {"list", "tuple"}:
            return {container: [node(child, (*path, i)) for i, child in enumerate(obj)]}
        pairs = [[_key(key, path), node(child, (*path, key))] for key, child in obj.items()]
        return {container: pairs, **_attributes(obj)}

    return node(obj, ()), found


def leaves(obj: Any, kind: Callable[[Any], str | None]) -> dict[str, Any]:
    """Return the leaves by name; all other objects are ignored."""
    return flatten(obj, kind, lambda _: False)[1]


_CONTAINERS: dict[type, str] = {dict: "dict", OrderedDict: "ordered", list: "list", tuple: "tuple"}


def _where(path: tuple[Any, ...]) -> str:
    return "".join(f"[{key!r}]" for key in path) if path else "the object"


def _key(key: Any, path: tuple[Any, ...]) -> Node:
    """Return the node of a key: a text unchanged, other plain values and tuples of them as nodes."""
    if type(key) is str:
        _plain(key, path, no)
        return key
    if type(key) is tuple:
        return {"tuple": [_key(part, path) if type(part) is not str else {"str": part} for part in key]}
    return _plain(key, (*path, key), no)


def _attributes(obj: Any) -> dict[str, Node]:
    """Return the attribute that torch adds to a state dict: the versions of its modules."""
    metadata = getattr(obj, "_metadata", None)
    if not metadata:
        return {}
    try:
        return {"metadata": flatten(metadata, no)[0]}
    except UnknownFormat:
        return {}


def _plain(obj: Any, path: tuple[Any, ...], other: Callable[[Any], Node | None]) -> Node:
    if obj is None or type(obj) is bool:
        return obj
    if type(obj) is int:
        # Hexadecimal, because Python limits the digits of a decimal integer in text.
        return obj if abs(obj) < _SAFE_INT else {"int": hex(obj)}
    if type(obj) is float:
        return {"float": obj.hex()}
    if type(obj) is bytes:
        return {"bytes": base64.b64encode(obj).decode()}
    if type(obj) is str:
        _check_text(obj, path)
        return {"str": obj}
    node = other(obj)
    if node is None:
        raise unknown(obj, path)
    return node


def _check_text(text: str, path: tuple[Any, ...]) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UnknownFormat(f"{_where(path)}: {text[:80]!r} holds half a surrogate pair") from None


def unknown(obj: Any, path: tuple[Any, ...]) -> UnknownFormat:
    """Return the error about a part of a tree that cannot be stored."""
    return UnknownFormat(
        f"{_where(path)} is a {type(obj).__module__}.{type(obj).__qualname__}, which cannot be kept",
        hint=way_out(obj)
        or "kept are tensors and arrays in dicts, lists and tuples, beside None, bool, int, float, str and bytes",
    )


def way_out(obj: Any) -> str | None:
    """Return the hint for an array of a subclass of ndarray; None for any other object."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(obj, numpy.ndarray):
        return None
    if isinstance(obj, numpy.ma.MaskedArray):
        return (
            'keep its numbers and its mask, two plain arrays: {"data": a.filled(0), "mask": numpy.ma.getmaskarray(a)}'
        )
    return "keep it as a plain array: numpy.asarray(a)"


def rebuild(
    skeleton: Node, leaf: Callable[[str, str], Any], other: Callable[[dict[str, Node]], Any] | None = None
) -> Any:
    """Build a tree from its skeleton; `leaf(name, kind)` returns its leaves, `other(node)` the values of a framework.

    Raises
    ------
    DamagedFile
        If the skeleton is invalid.

    Examples
    --------
    >>> rebuild({"dict": [["w", "tensor"], ["n", {"tuple": [1]}]]}, lambda name, kind: name.upper())
    {'w': 'W', 'n': (1,)}
    """
    names = Names()

    def build(node: Node, path: tuple[Any, ...]) -> Any:
        if isinstance(node, str):
            return leaf(names(path), node)
        if node is None or isinstance(node, (bool, int)):
            return node
        if len(path) > DEPTH or not isinstance(node, dict) or not node:
            raise ValueError(f"no such node: {str(node)[:80]}")
        (tag, value), *_ = node.items()
        if "list" in node or "tuple" in node:
            return (list if "list" in node else tuple)([build(n, (*path, i)) for i, n in enumerate(_one(node))])
        if "dict" in node or "ordered" in node:
            return _mapping(node, lambda key, child: build(child, (*path, key)))
        return _SCALARS[tag](value) if tag in _SCALARS or other is None else other(node)

    try:
        return build(skeleton, ())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        if isinstance(error, DamagedFile):
            raise
        raise DamagedFile(f"the structure of this version is damaged: {error}") from error


def _one(node: dict[str, Any]) -> list[Node]:
    (value,) = node.values()
    return list(value)


def _mapping(node: dict[str, Any], child: Callable[[Any, Node], Any]) -> dict[Any, Any]:
    ordered = "ordered" in node
    result: dict[Any, Any] = OrderedDict() if ordered else {}
    for key_node, value in node["ordered" if ordered else "dict"]:
        key = key_node if isinstance(key_node, str) else rebuild(key_node, no_leaf)
        result[key] = child(key, value)
    if ordered and "metadata" in node:
        result._metadata = rebuild(node["metadata"], no_leaf)  # type: ignore[attr-defined]  # noqa: SLF001 - torch's
    return result


def no_leaf(name: str, kind: str) -> Any:
    """Refuse a leaf where the skeleton must not have one."""
    raise ValueError(f"a tensor {name!r} of kind {kind!r} where none can be")


_SCALARS: dict[str, Callable[[Any], Any]] = {
    "float": float.fromhex,
    "int": lambda text: int(text, 16),
    # Raises TypeError if the value is not a text.
    "str": lambda text: text + "",
    "bytes": lambda text: base64.b64decode(text, validate=True),
}


def names(skeleton: Node) -> dict[str, str]:
    """Return the kinds of the leaves by name."""
    found: dict[str, str] = {}

    def note(name: str, kind: str) -> None:
        found[name] = kind

    rebuild(skeleton, note, no)
    return found
