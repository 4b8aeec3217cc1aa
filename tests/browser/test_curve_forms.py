"""The static and the live form of curves: both show the same range and the same points."""

from __future__ import annotations

import math
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pytest

from lmvp.core import number_format
from lmvp.core.schemas.runs import RunRecord
from lmvp.views import curves as drawing
from lmvp.views.curves import Curves, Line
from lmvp.views.runs import Run
from lmvp_jupyter.bundle import static
from lmvp_jupyter.curves import CurvesPlot

AT = datetime(2026, 11, 26, tzinfo=timezone.utc)

KEEP = """
window.drawn = [];
const drawOfChart = Chart.prototype.draw;
Chart.prototype.draw = function () { drawOfChart.call(this); window.drawn.push(this); };
"""
"""Lets the test reach the charts of the live form."""

READ = """() => window.drawn.map((chart) => ({
  x: [chart.plot.scales.x.min, chart.plot.scales.x.max], y: [chart.plot.scales.y.min, chart.plot.scales.y.max],
  data: chart.plot.data.map((column) => [...column].map((value) => (value === undefined ? "none" : value))) }))"""


def line(values, *, key="loss", steps=None, axis=()):
    steps = list(range(len(values))) if steps is None else steps
    return Line(0, key, steps, list(values), [AT.timestamp() + step for step in steps], len(values), axis)


INVERSE = [1 / (i + 1) for i in range(400)]
CASES: dict[str, tuple[list[Line], dict[str, Any]]] = {
    "loss 1/(i+1)": ([line(INVERSE)], {}),
    "spike": ([line([0.1] * 60 + [90.0] + [0.1] * 60)], {}),
    "negative": ([line([-3.0, -1.0, -2.0])], {}),
    "constant": ([line([0.25] * 9)], {}),
    "one point": ([line([0.7], steps=[2**53])], {}),
    "gaps": ([line([3.0, math.nan, 2.0, math.inf, 1.0, 0.5])], {}),
    "not finite": ([line([math.nan, math.inf])], {}),
    "large": ([line([-1e308, 1e308, 5.0])], {}),
    "two lines": ([line([1.0, 0.5, 0.25], key="a/loss"), line([2.0, 40.0], key="b/loss", steps=[1, 5])], {}),
    "smooth": ([line(INVERSE)], {"smooth": 15}),
    "log": ([line(INVERSE)], {"log": True}),
    "log with zero": ([line([0.3, 0.0, -1.0, 0.002, 0.7])], {"log": True}),
    "log of one value": ([line([1.0, 1.0])], {"log": True}),
    "log smooth": ([line(INVERSE)], {"log": True, "smooth": 50}),
    "time": ([line([3.0, 2.0, 9.0], steps=[0, 60, 30])], {"axis": "time"}),
    "epochs": ([line([5.0, 4.0, 3.0, 2.0], axis=[0.0, 0.0, 1.0, 1.0])], {"axis": "epoch"}),
}


def static_form(curves: Curves, lines: list[Line]) -> tuple[drawing.Frame, list[list[tuple[float, float]]]]:
    places = [drawing.places_of(curves, each) for each in lines]
    return drawing.Frame.over(places, log=curves.log), places


def shown(column: list[Any], across: list[float]) -> list[tuple[float, float]]:
    """Return the points of a column of uPlot: None is a gap, "none" no point of this line."""
    return [(x, y) for x, y in zip(across, column, strict=True) if y not in (None, "none")]


@pytest.mark.parametrize("name", CASES)
def test_static_and_live_form_show_the_same_range_and_points(host, name):
    lines, how = CASES[name]
    record = RunRecord(id="a" * 32, project="digits", name="quiet-wren-44", status="finished", created_at=AT)
    curves = Curves([Run(None, record)], lines, **how)
    plot = CurvesPlot(curves)

    class Reachable(CurvesPlot):
        _esm = plot._esm.replace("export default view(CurvesView);", f"{KEEP}\nexport default view(CurvesView);")

    page, watch = host.show(Reachable(curves))
    live = page.evaluate(READ)
    assert not watch.errors
    groups = list(curves.groups().values())
    assert len(live) >= len(groups) == 1
    for chart in live:
        frame, places = static_form(curves, groups[0])
        assert chart["x"] == pytest.approx([frame.left, frame.right])
        assert chart["y"] == pytest.approx([frame.low, frame.high])
        columns = chart["data"][1:]
        for at, points in enumerate(places):
            raw = columns[2 * at] if curves.smooth > 1 else columns[at]
            finite = [(x, y) for x, y in points if math.isfinite(y)]
            assert np.array(shown(raw, chart["data"][0])) == pytest.approx(np.array(finite))
            if curves.smooth > 1:
                smooth = drawing.smoothed([y for _, y in points], curves.smooth)
                told = [(x, y) for (x, _), y in zip(points, smooth, strict=True)]
                assert np.array(shown(columns[2 * at + 1], chart["data"][0])) == pytest.approx(np.array(told))
    page.close()


def test_live_form_breaks_a_line_where_the_static_form_does(host):
    """A NaN is a gap in both; a step that only another line has is not."""
    pair = [line([3.0, math.nan, 2.0, 1.0], key="a/loss"), line([1.0, 2.0], key="b/loss", steps=[0, 3])]
    record = RunRecord(id="a" * 32, project="digits", name="quiet-wren-44", status="finished", created_at=AT)
    curves = Curves([Run(None, record)], pair)
    svg = drawing.chart_svg(curves, pair)
    paths = [part.partition('"')[0] for part in svg.split('<path d="')[1:] if 'fill="none"' in part]
    assert [path.count("M") for path in paths] == [2, 1]

    class Reachable(CurvesPlot):
        _esm = CurvesPlot._esm.replace("export default view(CurvesView);", f"{KEEP}\nexport default view(CurvesView);")

    page, _ = host.show(Reachable(curves))
    told = page.evaluate("() => window.drawn[0].plot.series.slice(1).map((each) => each.spanGaps)")
    gaps = page.evaluate(READ)[0]["data"][1:]
    assert told == [False, False]
    assert [column.count(None) for column in gaps] == [1, 0]
    page.close()


LOAD = """async (text) => {
  window.axes = await import(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
}"""


@pytest.fixture(scope="module")
def axes(chromium):
    """The functions of `axes.js` in a page."""
    page = chromium.new_page()
    page.evaluate(LOAD, static("widgets", "axes.js"))
    yield lambda name, *given: page.evaluate("([name, given]) => window.axes[name](...given)", [name, list(given)])
    page.close()


TICKS = [
    [0.0, 0.0025, 0.005, 0.0075, 0.01], [0.0, 0.00025, 0.0005], [0.1, 0.2, 3 * 0.1], [-0.5, 0.0, 0.5], [0, 20_000],
    [1e-9, 2e-9], [2.5e10, 5e10], [0.99999991, 0.99999992], [0.0, 1e-5], [1e300, 2e300], [0.0],
]  # fmt: skip


@pytest.mark.parametrize("ticks", TICKS, ids=str)
def test_ticks_are_written_alike_in_both_forms(axes, ticks):
    assert axes("labels", ticks) == number_format.ends(*ticks)
    assert axes("metricLabels", "used_bytes", [abs(tick) for tick in ticks]) == number_format.byte_labels(
        [*map(abs, ticks)]
    )


@pytest.mark.parametrize(
    "ticks",
    [
        [0, 500, 1000, 1500],
        [1_000_000, 1_000_002],
        [12_000, 12_005],
        [0, 2_500_000],
        [0.0, 0.5],
        [4 * 10**9, 8 * 10**9],
    ],
    ids=str,
)
def test_ticks_of_steps_are_written_alike_in_both_forms(axes, ticks):
    assert axes("stepLabels", ticks) == number_format.step_labels(ticks)


@pytest.mark.parametrize("ticks", [[0, 30, 60, 90], [3600, 5400], [61.25, 61.5], [0, 86_400, 129_600], [0.0]], ids=str)
def test_ticks_of_times_are_written_alike_in_both_forms(axes, ticks):
    assert axes("timeLabels", ticks) == number_format.time_labels(ticks)


@pytest.mark.parametrize(("low", "high"), [(0.2, 0.3), (0.2, 2.0), (1e-6, 1.0), (0.9, 1.0)])
def test_log_ticks_are_alike_in_both_forms(axes, low, high):
    assert axes("logTicks", low, high) == number_format.log_ticks(low, high)


@pytest.mark.parametrize("top", [0.001, 0.0002, 1.0, 40_000.0, 2.5e10])
def test_ticks_of_the_live_form_tell_their_value(host, top):
    record = RunRecord(id="a" * 32, project="digits", name="quiet-wren-44", status="finished", created_at=AT)
    curves = Curves([Run(None, record)], [line([top * (1 - step / 40) for step in range(41)], key="optim/lr")])

    class Reachable(CurvesPlot):
        _esm = CurvesPlot._esm.replace("export default view(CurvesView);", f"{KEEP}\nexport default view(CurvesView);")

    page, watch = host.show(Reachable(curves))
    told = page.evaluate(
        "() => { const { axes } = window.drawn.at(-1).plot; return [axes[1]._splits, axes[1]._values]; }"
    )
    written = [float(words.replace("−", "-").replace(",", "")) for words in told[1]]
    assert written == pytest.approx(told[0], rel=1e-9, abs=1e-12)
    assert len(set(told[1])) == len(told[1]) > 2
    assert not watch.errors
    page.close()
