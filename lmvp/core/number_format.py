"""Formatting of sizes, times and metrics, and the ranges and ticks of axes.

All functions accept any float64, including infinities, NaN and values near the limits, because metrics come from other
users. `axes.js` has the JavaScript versions of the functions for axes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from decimal import Decimal

MINUS = "−"
"""The minus sign U+2212, which has the width of a plus sign and of digits; a hyphen is narrower."""

MOST_DIGITS = 6
"""Maximum number of decimals in a column; smaller values get an exponent."""
_EXACT = 11
"""One more than the maximum number of decimals of a tick without an exponent."""

LIMIT, TINY = 1e300, 1e-11
"""The greatest value of an axis, and the relative difference below which values are drawn as equal.

The limit leaves a margin to the maximum of float64, 1.8e308, so that differences and rounding do not overflow.
"""

_LONGEST = 1e15
"""Seconds from which a time is written with an exponent."""

_INFINITE = (math.inf, -math.inf)

_LEAST_SHARE = 1e-12
"""A smaller share is written with an exponent."""

# Words in the names of metrics that imply whether a lower or a higher value is better.
_LOWER_IS_BETTER = {"loss", "err", "error", "mae", "mse", "rmse", "nll", "perplexity", "ppl", "latency", "wer", "cer"}
_LOWER_IS_BETTER |= {"eer", "fid", "ece", "brier", "time", "ms", "seconds", "bytes"}
_HIGHER_IS_BETTER = {"acc", "accuracy", "f1", "auc", "auroc", "precision", "recall", "score", "r2", "bleu", "rouge"}
_HIGHER_IS_BETTER |= {"map", "iou", "dice", "snr", "top1", "top5", "mcc", "ndcg", "mrr", "reward"}


def real(value: float) -> float:
    """Return a number as float64; an integer out of its range becomes infinite.

    Examples
    --------
    >>> real(3), real(10**309), real(-(10**309))
    (3.0, inf, -inf)
    """
    try:
        return float(value)
    except OverflowError:
        return math.copysign(math.inf, value > 0 or -1)


def share(value: float, low: float, high: float) -> float:
    """Return the relative position of a finite number between two ends: 0 at or below `low`, 1 at or above `high`.

    Examples
    --------
    >>> share(1.0, 0.0, 4.0), share(0.0, -1.7e308, 1.7e308), share(5e-324, 0.0, 1e-323), share(1.0, 1.0, 1.0)
    (0.25, 0.5, 0.5, 0.5)
    """
    if math.isinf(high - low):  # the range overflows, but half of it does not
        value, low, high = value / 2, low / 2, high / 2
    return min(1.0, max(0.0, (value - low) / (high - low))) if high != low else 0.5


def mean(values: Sequence[float]) -> float:
    """Return the mean of finite numbers, even if their sum overflows.

    Examples
    --------
    >>> mean([1.0, 2.0]), mean([1.7e308, 1.7e308])
    (1.5, 1.7e+308)
    """
    total = sum(values)
    return total / len(values) if math.isfinite(total) else sum(value / len(values) for value in values)


def size(count: float) -> str:
    """Format a number of bytes in units of 1000.

    Examples
    --------
    >>> [size(n) for n in (0, 999, 135_000, 19_800_000, 5e12)]
    ['0 B', '999 B', '135 kB', '19.8 MB', '5.0 TB']
    """
    count = real(count)
    for bound, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= bound * 0.9995:  # from here on, the smaller unit would round to "1000.0"
            return f"{count / bound:.1f} {unit}"
    return f"{count / 1e3:.0f} kB" if count >= 999.5 else f"{count:.0f} B"


def stamp(at: datetime) -> str:
    """Format a time in UTC to the minute.

    Examples
    --------
    >>> stamp(datetime(2026, 11, 20, 13, 41, 30, tzinfo=timezone.utc))
    '2026-11-20 13:41'
    """
    return _utc(at).strftime("%Y-%m-%d %H:%M")


def iso(at: datetime) -> str:
    """Format a time in UTC as ISO 8601 to the second: `2026-11-20T13:41:30Z`."""
    return _utc(at).strftime("%Y-%m-%dT%H:%M:%SZ")


def _utc(at: datetime) -> datetime:
    try:
        return at.replace(tzinfo=timezone.utc) if at.tzinfo is None else at.astimezone(timezone.utc)
    except OverflowError:  # a server can send a time that is out of the years 1 to 9999 in UTC
        return at


def versions_with_trash(versions: int, removed: int) -> str:
    """Format a number of versions that includes those in the trash.

    Examples
    --------
    >>> versions_with_trash(7, 1), versions_with_trash(1, 0)
    ('7 versions (1 in the trash)', '1 version')
    """
    return plural(versions, "version") + (f" ({removed:,} in the trash)" if removed else "")


def plural(count: int, noun: str) -> str:
    """Format a count with its noun: `1 version`, `1,200 versions`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def column(values: Iterable[float | None]) -> list[str]:
    """Format the values of a column with the same number of decimals.

    Values of very different size, for example learning rates, get four significant digits each instead. None becomes an
    empty string.

    Parameters
    ----------
    values : iterable of float or None

    Returns
    -------
    list of str

    Examples
    --------
    >>> column([0.871, 0.8, None, float("nan"), float("-inf")])
    ['0.871', '0.800', '', 'NaN', '−Inf']
    >>> column([-1200, 15]), column([0.99912, 0.99934]), column([1e-9, 2.5e12])
    (['−1,200', '15'], ['0.99912', '0.99934'], ['1.00e−09', '2.50e+12'])
    >>> column([0.5, 7.5e-05, 0.0]), column([12.345, 0.4567])
    (['0.5', '7.5e−05', '0'], ['12.35', '0.4567'])

    An integer out of the range of float64 is not written as infinity.

    >>> column([-(10**400), 1.0])
    ['−1.00e+400', '1']
    """
    values = list(values)
    floats = [None if v is None else real(v) for v in values]
    finite = [v for v in floats if v is not None and math.isfinite(v)]
    digits = _digits(finite)
    written = [_write(v, digits) for v in floats] if _tell(finite, digits) else [significant(v) for v in floats]
    return [
        _beyond(Decimal(v)) if v is not None and math.isinf(real(v)) and v not in _INFINITE else words
        for v, words in zip(values, written, strict=True)
    ]


def _beyond(value: Decimal) -> str:
    """Format a number that is out of the range of float64."""
    return f"{value:.2e}".replace("-", MINUS)


def _tell(finite: Sequence[float], digits: int | None) -> bool:
    """Return whether rounding to `digits` decimals changes each value by at most 1 %."""
    return digits is None or all(abs(round(v, digits) - v) <= abs(v) / 100 for v in finite)


def significant(value: float | None) -> str:
    """Format a number with four significant digits.

    Examples
    --------
    >>> [significant(v) for v in (7.5e-05, 0.0012345, 12.0, 1234.5, 1_234_567.0, 3e12, float("nan"))]
    ['7.5e−05', '0.001234', '12', '1,234', '1,234,567', '3e+12', 'NaN']
    """
    if value is None or not math.isfinite(value):
        return _write(value, 0)
    whole = 1000 <= abs(value) < 1e9
    return (f"{value:,.0f}" if whole else f"{value:.4g}").replace("-", MINUS)


def one(value: float) -> str:
    """Format a single number like a column of one value."""
    return column([value])[0]


def pair(before: float | None, after: float | None) -> tuple[str, str, str]:
    """Format two values and their signed difference with the same number of decimals.

    The difference is empty if a value is missing or not finite.

    Examples
    --------
    >>> pair(0.806, 0.839), pair(4.6, 4.1)
    (('0.806', '0.839', '+0.033'), ('4.60', '4.10', '−0.50'))
    """
    finite = [v for v in (before, after) if v is not None and math.isfinite(v)]
    digits = _digits(finite)
    if len(finite) == 2 and math.isinf(finite[1] - finite[0]):  # -1e308 and 1e308: the difference overflows
        change = _beyond(Decimal(finite[1]) - Decimal(finite[0]))
        return significant(before), significant(after), change if change.startswith(MINUS) else f"+{change}"
    if not _tell(finite, digits):
        change = significant(finite[1] - finite[0]) if len(finite) == 2 else ""
        plus = "+" if len(finite) == 2 and finite[1] > finite[0] else ""
        return significant(before), significant(after), f"{plus}{change}"
    step = signed(finite[1] - finite[0], digits) if len(finite) == 2 else ""
    return _write(before, digits), _write(after, digits), step


def percent(share: float) -> str:
    """Format a share or a relative change as a percentage with two significant digits.

    Examples
    --------
    >>> [percent(share) for share in (0.0, 0.000123, 0.009999, 0.0456, 0.5, 1.0, 12.3, math.inf)]
    ['0 %', '0.012 %', '1.0 %', '4.6 %', '50 %', '100 %', '1,230 %', 'from zero']

    NaN is empty. A very small or very large share has an exponent.

    >>> [percent(share) for share in (math.nan, 1e-300, 1.7e308)]
    ['', '1.0e−298 %', '1.7e+310 %']
    """
    if math.isinf(share):  # the change of a tensor that was all zeros
        return "from zero"
    if math.isnan(share):
        return ""
    if share and not _LEAST_SHARE <= share < LIMIT:
        return f"{100 * Decimal(share):.1e} %".replace("-", MINUS)
    hundred = 100 * share
    if hundred >= 100:
        return f"{float(f'{hundred:.3g}'):,.0f} %"
    rounded = float(f"{hundred:.2g}")  # 0.9999 has the digits of 1.0
    return f"{rounded:.{max(0, 1 - math.floor(math.log10(rounded)))}f} %" if rounded else "0 %"


def signed(value: float, digits: int | None) -> str:
    """Format a difference with its sign, with `digits` decimals or, if None, with an exponent."""
    text = _write(value, digits)
    if not text.strip(f"0.{MINUS}"):
        return "0"
    return text if value < 0 else f"+{text}"


def _digits(finite: Sequence[float]) -> int | None:
    """Return the number of decimals that distinguish these values; None if they need an exponent."""
    largest = max((abs(v) for v in finite), default=0.0)
    if largest == 0 or (all(v == int(v) for v in finite) and largest < 1e12):
        return 0
    spread = max(finite) - min(finite)
    needed = 2 - math.floor(math.log10(largest))
    if 0 < spread < math.inf:
        needed = max(needed, 1 - math.floor(math.log10(spread)))
    return None if needed > MOST_DIGITS + 2 or largest >= 1e9 else min(max(needed, 0), MOST_DIGITS)


def _write(value: float | None, digits: int | None) -> str:
    if value is None:
        return ""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Inf" if value > 0 else f"{MINUS}Inf"
    text = f"{value:.2e}" if digits is None else f"{value:,.{digits}f}"
    return text.replace("-", MINUS)


def better(key: str) -> int:
    """Return the better direction of a metric, from the words in its name: 1 higher, −1 lower, 0 unknown.

    Examples
    --------
    >>> better("val/f1"), better("train/loss"), better("latency_ms"), better("temperature")
    (1, -1, -1, 0)
    """
    words = set(key.lower().replace("/", "_").replace("-", "_").replace(".", "_").split("_"))
    if words & _LOWER_IS_BETTER:
        return -1
    return 1 if words & _HIGHER_IS_BETTER else 0


def scale(values: Iterable[float]) -> tuple[float, float]:
    """Return a rounded range for the small axis of metrics in a table, without far outliers.

    The table marks values out of the range. A plot shows every value and uses `bounds`.

    Examples
    --------
    >>> scale([0.412, 0.713, 0.744, 0.768, 0.791, 0.802, 0.806, 0.823, 0.848, 0.874])
    (0.7, 0.9)
    >>> scale([3.0]), scale([])
    ((2.7, 3.3), (0.0, 1.0))
    """
    finite = sorted(min(max(v, -LIMIT), LIMIT) for v in values if math.isfinite(v))
    if not finite:
        return 0.0, 1.0
    near = _without_outliers(finite)
    low, high = near[0], near[-1]
    if high - low <= TINY * max(abs(low), abs(high), TINY):  # equal values: put them in the middle
        room = abs(low) / 10 if abs(low) > TINY else 0.5
        return _clean(low - room), _clean(high + room)
    # 1e-9 absorbs rounding errors: 0.3 / 0.1 is 2.9999999999999996, which must count as 3.
    step = _nice((high - low) / 4)
    return _clean(math.floor(low / step + 1e-9) * step), _clean(math.ceil(high / step - 1e-9) * step)


def bounds(values: Iterable[float]) -> tuple[float, float]:
    """Return the rounded range of an axis that contains every finite value.

    `axes.js` computes the same range, so that the static and the live form of a plot are equal.

    Examples
    --------
    >>> bounds([1 / (i + 1) for i in range(200)]), bounds([]), bounds([3.0])
    ((0.0, 1.0), (0.0, 1.0), (2.7, 3.3))
    """
    finite = [v for v in values if math.isfinite(v)]
    return scale([min(finite), max(finite)]) if finite else scale([])


def log_bounds(values: Iterable[float]) -> tuple[float, float]:
    """Return the range of a logarithmic axis that contains every positive value; both ends have one digit.

    Examples
    --------
    >>> log_bounds([0.23, 1.7]), log_bounds([5e-4, 1.0]), log_bounds([1.0]), log_bounds([0.0])
    ((0.2, 2.0), (0.0005, 1.0), (0.1, 10.0), (1.0, 10.0))
    """
    found = [min(max(v, 1 / LIMIT), LIMIT) for v in values if math.isfinite(v) and v > 0]
    if not found:
        return 1.0, 10.0
    least, most = min(found), max(found)
    units = [10.0 ** math.floor(math.log10(v)) for v in (least, most)]
    low, high = math.floor(least / units[0] + 1e-9) * units[0], math.ceil(most / units[1] - 1e-9) * units[1]
    return (_clean(low), _clean(high)) if low < high else (_clean(low / 10), _clean(high * 10))


def log_ticks(low: float, high: float) -> list[float]:
    """Return the ticks of a logarithmic axis: powers of ten, and their multiples by 2 and 5 below three decades.

    With fewer than three such ticks, the ticks are those of a linear axis.

    Examples
    --------
    >>> log_ticks(0.2, 2.0), log_ticks(1e-6, 1.0)
    ([0.2, 0.5, 1.0, 2.0], [1e-06, 1e-05, 0.0001, 0.001, 0.01, 0.1, 1.0])
    >>> log_ticks(0.2, 0.3)
    [0.2, 0.22, 0.24, 0.26, 0.28, 0.3]
    """
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    heads = (1, 2, 5) if last - first < 3 else (1,)
    found = [_clean(head * 10.0**power) for power in range(first, last + 1, max(1, (last - first) // 6))
             for head in heads]  # fmt: skip
    inside = [tick for tick in found if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
    return inside if len(inside) > 2 else [tick for tick in ticks(low, high) if tick > 0]


def ticks(low: float, high: float) -> list[float]:
    """Return round values from `low` to `high`: four to nine if both come from `scale`.

    Examples
    --------
    >>> ticks(0.4, 1.0), ticks(0.0, 1.0)
    ([0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0], [0.0, 0.2, 0.4, 0.6, 0.8, 1.0])

    A range that float64 cannot divide has only its ends as ticks: steps near 2**62, values near 1e308.

    >>> ticks(4e18, 4e18), ticks(-1e308, 1e308)
    ([4e+18], [-1e+308, 1e+308])
    """
    if not TINY * max(abs(low), abs(high), TINY) < high - low < math.inf:
        return sorted({low, high})
    step = _nice((high - low) / 6)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [_clean(i * step) for i in range(first, last + 1)]


def ends(*values: float) -> list[str]:
    """Format the ends or ticks of an axis exactly, all with the same number of decimals.

    `labels` in `axes.js` is the JavaScript version.

    Examples
    --------
    >>> ends(0.68, 0.9), ends(0, 20000), ends(1e-12, 2e-12)
    (['0.68', '0.90'], ['0', '20,000'], ['1e−12', '2e−12'])
    >>> ends(0.0, 0.00025, 0.0005), ends(1.0000001, 1.0000002), ends(0.0, 2.5e10)
    (['0.00000', '0.00025', '0.00050'], ['1.0000001', '1.0000002'], ['0', '2.5e+10'])
    """
    values = tuple(map(_clean, values))  # 3 * 0.1 is 0.3
    most = max(map(abs, values), default=0.0)
    digits = next((n for n in range(_EXACT) if all(round(v, n) == v for v in values)), _EXACT)
    if digits < _EXACT and (most == 0 or 1e-4 <= most < 1e9):
        return [_write(v, digits) for v in values]
    digits = next((n for n in range(17) if all(float(f"{v:.{n}e}") == v for v in values)), 16)
    return [f"{v:.{digits}e}".replace("-", MINUS) if v else "0" for v in values]


def step_labels(ticks: Sequence[float]) -> list[str]:
    """Format the ticks of an axis of steps, with the units k, M and G if that is exact for all ticks.

    Examples
    --------
    >>> step_labels([0, 500, 1000, 1500]), step_labels([1_000_000, 1_000_002]), step_labels([0.0, 0.25, 0.5])
    (['0', '500', '1k', '1.5k'], ['1,000,000', '1,000,002'], ['0.00', '0.25', '0.50'])
    """
    if any(tick != int(tick) for tick in ticks):
        return ends(*ticks)
    short = [_short(tick) for tick in ticks]
    exact = all(round(tick / unit, 2) * unit == tick for tick, (unit, _) in zip(ticks, map(_unit, ticks), strict=True))
    return short if exact else [f"{tick:,.0f}".replace("-", MINUS) for tick in ticks]


_UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def _unit(value: float) -> tuple[float, str]:
    return next(((limit, letter) for limit, letter in _UNITS if abs(value) >= limit), (1.0, ""))


def _short(value: float) -> str:
    limit, letter = _unit(value)
    return f"{round(value / limit, 2):g}{letter}".replace("-", MINUS)


def time_labels(ticks: Sequence[float]) -> list[str]:
    """Format the ticks of an axis of seconds in days, hours, minutes and seconds.

    Examples
    --------
    >>> time_labels([0, 30, 60, 90]), time_labels([3600, 5400]), time_labels([61.25, 61.5])
    (['0 s', '30 s', '1 min', '1 min 30 s'], ['1 h', '1 h 30 min'], ['1 min 1.25 s', '1 min 1.50 s'])
    """
    digits = next((n for n in range(7) if all(round(tick, n) == tick for tick in ticks)), 6)
    return [_time_label(tick, digits) for tick in ticks]


def _time_label(seconds: float, digits: int) -> str:
    if abs(seconds) >= _LONGEST:
        return f"{seconds:.3g} s".replace("-", MINUS)
    left, parts = round(abs(seconds), digits), []
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if count := int(left // length):
            parts.append(f"{count:,} {unit}")
            left -= count * length
    if left or not parts:
        parts.append(f"{left:.{digits}f} s")
    return (MINUS if seconds < 0 else "") + " ".join(parts)


def time_ticks(low: float, high: float) -> list[float]:
    """Return round times from `low` to `high`, in seconds: multiples of minutes, hours or days if the range allows.

    Examples
    --------
    >>> time_ticks(0.0, 200.0), time_ticks(0.0, 20_000.0)
    ([0.0, 60.0, 120.0, 180.0], [0.0, 3600.0, 7200.0, 10800.0, 14400.0, 18000.0])
    """
    step = next((each for each in _ROUND_TIMES if each >= (high - low) / 6), None)
    if step is None or high - low < 6:
        return ticks(low, high)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(i * step) for i in range(first, last + 1)]


# Seconds: up to 30 s, then minutes, hours and days.
_ROUND_TIMES = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172_800)


def byte_labels(ticks: Sequence[float], suffix: str = "") -> list[str]:
    """Format the ticks of an axis of bytes, all in the unit of the greatest one.

    Examples
    --------
    >>> byte_labels([0.0, 5e9, 1e10]), byte_labels([0.0, 250_000.0], "/s")
    (['0', '5 GB', '10 GB'], ['0', '250 kB/s'])
    """
    most = max(map(abs, ticks), default=0.0)
    units = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
    limit, unit = next(((least, name) for least, name in units if most >= least), (1, "B"))
    scaled = ends(*(_clean(tick / limit) for tick in ticks))
    return [f"{words} {unit}{suffix}" if tick else "0" for tick, words in zip(ticks, scaled, strict=True)]


def metric_labels(key: str, ticks: Sequence[float]) -> list[str]:
    """Format the ticks of the axis of a metric; as bytes if the name of the metric ends in a unit of bytes.

    Examples
    --------
    >>> metric_labels("system/memory_used_bytes", [2e9]), metric_labels("loss", [0.5])
    (['2 GB'], ['0.5'])
    """
    if key.endswith("bytes_per_second"):
        return byte_labels(ticks, "/s")
    return byte_labels(ticks) if key.endswith("bytes") else ends(*ticks)


def _without_outliers(ordered: list[float]) -> list[float]:
    """Return sorted values without those that are more than 2.5 interquartile ranges outside of the quartiles."""
    if len(ordered) < 5:
        return ordered
    lower, upper = ordered[len(ordered) // 4], ordered[-1 - len(ordered) // 4]
    reach = 2.5 * (upper - lower)
    near = [v for v in ordered if lower - reach <= v <= upper + reach]
    return near if reach > 0 else ordered  # if half of the values are equal, every other one would be an outlier


def _nice(step: float) -> float:
    """Return the least of 1, 2 or 5 × 10ⁿ that is at least `step`."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * m for m in (1, 2, 5, 10) if power * m >= step * (1 - 1e-9))


def _clean(value: float) -> float:
    """Round to 12 significant digits, which removes errors of binary fractions: 3 * 0.1 becomes 0.3."""
    return float(f"{value:.12g}")
