"""Numbers to byte planes and back: rotated by themselves (`solo`), or as steps from a base, grouped (`delta`).

All of it is arithmetic on unsigned integers modulo 2^w, the same on every platform. docs/format.md, "Codecs", has the
rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lmvp.storage.codecs.kinds import Kind
from lmvp.storage.codecs.streams import Plane

Bits = npt.NDArray[Any]
"""Unsigned integers, as wide as the numbers."""

SEGMENT = 8192
"""Numbers in a segment at least, but in the last."""

_BLOCK = 1 << 16
"""Numbers that are ordered at once."""


def bits(data: Any, kind: Kind) -> Bits:
    """View whole numbers as unsigned integers; bytes beyond the last whole number are left out."""
    return np.frombuffer(data, f"<u{kind.size}", len(data) // kind.size)


def rotate(numbers: Bits, kind: Kind) -> Bits:
    """Move the sign of floats to the bottom, so that the exponent fills the top byte."""
    return (numbers << 1) | (numbers >> (8 * kind.size - 1)) if kind.floating else numbers


def unrotate(numbers: Bits, kind: Kind) -> Bits:
    """Undo `rotate`."""
    return (numbers >> 1) | (numbers << (8 * kind.size - 1)) if kind.floating else numbers


def steps(numbers: Bits, base: Bits, kind: Kind) -> Bits:
    """Return how far each number is from its base, in units of the last place; small steps are small numbers."""
    step = _ordered(numbers, kind) - _ordered(base, kind)
    return (step << 1) ^ _spread(step, kind)


def apply_steps(numbers: Bits, base: Bits, kind: Kind) -> Bits:
    """Undo `steps`."""
    step = (numbers >> 1) ^ (0 - (numbers & 1))
    return _ordered(step + _ordered(base, kind), kind)


class Grouping:
    """The order in which steps from a base are coded, and where the segments end that are coded apart.

    A step of an optimiser has about the same size everywhere, so in units of the last place it shrinks as the exponent
    grows: ordered by the exponent of the base, steps of like magnitude come to stand together. The decoder has the
    base too, so this costs no byte.

    The order is that of a stable counting sort. It is made block by block and not kept: eight bytes a number, for all
    of a chunk, would be more than all else together.
    """

    def __init__(self, base: Bits, kind: Kind) -> None:
        self._base, self._kind = base, kind
        self._groups = ((base >> kind.shift) & kind.mask).astype(np.uint8)
        blocks = range(0, max(1, len(base)), _BLOCK)
        counts = np.array([np.bincount(self._groups[at : at + _BLOCK], minlength=kind.mask + 1) for at in blocks])
        before = np.cumsum(counts.T).reshape(counts.T.shape).T - counts
        self._runs = [_runs(*pair) for pair in zip(counts, before, strict=True)]
        self.ends = segments(np.cumsum(counts.sum(axis=0)).tolist())

    def planes(self, numbers: Bits) -> list[Plane]:
        """Return the planes of the steps to some numbers, in the order of their groups."""
        return split(self._gather(steps(numbers, self._base, self._kind)), self._kind)

    def numbers(self, planes: Sequence[Plane]) -> Bits:
        """Undo `planes`."""
        return apply_steps(self._scatter(join(planes, self._kind)), self._base, self._kind)

    def _gather(self, steps: Bits) -> Bits:
        grouped = np.empty_like(steps)
        for block, order, runs in self._blocks(steps):
            ordered, done = block.take(order), 0
            for start, count in runs:
                grouped[start : start + count] = ordered[done : done + count]
                done += count
        return grouped

    def _scatter(self, grouped: Bits) -> Bits:
        steps = np.empty_like(grouped)
        for block, order, runs in self._blocks(steps):
            if runs:
                block[order] = np.concatenate([grouped[start : start + count] for start, count in runs])
        return steps

    def _blocks(self, steps: Bits) -> Iterator[tuple[Bits, npt.NDArray[np.intp], list[tuple[int, int]]]]:
        """Yield each block of the steps, its order, and where its runs of one group stand among all, with lengths."""
        for number, runs in enumerate(self._runs):
            block = slice(number * _BLOCK, (number + 1) * _BLOCK)
            yield steps[block], np.argsort(self._groups[block], kind="stable"), runs


def _runs(counts: npt.NDArray[np.intp], starts: npt.NDArray[np.intp]) -> list[tuple[int, int]]:
    present = np.flatnonzero(counts)
    return list(zip(starts[present].tolist(), counts[present].tolist(), strict=True))


def segments(group_ends: list[int]) -> list[int]:
    """Return where segments end: at the end of a group, as soon as there are enough numbers in them, and at the end."""
    ends = [0]
    for end in group_ends[:-1]:
        if end - ends[-1] >= SEGMENT:
            ends.append(end)
    return [*ends[1:], group_ends[-1]] if ends[-1] < group_ends[-1] or len(ends) == 1 else ends[1:]


def split(numbers: Bits, kind: Kind) -> list[Plane]:
    """Return the byte planes, the most significant first."""
    columns = numbers.view(np.uint8).reshape(-1, kind.size)
    return [np.ascontiguousarray(columns[:, at]) for at in reversed(range(kind.size))]


def join(planes: Sequence[Plane], kind: Kind) -> Bits:
    """Undo `split`."""
    columns = np.empty((len(planes[0]), kind.size), np.uint8)
    for at, plane in enumerate(reversed(planes)):
        columns[:, at] = plane
    return columns.reshape(-1).view(f"<u{kind.size}")


def _ordered(numbers: Bits, kind: Kind) -> Bits:
    """Make neighbours on the number line neighbours as integers: flip the magnitude of negatives. Its own inverse."""
    return numbers ^ (_spread(numbers, kind) >> 1) if kind.floating else numbers


def _spread(numbers: Bits, kind: Kind) -> Bits:
    """Return all ones where the top bit is set, else 0."""
    return (numbers.view(f"<i{kind.size}") >> (8 * kind.size - 1)).view(numbers.dtype)
