"""The search for the first bad version: as few trials as halving takes, and right where versions cannot be judged."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lmvp
from lmvp import errors
from lmvp.views.bisection import search


@given(st.integers(2, 400), st.data())
@settings(deadline=None)
def test_the_first_bad_one_is_found_in_log2_trials(count, data):
    first = data.draw(st.integers(1, count - 1))
    tried = []

    def judge(at):
        assert 0 < at < count - 1
        tried.append(at)
        return "bad" if at >= first else "good"

    assert search(count, judge) == [first]
    assert len(tried) == len(set(tried)) <= math.ceil(math.log2(count)) + 1


@given(st.integers(2, 60), st.data())
@settings(deadline=None)
def test_it_is_among_the_suspects_whatever_cannot_be_judged(count, data):
    first = data.draw(st.integers(1, count - 1))
    skipped = data.draw(st.sets(st.integers(1, count - 1)))
    found = search(count, lambda at: "skip" if at in skipped else "bad" if at >= first else "good")
    assert first in found
    assert all(at in skipped for at in found[:-1])


@pytest.fixture
def line(home):
    for i in range(1, 13):
        lmvp.update("digits/mlp", {"w": np.full(3, i)}, message=f"step {i}", progress=False)
    lmvp.update("digits/mlp", {"w": np.full(3, 99)}, message="a side line", parent="v2", progress=False)


def test_a_model_is_searched(line):
    seen = []

    def test(state):
        seen.append(int(state["w"][0]))
        assert state["w"][0] < 8, "the loss exploded"

    found = lmvp.bisect("digits/mlp", good="v2", bad="v12", test=test)
    assert found.first_bad.number == 8
    assert [trial.version.number for trial in found.trials] == seen
    assert len(seen) <= 4
    for form in (repr(found), found._repr_html_()):
        assert "digits/mlp@v8 is the first bad version" in form
        assert "the loss exploded" in form
        assert "v12" in form


def test_verdicts(line):
    assert lmvp.bisect("digits/mlp", good="1", bad="@12", test=lambda s: s["w"][0] < 5).first_bad.number == 5
    skipped = lmvp.bisect(
        "digits/mlp", good="v1", bad="v12", test=lambda s: "skip" if 4 < s["w"][0] < 8 else s["w"][0] < 6
    )
    assert skipped.first_bad is None
    assert [version.number for version in skipped.suspects] == [5, 6, 7, 8]
    assert "one of v5, v6, v7, v8" in repr(skipped)
    with pytest.raises(ZeroDivisionError):
        lmvp.bisect("digits/mlp", good="v1", bad="v12", test=lambda _: 1 / 0)


def test_what_is_no_line_is_refused(line):
    with pytest.raises(errors.InvalidArgument, match="v13 of digits/mlp did not grow from v5"):
        lmvp.bisect("digits/mlp", good="v5", bad="v13", test=bool)
    with pytest.raises(errors.InvalidArgument, match="cannot be both"):
        lmvp.bisect("digits/mlp", good="v5", bad="v5", test=bool)
    assert lmvp.bisect("digits/mlp", good="v2", bad="v13", test=bool).first_bad.number == 13
    with pytest.raises(errors.NotFound):
        lmvp.bisect("digits/mlp", good="v77", test=bool)
