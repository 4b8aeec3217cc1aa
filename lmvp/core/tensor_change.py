"""Amount by which the numbers of a tensor changed between versions, for the layer strip and `diff`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from lmvp.core.safetensors import BITS
from lmvp.core.tensor_values import floats

_BLOCK = 1 << 18
"""Bytes that are processed at once; a block fits into the cache of a processor."""

_HUGE = 1e150
"""Squares of values above this can exceed float64. Such values are treated as infinite."""


@dataclass(frozen=True, slots=True)
class Change:
    """The change of some numbers; `+` adds changes of other numbers, for example of the next chunk of a tensor.

    Attributes
    ----------
    count, changed : int
        Count of the numbers, and of those in which at least one bit differs. A complex number counts once.
    squares : float
        Sum of the squared differences. This and the other sums omit numbers that are not finite on either side.
    base_squares, after_squares : float
        Sums of the squares of the base and of the data.
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
        """L2 norm of the difference divided by that of the base; infinite if the base is all zeros."""
        if not self.squares:
            return 0.0
        return math.sqrt(self.squares / self.base_squares) if self.base_squares else math.inf

    @property
    def share(self) -> float:
        """The fraction of the numbers that changed, 0 to 1."""
        return self.changed / self.count if self.count else 0.0


def measure(data: Any, base: Any, dtype: str) -> Change:
    """Measure the change of numbers from a base of the same dtype and length.

    Numbers of less than 8 bits are counted, but their differences are not summed.

    Parameters
    ----------
    data, base : bytes-like
        Buffers of the same length. Bytes after the last whole number are ignored.
    dtype : str
        A dtype of safetensors, for example `"BF16"`.
    """
    assert len(data) == len(base), "a base of another length"
    # Numbers of 6 bits need a block that is a multiple of 3 bytes.
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
    with np.errstate(all="ignore"):  # NaN and infinity are normal here; `_sums` omits them
        before = floats(old, dtype)
        if not changed:  # skip the subtraction; `before * 0` still marks numbers that are not finite
            same = _sums(before * 0, before)[1]
            return Change(size, 0, 0.0, same, 0.0, same)
        return Change(size, changed, *_sums(floats(new, dtype) - before, before))


def _sums(step: Any, before: Any) -> tuple[float, float, float, float]:
    """Return the sum of squared steps, the sum of squares before, the largest step, and the sum of squares after."""
    import numpy as np

    squares, base_squares = float(step @ step), float(before @ before)
    # Filter only if a sum shows that it is necessary: the mask costs more than the sums.
    if not math.isfinite(squares + base_squares):
        kept = (np.abs(step) < _HUGE) & (np.abs(before) < _HUGE)
        step, before = step[kept], before[kept]
        squares, base_squares = float(step @ step), float(before @ before)
    largest = max(float(step.max()), -float(step.min())) if len(step) else 0.0
    # ‖before + step‖² from the products, without an array of the numbers after. The result can be negative by rounding.
    return squares, base_squares, largest, max(0.0, base_squares + 2 * float(step @ before) + squares)
