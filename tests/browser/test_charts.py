"""Charts of the console and the notebook: values at the pointer, one legend for all, metrics of the machine."""

from __future__ import annotations

import math
import shutil
from datetime import datetime, timezone

import pytest
from support import sample_history as sample

from lmvp.core.schemas.runs import RunRecord
from lmvp.views.curves import HUES, Curves, Line, chart_svg
from lmvp.views.runs import Run
from lmvp_jupyter.curves import CurvesPlot
from lmvp_jupyter.widgets import MetricsPlot

pytestmark = pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is not installed")

AT = datetime(2026, 11, 26, tzinfo=timezone.utc)
KEYS = ("train/loss", "val/acc", "optim/lr")


def runs(count, keys=KEYS, *, without=()):
    """Return curves of some runs; `without` holds pairs of a run and a metric that it lacks."""
    records = [RunRecord(id=f"{n:032x}", project="digits", name=f"run-{n}", status="finished", created_at=AT)
               for n in range(count)]  # fmt: skip
    lines = [Line(n, key, list(range(40)), [math.exp(-step / 10) + n for step in range(40)],
                  [AT.timestamp() + step for step in range(40)], 40)
             for key in keys for n in range(count) if (n, key) not in without]  # fmt: skip
    return Curves([Run(None, record) for record in records], lines)


def hover(page, chart, share=0.5, high=0.3):
    """Move the pointer over a chart; return where it is."""
    box = page.locator(".u-over").nth(chart).bounding_box()
    x, y = box["x"] + share * box["width"], box["y"] + high * box["height"]
    page.mouse.move(x - 3, y)
    page.mouse.move(x, y)
    page.locator(".lmvp-tip:visible").wait_for()
    return x, y


def told(page):
    """Return the names of the lines that the box at the pointer tells of."""
    return page.locator(".lmvp-tip:visible > div .clip").all_inner_texts()


@pytest.mark.parametrize("width", [360, 1120])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_value_is_at_the_pointer_and_in_view(host, width, share):
    page, watch = host.show(CurvesPlot(runs(3)), width=width, height=600)
    last = page.locator(".plot").count() - 1
    page.locator(".plot").nth(last).scroll_into_view_if_needed()
    x, y = hover(page, last, share)
    tip = page.locator(".lmvp-tip:visible")
    assert tip.count() == 1
    box = tip.bounding_box()
    across = max(box["x"] - x, x - box["x"] - box["width"], 0)
    down = max(box["y"] - y, y - box["y"] - box["height"], 0)
    assert math.hypot(across, down) <= 40
    assert min(box["x"], box["y"]) >= 0
    assert box["x"] + box["width"] <= width
    assert box["y"] + box["height"] <= 600
    assert not watch.errors
    page.close()


def test_values_at_the_pointer_are_sorted_and_the_nearest_is_bold(host):
    page, _ = host.show(CurvesPlot(runs(3)))
    hover(page, 0, high=0.05)
    assert told(page) == ["run-2", "run-1", "run-0"]
    assert page.locator(".lmvp-tip:visible .near .clip").all_inner_texts() == ["run-2"]
    assert page.locator(".lmvp-tip:visible > p").first.inner_text().startswith("step 19, 19 s")
    page.mouse.move(1, 1)
    page.locator(".lmvp-tip:visible").wait_for(state="detached")
    page.close()


def test_values_at_the_pointer_are_ten_at_most(host):
    page, _ = host.show(CurvesPlot(runs(14)))
    hover(page, 0)
    assert len(told(page)) == 10
    assert "4 more" in page.locator(".lmvp-tip:visible").inner_text()
    page.close()


def test_smoothed_value_has_the_raw_one_beside_it(host):
    curves = runs(1, ["loss"])
    curves.smooth = 15
    page, _ = host.show(CurvesPlot(curves))
    hover(page, 0)
    raw, smooth = (page.locator(f".lmvp-tip:visible > div {css}").inner_text() for css in (".quiet", "b"))
    assert float(raw) == pytest.approx(math.exp(-1.9), rel=1e-3)
    assert float(smooth) > float(raw), "the mean of a falling curve is above it"
    page.close()


def test_value_over_versions_is_at_the_pointer(host):
    page, _ = host.show(MetricsPlot(sample.history()))
    x, y = hover(page, 0, share=0.88)
    box = page.locator(".lmvp-tip:visible").bounding_box()
    assert page.locator(".lmvp-tip:visible p").first.inner_text() == "v12"
    assert abs(box["y"] - y) < 40 or abs(box["y"] + box["height"] - y) < 40
    assert abs(box["x"] - x) < 40 or abs(box["x"] + box["width"] - x) < 40
    page.close()


def test_legend_of_several_runs_is_shown_once(host):
    page, watch = host.show(CurvesPlot(runs(3)))
    assert page.locator(".legend:visible").count() == 1
    assert page.locator(".legend:visible .key").all_inner_texts() == ["run-0", "run-1", "run-2"]
    assert page.locator("body").inner_text().count("run-1") == 1
    page.locator(".key", has_text="run-1").click()
    assert page.locator(".key", has_text="run-1").get_attribute("aria-pressed") == "false"
    hover(page, 2)
    assert told(page) == ["run-2", "run-0"], "hidden in every chart"
    assert not watch.errors
    page.close()


def test_run_has_one_colour_in_all_charts(host):
    page, _ = host.show(CurvesPlot(runs(3, without=[(0, "val/acc"), (1, "optim/lr")])))
    strokes = "(all) => all.map((line) => line.style.stroke)"
    legend = page.locator(".legend:visible .key path").evaluate_all(strokes)
    assert legend == ["var(--s1)", "var(--s2)", "var(--s3)"]
    for chart, numbers in ((1, [2, 1]), (2, [2, 0])):
        hover(page, chart)
        assert told(page) == [f"run-{number}" for number in numbers]
        colours = page.locator(".lmvp-tip:visible > div path").evaluate_all(strokes)
        assert colours == [legend[number] for number in numbers]
    page.close()


def test_static_form_has_one_legend_and_the_same_colours():
    curves = runs(3, without=[(0, "val/acc")])
    assert curves._repr_html_().count('alt="Runs: run-0, run-1, run-2"') == 1
    drawing = chart_svg(curves, curves.groups()["val/acc"])
    assert [f'stroke="{hue}"' in drawing for hue in HUES[:3]] == [False, True, True]
    assert "run-1" not in drawing


def test_legend_of_one_run_names_prefixes(host):
    page, _ = host.show(CurvesPlot(runs(1, ["train/loss", "val/loss", "val/acc", "optim/lr"])))
    assert page.locator(".legend:visible").count() == 1
    assert page.locator(".legend:visible .key").all_inner_texts() == ["train", "val"]
    page.locator(".key", has_text="train").click()
    hover(page, 0)
    assert told(page) == ["val/loss"]
    page.close()


@pytest.mark.parametrize("dark", [False, True])
def test_system_metrics_of_a_notebook_are_a_part_below_the_curves(host, dark):
    curves = runs(1, ["loss"])
    machine = runs(1, ["system/cpu_percent", "system/process/cpu_percent", "system/gpu/0/power_watts"])
    machine.axis = "time"
    page, watch = host.show(CurvesPlot(Curves(curves.runs, curves.lines, machine=lambda: machine)), dark=dark)
    assert page.locator(".lmvp-system").count() == 1
    assert page.locator(".lmvp-curves canvas:visible").count() == 1
    page.locator(".lmvp-system > summary").click()
    page.locator(".lmvp-system canvas").nth(1).wait_for()
    part = page.locator(".lmvp-system")
    assert part.locator(".chart h3").all_inner_texts() == ["cpu_percent", "gpu/0/power_watts"]
    assert part.locator(".lmvp-lines button").all_inner_texts() == ["machine", "process"]
    assert part.get_by_role("button", name="x: time").count() == 1
    box, whole = part.locator("canvas").first.bounding_box(), page.locator("#cell").bounding_box()
    assert box["x"] + box["width"] <= whole["x"] + whole["width"] + 1
    assert box["width"] > 300
    assert part.locator(".lmvp").evaluate("(el) => getComputedStyle(el).backgroundColor") == "rgba(0, 0, 0, 0)"
    assert not watch.errors
    page.close()


def test_system_metrics_that_come_later_get_their_part_and_stay_open(host):
    page, watch = host.show(CurvesPlot(runs(1, ["loss"]), live=True))
    line = {"id": "r/system/cpu_percent", "label": "system/cpu_percent", "run": 0, "key": "system/cpu_percent",
            "steps": [], "times": [], "values": [], "axis": [], "count": 2, "group": "system/cpu_percent"}  # fmt: skip
    news = """([line, values]) => model.listeners["msg:custom"].forEach((hear) => hear(
        { kind: "news", section: "system", head: { title: "run-0", status: "running", fact: "" }, lines: [line] },
        [new DataView(new Float64Array([...values.map((_, i) => i), ...values.map((_, i) => i), ...values,
          ...values.map(() => NaN)]).buffer)]))"""
    page.evaluate(news, [line, [10]])
    page.locator(".lmvp-system > summary").click()
    page.evaluate(news, [line, [10, 90, 20]])
    assert page.locator(".lmvp-system .chart h3").all_inner_texts() == ["cpu_percent"]
    assert page.locator(".lmvp-system .plot").get_attribute("aria-label") == (
        "system/cpu_percent by time. system/cpu_percent: 10 to 20"
    )
    page.evaluate("() => model.set('data', { ...model.get('data'), live: false, system: model.get('data') })")
    assert page.locator(".lmvp-system[open]").count() == 1
    assert not watch.errors
    page.close()


def test_system_metrics_are_drawn_when_they_are_opened(server, looker):
    with server.client.start_run("birdsong", name="with-system", system_metrics=False) as run:
        for step in range(30):
            run.log({"loss": 1 / (step + 1), "system/memory_used_bytes": 8e9 + step * 1e8, "system/cpu_percent": 50.0})
    found = server.client.run("birdsong", "with-system")
    page = looker.page
    page.goto(f"{server.url}/p/birdsong/-/runs/{found.id}")
    page.locator(".island[data-alive] canvas").wait_for()
    assert page.locator("canvas").count() == 1
    page.get_by_text("System metrics").click()
    page.locator("details.system canvas").nth(1).wait_for()
    heads = page.locator("details.system .chart h3").all_inner_texts()
    assert heads == ["system/memory_used_bytes", "system/cpu_percent"]
    other = next(run for run in server.client.runs("birdsong") if run.id != found.id)
    page.goto(f"{server.url}/p/birdsong/-/compare?run={found.id}&run={other.id}")
    page.get_by_text("System metrics").click()
    page.locator("details.system canvas").nth(1).wait_for()
    page.goto(f"{server.url}/p/birdsong/-/runs/{other.id}")
    assert page.get_by_text("System metrics").count() == 0
