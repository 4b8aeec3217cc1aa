"""Common code of all formats with tensors: packing tensors into `weights.safetensors`, and filling tensors from it.

A tensor that views the same memory as another one, in the same way, is stored once. The second one is a *tie*: the
metadata maps its name to that of the first. Numbers for which safetensors has no dtype (complex128, dates, big-endian
numbers) are stored with the nearest dtype, and their true dtype is in the metadata.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

from lmvp.core import safetensors
from lmvp.core.manifest import Manifest
from lmvp.errors import DamagedFile, InvalidArgument, Mismatch
from lmvp.formats.base import Bytes, PackedFile, Reader, Source, Span

WEIGHTS = "weights.safetensors"
"""The file with all tensors of an object."""

GROUP = 64 << 20
"""Bytes of tensors that are read into buffers at once."""

# Number of differences that an error lists.
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Packed:
    """A tensor to be pushed.

    Attributes
    ----------
    dtype, shape
        Dtype and shape in the header of the safetensors file.
    view : hashable or None
        Equal for tensors that view the same memory in the same way; None: never tied.
    true_dtype : str or None
        The dtype, if safetensors has no name for it.
    """

    dtype: str
    shape: tuple[int, ...]
    source: Source
    view: Hashable = None
    true_dtype: str | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor of a version. `name` is its name in the file at `path`; for a tie, the name of the other tensor."""

    name: str
    path: str
    dtype: str
    shape: tuple[int, ...]
    size: int
    digest: str
    true_dtype: str | None = None

    @property
    def kind(self) -> str:
        """Dtype and shape, for messages."""
        return f"{self.true_dtype or self.dtype} {self.shape}"


def weights(
    tensors: Mapping[str, Packed], framework: str, path: str = WEIGHTS
) -> tuple[list[PackedFile], dict[str, Any]]:
    """Return the file with these tensors, and the metadata about ties and dtypes.

    The list of files is empty if there are no tensors.

    Parameters
    ----------
    tensors : mapping
        Tensors by name, in the order of the model.
    framework : str
        `pt` or `np`, for other readers of safetensors, which look for it in the header.
    path : str
        The path of the file in the version.
    """
    once, ties = _untie(tensors)
    meta: dict[str, Any] = {"ties": ties} if ties else {}
    if dtypes := {name: tensor.true_dtype for name, tensor in once.items() if tensor.true_dtype}:
        meta["dtypes"] = dtypes
    return ([_file(once, framework, path)] if once else []), meta


def _untie(tensors: Mapping[str, Packed]) -> tuple[dict[str, Packed], dict[str, str]]:
    first: dict[Hashable, str] = {}
    once, ties = {}, {}
    for name, tensor in tensors.items():
        owner = first.setdefault(tensor.view, name) if tensor.view is not None else name
        if owner == name:
            once[name] = tensor
        else:
            ties[name] = owner
    return once, ties


def _file(tensors: Mapping[str, Packed], framework: str, path: str) -> PackedFile:
    # `sorted` is stable, so tensors of equal rank keep the order of the model.
    order = sorted(tensors, key=lambda name: _rank(tensors[name]))
    head = safetensors.header([(n, tensors[n].dtype, tensors[n].shape) for n in order], {"format": framework})
    spans, offset = {}, len(head)
    for name in order:
        tensor = tensors[name]
        spans[name] = Span(name, tensor.dtype, tensor.shape, offset, tensor.source.size)
        offset += tensor.source.size
    sources = [Bytes.of(head), *(tensors[name].source for name in order)]
    return PackedFile(path, sources, [spans[name] for name in tensors])


def _rank(tensor: Packed) -> int:
    """Sort key that keeps each tensor aligned to its items: tensors with a length divisible by 8 are first."""
    return 0 if tensor.source.size % 8 == 0 else 64 - safetensors.BITS[tensor.dtype]


def stored(manifest: Manifest) -> dict[str, Stored]:
    """Return all tensors of a version by name, including ties.

    Raises
    ------
    DamagedFile
        If a tie refers to a tensor that does not exist.
    InvalidArgument
        If two files have a tensor of the same name, so that the name is ambiguous.
    """
    dtypes = _texts(manifest.meta.get("dtypes", {}), "dtypes")
    found: dict[str, Stored] = {}
    for t in manifest.tensors:
        if t.name in found:
            raise InvalidArgument(
                f"{t.name!r} stands in {found[t.name].path!r} and in {t.path!r}", hint="`--to folder/` gives the files"
            )
        found[t.name] = Stored(t.name, t.path, t.dtype, t.shape, t.size, t.digest, dtypes.get(t.name))
    for name, owner in _texts(manifest.meta.get("ties", {}), "ties").items():
        if owner not in found or name in found:
            raise DamagedFile(f"the version ties {name!r} to {owner!r}, which cannot be")
        found[name] = found[owner]
    return found


def _texts(value: Any, what: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise DamagedFile(f"{what!r} in the version's meta data is not an object of strings")
    return value


def fill(reader: Reader, targets: Iterable[tuple[Stored, memoryview]]) -> None:
    """Write tensors into their buffers, all with one read; a tensor with two buffers is copied to the second one."""
    first: dict[tuple[str, str], memoryview] = {}
    copies: list[tuple[memoryview, memoryview]] = []
    for tensor, buffer in targets:
        owner = first.setdefault((tensor.path, tensor.name), buffer)
        if owner is not buffer:
            copies.append((owner, buffer))
    by_path: defaultdict[str, dict[str, memoryview]] = defaultdict(dict)
    for (path, name), buffer in first.items():
        by_path[path][name] = buffer
    if by_path:
        reader.fill_all(by_path)
    for owner, buffer in copies:
        buffer[:] = owner


def groups(sizes: Mapping[str, int], limit: int = GROUP) -> Iterator[list[str]]:
    """Split names into groups of at most `limit` bytes, and of at least one name.

    A tensor that cannot be read into its place is read into a buffer. One tensor at a time would take one request each,
    all at once twice the memory.

    Examples
    --------
    >>> list(groups({"a": 3, "b": 2, "c": 9, "d": 1}, 5))
    [['a', 'b'], ['c'], ['d']]
    """
    group: list[str] = []
    room = limit
    for name, size in sizes.items():
        if group and size > room:
            yield group
            group, room = [], limit
        group.append(name)
        room -= size
    if group:
        yield group


def check(have: Mapping[str, Stored], into: Mapping[str, str], aliases: Iterable[Sequence[str]] = ()) -> None:
    """Compare the tensors of a version with those of `into`, which are given as their `Stored.kind` by name.

    Parameters
    ----------
    aliases : iterable of sequences of names
        Groups of names that are one tensor in `into`.

    Raises
    ------
    Mismatch
        If they differ. The message lists the first differences.
    """
    wrong = [f"{name!r} is only in the version" for name in have if name not in into]
    wrong += [f"{name!r} is only in `into`" for name in into if name not in have]
    for name, kind in into.items():
        if name in have and have[name].kind != kind:
            wrong.append(f"{name!r} is {have[name].kind} in the version, {kind} in `into`")
    # One tensor of `into` cannot hold two different values of the version.
    for first, *others in aliases:
        wrong += [
            f"{first!r} and {other!r} are one tensor in `into`, two in the version"
            for other in others
            if not wrong and have[first].digest != have[other].digest
        ]
    if wrong:
        more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise Mismatch(
            f"`into` does not fit the version: {'; '.join(wrong[:_SHOWN])}{more}",
            hint="nothing was changed; without `--into` the object comes back as it was pushed",
        )


def shared(tensors: Mapping[str, Packed]) -> list[list[str]]:
    """Return the groups of names that are one tensor."""
    groups: defaultdict[Hashable, list[str]] = defaultdict(list)
    for name, tensor in tensors.items():
        groups[(name,) if tensor.view is None else tensor.view].append(name)
    return [names for names in groups.values() if len(names) > 1]


@dataclass(frozen=True, slots=True)
class Elements:
    """A source over items that are not contiguous; `take(first, last)` returns a range of items as contiguous bytes.

    Only the range that is read is copied, so a transposed tensor of any size costs no memory.
    """

    size: int
    item: int
    take: Callable[[int, int], memoryview]

    def read(self, offset: int, size: int) -> memoryview:
        """Return a copy of the bytes."""
        first, last = offset // self.item, -(-(offset + size) // self.item)
        start = offset - first * self.item
        return self.take(first, last)[start : start + size]


class Shelf:
    """A cache of the last few results of `fetch`, so that a tensor that is read in pieces is fetched once."""

    def __init__(self, places: int = 2) -> None:
        self._places, self._lock = places, Lock()
        self._kept: dict[int, memoryview] = {}

    def get(self, key: int, fetch: Callable[[], memoryview]) -> memoryview:
        """Return the cached result for a key, or call `fetch` and cache its result."""
        # Held during the fetch: two threads that read pieces of one tensor must not both fetch it.
        with self._lock:
            if key not in self._kept:
                while len(self._kept) >= self._places:
                    del self._kept[next(iter(self._kept))]
                self._kept[key] = fetch()
            return self._kept[key]


@dataclass(frozen=True, slots=True, eq=False)
class Fetched:
    """A source over bytes that can only be fetched as a whole, from a device or out of a message."""

    size: int
    fetch: Callable[[], memoryview]
    shelf: Shelf

    def read(self, offset: int, size: int) -> memoryview:
        """Return a view of the fetched bytes."""
        return self.shelf.get(id(self), self.fetch)[offset : offset + size]
