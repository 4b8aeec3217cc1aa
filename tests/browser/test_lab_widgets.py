"""The widgets in a real JupyterLab, with a real kernel."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from support.waiting import counted

SAMPLE = Path(__file__).parent.parent

START = f"""
import sys; sys.path[:0] = [{str(SAMPLE)!r}, {str(Path(__file__).parent)!r}]
from support import sample_history
from lmvp_jupyter import display
from lmvp_jupyter.widgets import HistoryTable, MetricsPlot
display.install(get_ipython())
history = sample_history.history()
"""

CELLS = [
    START,
    "history",
    "table = HistoryTable(history)\ntable",
    "table.selected, [v.name for v in table.chosen]",
    "MetricsPlot(history)",
    "display.freeze()",
    "import os; os.environ['LMVP_DISPLAY'] = 'view'\nhistory",
    "from unit.test_diff_data import found\nfound()[0]",
    "from test_axe import showing\nshowing()",
]

INK = """(canvas) => {
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  let black = 0, white = 0;
  for (let i = 0; i < data.length; i += 4) {
    if (data[i + 3] > 128) { black += data[i] < 10; white += data[i] > 250; }
  }
  return { black, white };
}"""


@pytest.fixture
def notebook(jupyterlab):
    opened = jupyterlab.open("widgets.ipynb", CELLS)
    opened.run(0)
    yield opened
    opened.close()


def told(notebook, words: str) -> bool:
    """Whether the kernel comes to know a choice: a widget sends the next one when the last has been heard."""
    return any(words in notebook.run(3).inner_text() for _ in range(10))


def test_a_history_is_a_widget_whose_choices_reach_the_kernel(notebook):
    rows = notebook.run(2).locator(".lmvp-history tbody tr")
    rows.first.wait_for()
    counted(rows, 13)
    notebook.output(2).get_by_label("Choose v11").check()
    notebook.output(2).get_by_label("Choose v6").check()
    assert notebook.output(2).get_by_text("13 versions, 2 chosen").is_visible()
    assert told(notebook, "([11, 6], ['v11', 'v6'])")
    assert not notebook.watch.errors
    assert not notebook.watch.strangers


def test_keys_in_the_table_are_not_the_shortcuts_of_jupyterlab(notebook):
    notebook.run(2).locator(".lmvp-history tbody tr").first.wait_for()
    notebook.command("notebook:enter-command-mode")
    notebook.output(2).get_by_label("Choose v13").focus()
    for key in ("j", "x", "j", "Space"):
        notebook.page.keyboard.press(key)
    counted(notebook.page.locator(".jp-Notebook .jp-Cell"), len(CELLS))
    assert notebook.output(2).get_by_text("13 versions, 2 chosen").is_visible()
    assert told(notebook, "([12, 11]")


def test_keys_in_the_plot_are_not_the_shortcuts_of_jupyterlab(notebook):
    notebook.run(4).locator("canvas").wait_for()
    notebook.command("notebook:enter-command-mode")
    active = "() => window.jupyterapp.shell.currentWidget.content.activeCellIndex"
    plot = notebook.output(4).get_by_role("img", name="val/f1 by version")
    plot.focus()
    before = notebook.page.evaluate(active)
    for key in ("End", "ArrowLeft"):
        notebook.page.keyboard.press(key)
    assert notebook.output(4).locator("output").inner_text().startswith("v12: val/f1 0.874")
    notebook.output(4).locator(".lmvp-plot summary").focus()
    notebook.page.keyboard.press("Enter")
    assert notebook.output(4).locator(".lmvp-plot details tbody tr").first.is_visible()
    assert notebook.page.evaluate(active) == before
    assert notebook.page.evaluate("() => window.jupyterapp.shell.currentWidget.content.mode") == "command"


def test_the_plot_is_drawn_and_follows_the_theme(notebook):
    canvas = notebook.run(4).locator("canvas")
    canvas.wait_for()
    assert canvas.evaluate(INK)["black"] > 1000
    notebook.dark()
    try:
        notebook.page.wait_for_timeout(600)
        ink = canvas.evaluate(INK)
        assert ink["white"] > 1000
        assert ink["black"] == 0
    finally:
        notebook.dark(False)
    assert not notebook.watch.strangers


def test_the_high_contrast_theme_reaches_the_widgets(notebook):
    notebook.run(4).locator("canvas").wait_for()
    notebook.command("apputils:change-theme", {"theme": "JupyterLab Dark High Contrast"})
    try:
        notebook.page.wait_for_selector('body[data-jp-theme-name="JupyterLab Dark High Contrast"]', state="attached")
        tokens = """(root) => ["c1", "ink-2"].map((name) => {
          const probe = root.appendChild(document.createElement("span"));
          probe.style.color = `var(--${name})`;
          const found = getComputedStyle(probe).color;
          probe.remove();
          return found;
        })"""
        found = notebook.output(4).locator(".lmvp").first.evaluate(tokens)
        assert found == ["rgb(176, 69, 127)", "rgb(255, 255, 255)"]
    finally:
        notebook.dark(False)
    assert not notebook.watch.strangers


def live(notebook) -> None:
    """Wait until the views lie over the static forms of cells 1 and 4."""
    notebook.output(1).locator(".lmvp-history tbody tr").first.wait_for()
    notebook.output(4).locator("canvas").wait_for()


def save(notebook, path: Path) -> nbformat.NotebookNode:
    notebook.command("docmanager:save")
    notebook.page.wait_for_function("() => !window.jupyterapp.shell.currentWidget.context.model.dirty")
    return nbformat.read(path, 4)


def shows_tables(notebook) -> None:
    """The table and the picture are there, still, and nothing speaks of a model that is gone."""
    table = notebook.output(1)
    counted(table.locator("tbody tr:visible"), 13)
    grounds = (
        "(table) => new Set([...table.querySelectorAll('tbody tr')].map(r => getComputedStyle(r).background)).size"
    )
    assert table.evaluate(grounds) == 1, "JupyterLab stripes its tables"
    strip = table.get_by_alt_text(re.compile("layers changed")).first
    assert strip.evaluate("(img) => img.complete && img.naturalWidth") == 300
    assert notebook.output(4).locator("img[alt^='val/f1 by version']").is_visible()
    counted(notebook.page.locator(".lmvp-history, .lmvp-plot"), 0)
    assert "model not found" not in notebook.page.locator(".jp-Notebook").inner_text()


@pytest.fixture
def saved(notebook, jupyterlab):
    """A notebook that was saved while its widgets were live."""
    notebook.run(1)
    notebook.run(4)
    live(notebook)
    assert notebook.output(1).get_by_alt_text(re.compile("layers changed")).first.is_hidden()
    return save(notebook, jupyterlab.root / "widgets.ipynb")


def test_a_saved_notebook_shows_its_tables_without_its_kernel(saved, jupyterlab):
    kinds = {kind for cell in saved.cells for output in cell.outputs for kind in output.get("data", {})}
    assert kinds == {"text/plain", "text/html", "image/svg+xml"}
    assert "widgets" not in saved.metadata
    nbformat.write(saved, jupyterlab.root / "again.ipynb")
    again = jupyterlab.open("again.ipynb")
    shows_tables(again)
    again.close()


def test_a_notebook_of_somebody_else_shows_its_tables(saved, jupyterlab):
    """It is not trusted: JupyterLab drops what is not plain HTML."""
    for cell in saved.cells:
        cell.metadata.pop("trusted", None)
        cell.source += " "  # another notebook than the one that was signed
    nbformat.write(saved, jupyterlab.root / "untrusted.ipynb")
    again = jupyterlab.open("untrusted.ipynb")
    trust = "() => window.jupyterapp.shell.currentWidget.content.widgets[1].model.trusted"
    assert again.page.evaluate(trust) is False
    shows_tables(again)
    again.close()


def test_a_page_made_of_a_notebook_shows_its_tables(saved, chromium):
    nbconvert = pytest.importorskip("nbconvert", reason="nbconvert is not installed")
    html, _ = nbconvert.HTMLExporter(template_name="basic").from_notebook_node(saved)
    page = chromium.new_page()
    page.set_content(html)
    assert page.locator("tbody tr").count() >= 13
    strip = page.get_by_alt_text(re.compile("layers changed")).first
    assert strip.evaluate("(img) => img.naturalWidth") == 300
    page.close()


def test_a_page_that_is_loaded_again_is_live_while_the_kernel_is(saved, notebook):
    notebook.page.reload()
    live(notebook)
    notebook.output(1).get_by_label("Choose v11").check()
    assert notebook.output(1).get_by_text("13 versions, 1 chosen").is_visible()


def test_a_diff_and_a_version_are_there_without_their_kernel(notebook, jupyterlab):
    for cell, view in ((7, ".lmvp-diff .sky i"), (8, ".lmvp-model .strip i")):
        notebook.run(cell).locator(view).first.wait_for()
    nbformat.write(save(notebook, jupyterlab.root / "widgets.ipynb"), jupyterlab.root / "views.ipynb")
    again = jupyterlab.open("views.ipynb")
    for cell, words in ((7, "blocks.0 to 3"), (8, "Hears birds.")):
        output = again.output(cell)
        output.get_by_text(words).first.wait_for()
        assert output.locator("img").first.evaluate("(img) => img.complete && img.naturalWidth") > 300
    counted(again.page.locator(".lmvp-diff, .lmvp-model"), 0)
    assert "model not found" not in again.page.locator(".jp-Notebook").inner_text()
    again.close()


def test_a_kernel_that_is_started_anew_leaves_the_static_forms(saved, notebook):
    notebook.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    notebook.page.locator(".lmvp-history").wait_for(state="detached")
    shows_tables(notebook)


def test_a_frozen_output_is_static_at_once(saved, notebook):
    assert "2" in notebook.run(5).inner_text()
    notebook.page.locator(".lmvp-history").wait_for(state="detached")
    shows_tables(notebook)


def test_a_view_that_was_asked_for_is_a_widget(notebook):
    output = notebook.run(6)
    output.locator(".lmvp-history tbody tr").first.wait_for()
    counted(output.locator("[class^='lmvp-live-']"), 0)
    counted(output.locator("tbody tr"), 13)
