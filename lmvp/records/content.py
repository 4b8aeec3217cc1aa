"""What is told of the content of versions: layers, how far they moved, how their numbers are spread."""

from __future__ import annotations

import math

import msgspec

from lmvp.records.frozen import copied, freeze_fields
from lmvp.records.values import Struct, WireFloat, decode_float, encode_float


class Layer(Struct, frozen=True, kw_only=True):
    """One layer on the shared axis of strips: a module, or a lone tensor.

    Attributes
    ----------
    path : str
        The tensors' names up to the last dot: `blocks.0.attn.qkv`.
    group : str
        The path up to its block index: `blocks.0`; strips leave a wider gap between groups.
    size : int
        How many numbers it holds, the largest over the versions.
    """

    path: str
    group: str
    size: int


IDENTICAL, CHANGED, NEW, ABSENT = "0", "x", "+", "."
"""One character a layer in `Layers.strips`: byte-identical to the parent; changed by an unknown amount; new or
reshaped; not in this version. `1` to `5` are changed by less than 0.1 %, 1 %, 5 %, 20 %, and more."""


class Layers(Struct, frozen=True, kw_only=True):
    """What changed, layer by layer, in some versions of a model; all on one axis.

    Attributes
    ----------
    axis : tuple of Layer
        The union of the layers of the versions, in model order.
    strips : dict
        By version number (a str, as JSON wants it): one character per layer of the axis, see `IDENTICAL`.
    """

    axis: tuple[Layer, ...] = ()
    strips: dict[str, str] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        freeze_fields(self, ("strips",), copied, "the layers")


class Amount(Struct, frozen=True, kw_only=True):
    """How much the numbers of a tensor changed. Amounts of tensors add up to that of their layer.

    Attributes
    ----------
    count, changed : int
        How many numbers there are, and how many of them are other ones.
    squares, base_squares : float
        Sums of the squares of the differences, and of the numbers before; without those that are not finite.
    largest : float
        The largest difference, without sign.
    after_squares : float, optional
        Sum of the squares of the numbers after; what was measured by an early server lacks it.

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
        """The share of the numbers that changed, 0 to 1."""
        return self.changed / self.count if self.count else 0.0

    @property
    def relative(self) -> float:
        """‖w − w₀‖ / ‖w₀‖, in the Euclidean norm; infinite where all was zero before, or beyond float64."""
        squares, base = decode_float(self.squares), decode_float(self.base_squares)
        if not squares:
            return 0.0
        if not math.isfinite(squares):  # the quotient of two sums beyond float64 is NaN
            return math.inf
        return math.sqrt(squares / base) if base else math.inf

    @property
    def cosine(self) -> float | None:
        """The cosine of the angle between the numbers before and after, -1 to 1.

        None if either is all zero, or a sum of squares is beyond float64.
        """
        if self.after_squares is None:
            return None
        squares, base, after = (decode_float(x) for x in (self.squares, self.base_squares, self.after_squares))
        if not base or not after or not math.isfinite(base + after + squares):
            return None
        return max(-1.0, min(1.0, (base + after - squares) / (2 * math.sqrt(base) * math.sqrt(after))))

    def __add__(self, other: Amount) -> Amount:
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
    """How much a version changed since another one.

    Attributes
    ----------
    against : str
        Digest of the other one.
    tensors : dict of str to Amount
        By name: all tensors of the layers that changed, as far as they kept their shape and dtype.
    """

    against: str
    tensors: dict[str, Amount] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        freeze_fields(self, ("tensors",), copied, "a comparison")


class Histogram(Struct, frozen=True, kw_only=True):
    """How the numbers of a tensor are spread.

    Attributes
    ----------
    low, high : float
        The ends of the first and the last bin.
    counts : tuple of int
        How many numbers lie in each of the bins, which are equally wide.
    count, zeros, odd : int
        Numbers that were looked at, those that are zero, and those that are not finite.
    mean, deviation : float
        Of those that are finite; the standard deviation.
    sampled : bool
        Whether only a part was looked at, since there are so many.
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
    """Histograms by the names of tensors; `before` where another version was asked for too, on the same bins."""

    tensors: dict[str, Histogram]
    before: dict[str, Histogram] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        freeze_fields(self, ("tensors", "before"), copied, "a comparison")


class Received(Struct, frozen=True, kw_only=True):
    """The answer to frames: how many chunks the push still lacks."""

    missing_count: int
