"""Files of `torch.save`: a pickle with the names of the tensors, and a record with the memory of each tensor.

Names are those of `lmvp.formats.torch`: the keys that lead to a tensor, joined by dots. A record whose tensor is not
contiguous in C order is listed under its own name (`data/0`), as one row of numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmvp.core.containers import pickled
from lmvp.core.containers.base import (
    NAME_LIMIT,
    TENSORS,
    Broken,
    Member,
    Read,
)
from lmvp.core.containers.pickled import Global, Node, Persistent
from lmvp.core.safetensors import BITS, Span, tensor_size

_PICKLE = "/data.pkl"
# Maximum nesting of objects, and of dimensions.
_DEPTH = 64
_KEY_LIMIT = 64
_HIDDEN = {"_parameters", "_buffers", "_modules"}
"""Attributes in which a pickled module stores its parts. Names in a state dict do not contain them."""

_STORAGES = {
    "Float": "F32",
    "Double": "F64",
    "Half": "F16",
    "BFloat16": "BF16",
    "Long": "I64",
    "Int": "I32",
    "Short": "I16",
    "Char": "I8",
    "Byte": "U8",
    "Bool": "BOOL",
    "ComplexFloat": "C64",
}
_DTYPES = {
    "torch.float8_e4m3fn": "F8_E4M3",
    "torch.float8_e4m3fnuz": "F8_E4M3FNUZ",
    "torch.float8_e5m2": "F8_E5M2",
    "torch.float8_e5m2fnuz": "F8_E5M2FNUZ",
    "torch.float8_e8m0fnu": "F8_E8M0",
    "torch.uint16": "U16",
    "torch.uint32": "U32",
    "torch.uint64": "U64",
}


@dataclass(frozen=True, slots=True)
class _View:
    """A tensor in the record `key`, beginning at the number with index `offset`."""

    key: str
    dtype: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def in_order(self) -> bool:
        """Whether the numbers are contiguous and in C order."""
        expected = 1
        for length, step in zip(reversed(self.shape), reversed(self.stride), strict=True):
            if length != 1 and step != expected:
                return False
            expected *= length
        return True


def recognises(members: Sequence[Member]) -> bool:
    """Return whether an archive was written by `torch.save`."""
    return _pickle(members) is not None


def _pickle(members: Sequence[Member]) -> Member | None:
    found = (one for one in members if one.plain and one.name.endswith(_PICKLE) and one.name.count("/") == 1)
    return next(found, None)


def tensors(read: Read, members: Sequence[Member]) -> Iterator[Span]:
    """Yield the tensors in the order of the pickle, then the records in which no tensor was found."""
    plain = {member.name: member for member in members if member.plain}
    pickle = _pickle(members)
    assert pickle is not None, "an archive that is not torch's"
    root = pickle.name.removesuffix("data.pkl")
    order = plain.get(f"{root}byteorder")
    if order is not None and bytes(read(order.start, min(order.size, 8))) != b"little":
        return
    records = {name.removeprefix(root): one for name, one in plain.items() if name.startswith(f"{root}data/")}
    views = _views(read, pickle)
    used = set()
    for name, view in views.items():
        span = _span(name, view, records.get(f"data/{view.key}"))
        if span is not None:
            used.add(f"data/{view.key}")
            yield span
    dtypes = {f"data/{view.key}": view.dtype for view in views.values()}
    yield from (_row(name, one, dtypes.get(name, "U8")) for name, one in records.items() if name not in used)


def _views(read: Read, member: Member) -> dict[str, _View]:
    """Return the tensors in the pickle by name; an empty dict if it cannot be read."""
    try:
        if member.size > pickled.LIMIT:
            return {}
        root = pickled.read(bytes(read(member.start, member.size)))
        found: dict[str, _View] = {}
        for path, view in _Search().below(root, ()):
            # Two paths can result in the same name (`a.b` is also a possible key); the first tensor counts.
            found.setdefault(".".join(path) or "tensor", view)
    except Broken:
        return {}
    return found


class _Search:
    """Searches a tree of objects for tensors, in a bounded number of steps: a small pickle can describe a huge tree."""

    def __init__(self) -> None:
        self._left = 20 * TENSORS

    def below(self, obj: Any, path: tuple[str, ...], depth: int = 0) -> Iterator[tuple[tuple[str, ...], _View]]:
        """Yield the tensors below an object, with the keys that lead to them."""
        self._left -= 1
        if self._left < 0 or depth > _DEPTH:
            raise Broken("a tree as large as that")
        view = _view(obj)
        if view is not None:
            yield path, view
            return
        for key, child in _children(obj):
            inner = path if key in _HIDDEN else (*path, str(key))
            if sum(map(len, inner)) <= NAME_LIMIT:
                yield from self.below(child, inner, depth + 1)


def _children(obj: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(obj, Node):
        state = obj.state if isinstance(obj.state, Mapping) else {}
        yield from (*obj.items.items(), *enumerate(obj.elements), *state.items())
    elif isinstance(obj, Mapping):
        yield from obj.items()
    elif isinstance(obj, (list, tuple)):
        yield from enumerate(obj)


def _view(obj: Any) -> _View | None:
    """Return the tensor that a call in the pickle would create."""
    if not isinstance(obj, Node) or not isinstance(obj.function, Global) or not isinstance(obj.args, tuple):
        return None
    match obj.function.name.rpartition(".")[2], obj.args:
        case "_rebuild_tensor_v2", (storage, offset, shape, stride, *_):
            return _checked(storage, None, offset, shape, stride)
        case "_rebuild_tensor_v3", (storage, offset, shape, stride, _, _, Global() as dtype, *_):
            return _checked(storage, _DTYPES.get(dtype.name, ""), offset, shape, stride)
        case "_rebuild_parameter" | "_rebuild_parameter_with_state", (Node() as inner, *_):
            return _view(inner)
        case "_rebuild_from_type_v2", (function, _, tuple() as args, *_):
            return _view(Node(function, args))
    return None


def _checked(storage: Any, dtype: str | None, offset: Any, shape: Any, stride: Any) -> _View | None:
    match storage:
        case Persistent(("storage", Global(kind), str(key), *_)):
            known = _STORAGES.get(kind.rpartition(".")[2].removesuffix("Storage")) if dtype is None else dtype
        case _:
            return None
    if not known or len(key) > _KEY_LIMIT or not all(_are_lengths(one) for one in ((offset,), shape, stride)):
        return None
    return _View(key, known, offset, shape, stride) if len(shape) == len(stride) else None


def _are_lengths(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) <= _DEPTH and all(type(n) is int and 0 <= n < 1 << 60 for n in value)


def _span(name: str, view: _View, record: Member | None) -> Span | None:
    size = tensor_size(view.dtype, view.shape)
    start = view.offset * BITS[view.dtype] // 8
    if record is None or size is None or not view.in_order or start + size > record.size:
        return None
    return Span(name, view.dtype, view.shape, record.start + start, size)


def _row(name: str, record: Member, dtype: str) -> Span:
    """List a whole record under its own name."""
    # If the size is not a multiple of the dtype, list bytes.
    numbers, rest = divmod(record.size * 8, BITS[dtype])
    dtype, numbers = ("U8", record.size) if rest else (dtype, numbers)
    return Span(name, dtype, (numbers,), record.start, record.size)
