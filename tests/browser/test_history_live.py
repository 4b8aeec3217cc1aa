"""The history in a real JupyterLab, with its server: search, pages, columns, pull, alias, diff; and it follows."""

from __future__ import annotations

import re

import pytest
from support.waiting import counted

FILL = """
import numpy as np, lmvp
random = np.random.default_rng(0)
w = {f"blocks.{b}.fc.weight": random.standard_normal((30, 30)).astype("f4") for b in range(4)}
for i in range(1, 231):
    w = {**w, f"blocks.{i % 4}.fc.weight": w[f"blocks.{i % 4}.fc.weight"] * 1.02}
    message, metrics = "Frozen body" if i % 10 == 0 else f"Epoch {i}", {"val/acc": 1 - 1 / (i + 1), "val/loss": 1 / i}
    lmvp.update("live/mlp", w, message=message, metrics=metrics, params={"lr": 0.1 / i}, progress=False)
"""
CELLS = [
    "%load_ext lmvp_jupyter\nimport lmvp, lmvp_jupyter.widgets",
    FILL,
    "table = lmvp_jupyter.widgets.HistoryTable(lmvp.showHistory('live/mlp'))\ntable",
    "(table.selected, [version.name for version in table.chosen], sorted(model)[:1])",
    "lmvp.update('live/mlp', model, message='From the cell', metrics={'val/acc': 0.5}, progress=False); None",
    "from lmvp import local; local.stop()",
    "lmvp.show('live/mlp@v230')",
    "lmvp.diff('live/mlp@v229', '@v230')",
]


@pytest.fixture(scope="module")
def notebook(jupyterlab):
    opened = jupyterlab.open("live-history.ipynb", CELLS)
    opened.run(0)
    opened.run(1)
    opened.run(2)
    yield opened
    opened.run(5)
    opened.close()


@pytest.fixture
def table(notebook):
    shown = notebook.output(2).locator(".lmvp-history")
    shown.locator("table").wait_for()
    yield shown
    assert not notebook.watch.strangers


def names(table):
    return [text.strip() for text in table.locator("tbody .v").all_inner_texts()]


def test_words_and_filters_search_all_versions_not_only_those_on_show(table):
    find = table.get_by_role("searchbox", name="Filter versions")
    find.fill("frozen")
    table.get_by_text("23 versions", exact=True).wait_for()
    assert names(table)[:2] == ["v230", "v220"]
    find.fill("metrics['val/loss'] > 0.2 and number < 4")
    table.get_by_text("3 versions", exact=True).wait_for()
    assert names(table) == ["v3", "v2", "v1"]
    find.fill("nothing has such words")
    table.get_by_text("no version matches").wait_for()
    find.fill("metrics.acc >")
    table.locator(".lmvp-state").get_by_text("breaks off").wait_for()
    find.fill("")
    table.get_by_text("200 of 230 versions", exact=True).wait_for()


def test_sorting_and_paging_reach_the_oldest(table):
    table.get_by_role("button", name="Show all 200").click()
    counted(table.locator("tbody tr"), 200)
    table.get_by_role("button", name="older", exact=True).click()
    table.get_by_text("201 to 230 of 230").wait_for()
    assert names(table)[-1] == "v1"
    table.get_by_role("button", name="newer", exact=True).click()
    table.get_by_text("1 to 200 of 230").wait_for()
    table.get_by_role("button", name="val/acc").click()
    table.locator("th[aria-sort='descending']", has_text="val/acc").wait_for()
    table.get_by_role("button", name="val/acc").click()
    table.locator("th[aria-sort='ascending']", has_text="val/acc").wait_for()
    table.locator("tbody tr").first.get_by_text("v1", exact=True).wait_for()
    table.get_by_role("button", name=re.compile("^When")).click()
    table.locator("tbody tr").first.get_by_text("v230", exact=True).wait_for()


def test_columns_are_chosen_and_the_best_is_marked(table):
    table.get_by_role("button", name="Columns").click()
    table.get_by_label("val/loss").check()
    table.locator("thead").get_by_role("button", name="val/loss").wait_for()
    assert table.locator("td.name").first.inner_text().startswith("0.99")
    table.get_by_role("button", name="Columns").click()


def test_one_is_pulled_and_named_two_are_compared(notebook, table):
    table.get_by_label("Choose v228").check()
    table.get_by_role("button", name="Pull…").click()
    table.get_by_label("Pull v228 into").fill("model")
    table.get_by_role("button", name="Pull", exact=True).click()
    table.get_by_text("model is live/mlp@v228").wait_for()
    table.get_by_role("button", name="Alias…").click()
    table.get_by_label("Alias at v228").fill("no such!")
    table.get_by_role("button", name="Set alias").click()
    table.locator(".lmvp-state.down").wait_for()
    table.get_by_role("button", name="Alias…").click()
    table.get_by_label("Alias at v228").fill("from-table")
    notebook.page.keyboard.press("Enter")
    table.locator(".alias", has_text="from-table").wait_for()
    table.get_by_label("Choose v220").check()
    table.get_by_role("button", name="Diff v220 → v228").click()
    table.locator(".lmvp-diff .sky i").first.wait_for()
    table.locator(".lmvp-diff .histo").first.wait_for(state="attached")
    table.get_by_role("button", name="Close").click()
    counted(table.locator(".lmvp-diff"), 0)
    output = notebook.run(3).inner_text()
    assert "[228, 220]" in output
    assert "blocks.0.fc.weight" in output


def test_it_follows_new_versions_and_says_where_the_server_is_gone(notebook, table):
    notebook.run(4)
    table.locator("tbody tr", has_text="From the cell").wait_for(timeout=10_000)
    notebook.run(5)
    notebook.run(6).locator(".lmvp-model .histo").first.wait_for()
    notebook.run(7).locator(".lmvp-diff .sky i").first.wait_for()
    assert not notebook.watch.errors
