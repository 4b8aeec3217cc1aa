"""Response schemas for the content of versions: layers, changes of tensors, histograms."""

from __future__ import annotations

import math

import msgspec

from lmvp.core.schemas.base import (
    Struct,
    WireFloat,
    copied,
    decode_float,
    encode_float,
    freeze_fields,
)


class Layer(Struct, frozen=True, kw_only=True):
    """A layer on the shared axis of layer strips: a module or a single tensor.

    Attributes
    ----------
    path : str
        The common part of the names of its tensors, up to the last dot: `blocks.0.attn.qkv`.
    group : str
        The path up to the block index: `blocks.0`. Strips draw a wider gap between groups.
    size : int
        The count of its numbers; the largest one if the versions differ.
    """

    path: str
    group: str
    size: int


IDENTICAL, CHANGED, NEW, ABSENT = "0", "x", "+", "."
"""States of a layer in `Layers.strips`, one character each: byte-identical to the parent, changed by an unknown
amount, new or reshaped, not in this version. A changed layer of known amount is `1` to `5`: less than 0.1 %, 1 %, 5 %,
20 %, or more."""


class Layers(Struct, frozen=True, kw_only=True):
    """The layer strips of several versions of a model, on one axis.

    Attributes
    ----------
    axis : tuple of Layer
        The union of the layers of the versions, in model order.
    strips : dict
        One character per layer of the axis, by version number; see `IDENTICAL`. The keys are strings because JSON has
        no other keys.
    """

    axis: tuple[Layer, ...] = ()
    strips: dict[str, str] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        freeze_fields(self, ("strips",), copied, "the layers")


class Amount(Struct, frozen=True, kw_only=True):
    """The amount by which the numbers of a tensor changed. The sum over the tensors of a layer is that of the layer.

    Attributes
    ----------
    count, changed : int
        The count of the numbers, and of those that differ.
    squares, base_squares : float
        Sums of the squares of the differences and of the numbers before. Numbers that are not finite are left out.
    largest : float
        The largest absolute difference.
    after_squares : float, optional
        Sum of the squares of the numbers after; None for amounts that an early server computed.

    Examples
    --------
    >>> weight = Amount(count=4, changed=2, squares=0.5, base_squares=1.5, largest=0.5)
    >>> both = weight + Amount(count=1, changed=0, squares=0.0, base_squares=0.5, largest=0.0)
    >>> both.share, both.relative
    (0.4, 0.5)
    """

    count: int
    changed: int
    squares: WireFloat
    base_squares: WireFloat
    largest: WireFloat
    after_squares: WireFloat | None = None

    @property
    def share(self) -> float:
        """The fraction of the numbers that changed, 0 to 1."""
        return self.changed / self.count if self.count else 0.0

    @property
    def relative(self) -> float:
        """‖w − w₀‖ / ‖w₀‖ in the Euclidean norm; infinite if all numbers were zero before or a sum exceeds float64."""
        squares, base = decode_float(self.squares), decode_float(self.base_squares)
        if not squares:
            return 0.0
        if not math.isfinite(squares):  # the quotient of two sums beyond float64 is NaN
            return math.inf
        return math.sqrt(squares / base) if base else math.inf

    @property
    def cosine(self) -> float | None:
        """The cosine of the angle between the numbers before and after, -1 to 1.

        None if one side is all zero, if a sum of squares exceeds float64, or if `after_squares` is missing.
        """
        if self.after_squares is None:
            return None
        squares, base, after = (decode_float(x) for x in (self.squares, self.base_squares, self.after_squares))
        if not base or not after or not math.isfinite(base + after + squares):
            return None
        # The law of cosines: 2·w·w₀ = ‖w‖² + ‖w₀‖² − ‖w − w₀‖². Rounding can exceed ±1 slightly, so clamp.
        return max(-1.0, min(1.0, (base + after - squares) / (2 * math.sqrt(base) * math.sqrt(after))))

    def __add__(self, other: Amount) -> Amount:
        # Without one of the two, the sum would describe only a part of the layer.
        known = self.after_squares is not None and other.after_squares is not None
        return Amount(
            count=self.count + other.count,
            changed=self.changed + other.changed,
            squares=encode_float(decode_float(self.squares) + decode_float(other.squares)),
            base_squares=encode_float(decode_float(self.base_squares) + decode_float(other.base_squares)),
            largest=encode_float(max(decode_float(self.largest), decode_float(other.largest))),
            after_squares=encode_float(decode_float(self.after_squares) + decode_float(other.after_squares))  # type: ignore[arg-type]
            if known
            else None,
        )


class Changes(Struct, frozen=True, kw_only=True):
    """The changes of a version since another version.

    Attributes
    ----------
    against : str
        Digest of the other version.
    tensors : dict of str to Amount
        Amounts by tensor name, for all tensors of the changed layers that have the same shape and dtype in both
        versions.
    """

    against: str
    tensors: dict[str, Amount] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        freeze_fields(self, ("tensors",), copied, "a comparison")


class Histogram(Struct, frozen=True, kw_only=True):
    """The distribution of the numbers of a tensor.

    Attributes
    ----------
    low, high : float
        Lower edge of the first bin and upper edge of the last one.
    counts : tuple of int
        The count of the numbers in each bin. All bins have the same width.
    count, zeros, odd : int
        The counts of the numbers that were examined, of those that are zero, and of those that are not finite.
    mean, deviation : float
        Mean and standard deviation of the finite numbers.
    sampled : bool
        Whether only a sample of a large tensor was examined.
    """

    low: WireFloat
    high: WireFloat
    counts: tuple[int, ...]
    count: int
    zeros: int
    odd: int
    mean: WireFloat
    deviation: WireFloat
    sampled: bool = False


class Histograms(Struct, frozen=True, kw_only=True):
    """Histograms by tensor name.

    Attributes
    ----------
    tensors : dict of str to Histogram
        Histograms of the version.
    before : dict of str to Histogram
        Histograms of the version that it is compared with, over the same bins; empty without one.
    """

    tensors: dict[str, Histogram]
    before: dict[str, Histogram] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        freeze_fields(self, ("tensors", "before"), copied, "a comparison")


class Received(Struct, frozen=True, kw_only=True):
    """The response to uploaded frames: the number of chunks that the push still lacks."""

    missing_count: int
