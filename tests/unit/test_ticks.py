"""Ticks of axes: each is written exactly, so that no two of one axis are alike."""

import math
import random

import pytest

from lmvp.core import number_format
from lmvp.views.curves import tick_words
from lmvp_server.web.axes import Axis


def spans():
    """Return ends of axes: of usual metrics, and of every size and distance."""
    found = [(0.0, 0.001), (0.0, 0.01), (0.0, 0.0002), (0.99991, 0.99995), (1e-9, 3e-9), (0.0, 2.5e10), (-0.003, 0.001),
             (1_000_000.0, 1_000_001.0), (0.0, 65_536.0), (1e300, 3e300), (-1.0, 1.0)]  # fmt: skip
    chance = random.Random(7)
    for _ in range(300):
        middle = chance.choice([0.0, 1.0]) * 10 ** chance.uniform(-6, 9)
        found.append((middle, middle + 10 ** chance.uniform(-4, 5)))
    return [span for span in found if span[1] - span[0] > 1e-8 * max(map(abs, span))]


def value(words):
    """Read a tick back as a number."""
    return float(words.replace(number_format.MINUS, "-").replace(",", ""))


@pytest.mark.parametrize("log", [False, True])
def test_ticks_differ_and_tell_their_value(log):
    for low, high in spans():
        if log and low <= 0:
            continue
        first, last = (number_format.log_bounds if log else number_format.bounds)([low, high])
        ticks = (number_format.log_ticks if log else number_format.ticks)(first, last)
        words = tick_words("loss", ticks, log=log)
        assert len(set(words)) == len(words) >= 2, (low, high)
        assert [value(one) for one in words] == pytest.approx(ticks, rel=1e-11, abs=1e-300)


def test_ticks_of_a_small_learning_rate_keep_their_digits():
    assert tick_words("lr", number_format.ticks(0.0, 0.001), log=False) == [
        "0.0000", "0.0002", "0.0004", "0.0006", "0.0008", "0.0010",
    ]  # fmt: skip
    assert tick_words("lr", [0.0, 0.00025, 0.0005], log=False) == ["0.00000", "0.00025", "0.00050"]
    assert number_format.ends(0.0, 0.0025, 0.005, 0.0075, 0.01) == ["0.0000", "0.0025", "0.0050", "0.0075", "0.0100"]


def test_ticks_of_a_narrow_range_differ():
    ticks = number_format.ticks(0.99999991, 0.99999995)
    assert number_format.ends(*ticks) == ["0.99999991", "0.99999992", "0.99999993", "0.99999994", "0.99999995"]


def test_ticks_of_zoomed_steps_differ():
    for low, high in ((1_000_000, 1_000_012), (12_000, 12_030), (0, 50_000), (3e9, 3e9 + 8)):
        words = number_format.step_labels(number_format.ticks(low, high))
        assert len(set(words)) == len(words) > 2
    assert number_format.step_labels([0, 10_000, 20_000]) == ["0", "10k", "20k"]
    assert number_format.step_labels([12_000, 12_005]) == ["12,000", "12,005"]


def test_ticks_of_times_differ():
    for low, high in ((0, 4), (0, 90), (3600, 3660), (0, 500_000), (7261.0, 7261.5)):
        ticks = number_format.time_ticks(low, high)
        words = number_format.time_labels(ticks)
        assert len(set(words)) == len(words) > 2, (low, high)
    assert number_format.time_labels(number_format.time_ticks(0, 3600)) == [
        "0 s",
        "10 min",
        "20 min",
        "30 min",
        "40 min",
        "50 min",
        "1 h",
    ]


def test_ticks_of_bytes_have_a_unit():
    assert tick_words("system/memory_used_bytes", [0.0, 8e9, 1.6e10], log=False) == ["0", "8 GB", "16 GB"]
    assert tick_words("system/disk/read_bytes_per_second", [0.0, 5e5], log=False) == ["0", "500 kB/s"]


def test_axis_of_a_scatter_differs_by_tick():
    for low, high in spans():
        words = [words for _, words in Axis.over([low, high]).ticks()]
        assert len(set(words)) == len(words)
    assert [words for _, words in Axis.over([0.0005, 0.02]).ticks()] == ["0.001", "0.003", "0.01"]


def test_log_axis_of_less_than_a_decade_has_ticks():
    assert number_format.log_ticks(0.2, 0.3) == [0.2, 0.22, 0.24, 0.26, 0.28, 0.3]
    assert all(math.isfinite(tick) and tick > 0 for tick in number_format.log_ticks(0.9, 1.0))
