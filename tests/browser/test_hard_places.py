"""Views of what is odd: hundreds of metrics, nothing finite, one point, endless axes, many at once, narrow cells."""

from __future__ import annotations

import math
import re
from datetime import datetime, timezone

import pytest
from support import sample_history as sample
from test_widgets_page import calm

from lmvp.core.schemas.runs import RunRecord
from lmvp.views.curves import Curves, Line
from lmvp.views.history import History
from lmvp.views.runs import Run
from lmvp_jupyter.widgets import CurvesPlot, HistoryTable

AT = datetime(2026, 11, 26, tzinfo=timezone.utc)
RIGHT_TO_LEFT = "\u202eevil\u202c שלום " + "word " * 2000


def curves(*lines):
    run = Run(None, RunRecord(id="a" * 32, project="digits", name="odd-run-1", status="finished", created_at=AT))
    return Curves([run], [Line(0, f"k{i}", steps, values, [AT.timestamp()] * len(steps), len(steps))
                          for i, (steps, values) in enumerate(lines)])  # fmt: skip


def test_four_hundred_metrics_are_chosen_from(host):
    metrics = {f"group{i // 20}/metric_{i}": i / 400 for i in range(400)}
    versions = [sample.version(n, RIGHT_TO_LEFT, metrics=metrics, parents=range(1, n)[-1:]) for n in (2, 1)]
    history = History(versions, title="birdsong/tagger", pages=lambda *_: (versions, 2))
    page, watch = host.show(HistoryTable(history, columns=["group0/metric_3", "group1/metric_21"]), width=1120)
    page.get_by_role("button", name="Columns").click()
    page.get_by_text("and 360 more").wait_for()
    page.get_by_role("searchbox", name="Filter columns").fill("metric_39")
    labels = page.locator(".lmvp-choices label").all_inner_texts()
    assert len(labels) == 11
    page.get_by_label("group19/metric_399").check()
    asked = page.evaluate("sent.at(-1)")
    assert asked == {"kind": "columns", "keys": ["group0/metric_3", "group1/metric_21", "group19/metric_399"]}
    assert "\u202e" not in page.locator("tbody").inner_text()
    calm(page, watch)
    page.close()


@pytest.mark.parametrize("width", [320, 1000])
@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([([0, 1, 2], [math.nan] * 3)], "no finite number"),
        ([([7], [0.5])], "0.5"),
        ([([0, 10**9, 3 * 10**9], [1.0, 0.5, 0.1])], "1 to 0.1"),
        ([(list(range(50)), [1e308 * (-1) ** i for i in range(50)])], "e+308"),
        ([(list(range(3)), [1.0, math.inf, -math.inf]), ([5], [math.nan])], "no finite number"),
    ],
)
def test_odd_numbers_are_drawn_or_said(host, lines, told, width):
    page, watch = host.show(CurvesPlot(curves(*lines)), width=width)
    page.locator("canvas").first.wait_for()
    labels = " ".join(each.get_attribute("aria-label") for each in page.locator(".plot").all())
    assert told in labels
    calm(page, watch)
    page.close()


def test_an_axis_of_billions_is_short(host):
    page, watch = host.show(CurvesPlot(curves(([0, 10**9, 3 * 10**9], [1.0, 0.5, 0.1]))), width=600)
    page.locator(".plot").first.focus()
    page.keyboard.press("End")
    page.locator(".readout", has_text=re.compile("step 3,000,000,000: k0 0.1")).wait_for()
    calm(page, watch)
    page.close()


def test_thirty_tables_in_one_page(host):
    page, watch = host.show(HistoryTable(sample.history()))
    page.evaluate(
        """async () => {
          for (let i = 0; i < 29; i += 1) {
            const el = document.body.appendChild(document.createElement('div'));
            const script = document.querySelector('script[type=module]').textContent;
            const { esm } = JSON.parse(script.match(/const \\{ esm, state \\} = (.*);/)[1]);
            const url = URL.createObjectURL(new Blob([esm], { type: 'text/javascript' }));
            (await import(url)).default.render({ model, el });
          }
          await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
        }"""
    )
    assert page.locator(".lmvp-history").count() == 30
    calm(page, watch)
    page.close()
