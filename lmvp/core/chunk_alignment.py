"""Slots: positions of chunks in a model, by which the corresponding chunk of another version is found.

A slot consists of the name of a tensor, the offset in it, the length and the dtype. Chunks of two versions with the
same slot contain the same numbers at different times of the training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lmvp.core.manifest import File, Manifest, Tensor


@dataclass(frozen=True, slots=True)
class Slot:
    """A position in a model: bytes `offset` to `offset + size` of the tensor named `tensor`."""

    tensor: str
    offset: int
    size: int
    dtype: str


class Slots:
    """The slots of a version's chunks, and the chunks by slot.

    Examples
    --------
    >>> from lmvp.core.manifest import Chunk
    >>> def version(chunk):
    ...     file = File("w.safetensors", 24, "", (Chunk("head", 16), Chunk(chunk, 8)))
    ...     return Slots(Manifest("numpy", (file,), (Tensor("w", "F32", (2,), "w.safetensors", 16, 8, ""),)))
    >>> old, new = version("one"), version("two")
    >>> new.dtype("two"), new.dtype("head"), new.counterpart("two", old), new.counterpart("head", old)
    ('F32', None, 'one', None)
    """

    def __init__(self, manifest: Manifest) -> None:
        self._places: dict[str, tuple[str, Slot]] = {}
        self._chunks: dict[Slot, dict[str, str]] = {}
        tensors = _by_path(manifest.tensors)
        for file in manifest.files:
            # Two files of a version can have tensors of the same name, so a slot can have a chunk for each file.
            for chunk, slot in _slots_of(file, tensors.get(file.path, ())):
                self._places.setdefault(chunk, (file.path, slot))
                self._chunks.setdefault(slot, {})[file.path] = chunk
        self.chunks = {chunk.id: chunk.size for file in manifest.files for chunk in file.chunks}

    def dtype(self, chunk: str) -> str | None:
        """Return the dtype of most of the bytes of a chunk, or None."""
        place = self._places.get(chunk)
        return place[1].dtype if place else None

    def counterpart(self, chunk: str, other: Slots) -> str | None:
        """Return the chunk with the same slot in another version, preferably in a file with the same path."""
        place = self._places.get(chunk)
        found = other._chunks.get(place[1], {}) if place else {}
        return found.get(place[0], next(iter(found.values()), None)) if place else None


def _by_path(tensors: Sequence[Tensor]) -> dict[str, list[Tensor]]:
    found: dict[str, list[Tensor]] = {}
    for tensor in sorted((one for one in tensors if one.size), key=lambda one: one.offset):
        found.setdefault(tensor.path, []).append(tensor)
    return found


def _slots_of(file: File, tensors: Sequence[Tensor]) -> Iterator[tuple[str, Slot]]:
    """Yield the chunks with a slot: they begin in a tensor, and most of their bytes have one dtype."""
    start = first = 0
    for chunk in file.chunks:
        end = start + chunk.size
        while first < len(tensors) and tensors[first].offset + tensors[first].size <= start:
            first += 1
        dtype = _dtype(tensors, first, start, end)
        if dtype is not None:
            yield chunk.id, Slot(tensors[first].name, start - tensors[first].offset, chunk.size, dtype)
        start = end


def _dtype(tensors: Sequence[Tensor], index: int, start: int, end: int) -> str | None:
    """Return the dtype of more than half of the bytes `start` to `end`; None if no tensor covers `start`."""
    if index == len(tensors) or tensors[index].offset > start:
        return None
    # A chunk can contain several short tensors that were joined; see `chunking`.
    sizes: Counter[str] = Counter()
    position = start
    while position < end and index < len(tensors) and tensors[index].offset < end:
        one, index = tensors[index], index + 1
        sizes[one.dtype] += max(min(one.offset + one.size, end) - max(one.offset, position), 0)
        position = max(position, one.offset + one.size)
    dtype, most = sizes.most_common(1)[0]
    return dtype if most * 2 > end - start else None
