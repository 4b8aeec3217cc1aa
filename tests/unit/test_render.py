"""Numbers, strips and graphs."""

from __future__ import annotations

import math
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import sample_history as sample

from lmvp.core import number_format
from lmvp.core.sanitize import (
    clean,
    clip,
    clip_middle,
    width,
)
from lmvp.core.schemas import Layer
from lmvp.views import layer_strip
from lmvp.views.version_graph import MOST_LANES, lanes

FINITE = st.floats(allow_nan=False, allow_infinity=False)
LAYERS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10**9)), min_size=1, max_size=400).map(
    lambda found: [Layer(path=f"b.{g}.{i}", group=f"b.{g}", size=n) for i, (g, n) in enumerate(sorted(found))]
)


@given(st.lists(st.none() | st.floats(), max_size=20))
def test_a_column_has_one_form(values):
    written = number_format.column(values)
    assert len(written) == len(values)
    assert not any("-" in w for w in written)
    shown = [(v, w) for v, w in zip(values, written, strict=True) if v is not None and math.isfinite(v)]
    exact = [(Decimal(v), Decimal(w.replace(",", "").replace("−", "-"))) for v, w in shown]  # 1.80e+308 is no float
    assert all(abs(read - v) <= abs(v) * Decimal("0.011") for v, read in exact)
    decimals = {len(w.partition(".")[2]) for _, w in shown} - {0}
    assert (
        len(decimals) <= 1
        or any("e" in w for w in written)
        or written == [number_format.significant(v) for v in values]
    )


@pytest.mark.parametrize(
    ("values", "written"),
    [
        ([0.1, 7.5e-05], ["0.1", "7.5e−05"]),
        ([3e-4, 1e-3, 0.1], ["0.0003", "0.001", "0.1"]),
        ([7.5e-05, 1e-4], ["0.000075", "0.000100"]),
        ([250.0, 0.0625], ["250", "0.0625"]),
        ([0.871, 0.8], ["0.871", "0.800"]),
    ],
)
def test_column_shows_small_values_beside_large_ones(values, written):
    assert number_format.column(values) == written


def test_pair_shows_a_small_value_beside_a_large_one():
    assert number_format.pair(0.1, 7.5e-05) == ("0.1", "7.5e−05", "−0.09992")
    assert number_format.pair(7.5e-05, 0.1) == ("7.5e−05", "0.1", "+0.09992")


@given(st.lists(FINITE, max_size=20))
def test_a_scale_is_an_interval(values):
    low, high = number_format.scale(values)
    assert low < high
    assert math.isfinite(high - low)
    assert 2 <= len(number_format.ticks(low, high)) <= 12


@pytest.mark.parametrize(
    "values",
    [[0.0, 0.0], [5.0] * 9, [1e308, -1e308], [1e-300], [1.0, 1.0 + 1e-15], [0.0, 5e-324], [0.1, 0.1, 0.1, 0.1, 0.9]],
)
def test_scales_of_odd_values(values):
    low, high = number_format.scale(values)
    assert low < high


@given(st.text(), st.integers(0, 40))
def test_clipped_text_fits(text, room):
    assert width(clip(clean(text), room)) <= room
    assert width(clip_middle(clean(text), room)) <= room


@given(LAYERS, st.sampled_from([40, 300, 1000]))
def test_segments_cover_the_axis_once_and_fit(axis, room):
    segments = layer_strip.fold(axis, room)
    assert segments[0].first == 0
    assert segments[-1].last == len(axis)
    assert all(a.last == b.first for a, b in pairwise(segments))
    assert sum(s.gap for s in segments) + len(segments) <= room


def test_few_layers_are_not_merged():
    assert len(layer_strip.fold(sample.AXIS)) == len(sample.AXIS)


def test_a_merged_segment_shows_the_largest_change():
    assert layer_strip.shade("00100") == "1"
    assert layer_strip.shade("0x..0") == "x"
    assert layer_strip.shade("05+") == "+"
    assert layer_strip.shade("..") == "."


@given(LAYERS, st.data())
def test_a_strip_stays_inside_its_picture(axis, data):
    codes = data.draw(st.text("0x+.12345-", min_size=len(axis), max_size=len(axis)))
    picture = layer_strip.svg(axis, codes)
    places = list(layer_strip._place(axis, codes, layer_strip.WIDTH))
    assert all(wide >= 1 for _, wide, _ in places)
    x, wide, _ = places[-1]
    assert x + wide <= layer_strip.WIDTH + 0.001
    assert picture.startswith("<svg")


def test_the_graph_of_the_sample():
    rows = lanes(sample.versions())
    assert [row["lane"] for row in rows] == [0, 0, 1, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0]
    assert rows[1]["out"] == [0, 1], "v12 merges v10 and v11"
    assert rows[6]["in"] == [0, 1], "v8 and v9 grew from v7"
    assert rows[-1]["out"] == []


def test_versions_without_parents_stand_alone_in_one_lane():
    rows = lanes([sample.version(n) for n in (3, 2, 1)])
    assert all(row == {"lane": 0, "in": [], "out": [], "pass": []} for row in rows)


def test_a_line_runs_out_of_the_table_to_an_older_parent():
    rows = lanes([sample.version(9, parents=(8,)), sample.version(8, parents=(2,))])
    assert rows[1]["out"] == [0]


def test_a_parent_that_was_deleted_has_no_line():
    assert lanes([sample.version(9, parents=(8,)), sample.version(7)])[0]["out"] == []


def test_many_branches_share_the_last_lane():
    rows = lanes([*(sample.version(n, parents=(1,)) for n in range(20, 1, -1)), sample.version(1)])
    assert max(lane for row in rows for lane in (row["lane"], *row["in"], *row["out"], *row["pass"])) == MOST_LANES - 1


@given(st.lists(st.sets(st.integers(1, 12), max_size=3), max_size=12))
def test_every_line_that_leaves_a_row_reaches_the_next(parents):
    versions = [sample.version(i, parents=sorted(p for p in ps if p < i)) for i, ps in enumerate(parents, 1)][::-1]
    rows = lanes(versions)
    for above, below in pairwise(rows):
        assert {*above["out"], *above["pass"]} == {*below["in"], *below["pass"]}
