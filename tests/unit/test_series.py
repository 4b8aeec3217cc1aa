"""A series keeps what was sent, once, and gives it back in order, whole or in outline."""

import errno
import math
import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.series_model import Model, Writer, batch, same, send, steps_and_values

from lmvp.core.frame_parsing import parse
from lmvp.core.run_frames import (
    AUTO,
    attempt_frame,
    key_frame,
    points_frame,
)
from lmvp.errors import InvalidArgument, InvalidRequest
from lmvp_server.stores.base import CursorLost, Gap
from lmvp_server.stores.local.series import (
    folder,
    reading,
    segment,
    series,
)
from lmvp_server.stores.local.series.folder import FolderSeries

KEYS = ["loss", "val/acc", "system/cpu"]


@pytest.fixture
def store(tmp_path):
    store = FolderSeries(tmp_path)
    yield store
    store.close()


def reopened(store):
    store.close()
    return FolderSeries(store._root.parent)


def rows(store, key, *range_):
    return steps_and_values(store.read("p", "r", key, *range_))


# -- against a model

values = st.floats(width=64)
steps = st.one_of(st.integers(-5, 30), st.just(AUTO))
actions = st.one_of(
    st.tuples(st.just("log"), st.integers(0, 2), st.sampled_from(KEYS), steps, values),
    st.tuples(st.just("batch"), st.integers(0, 2), st.sampled_from(KEYS), st.integers(-5, 30), st.integers(1, 20)),
    st.tuples(st.just("epoch"), st.integers(0, 2), st.integers(1, 4), st.one_of(st.none(), st.integers(-3, 25))),
    st.sampled_from([("seal",), ("settle",), ("reopen",), ("resend",), ("tidy",)]),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(actions, max_size=40))
def test_a_series_is_what_the_words_say(tmp_path_factory, script):
    store = FolderSeries(tmp_path_factory.mktemp("series"))
    model = Model()
    writers = [Writer(letter * 32, model) for letter in "abc"]
    for number, action in enumerate(script):
        store = step(store, writers, action, 1e9 + number)
    for key in KEYS:
        check(store, model, key)
    store.close()


def step(store, writers, action, time):
    kind, *rest = action
    if kind in ("log", "batch", "epoch"):
        writer = writers[rest[0]]
        if kind == "log":
            writer.log(rest[1], rest[2], rest[3], time)
        elif kind == "batch":
            writer.log_batch(rest[1], rest[2], [float(i) for i in range(rest[3])], time)
        else:
            writer.begin(max(writer.epoch, rest[1]), rest[2])
        start = store.applied("p", "r", writer.name)
        send(store, writer.journal[start:], writer=writer.name)
    elif kind == "resend":
        for writer in writers:
            if writer.journal:
                assert send(store, writer.journal, writer=writer.name, start=0) == len(writer.journal)
    elif kind == "reopen":
        store = reopened(store)
    elif kind == "seal" and store.state("p", "r"):
        store._series("p", "r").seal()
    elif kind == "settle":
        store.settle("p", "r")
    elif kind == "tidy":
        store.tidy(lambda: True)
    return store


def check(store, model, key):
    expected = model.rows(key)
    found = [
        row
        for part in store.read("p", "r", key)
        for row in zip(part.steps.tolist(), part.values.tolist(), part.times.tolist(), strict=True)
    ]
    assert same(found, expected)
    low, high = -2, 12
    assert same(rows(store, key, low, high), [row[:2] for row in expected if low <= row[0] <= high])
    sample = store.sample("p", "r", key, 1000)
    assert same(steps_and_values([sample]), [row[:2] for row in expected])
    known = {state.name: state for state in store.keys("p", "r")}
    if expected:
        step, value, time = expected[-1]
        state = known[key]
        assert same([(state.step, state.value, state.time)], [(step, value, time)])
        assert state.first <= expected[0][0]
        assert state.count >= len(expected)


# -- in the large


@pytest.fixture
def small_pages(monkeypatch):
    for module in (segment, reading):
        monkeypatch.setattr(module, "PAGE_ROWS", 1000)
    monkeypatch.setattr(reading, "_PLAIN_READ", 2000)


@pytest.mark.parametrize("in_segments", [True, False])
def test_an_outline_has_the_ends_of_every_stretch(store, small_pages, in_segments):
    rng = np.random.default_rng(1)
    everything = rng.standard_normal(60_000)
    everything[[5, 33_333]] = [1e9, -1e9]
    everything[[7_000, 41_000]] = [math.nan, math.inf]
    send(store, key_frame(0, "loss"))
    for first in range(0, 60_000, 6000):
        send(store, batch(0, first, everything[first : first + 6000].tolist()))
        if in_segments and first < 50_000:
            store._series("p", "r").seal()
    sample = store.sample("p", "r", "loss", 900)
    found = dict(steps_and_values([sample]))
    assert len(found) <= 900
    assert (sample.steps[0], sample.steps[-1]) == (0, 59_999)
    assert found[5] == 1e9
    assert found[33_333] == -1e9
    assert math.isnan(found[7_000])
    assert found[41_000] == math.inf
    assert all(value == everything[at] or math.isnan(value) for at, value in found.items())
    for first in range(0, 60_000, 500):
        near = [value for at, value in found.items() if first - 300 <= at < first + 800 and math.isfinite(value)]
        part = everything[first : first + 500]
        part = part[np.isfinite(part)]
        assert min(near) <= part.min()
        assert max(near) >= part.max()


@pytest.mark.parametrize("range_", [(0, 100), (5, 31_007), (12_345, 54_321), (59_990, 99_999), (70_000, 80_000)])
def test_a_range_begins_and_ends_where_it_should(store, small_pages, range_):
    send(store, key_frame(0, "a") + key_frame(1, "loss") + batch(0, 0, [1.0] * 700))
    for first in (0, 20_000, 40_000):
        send(store, batch(1, first, [float(i) for i in range(first, first + 20_000)]))
        store._series("p", "r").seal()
    expected = [(at, float(at)) for at in range(range_[0], min(range_[1] + 1, 60_000))]
    assert rows(store, "loss", *range_) == expected
    assert store.count("p", "r", "loss", *range_) == len(expected)
    sample = steps_and_values([store.sample("p", "r", "loss", 300, *range_)])
    assert set(sample) <= set(expected)
    assert (sample[:1], sample[-1:]) == (expected[:1], expected[-1:])


def test_a_hundred_thousand_keys(store):
    names = b"".join(key_frame(i, f"layer/{i}") for i in range(100_000))
    send(store, names)
    for time in range(10):
        send(store, points_frame(time, [(i, time, i + time / 10) for i in range(100_000)]))
    store.settle("p", "r")
    assert store.size("p", "r") < 12 << 20
    store = reopened(store)
    assert len(store.keys("p", "r")) == 100_000
    assert rows(store, "layer/77777") == [(time, 77777 + time / 10) for time in range(10)]


def test_a_million_points_are_sealed_by_themselves(store):
    send(store, key_frame(0, "loss"))
    for first in range(0, 1_200_000, 100_000):
        send(store, batch(0, first, [0.5] * 100_000))
    store = reopened(store)
    assert [path.name for path in (store._root / "p" / "r").glob("*.segment")] == ["1.segment"]
    assert sum(len(part) for part in store.read("p", "r", "loss")) == 1_200_000


# -- what is refused


def test_a_gap_is_refused_and_tells_how_far_it_is(store):
    applied = send(store, key_frame(0, "a") + points_frame(1, [(0, 1, 1.0)]))
    with pytest.raises(Gap) as caught:
        send(store, points_frame(1, [(0, 2, 2.0)]), start=applied + 1)
    assert caught.value.applied == applied
    assert rows(store, "a") == [(1, 1.0)]


def test_a_key_without_a_name_is_refused_and_nothing_is_taken_in(store):
    with pytest.raises(InvalidRequest, match="key 7"):
        send(store, key_frame(0, "a") + points_frame(1, [(0, 1, 1.0)]) + points_frame(1, [(7, 1, 1.0)]))
    assert store.applied("p", "r", "a" * 32) == 0
    assert rows(store, "a") == []


@pytest.mark.parametrize(("project", "run", "writer"), [("..", "r", "a" * 32), ("p", "a/b", "a" * 32), ("p", "r", "x")])
def test_ids_that_could_leave_the_folder_are_refused(store, project, run, writer):
    with pytest.raises(InvalidArgument):
        store.append(project, run, writer, 0, b"", parse(b""))


# -- live


def test_new_points_come_behind_a_cursor(store):
    send(store, key_frame(0, "a") + key_frame(1, "b") + points_frame(1, [(0, 1, 1.0)]))
    cursor, found = store.since("p", "r", 0)
    assert {key: steps_and_values([part]) for key, part in found.items()} == {"a": [(1, 1.0)]}
    send(store, points_frame(2, [(0, 9, 2.0), (1, 1, 5.0)]))
    send(store, points_frame(3, [(0, 2, 3.0)]))
    behind, found = store.since("p", "r", cursor)
    assert {key: steps_and_values([part]) for key, part in found.items()} == {
        "a": [(9, 2.0), (2, 3.0)],
        "b": [(1, 5.0)],
    }
    assert store.since("p", "r", behind) == (behind, {})
    assert list(store.since("p", "r", cursor, ["b"])[1]) == ["b"]
    part, found = store.since("p", "r", cursor, limit=1)
    assert (part, steps_and_values(found.values())) == (cursor + 1, [(9, 2.0)])


@pytest.mark.parametrize("what", ["seal", "cut"])
def test_a_cursor_is_lost_where_points_went(store, what):
    send(store, key_frame(0, "a") + points_frame(1, [(0, 1, 1.0)]) + points_frame(1, [(0, 2, 1.0)]))
    cursor, _ = store.since("p", "r", 1)
    if what == "seal":
        cursor = 1
        store._series("p", "r").seal()
    else:
        send(store, attempt_frame(1, 0))
        send(store, points_frame(1, [(0, 1, 1.0)]))
    with pytest.raises(CursorLost):
        store.since("p", "r", cursor)


def test_who_reads_goes_on_while_what_they_read_is_merged(store, tmp_path):
    send(store, key_frame(0, "loss") + batch(0, 0, range(10), 1))
    store._get("p", "r").seal()
    send(store, attempt_frame(2, 4) + points_frame(1, [(0, 5, 50.0)]))
    expected = [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 50)]
    before = store._view("p", "r", "loss")
    store.settle("p", "r")
    assert steps_and_values(before.read(None, None)) == expected == rows(store, "loss")
    assert len(list(tmp_path.glob("series/p/r/*.segment"))) == 2
    del before
    assert len(list(tmp_path.glob("series/p/r/*.segment"))) == 1
    assert rows(store, "loss") == expected


def test_whoever_waits_is_woken(store):
    woken = []
    stop = store.wait("p", "r", lambda: woken.append(1))
    send(store, key_frame(0, "a"))
    stop()
    send(store, key_frame(1, "b"))
    assert woken == [1]


# -- as a whole


def test_a_dump_makes_the_same_series_elsewhere(store, tmp_path):
    send(store, key_frame(0, "a") + batch(0, 0, [1.0, 2.0, 3.0]))
    store._series("p", "r").seal()
    send(store, points_frame(2, [(0, AUTO, 4.0)]))
    other = FolderSeries(tmp_path / "other")
    pieces = list(store.dump("p", "r"))
    other.load("q", "s", pieces)
    assert steps_and_values(other.read("q", "s", "a")) == rows(store, "a") == [(0, 1.0), (1, 2.0), (2, 3.0), (3, 4.0)]
    assert other.applied("q", "s", "a" * 32) == store.applied("p", "r", "a" * 32)
    with pytest.raises(ValueError, match="stream"):
        other.load("q", "t", pieces[: random.randrange(len(pieces))])
    assert other.runs("q") == ["s"]


def test_a_dropped_series_is_gone(store):
    send(store, key_frame(0, "a") + points_frame(1, [(0, 1, 1.0)]))
    send(store, key_frame(0, "a"), run="other")
    assert (store.projects(), store.runs("p")) == (["p"], ["other", "r"])
    assert store.drop("p", "r") > 0
    assert store.state("p", "r") is None
    assert store.drop("p") > 0
    assert store.projects() == []


# -- work that fails


class Disk:
    """Lets the sealing of series fail, and counts the attempts."""

    def __init__(self, monkeypatch, store, error):
        self.store, self.error, self.attempts = store, error, []
        write = series.write_segment

        def write_segment(path, table):
            self.attempts.append(path)
            if self.error is not None:
                raise self.error
            return write(path, table)

        monkeypatch.setattr(series, "write_segment", write_segment)
        monkeypatch.setattr(series, "SEAL_AT", 1)

    def log(self, count=1, run="r"):
        """Append some times, and wait for what that starts."""
        for _ in range(count):
            send(self.store, key_frame(1, "loss") + points_frame(1.0, [(1, AUTO, 0.5)]), run=run)
            for thread in list(self.store._sealers):
                thread.join()


@pytest.fixture
def clock():
    return [1000.0]


@pytest.fixture
def timed(tmp_path, clock):
    store = FolderSeries(tmp_path, clock=lambda: clock[0])
    yield store
    store.close()


def test_seal_that_fails_is_tried_again_after_a_delay_that_doubles(timed, monkeypatch, clock):
    disk = Disk(monkeypatch, timed, OSError(errno.ENOSPC, "No space left on device"))
    tried = []
    for _ in range(400):  # an append in each second
        disk.log()
        if len(disk.attempts) > len(tried):
            tried.append(clock[0] - 1000.0)
        clock[0] += 1.0
    assert tried == [0, 1, 3, 7, 15, 31, 63, 123, 183, 243, 303, 363]
    disk.error = None
    clock[0] += folder.LONGEST_DELAY
    disk.log(2)  # after a success, the next append seals at once
    assert len(disk.attempts) == len(tried) + 2
    assert timed.state("p", "r").points == 402
    assert sum(map(len, timed.read("p", "r", "loss"))) == 402


def test_seals_that_fail_log_one_line_a_minute(timed, monkeypatch, clock, caplog):
    disk = Disk(monkeypatch, timed, OSError(errno.ENOSPC, "No space left on device"))
    for run in range(20):
        disk.log(3, run=f"r{run}")
    assert len(caplog.records) == 1
    assert "could not seal" in caplog.text
    assert "no room left on the disk" in caplog.text
    assert caplog.records[0].exc_info is None
    clock[0] += folder.QUIET
    disk.log(run="r7")
    assert len(caplog.records) == 2
    assert "(20 failures since the last line like this one)" in caplog.records[1].getMessage()


def test_seal_that_fails_by_a_fault_logs_its_traceback(timed, monkeypatch, caplog):
    Disk(monkeypatch, timed, ZeroDivisionError("a fault")).log()
    assert caplog.records[0].exc_info[0] is ZeroDivisionError


def test_series_that_cannot_be_sealed_keeps_no_other_in_memory(timed, monkeypatch):
    """The largest series is sealed to free memory; if that fails, the next one is."""
    monkeypatch.setattr(folder, "MEMORY", 16)
    disk = Disk(monkeypatch, timed, OSError(errno.EIO, "Input/output error"))
    monkeypatch.setattr(series, "SEAL_AT", 10**9)
    disk.log(5, run="large")
    disk.error = None
    disk.log(2, run="small")
    assert disk.attempts[-1].parent.name == "small"
