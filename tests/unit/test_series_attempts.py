"""Attempts that cut earlier ones: which points count, and how much work many of them are."""

import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.series_model import Model, Writer, send, steps_and_values

from lmvp.core.run_frames import (
    AUTO,
    attempt_frame,
    key_frame,
    points_frame,
)
from lmvp.errors import InvalidRequest
from lmvp_server.stores.local.series import series
from lmvp_server.stores.local.series.folder import FolderSeries
from lmvp_server.stores.local.series.stats import Stats, numbered

SERIES = series.__file__.rpartition("/")[0]


@pytest.fixture
def store(tmp_path):
    store = FolderSeries(tmp_path)
    yield store
    store.close()


def lines_of(work):
    """Return how many lines of the series' code a call executes."""
    count = 0

    def trace(frame, event, _):
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(lambda frame, *_: trace if frame.f_code.co_filename.startswith(SERIES) else None)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def redundant(n):
    return b"".join(attempt_frame(i + 1, 5) for i in range(n))


def ascending(n):
    return b"".join(attempt_frame(i + 1, i) for i in range(n))


def with_points(n):
    return b"".join(attempt_frame(i + 1, i) + points_frame(1.0, [(0, i + 1, 0.5)]) for i in range(n))


@pytest.mark.parametrize("frames", [redundant, ascending, with_points])
def test_attempts_of_a_request_are_linear_work(tmp_path, frames):
    def work(n):
        store = FolderSeries(tmp_path / str(n))
        send(store, key_frame(0, "a") + points_frame(1.0, [(0, step, 0.5) for step in range(1, 100)]))
        lines = lines_of(lambda: send(store, frames(n)))
        store.close()
        return lines

    assert work(200) < 2.5 * work(100)


@pytest.mark.parametrize("frames", [redundant, ascending, with_points])
def test_series_of_many_attempts_opens_with_linear_work(tmp_path, frames):
    def work(n):
        store = FolderSeries(tmp_path / str(n))
        send(store, key_frame(0, "a") + points_frame(1.0, [(0, step, 0.5) for step in range(1, 100)]))
        for at in range(0, n, 100):  # a log of many records
            send(store, b"".join(attempt_frame(at + i + 1, 5 + at) for i in range(100)))
        send(store, frames(n))
        before = steps_and_values(store.read("p", "r", "a")), store.keys("p", "r")
        store.close()
        store = FolderSeries(tmp_path / str(n))
        lines = lines_of(lambda: store.state("p", "r"))
        assert (steps_and_values(store.read("p", "r", "a")), store.keys("p", "r")) == before
        store.close()
        return lines

    assert work(400) < 2.5 * work(200)


def test_cuts_count_the_points_again_once(store):
    send(store, key_frame(0, "a") + points_frame(1.0, [(0, step, 0.5) for step in range(1000)]))
    send(store, b"".join(attempt_frame(i + 1, 900 - i) for i in range(500)))
    assert [(state.count, state.step) for state in store.keys("p", "r")] == [(402, 401)]
    opened = store._get("p", "r")
    assert opened.recounted == 1000
    send(store, attempt_frame(501, 401))  # drops nothing
    assert store.keys("p", "r")[0].step == 401
    assert opened.recounted == 1000


def test_cuts_drop_what_any_of_them_drops():
    from lmvp_server.stores.local.series.columns import Cuts, Table

    numbers = st.integers(-3, 6)
    pairs = st.lists(st.tuples(numbers, numbers), max_size=12)

    @given(pairs, pairs)
    def check(cuts, points):
        epochs, steps = (np.array([point[at] for point in points], np.int64) for at in (0, 1))
        table = Table(np.zeros(len(points), np.uint32), steps, np.zeros(len(points)), np.zeros(len(points)), epochs)
        expected = [any(epoch < e and step > s for e, s in cuts) for epoch, step in points]
        assert Cuts(cuts).dropped(table).tolist() == expected
        assert [Cuts(cuts).dropped(table.take(slice(at, at + 1)))[0] for at in range(len(points))] == expected
        assert Cuts(Cuts(cuts).pairs()).pairs() == Cuts(cuts).pairs()

    check()


def test_attempts_with_points_without_a_step_are_limited_by_their_work(store, monkeypatch):
    """Each of them makes the server count all points again, to tell the next step."""
    monkeypatch.setattr(series, "RECOUNT_LIMIT", 2000)
    send(store, key_frame(0, "a") + points_frame(1.0, [(0, step, 0.5) for step in range(100)]))

    def attempts(first, n):
        return b"".join(attempt_frame(i, 50) + points_frame(1.0, [(0, AUTO, 1.0)]) for i in range(first, first + n))

    before = store.applied("p", "r", "a" * 32)
    with pytest.raises(InvalidRequest, match=r"30 attempts with points without a step.* the limit is 16"):
        send(store, attempts(1, 30))
    assert store.applied("p", "r", "a" * 32) == before
    send(store, attempts(1, 16))
    assert [step for step, _ in steps_and_values(store.read("p", "r", "a"))] == list(range(52))


def test_much_counting_seals_the_series(store, monkeypatch):
    """A series that has cost much work does not cost it again when it is opened."""
    monkeypatch.setattr(series, "RECOUNT_LIMIT", 2000)
    send(store, key_frame(0, "a") + points_frame(1.0, [(0, step, 0.5) for step in range(1000)]))
    for i in range(1, 4):
        send(store, attempt_frame(i, 990) + points_frame(1.0, [(0, AUTO, 1.0)]))
    for thread in list(store._sealers):
        thread.join()
    assert len(store._get("p", "r")._segments) == 1
    assert [step for step, _ in steps_and_values(store.read("p", "r", "a"))] == list(range(992))


def test_attempts_of_a_run_are_limited(store, monkeypatch):
    monkeypatch.setattr(series, "CUTS_LIMIT", 10)
    send(store, key_frame(0, "a") + ascending(10))
    send(store, attempt_frame(10, 9) + attempt_frame(9, 8))  # redundant
    with pytest.raises(InvalidRequest, match="11 attempts that each cut others; the limit is 10"):
        send(store, attempt_frame(11, 11))
    send(store, attempt_frame(11, 5))  # makes others redundant
    send(store, attempt_frame(12, 11))


def test_keys_of_a_run_are_limited(store, monkeypatch):
    monkeypatch.setattr(series, "KEYS_LIMIT", 10)
    send(store, b"".join(key_frame(i, f"a{i}") for i in range(9)))
    with pytest.raises(InvalidRequest, match="11 metrics; the limit is 10"):
        send(store, key_frame(9, "b") + key_frame(10, "c"))
    with pytest.raises(InvalidRequest, match="11 metrics; the limit is 10"):
        send(store, key_frame(9, "a1") + key_frame(10, "a1"))
    send(store, key_frame(9, "b") + points_frame(1.0, [(9, 1, 0.5)]))
    send(store, b"".join(key_frame(i, f"a{i}") for i in range(9)), writer="b" * 32)
    assert [state.name for state in store.keys("p", "r")] == ["b"]


def test_key_names_of_a_run_are_limited(store, monkeypatch):
    monkeypatch.setattr(series, "NAMES_LIMIT", 100)
    send(store, key_frame(0, "a" * 60))
    with pytest.raises(InvalidRequest, match="120 characters; the limit is 100"):
        send(store, key_frame(1, "b" * 60))
    send(store, key_frame(1, "b" * 40))


def test_series_that_opens_slowly_keeps_no_other_one_waiting(tmp_path, monkeypatch):
    store = FolderSeries(tmp_path)
    for run in ("slow", "quick"):
        send(store, key_frame(0, "a") + points_frame(1.0, [(0, 1, 0.5)]), run=run)
    store.close()
    store, opening, go_on, replay = FolderSeries(tmp_path), threading.Event(), threading.Event(), series.Series._replay

    def slow(self):
        if self.folder.name == "slow":
            opening.set()
            go_on.wait(60)
        replay(self)

    monkeypatch.setattr(series.Series, "_replay", slow)
    found = {}
    first = threading.Thread(target=lambda: found.update(slow=store.keys("p", "slow")))
    other = threading.Thread(target=lambda: found.update(quick=store.keys("p", "quick")))
    first.start()
    assert opening.wait(60)
    other.start()
    other.join(10)
    names = sorted(found)
    go_on.set()
    first.join()
    other.join()
    assert names == ["quick"]
    assert [state.name for state in found["slow"]] == ["a"]
    assert store._opening == {}
    store.close()


def test_points_with_and_without_steps_are_numbered_key_by_key():
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 50, 2000).astype(np.uint32)
    steps = np.where(rng.random(2000) < 0.5, AUTO, rng.integers(0, 30, 2000))
    stats, following, expected = Stats(), {}, []
    stats.make_room(50)
    for key, step in zip(keys.tolist(), steps.tolist(), strict=True):
        expected.append(following.get(key, 0) if step == AUTO else step)
        following[key] = max(following.get(key, 0), expected[-1] + 1)
    assert numbered(keys, steps, stats).tolist() == expected

    def work(n):
        many = np.repeat(np.arange(n, dtype=np.uint32), 2)
        return lines_of(lambda: numbered(many, np.tile(np.array([1, AUTO]), n), _stats(n)))

    assert work(200) < 2.5 * work(100)


def _stats(n):
    stats = Stats()
    stats.make_room(n)
    return stats


def test_series_with_cuts_of_an_earlier_version_is_read(tmp_path):
    """The state of 9d7a6ec lists redundant cuts too."""
    from lmvp_server.stores.local.series import seal_state

    store, model = FolderSeries(tmp_path), Model()
    writer = Writer("a" * 32, model)
    for step in range(20):
        writer.log("a", step, float(step), 1.0)
    writer.begin(1, 12)
    send(store, writer.journal)
    store.settle("p", "r")
    store.close()
    folder = tmp_path / "series" / "p" / "r"
    state = seal_state.load(folder)
    state.cuts = [(1, 12), (1, 15), (2, 9), (2, 9), (3, 30)]
    seal_state.save(folder, state)
    for cut in state.cuts:
        model.cut(*cut)
    store = FolderSeries(tmp_path)
    assert steps_and_values(store.read("p", "r", "a")) == [row[:2] for row in model.rows("a")]
    store.close()


def test_idle_work_reads_a_series_again_only_after_a_change(store, monkeypatch):
    from lmvp_server.stores.local.series.segment import Segment

    read, page = [], Segment.rows
    send(store, b"".join(key_frame(i, f"a{i}") for i in range(3)))
    send(store, points_frame(1.0, [(i, step, 0.5) for i in range(3) for step in range(100)]) + attempt_frame(1, 99))
    store.settle("p", "r")
    monkeypatch.setattr(Segment, "rows", lambda self, *rows: read.append(rows) or page(self, *rows))
    store.tidy(lambda: True)
    read.clear()
    store.tidy(lambda: True)
    assert read == []
    send(store, attempt_frame(2, 50))
    store.tidy(lambda: True)
    assert read
    assert sum(end - begin for begin, end in [store._get("p", "r")._segments[0].all_rows(i) for i in range(3)]) == 153
    assert [step for step, _ in steps_and_values(store.read("p", "r", "a2"))] == list(range(51))
