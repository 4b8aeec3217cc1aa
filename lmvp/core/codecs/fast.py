"""Loops of the delta codec in machine code, compiled by numba: the same result as `numbers.Grouping`, in one pass.

The first delta loads this module if numba is installed (the extra `fast`). All arithmetic uses unsigned 64-bit integers
that are masked to the width of the numbers, because numba's promotion rules for narrower integers differ from numpy's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numba
import numpy as np
import numpy.typing as npt

from lmvp.core.codecs import numbers
from lmvp.core.codecs.kinds import Kind
from lmvp.core.codecs.numbers import Bits
from lmvp.core.codecs.streams import Plane

Loop = TypeVar("Loop", bound=Callable[..., Any])

# nogil: several threads decode at once. cache: compiling takes seconds.
_compiled: Callable[[Loop], Loop] = numba.njit(nogil=True, cache=True)
_ONE, _BYTE = np.uint64(1), np.uint64(8)


class Grouping:
    """The numba implementation of `numbers.Grouping`."""

    def __init__(self, base: Bits, kind: Kind) -> None:
        self._base, self._kind = base, kind
        self._group = np.uint64(kind.shift), np.uint64(kind.mask)
        counts = _count(base, *self._group, np.zeros(kind.mask + 1, np.intp))
        ends = np.cumsum(counts)
        self._starts = ends - counts
        self.ends = numbers.segments(ends.tolist())

    def planes(self, numbers: Bits) -> list[Plane]:
        """Return the planes of the steps from the base, ordered by group."""
        planes = np.empty((self._kind.size, len(numbers)), np.uint8)
        _spread(numbers, self._base, *self._group, self._starts.copy(), planes)
        return list(planes)

    def numbers(self, planes: Sequence[Plane]) -> Bits:
        """Reverse `planes`."""
        numbers = np.empty_like(self._base)
        _collect(np.stack(planes), self._base, *self._group, self._starts.copy(), numbers)
        return numbers


@_compiled
def _count(base: Bits, shift: np.uint64, mask: np.uint64, counts: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    for number in base:  # pragma: no cover - machine code
        counts[(np.uint64(number) >> shift) & mask] += 1
    return counts


@_compiled
def _spread(  # pragma: no cover - machine code
    new: Bits,
    base: Bits,
    shift: np.uint64,
    mask: np.uint64,
    places: npt.NDArray[np.intp],
    planes: npt.NDArray[np.uint8],
) -> None:
    size = planes.shape[0]
    sign, low, every = _bits_of(size)
    for at in range(len(new)):
        old = np.uint64(base[at])
        # Difference and zig-zag coding; see docs/format.md, "delta".
        step = (_ordered(np.uint64(new[at]), sign, low) - _ordered(old, sign, low)) & every
        coded = ((step << _ONE) ^ (every if step >> sign else np.uint64(0))) & every
        group = (old >> shift) & mask
        # Counting sort: `places` has the next free position of each group.
        place = places[group]
        places[group] = place + 1
        for plane in range(size - 1, -1, -1):
            planes[plane, place] = np.uint8(coded & np.uint64(255))
            coded >>= _BYTE


@_compiled
def _collect(  # pragma: no cover - machine code
    planes: npt.NDArray[np.uint8],
    base: Bits,
    shift: np.uint64,
    mask: np.uint64,
    places: npt.NDArray[np.intp],
    new: Bits,
) -> None:
    size = planes.shape[0]
    sign, low, every = _bits_of(size)
    for at in range(len(new)):
        old = np.uint64(base[at])
        group = (old >> shift) & mask
        place = places[group]
        places[group] = place + 1
        coded = np.uint64(0)
        for plane in range(size):
            coded = (coded << _BYTE) | np.uint64(planes[plane, place])
        step = (coded >> _ONE) ^ (every if coded & _ONE else np.uint64(0))
        new[at] = _ordered((step + _ordered(old, sign, low)) & every, sign, low)


@_compiled
def _bits_of(size: int) -> tuple[np.uint64, np.uint64, np.uint64]:  # pragma: no cover - machine code
    """Return the index of the sign bit of numbers of `size` bytes, the mask of the bits below it, and the full mask."""
    sign = np.uint64(8 * size - 1)
    low = (_ONE << sign) - _ONE
    return sign, low, low | (_ONE << sign)


@_compiled
def _ordered(bits: np.uint64, sign: np.uint64, low: np.uint64) -> np.uint64:  # pragma: no cover - machine code
    return bits ^ low if bits >> sign else bits
