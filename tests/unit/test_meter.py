"""How fast bytes went: over all that moves at once, without delays, and for a while only."""

import pytest

from lmvp.core import throughput as meters
from lmvp.core.throughput import Meter

MIB = 1 << 20


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands unless it is set forward."""

    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    monkeypatch.setattr(meters, "time", clock := Clock())
    return clock


def test_a_rate_is_bytes_over_seconds(clock):
    meter = Meter(guess=1.0)
    with meter.busy():
        clock.now += 2
        meter.count(8 * MIB)
    clock.now += 50  # nothing is under way
    with meter.busy():
        clock.now += 1
        meter.count(1 * MIB)
    assert meter.rate == pytest.approx(3 * MIB)


def test_what_moves_at_once_is_counted_together(clock):
    meter = Meter(guess=1.0)
    with meter.busy():
        clock.now += 1
        with meter.busy():
            clock.now += 1
            meter.count(MIB)
        clock.now += 1
        meter.count(2 * MIB)
    assert meter.rate == pytest.approx(MIB)


def test_a_few_bytes_tell_nothing(clock):
    meter = Meter(guess=5.0)
    with meter.busy():
        clock.now += 1
        meter.count(100_000)
    assert (meter.rate, meter.known, meter.fresh) == (5.0, False, False)


def test_a_delay_does_not_count(clock):
    meter = Meter(guess=1.0)
    with meter.busy(delay=0.5):
        clock.now += 1
        meter.count(MIB)
        clock.now += 0.5
        meter.count(MIB)
    assert meter.rate == pytest.approx(2 * MIB)


def test_what_comes_before_a_delay_is_over_took_some_time_too(clock):
    meter = Meter(guess=1.0)
    with meter.busy(delay=10):
        clock.now += 1
        meter.count(MIB)
    assert meter.rate == pytest.approx(10 * MIB)


def test_what_was_long_ago_fades(clock):
    meter = Meter(guess=1.0)
    for seconds, rounds in ((10, 4), (1, 12)):
        for _ in range(rounds):
            with meter.busy():
                clock.now += seconds
                meter.count(16 * MIB)
    assert 12 * MIB < meter.rate <= 16 * MIB
    assert meter.fresh
    clock.now += 301
    assert meter.known
    assert not meter.fresh
