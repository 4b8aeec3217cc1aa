"""Axes of charts that show every run. Outliers are not cut off."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from lmvp.core import number_format

_FAR = 10.0
"""The ratio of the largest and smallest value from which an axis is logarithmic, as for most learning rates."""
_FEW = 2.5
"""Up to this number of decades, a logarithmic axis also has ticks at 3, 30, …"""


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear or logarithmic axis.

    Attributes
    ----------
    low, high : float
        The values at both ends.
    powers : bool
        Whether the axis is logarithmic.
    """

    low: float
    high: float
    powers: bool

    @classmethod
    def over(cls, values: Iterable[float]) -> Axis:
        """Return an axis that includes all of the given finite numbers.

        Examples
        --------
        >>> Axis.over([1.0, 2.0, 3.0, 4.0, 90.0])
        Axis(low=1.0, high=90.0, powers=True)
        >>> Axis.over([0.0, 2.0, 3.0, 4.0, 90.0])
        Axis(low=0.0, high=100.0, powers=False)
        """
        found = list(values)
        least, most = min(found), max(found)
        # A logarithm needs positive values. Zero or negative values force a linear axis.
        if least > 0 and most / least >= _FAR:
            return cls(least, most, powers=True)
        return cls(*number_format.scale([least, most]), powers=False)

    def place(self, value: float) -> float:
        """Return the position of a value on the axis, from 0 to 1.

        Examples
        --------
        >>> Axis(0.001, 10.0, powers=True).place(0.1)
        0.5
        """
        if self.powers:
            return number_format.share(math.log10(value), math.log10(self.low), math.log10(self.high))
        return number_format.share(value, self.low, self.high)

    def ticks(self) -> list[tuple[float, str]]:
        """Return the values of the ticks with their labels.

        Examples
        --------
        >>> Axis(0.0005, 0.02, powers=True).ticks()
        [(0.001, '0.001'), (0.003, '0.003'), (0.01, '0.01')]
        >>> [words for _, words in Axis(0.0, 1.0, powers=False).ticks()]
        ['0.0', '0.2', '0.4', '0.6', '0.8', '1.0']
        """
        if not self.powers:
            found = number_format.ticks(self.low, self.high)
            return list(zip(found, number_format.ends(*found), strict=True))
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        # About 6 ticks fit, so a wide axis has a tick only at every n-th power.
        every = max(1, round((last - first) / 6))
        heads = (1, 3) if math.log10(self.high) - math.log10(self.low) < _FEW else (1,)
        powers = [float(f"{head}e{power}") for power in range(first, last + 1, every) for head in heads]
        near = 1 + 1e-9  # rounding of powers of ten must not remove a tick at an end
        inside = [tick for tick in powers if math.isfinite(tick) and self.low / near <= tick <= self.high * near]
        return [(tick, number_format.ends(tick)[0]) for tick in inside]
