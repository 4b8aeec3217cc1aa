"""The live view over the static form, step by step, in a page without JupyterLab."""

from __future__ import annotations

import pytest
from support import sample_history as sample

from lmvp_jupyter.widgets import HistoryTable

OUTPUT = '<div class="out jp-RenderedHTMLCommon"><div class="lmvp-live-1"><p class="static">a table</p></div></div>'

BEGIN = """async (esm) => {
  const url = URL.createObjectURL(new Blob([esm], { type: 'text/javascript' }));
  window.module = (await import(url)).default;
  clean();
  document.getElementById('cell').replaceChildren();
  model.state.place = 'lmvp-live-1';
}"""
DRAW = "(html) => { document.getElementById('cell').innerHTML = html; }"
LISTENERS = "Object.values(model.listeners).flat().length"


@pytest.fixture
def page(host):
    page, watch = host.show(HistoryTable(sample.history()))
    page.evaluate(BEGIN, str(HistoryTable._esm))
    page.watch = watch
    yield page
    page.close()


def begin(page):
    page.evaluate("() => { window.end = module.initialize({ model }); }")


def live(page, count=1):
    page.wait_for_function(f"document.querySelectorAll('.lmvp-history').length === {count}")


@pytest.mark.parametrize("first", ["the output", "the model"])
def test_whichever_comes_first_the_view_lies_over_the_output(page, first):
    steps = [lambda: page.evaluate(DRAW, OUTPUT), lambda: begin(page)]
    for step in steps if first == "the output" else steps[::-1]:
        step()
    live(page)
    assert page.locator(".static").is_hidden()
    assert page.locator(".jp-RenderedHTMLCommon").count() == 0, "the rules for tables in prose are not for this one"
    assert not page.watch.errors


def test_the_end_brings_the_static_form_back(page):
    page.evaluate(DRAW, OUTPUT)
    begin(page)
    live(page)
    page.evaluate("end()")
    live(page, 0)
    assert page.locator(".jp-RenderedHTMLCommon .static").is_visible()
    assert page.evaluate(LISTENERS) == 0
    page.evaluate(DRAW, OUTPUT)
    page.wait_for_timeout(100)
    live(page, 0)


def test_a_kernel_that_has_gone_is_the_end(page):
    page.evaluate(DRAW, OUTPUT)
    begin(page)
    live(page)
    page.evaluate("model.listeners['comm_live_update'].forEach((f) => f())")
    live(page, 0)
    assert page.locator(".static").is_visible()


def test_an_output_that_is_drawn_anew_is_covered_anew_and_the_old_view_ends(page):
    page.evaluate(DRAW, OUTPUT)
    begin(page)
    live(page)
    before = page.evaluate(LISTENERS)
    inner = OUTPUT[OUTPUT.index(">") + 1 : -len("</div>")]
    page.evaluate("(html) => { document.querySelector('.out').innerHTML = html; }", inner)
    live(page)
    assert page.evaluate(LISTENERS) == before


def test_one_widget_in_two_outputs_is_live_in_both_and_they_agree(page):
    page.evaluate(DRAW, OUTPUT + OUTPUT)
    begin(page)
    live(page, 2)
    page.get_by_label("Choose v11").first.check()
    assert page.get_by_text("13 versions, 1 chosen").count() == 2


def test_an_output_that_is_away_for_a_while_keeps_its_view(page):
    """As JupyterLab does with cells that are scrolled out of sight."""
    page.evaluate(DRAW, OUTPUT)
    begin(page)
    live(page)
    page.get_by_role("button", name="val/f1").click()
    page.evaluate("() => { window.away = document.querySelector('.out'); away.remove(); }")
    page.wait_for_timeout(100)
    page.evaluate("() => { document.getElementById('cell').append(away); }")
    live(page)
    assert page.locator("tbody .v").first.inner_text() == "v12", "it is still sorted"


def test_a_view_that_cannot_be_drawn_leaves_the_static_form(page):
    page.evaluate("model.state.data = null")
    page.evaluate(DRAW, OUTPUT)
    begin(page)
    assert page.locator(".jp-RenderedHTMLCommon .static").is_visible()
    assert len(page.watch.errors) == 1
