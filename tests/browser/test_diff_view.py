"""The diff in a page of its own: bars, tree, keys, histograms that come later, odd data, narrow windows."""

from __future__ import annotations

import shutil

import pytest
from support import sample_history as sample
from test_widgets_page import EVIL, calm
from unit.test_diff_data import blocks, found, tensor

from lmvp.views.diff import Diff
from lmvp_jupyter.widgets import DiffView

pytestmark = pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is not installed")

SEND = "() => { window.sent = []; model.send = (message) => window.sent.push(message); }"
SPREAD = """(names) => {
  const one = { low: -1, high: 1, counts: Array.from({ length: 28 }, (_, i) => i) };
  const all = Object.fromEntries(names.map((name) => [name, one]));
  model.listeners['msg:custom'].forEach((f) => f({ kind: 'histograms', tensors: all, before: all }));
}"""


@pytest.fixture
def view(host):
    page, watch = host.show(DiffView(found()[0]))
    page.evaluate(SEND)
    yield page
    calm(page, watch)
    page.close()


def rows(page):
    return page.locator(".tree tbody tr:visible")


def test_only_what_differs_is_shown_until_more_is_wanted(view):
    names = [text.split("\t")[0].strip() for text in rows(view).all_inner_texts()]
    assert names[:3] == ["blocks.0 to 3", "blocks.0", "mlp"]
    assert "norm" not in names
    view.get_by_label("only what differs").uncheck()
    assert "norm" in [text.split("\t")[0].strip() for text in rows(view).all_inner_texts()]


def test_a_bar_is_as_high_as_its_change(view):
    bars = view.locator(".sky i")
    heights = bars.evaluate_all("(all) => all.map((bar) => Math.round(bar.getBoundingClientRect().height))")
    assert heights[0] == 1
    assert heights[1] == pytest.approx(0.75 * 128, abs=2)
    assert heights[-1] == pytest.approx(128, abs=2)
    assert "new" in bars.last.get_attribute("class")
    assert "gone" in view.locator(".sky i.gone").get_attribute("class")


def test_bars_are_read_and_opened_by_keys(view):
    view.locator(".sky").focus()
    view.keyboard.press("ArrowRight")
    view.keyboard.press("ArrowRight")
    assert view.locator(".readout").inner_text().startswith("blocks.0.mlp changed by 10 %")
    view.keyboard.press("Enter")
    assert view.evaluate("document.activeElement.closest('tr').dataset.path") == "blocks.0.mlp"
    view.keyboard.press("Enter")
    assert view.get_by_role("rowheader", name="weight").first.is_visible()
    assert view.evaluate("sent.at(-1)") == {
        "kind": "histograms", "tensors": ["blocks.0.mlp.weight", "blocks.0.mlp.bias"],
    }  # fmt: skip
    view.evaluate(SPREAD, ["blocks.0.mlp.weight", "blocks.0.mlp.bias"])
    picture = view.get_by_role("img", name="values of blocks.0.mlp.weight before and after")
    assert picture.bounding_box()["width"] > 40
    assert view.evaluate("document.activeElement.getAttribute('aria-expanded')") == "true", "the focus stays"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [320, 600, 1600])
def test_every_width(host, width, dark):
    diff, _ = found(
        old={"environment": {"code": {"cells": [EVIL]}}},
        new={"environment": {"code": {"cells": [EVIL * 3, "x" * 400]}}},
    )
    page, watch = host.show(DiffView(diff), width=width, dark=dark)
    assert page.get_by_text("Code that differs").is_visible()
    assert page.evaluate("window.hacked") is None
    calm(page, watch)
    page.close()


def test_no_layers_and_thousands_of_them(host):
    none = Diff.between(sample.version(1), sample.version(2), blocks("0"), blocks("0"))
    page, watch = host.show(DiffView(none))
    assert page.get_by_text("every layer is identical").is_visible()
    calm(page, watch)
    page.close()
    many = [tensor(f"b.{i // 9}.{EVIL if i == 5 else i}.weight", "0") for i in range(9000)]
    other = [tensor(one.name, "1" if i % 7 == 0 else "0") for i, one in enumerate(many)]
    diff = Diff.between(sample.version(1), sample.version(2), blocks("0", *many), blocks("0", *other))
    page, watch = host.show(DiffView(diff), width=700)
    assert page.locator(".sky i").count() < 350
    assert page.evaluate("window.hacked") is None
    calm(page, watch)
    page.close()


def test_bars_have_the_names_of_their_layers(view):
    names = view.locator(".groups span")
    assert [text for text in names.all_inner_texts() if text in ("norm", "mlp")] == ["norm", "mlp"] * 4
    assert [text for text in names.all_inner_texts() if text.startswith("blocks")] == [f"blocks.{b}" for b in range(4)]
    middles = "(all) => all.map((one) => one.getBoundingClientRect()).map((box) => (box.left + box.right) / 2)"
    bars = view.locator(".sky > i").evaluate_all(middles)
    own = view.locator(".groups div:first-child span").evaluate_all(middles)
    centres = [min(abs(bar - name) for bar in bars) for name in own]
    assert max(centres) < 1.5, "each name is below the middle of a bar"


def test_names_of_narrow_bars_are_upright(host):
    page, watch = host.show(DiffView(found()[0]), width=300)
    upright = page.locator(".groups .up")
    upright.first.wait_for()
    assert "norm" in upright.all_inner_texts()
    box = upright.first.bounding_box()
    assert box["height"] > box["width"]
    calm(page, watch)
    page.close()
