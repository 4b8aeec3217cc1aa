"""Curves that grow below a cell while it trains, in a real JupyterLab; and what a saved notebook keeps of them."""

from __future__ import annotations

import re
import time
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
from support.waiting import counted

TRAIN = """
import math, time
with lmvp.start_run("digits", name="quiet-wren-44", params={"lr": 0.1}, system_metrics=False) as run:
    for step in range(STEPS):
        run.log({"train/loss": 2 * math.exp(-step / 100) + 0.2, "val/f1": 1 - math.exp(-step / 80)}, step=step)
        time.sleep(0.01)
"""

CELLS = [
    "%load_ext lmvp_jupyter\nimport lmvp",
    TRAIN.replace("STEPS", "800"),
    "lmvp.run('quiet-wren-44', 'digits')",
    "lmvp.runs('digits')",
    "%lmvp metrics digits/quiet-wren-44 --key train/loss --log",
    "%%lmvp run digits --name failing-cell-1\nrun.log({'x': 1.0})\n1 / 0",
    "lmvp.run('failing-cell-1', 'digits').status",
    "from lmvp import local; local.stop()",
]

PIXELS = """(canvas) => {
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  let sum = 0, blue = 0;
  for (let i = 0; i < data.length; i += 4) {
    sum = (sum * 31 + data[i] + 7 * data[i + 2] + 13 * data[i + 3]) % 1000000007;
    blue += data[i + 3] > 128 && data[i + 2] > data[i] + 60;
  }
  return [sum, blue];
}"""


@pytest.fixture
def notebook(jupyterlab):
    opened = jupyterlab.open("curves.ipynb", CELLS)
    opened.run(0)
    yield opened
    opened.run(len(CELLS) - 1)
    opened.close()


def start(notebook, cell):
    """Run a cell without waiting for its end."""
    notebook.page.evaluate(
        """(i) => { const app = window.jupyterapp; app.shell.currentWidget.content.activeCellIndex = i;
           app.commands.execute('notebook:run-cell'); }""",
        cell,
    )


def wait_idle(notebook):
    notebook.page.wait_for_function(
        "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'", timeout=60_000
    )


def test_a_curve_grows_while_its_cell_is_busy(notebook, jupyterlab):
    start(notebook, 1)
    output = notebook.output(1)
    output.locator("canvas").first.wait_for(timeout=20_000)
    assert output.locator(".status.running").is_visible()
    pictures = []
    running = output.locator(".status.running")
    while running.count():
        pictures.append(tuple(output.locator("canvas").first.evaluate(PIXELS)))
        time.sleep(0.25)
    assert len(set(pictures)) >= 4, "it was drawn anew, again and again, while the cell ran"
    assert pictures[-1][1] > 100, "there is a blue line"
    wait_idle(notebook)
    output.locator(".status.finished").wait_for()
    assert "step 799" in output.inner_text()
    counted(output.locator("canvas"), 2)
    assert not notebook.watch.errors
    assert not notebook.watch.strangers
    saved_shows_the_picture(notebook, jupyterlab)


def saved_shows_the_picture(notebook, jupyterlab):
    """What is saved is a picture: reopened without a kernel, in HTML, and on a page without scripts."""
    notebook.command("docmanager:save")
    path = Path(jupyterlab.root) / "curves.ipynb"
    for _ in range(100):
        cell = nbformat.read(path, 4).cells[1]
        if cell.outputs and "<img" in str(cell.outputs):
            break
        time.sleep(0.1)
    address, output = cell.outputs
    assert "digits/quiet-wren-44" in address.text, "start_run prints where to look"
    assert "data:image/svg+xml" in output.data["text/html"]
    assert "widget-view" not in str(output)
    assert "train/loss" in output.data["text/plain"]
    again = jupyterlab.context.new_page()
    again.goto(f"{jupyterlab.url}/lab/workspaces/again/tree/curves.ipynb?token=test&reset")
    again.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
    again.wait_for_function(  # it may draw an output twice before it settles
        "() => document.querySelectorAll('.jp-Notebook .jp-Cell')[1]?.querySelectorAll('img, canvas').length === 2"
    )
    again.close()
    in_html(path, jupyterlab)


def in_html(path, jupyterlab):
    exporters = pytest.importorskip("nbconvert.exporters")
    html, _ = exporters.HTMLExporter(embed_images=True).from_filename(str(path))
    browser = jupyterlab.context.browser
    page = jupyterlab.context.new_page()
    page.route("**/*", lambda route: route.abort() if route.request.url.startswith("http") else route.continue_())
    page.set_content(html)
    shown = page.locator("img[src^='data:image/svg']")
    counted(shown, 2)
    assert all(shown.nth(i).evaluate("(img) => img.complete && img.naturalWidth > 300") for i in range(2))
    page.close()
    assert browser is None or browser


def test_runs_are_shown_and_a_failing_cell_is_a_failed_run(notebook):
    notebook.run(1)
    counted(notebook.run(2).locator("canvas"), 2)
    table = notebook.run(3).inner_text()
    assert "quiet-wren-44" in table
    assert "■ finished" in table
    plot = notebook.run(4)
    plot.locator("canvas").wait_for()
    assert plot.get_by_role("button", name="log axis").get_attribute("aria-pressed") == "true"
    failed = notebook.run(5).inner_text()
    assert "ZeroDivisionError" in failed
    assert "1 / 0" in failed
    assert "'failed'" in notebook.run(6).inner_text()
    assert not notebook.watch.strangers


def test_a_plot_is_smoothed_zoomed_and_read_by_keys(notebook):
    notebook.run(1)
    plot = notebook.run(2)
    canvas = plot.locator("canvas").first
    canvas.wait_for()
    before = canvas.evaluate(PIXELS)
    plot.get_by_role("button", name="smooth").click()
    assert plot.get_by_role("button", name="smooth 5").is_visible()
    assert canvas.evaluate(PIXELS) != before
    box = plot.locator(".u-over").first.bounding_box()
    notebook.page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 50)
    notebook.page.mouse.down()
    notebook.page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 60, steps=5)
    notebook.page.mouse.up()
    plot.get_by_role("button", name="reset zoom").wait_for()
    plot.locator(".plot").first.focus()
    notebook.page.keyboard.press("Home")
    plot.locator(".readout", has_text=re.compile("step (39|40)")).wait_for()
    notebook.page.keyboard.press("Escape")
    plot.get_by_role("button", name="reset zoom").wait_for(state="detached")
    notebook.page.keyboard.press("Home")
    plot.locator(".readout", has_text="step 0: train/loss 2.2").wait_for()
    assert not notebook.watch.errors


def test_the_quickstart_shows_a_live_curve(jupyterlab):
    pytest.importorskip("skops")
    root = Path(__file__).parents[2]
    source = nbformat.read(root / "examples" / "quickstart.ipynb", 4)
    cells = [cell.source for cell in source.cells if cell.cell_type == "code"]
    notebook = jupyterlab.open("quickstart.ipynb", [*cells, "from lmvp import local; local.stop()"], height=1400)
    live = next(number for number, cell in enumerate(cells) if cell.startswith("with lmvp.start_run"))
    for number in range(live):
        notebook.run(number)
    start(notebook, live)
    canvas = notebook.output(live).locator("canvas").first
    canvas.wait_for(timeout=20_000)
    pictures = []
    while notebook.output(live).locator(".status.running").count():
        pictures.append(tuple(canvas.evaluate(PIXELS)))
        time.sleep(0.3)
    assert len(set(pictures)) >= 3
    notebook.output(live).locator(".status.finished").wait_for()
    for number in range(live + 1, len(cells)):
        notebook.run(number)
    assert "as here" in notebook.page.locator(".jp-Notebook").inner_text()
    assert not notebook.watch.errors
    assert not notebook.watch.strangers
    notebook.run(len(cells))
    notebook.close()


def test_what_is_drawn_is_saved_as_picture_drawing_and_numbers(notebook, tmp_path):
    notebook.run(1)
    plot = notebook.run(2)
    plot.locator("canvas").first.wait_for()
    kept = {}
    for kind in ("PNG", "SVG", "CSV"):
        with notebook.page.expect_download() as download:
            plot.get_by_role("button", name=kind).click()
        assert download.value.suggested_filename == f"quiet-wren-44.{kind.lower()}"
        download.value.save_as(tmp_path / kind)
        kept[kind] = (tmp_path / kind).read_bytes()
    assert kept["PNG"].startswith(b"\x89PNG")
    assert len(kept["PNG"]) > 5000
    drawing = ElementTree.fromstring(kept["SVG"])
    paths = [each.get("d") for each in drawing.iter("{http://www.w3.org/2000/svg}path")]
    assert len(paths) == 2
    assert all(path.count("L") > 300 for path in paths)
    lines = kept["CSV"].decode().splitlines()
    assert lines[0] == "line,metric,step,seconds,value"
    assert lines[1].startswith("train/loss,train/loss,0,")
    assert len(lines) > 1600


def test_charts_that_come_later_do_not_lie_over_the_first(notebook):
    start(notebook, 1)
    charts = notebook.output(1).locator(".chart")
    charts.nth(1).wait_for(timeout=20_000)
    notebook.output(1).locator(".status.finished").wait_for(timeout=30_000)
    boxes = [charts.nth(i).locator("canvas").bounding_box() for i in range(2)]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"] or boxes[0]["y"] + boxes[0]["height"] <= boxes[1]["y"]
