"""Results shown in a kernel: one notebook is run, as nbconvert and JupyterLab run it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from lmvp.errors import InvalidArgument
from lmvp_jupyter import display

pytestmark = pytest.mark.notebook

nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")

SAMPLE = Path(__file__).parent.parent
START = f"""
import os, sys; sys.path.insert(0, {str(SAMPLE)!r})
from support import sample_history
from lmvp_jupyter import display
from lmvp_jupyter.widgets import MetricsPlot
display.install(get_ipython())
history = sample_history.history()
"""


def run(*cells: str) -> list[list[dict[str, str]]]:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in (START, *cells)])
    for cell in notebook.cells:
        if "hologram" in cell.source:
            cell.metadata["tags"] = ["raises-exception"]
    nbclient.NotebookClient(notebook, timeout=120, store_widget_state=False).execute()
    return [[o.get("data", {"error": o.get("traceback")}) for o in cell.outputs] for cell in notebook.cells[1:]]


@pytest.fixture(scope="module")
def outputs():
    return run(
        "history",
        "os.environ['LMVP_DISPLAY'] = 'static'; history",
        "os.environ['LMVP_DISPLAY'] = 'text'; history",
        "os.environ['LMVP_DISPLAY'] = 'text'; MetricsPlot(history)",
        "os.environ['LMVP_DISPLAY'] = 'hologram'; history",
        "os.environ['LMVP_DISPLAY'] = ''; history[0]",
        "MetricsPlot(history)",
        "for _ in range(2): display.uninstall(get_ipython())",
        "history",
    )


def test_a_history_is_its_static_form_with_a_place_for_the_live_view(outputs):
    (data,) = outputs[0]
    assert set(data) == {"text/html", "text/plain"}
    assert data["text/html"].startswith('<div class="lmvp-live-')


def test_static_and_text_modes(outputs):
    assert [set(data) for data in outputs[1]] == [{"text/plain", "text/html"}]
    assert [set(data) for data in outputs[2]] == [{"text/plain"}]
    assert [set(data) for data in outputs[3]] == [{"text/plain"}]


def test_an_unknown_mode_is_said(outputs):
    assert all("lmvp-live-" not in data.get("text/html", "") for data in outputs[4])
    (traceback,) = [data["error"] for data in outputs[4] if "error" in data]
    assert traceback == [
        "InvalidArgument: LMVP_DISPLAY is 'hologram'",
        "  hint: set it to one of widget, view, static, text",
    ]


def test_a_version_shows_its_facts(outputs):
    (data,) = outputs[5]
    assert "birdsong/tagger@v13" in data["text/html"]


def test_without_the_extension_a_history_is_static(outputs):
    assert "lmvp-live-" in outputs[6][0]["text/html"]
    (data,) = outputs[8]
    assert set(data) == {"text/plain", "text/html"}
    assert "lmvp-live-" not in data["text/html"]


def test_freezing_replaces_what_is_on_show():
    history, plot, count = run("history", "MetricsPlot(history)", "display.freeze(), display.freeze()")
    assert "lmvp-live-" not in history[0]["text/html"]
    assert "<table>" in history[0]["text/html"]
    assert "image/svg+xml" in plot[0]
    assert count[0]["text/plain"] == "(2, 0)"


IN_CELL = """
from types import SimpleNamespace
(shell,) = display._displays.values()
shell._before_cell(SimpleNamespace(cell_id={!r}))  # as JupyterLab names the cell that runs
"""
OUTCOME = """
theirs is plot, [each.comm is not None for each in (ours, theirs)], len(shell._shown)
"""


def test_a_cell_that_runs_again_ends_what_was_made_for_it_and_no_widget_of_the_user():
    told = run(
        f"{IN_CELL.format('one')}history",
        f"{IN_CELL.format('two')}plot = MetricsPlot(history); plot",
        "ours, theirs = [each.widget for each in shell._shown]",
        IN_CELL.format("one") + IN_CELL.format("two"),
        OUTCOME,
    )
    assert told[-1][0]["text/plain"] == "(True, [False, True], 0)"


def test_a_terminal_is_left_alone():
    shell = SimpleNamespace()
    display.install(shell)
    display.uninstall(shell)


def test_modes_are_checked(monkeypatch):
    monkeypatch.setenv("LMVP_DISPLAY", "Static ")
    assert display.mode() == "static"
    monkeypatch.setenv("LMVP_DISPLAY", "hologram")
    with pytest.raises(InvalidArgument, match="hologram"):
        display.mode()
