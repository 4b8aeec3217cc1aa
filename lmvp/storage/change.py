"""How much the numbers of a tensor changed between versions: what shades the layer strip and feeds `diff`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from lmvp.storage.safetensors import BITS
from lmvp.storage.values import floats

_BLOCK = 1 << 18
"""Bytes that are taken at once: small enough for a processor's cache."""

_HUGE = 1e150
"""From here on a square may be beyond a float64: such values are treated like infinite ones."""


@dataclass(frozen=True, slots=True)
class Change:
    """How much some numbers changed; `+` adds the changes of other numbers, say of a tensor's next chunk.

    Attributes
    ----------
    count, changed : int
        Numbers there are, and those of which a bit differs. A complex number counts once.
    squares : float
        Sum of the squared differences. What is not finite on either side is left out, here and below.
    base_squares, after_squares : float
        Sums of the squares of the base, and of the data.
    largest : float
        The largest absolute difference.

    Examples
    --------
    >>> import struct
    >>> change = measure(struct.pack("<3f", 3, 4, 6), struct.pack("<3f", 3, 4, 5), "F32")
    >>> change.count, change.changed, change.largest, round(change.relative, 4), round((change + change).share, 4)
    (3, 1, 1.0, 0.1414, 0.3333)
    """

    count: int = 0
    changed: int = 0
    squares: float = 0.0
    base_squares: float = 0.0
    largest: float = 0.0
    after_squares: float = 0.0

    def __add__(self, other: Change) -> Change:
        return Change(
            self.count + other.count,
            self.changed + other.changed,
            self.squares + other.squares,
            self.base_squares + other.base_squares,
            max(self.largest, other.largest),
            self.after_squares + other.after_squares,
        )

    @property
    def relative(self) -> float:
        """The L2 norm of the difference over that of the base; infinite where all of the base is zero."""
        if not self.squares:
            return 0.0
        return math.sqrt(self.squares / self.base_squares) if self.base_squares else math.inf

    @property
    def share(self) -> float:
        """The share of the numbers that changed, 0 to 1."""
        return self.changed / self.count if self.count else 0.0


def measure(data: Any, base: Any, dtype: str) -> Change:
    """Return how much numbers changed since a base of the same dtype and length.

    Numbers below 8 bits are counted, but their differences are not summed.

    Parameters
    ----------
    data, base : bytes-like
        Of the same length. Bytes beyond the last whole number are left out.
    dtype : str
        As safetensors writes it: `"BF16"`.
    """
    assert len(data) == len(base), "a base of another length"
    step = _BLOCK * 3 // 4 if BITS[dtype] == 6 else _BLOCK
    new, old = memoryview(data), memoryview(base)
    total = Change()
    for at in range(0, len(new), step):
        total += _measure(new[at : at + step], old[at : at + step], dtype)
    return total


def _measure(data: memoryview, base: memoryview, dtype: str) -> Change:
    import numpy as np

    size, bits = len(data) * 8 // BITS[dtype], BITS[dtype]
    if bits < 8:
        differ = np.frombuffer(data, np.uint8) ^ np.frombuffer(base, np.uint8)
        each = np.unpackbits(differ, bitorder="little")[: size * bits].reshape(size, bits)
        return Change(size, int(np.count_nonzero(each.any(axis=1))))
    new, old = (np.frombuffer(side, f"<u{bits // 8}", size) for side in (data, base))
    changed = int(np.count_nonzero(new != old))
    with np.errstate(all="ignore"):
        before = floats(old, dtype)
        if not changed:
            same = _sums(before * 0, before)[1]
            return Change(size, 0, 0.0, same, 0.0, same)
        return Change(size, changed, *_sums(floats(new, dtype) - before, before))


def _sums(step: Any, before: Any) -> tuple[float, float, float, float]:
    """Return the sums of squares of the steps and of what was before, the largest step, and the squares after."""
    import numpy as np

    squares, base_squares = float(step @ step), float(before @ before)
    if not math.isfinite(squares + base_squares):
        kept = (np.abs(step) < _HUGE) & (np.abs(before) < _HUGE)
        step, before = step[kept], before[kept]
        squares, base_squares = float(step @ step), float(before @ before)
    largest = max(float(step.max()), -float(step.min())) if len(step) else 0.0
    return squares, base_squares, largest, max(0.0, base_squares + 2 * float(step @ before) + squares)
