"""The form of results that marimo shows, without a browser."""

import numpy as np
import pytest

import lmvp

pytestmark = pytest.mark.notebook

marimo = pytest.importorskip("marimo", reason="marimo is not installed")

from marimo._output.formatting import get_formatter  # noqa: E402 - the function by which marimo shows any object


@pytest.fixture
def results(home):
    lmvp.push("digits/mlp", {"w": np.zeros(3)}, metrics={"acc": 0.5}, progress=False)
    lmvp.push("digits/mlp", {"w": np.ones(3)}, metrics={"acc": 0.75}, progress=False)
    with lmvp.start_run("digits", name="first") as run:
        run.log({"loss": 0.5}, step=0)
    return {
        "history": lmvp.history("digits/mlp"),
        "diff": lmvp.diff("digits/mlp@v1", "digits/mlp@v2"),
        "show": lmvp.show("digits/mlp"),
        "open": lmvp.open("digits/mlp"),
        "run": lmvp.run("first", "digits"),
        "curves": lmvp.metrics("digits/first"),
    }


def shown(result):
    return get_formatter(result)(result)


def test_marimo_gets_a_widget_for_each_result(results):
    for name, result in results.items():
        kind, text = shown(result)
        assert kind == "text/html", name
        assert "<marimo-anywidget" in text, name


def test_marimo_gets_the_static_form_or_text_where_the_user_says_so(results, monkeypatch):
    monkeypatch.setenv("LMVP_DISPLAY", "static")
    for name, result in results.items():
        assert "<marimo-anywidget" not in shown(result)[1], name
    assert "<table" in shown(results["history"])[1]
    monkeypatch.setenv("LMVP_DISPLAY", "text")
    assert "<table" not in shown(results["history"])[1]
    assert "digits/mlp" in shown(results["history"])[1]


def test_lists_of_runs_are_tables_in_marimo(results):
    kind, text = shown(lmvp.runs("digits"))
    assert kind == "text/html"
    assert "first" in text
    assert "<table" in text


def test_view_of_a_cell_that_ran_again_is_closed():
    from lmvp.views.history import History
    from lmvp_jupyter.widgets import HistoryTable

    table = HistoryTable(History([], title="digits/mlp"))
    assert table.is_open
    table.comm._closed = True  # as marimo leaves it: `comm` itself stays
    assert not table.is_open
    assert set(table.forms()) == {"text/plain", "text/html"}
