"""Decoding of tensor bytes to numbers, for every dtype, and statistics of the numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lmvp.core.safetensors import BITS


@dataclass(frozen=True, slots=True)
class Spread:
    """Statistics of a set of numbers; `+` combines the statistics of two sets.

    Attributes
    ----------
    count, zeros, odd : int
        Counts of all numbers, of zeros, and of numbers that are not finite.
    low, high, total, squares : float
        Minimum, maximum, sum, and sum of squares of the finite numbers.

    Examples
    --------
    >>> one = Spread.of(bytes([0, 60, 0, 188, 0, 126]), "F16")
    >>> one.count, one.odd, one.low, one.high, (one + one).mean, one.deviation
    (3, 1, -1.0, 1.0, 0.0, 1.0)
    """

    count: int = 0
    zeros: int = 0
    odd: int = 0
    low: float = math.inf
    high: float = -math.inf
    total: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, data: Any, dtype: str) -> Spread:
        """Decode bytes and compute the statistics of the numbers; see `numbers_of`."""
        import numpy as np

        values = numbers_of(data, dtype)
        known = values[np.isfinite(values)]
        zeros, odd = int((values == 0).sum()), len(values) - len(known)
        if not len(known):
            return cls(len(values), zeros, odd)
        with np.errstate(all="ignore"):  # sums of very large numbers can overflow to infinity
            total, squares = float(known.sum()), float(known @ known)
        return cls(len(values), zeros, odd, float(known.min()), float(known.max()), total, squares)

    def __add__(self, other: Spread) -> Spread:
        return Spread(
            self.count + other.count,
            self.zeros + other.zeros,
            self.odd + other.odd,
            min(self.low, other.low),
            max(self.high, other.high),
            self.total + other.total,
            self.squares + other.squares,
        )

    @property
    def finite(self) -> int:
        """Number of finite values."""
        return self.count - self.odd

    @property
    def mean(self) -> float:
        """Mean of the finite numbers; NaN if there are no such numbers."""
        return self.total / self.finite if self.finite else math.nan

    @property
    def deviation(self) -> float:
        """Standard deviation of the finite numbers; NaN if there are no such numbers or the squares overflow."""
        if not self.finite or not math.isfinite(self.squares):
            return math.nan
        # A variance near zero can be negative after rounding.
        return math.sqrt(max(0.0, self.squares / self.finite - self.mean**2))


def counts(data: Any, dtype: str, low: float, high: float, bins: int) -> list[int]:
    """Return a histogram: the number of values in each bin, with bins of equal width from `low` to `high`.

    Examples
    --------
    >>> counts(bytes([1, 2, 2, 9]), "U8", 1, 9, 2)
    [3, 1]
    """
    import numpy as np

    values = numbers_of(data, dtype)
    known = values[np.isfinite(values)]
    with np.errstate(all="ignore"):
        try:
            found = np.histogram(known, bins, (low, high))[0]
        except ValueError:  # numpy: the range has too few float64 values for the bins, or its width overflows
            found = np.bincount(_bins_of(known, low, high, bins), minlength=bins)
    return [int(count) for count in found]


def _bins_of(values: Any, low: float, high: float, bins: int) -> Any:
    """Return the bin of each number, from its relative position in the range; the middle bin if `low` is `high`."""
    import numpy as np

    if math.isinf(high - low):  # halves have the same relative position, and their difference is finite
        values, low, high = values / 2, low / 2, high / 2
    shares = (values - low) / (high - low) if high > low else np.full(len(values), 0.5)
    return np.clip(shares * bins, 0, bins - 1).astype(np.int64)


def numbers_of(data: Any, dtype: str) -> Any:
    """Decode bytes to a float64 array. Bytes after the last complete number are ignored.

    Parameters
    ----------
    dtype : str
        A safetensors dtype of at least 8 bits. A complex value is decoded as two numbers.

    Examples
    --------
    >>> numbers_of(bytes([0, 60, 0, 188]), "F16")
    array([ 1., -1.])
    """
    import numpy as np

    width = min(BITS[dtype], 64) // 8
    return floats(np.frombuffer(data, f"<u{width}", len(data) // width), dtype)


def floats(bits: Any, dtype: str) -> Any:
    """Convert bit patterns, stored as unsigned integers, to float64."""
    import numpy as np

    if dtype == "BF16":  # BF16 is the upper half of an F32
        bits, dtype = bits.astype(np.uint32) << 16, "F32"
    if dtype in _EIGHT_BITS:
        # numpy has no floats of 8 bits, but there are only 256 values to look up.
        return np.array([_EIGHT_BITS[dtype](value) for value in range(256)])[bits]
    kind = {"B": "u", "U": "u", "I": "i", "F": "f", "C": "f"}[dtype[0]]
    width = 4 if dtype == "C64" else bits.itemsize
    return bits.view(f"<{kind}{width}").astype(np.float64)


def _small(exponent_bits: int, mantissa_bits: int, bias: int, is_nan: Callable[[int], bool]) -> Callable[[int], float]:
    """Return a function that converts the 8 bits of a small float to its value; NaN if it is not a finite number."""

    def value(bits: int) -> float:
        if is_nan(bits):
            return math.nan
        exponent = bits >> mantissa_bits & ((1 << exponent_bits) - 1)
        mantissa = bits & ((1 << mantissa_bits) - 1)
        # Exponent 0 marks subnormal numbers, which have no implicit leading one.
        whole = mantissa | (1 << mantissa_bits) if exponent else mantissa
        magnitude = math.ldexp(whole, max(exponent, 1) - bias - mantissa_bits)
        return -magnitude if bits & 0x80 else magnitude

    return value


_EIGHT_BITS: dict[str, Callable[[int], float]] = {
    "F8_E4M3": _small(4, 3, 7, lambda bits: bits & 0x7F == 0x7F),
    "F8_E5M2": _small(5, 2, 15, lambda bits: bits & 0x7C == 0x7C),
    "F8_E4M3FNUZ": _small(4, 3, 8, lambda bits: bits == 0x80),
    "F8_E5M2FNUZ": _small(5, 2, 16, lambda bits: bits == 0x80),
    "F8_E8M0": lambda bits: math.nan if bits == 0xFF else math.ldexp(1, bits - 127),
}
"""Converters of 8-bit floats, by the "8-bit Floating Point Specification" of OCP, and for FNUZ of Graphcore and AMD."""
