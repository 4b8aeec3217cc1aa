"""Conversion of numbers to byte planes and back: rotated (solo), or as grouped steps from a base (delta).

All operations are arithmetic on unsigned integers modulo 2^w, with the same result on every platform. See
docs/format.md, "Codecs".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lmvp.core.codecs.kinds import Kind
from lmvp.core.codecs.streams import Plane

Bits = npt.NDArray[Any]
"""Unsigned integers of the width of the numbers."""

SEGMENT = 8192
"""Minimum numbers in a segment, except the last one."""

_BLOCK = 1 << 16
"""Numbers that are ordered at once. It bounds the memory for the order, which takes 8 bytes per number."""


def bits(data: Any, kind: Kind) -> Bits:
    """View whole numbers as unsigned integers. Bytes after the last whole number are ignored."""
    return np.frombuffer(data, f"<u{kind.size}", len(data) // kind.size)


def rotate(numbers: Bits, kind: Kind) -> Bits:
    """Move the sign of floats to the lowest bit, so that the exponent fills the top byte."""
    return (numbers << 1) | (numbers >> (8 * kind.size - 1)) if kind.floating else numbers


def unrotate(numbers: Bits, kind: Kind) -> Bits:
    """Reverse `rotate`."""
    return (numbers >> 1) | (numbers << (8 * kind.size - 1)) if kind.floating else numbers


def steps(numbers: Bits, base: Bits, kind: Kind) -> Bits:
    """Return the zig-zag coded differences from the base, in units of the last place."""
    step = _ordered(numbers, kind) - _ordered(base, kind)
    return (step << 1) ^ _spread(step, kind)


def apply_steps(numbers: Bits, base: Bits, kind: Kind) -> Bits:
    """Reverse `steps`."""
    step = (numbers >> 1) ^ (0 - (numbers & 1))  # unsigned: 0 - 1 is all ones
    return _ordered(step + _ordered(base, kind), kind)


class Grouping:
    """The order in which steps from a base are coded, and the ends of the segments.

    A step of an optimiser has a similar size everywhere, so in units of the last place it shrinks as the exponent
    grows. Ordered by the exponent of the base, steps of similar magnitude are adjacent and compress better. The decoder
    has the base too, so the order takes no bytes in the payload.

    The order is that of a stable counting sort. It is computed block by block and not stored: with 8 bytes per number,
    the order of a whole chunk would take more memory than all other data together.
    """

    def __init__(self, base: Bits, kind: Kind) -> None:
        self._base, self._kind = base, kind
        self._groups = ((base >> kind.shift) & kind.mask).astype(np.uint8)
        blocks = range(0, max(1, len(base)), _BLOCK)
        counts = np.array([np.bincount(self._groups[at : at + _BLOCK], minlength=kind.mask + 1) for at in blocks])
        # Number of earlier elements in the grouped order for each block and group: where a run of the block begins.
        before = np.cumsum(counts.T).reshape(counts.T.shape).T - counts
        self._runs = [_runs(*pair) for pair in zip(counts, before, strict=True)]
        self.ends = segments(np.cumsum(counts.sum(axis=0)).tolist())

    def planes(self, numbers: Bits) -> list[Plane]:
        """Return the planes of the steps from the base, ordered by group."""
        return split(self._gather(steps(numbers, self._base, self._kind)), self._kind)

    def numbers(self, planes: Sequence[Plane]) -> Bits:
        """Reverse `planes`."""
        return apply_steps(self._scatter(join(planes, self._kind)), self._base, self._kind)

    def _gather(self, steps: Bits) -> Bits:
        grouped = np.empty_like(steps)
        # Within a block, elements of one group are adjacent after sorting, so whole runs are copied at once.
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
        """Yield each block of the steps, its order, and start and length of each of its runs in the grouped order."""
        for number, runs in enumerate(self._runs):
            block = slice(number * _BLOCK, (number + 1) * _BLOCK)
            yield steps[block], np.argsort(self._groups[block], kind="stable"), runs


def _runs(counts: npt.NDArray[np.intp], starts: npt.NDArray[np.intp]) -> list[tuple[int, int]]:
    present = np.flatnonzero(counts)
    return list(zip(starts[present].tolist(), counts[present].tolist(), strict=True))


def segments(group_ends: list[int]) -> list[int]:
    """Return the ends of the segments: the ends of groups after `SEGMENT` or more numbers, and the end of the chunk."""
    ends = [0]
    for end in group_ends[:-1]:
        if end - ends[-1] >= SEGMENT:
            ends.append(end)
    return [*ends[1:], group_ends[-1]] if ends[-1] < group_ends[-1] or len(ends) == 1 else ends[1:]


def split(numbers: Bits, kind: Kind) -> list[Plane]:
    """Return the byte planes, the most significant one first."""
    # Little-endian: the last column has the most significant bytes.
    columns = numbers.view(np.uint8).reshape(-1, kind.size)
    return [np.ascontiguousarray(columns[:, at]) for at in reversed(range(kind.size))]


def join(planes: Sequence[Plane], kind: Kind) -> Bits:
    """Reverse `split`."""
    columns = np.empty((len(planes[0]), kind.size), np.uint8)
    for at, plane in enumerate(reversed(planes)):
        columns[:, at] = plane
    return columns.reshape(-1).view(f"<u{kind.size}")


def _ordered(numbers: Bits, kind: Kind) -> Bits:
    """Flip the magnitude of negative floats, so that the order of the integers is that of the numbers; self-inverse."""
    return numbers ^ (_spread(numbers, kind) >> 1) if kind.floating else numbers


def _spread(numbers: Bits, kind: Kind) -> Bits:
    """Return all ones for numbers whose top bit is set, otherwise 0."""
    return (numbers.view(f"<i{kind.size}") >> (8 * kind.size - 1)).view(numbers.dtype)
