"""Numbers to byte planes and back: rotated by themselves (`solo`), or as steps from a base, grouped (`delta`).

All of it is arithmetic on unsigned integers modulo 2^w, the same on every platform. docs/format.md, "Numbers", has the
rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lmvp.storage.codecs.kinds import Kind
from lmvp.storage.codecs.streams import Plane

Bits = npt.NDArray[Any]
"""Unsigned integers, as wide as the numbers."""

SEGMENT = 8192
"""Numbers in a segment at least, but in the last."""


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


@dataclass(frozen=True, slots=True)
class Grouping:
    """The order in which steps are coded, and where the segments end that are coded apart.

    A step of an optimiser has about the same size everywhere, so in units of the last place it shrinks as the exponent
    grows: ordered by the exponent of the base, steps of like magnitude come to stand together. The decoder has the
    base too, so this costs no byte.
    """

    order: npt.NDArray[np.intp]
    ends: list[int]


def grouping(base: Bits, kind: Kind) -> Grouping | None:
    """Return the order and the segments of steps from a base; None where all are of one group."""
    if not kind.mask:
        return None
    groups = ((base >> kind.shift) & kind.mask).astype(np.uint8)
    order = np.argsort(groups, kind="stable")
    starts = np.searchsorted(groups, np.arange(1, kind.mask + 1, dtype=np.uint8), sorter=order)
    return Grouping(order, _segments(starts.tolist(), len(base)))


def _segments(starts: list[int], size: int) -> list[int]:
    """Return where segments end: at the start of a group, as soon as there are enough numbers before it."""
    ends = [0]
    for start in starts:
        if start - ends[-1] >= SEGMENT:
            ends.append(start)
    return [*ends[1:], size] if ends[-1] < size else ends[1:]


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
