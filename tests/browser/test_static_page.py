"""The static forms in a narrow page, as a saved notebook shows them."""

from __future__ import annotations

import pytest
from support import sample_history as sample

from lmvp.core.manifest import Manifest, Tensor
from lmvp.core.schemas import Amount, Changes
from lmvp.views.diff import Diff
from lmvp.views.history import History
from lmvp.views.layer_chart import tall

LONG = "encoder_with_a_long_name.transformer_layers.{}.self_attention.value_projection.weight"
METRIC = "validation/accuracy/top_1/recordings_of_the_field"

# What JupyterLab says of tables, as far as it decides about room.
LAB = """<style>body { margin: 0; font: 14px/1.7 sans-serif } table { border-collapse: collapse; font-size: 12px }
td, th { padding: .5em; max-width: none } img { max-width: 100%; height: auto }</style>"""


def diff() -> Diff:
    def manifest(digest: str) -> Manifest:
        tensors = [Tensor(LONG.format(i), "F32", (1024, 1024), "w", 0, 4, digest if i % 2 else "0") for i in range(6)]
        return Manifest("torch.module", (), tuple(tensors))

    amount = Amount(count=1024 * 1024, changed=7, squares=1.0, base_squares=9.0, largest=0.1)
    changes = Changes(against="", tensors={LONG.format(i): amount for i in (1, 3, 5)})
    before, after = (sample.version(n, metrics={METRIC: n / 7}, params={METRIC: n}) for n in (1, 2))
    return Diff.between(before, after, manifest("1"), manifest("2"), changes)


def history() -> History:
    rows = [sample.version(n, "Lower the learning rate", author="grace", metrics={METRIC: n / 7}) for n in (2, 1)]
    return History(rows, title="birdsong/tagger", layers=lambda _: sample.layers())


@pytest.mark.parametrize("make", [diff, history, sample.history])
@pytest.mark.parametrize("width", [480, 1000])
def test_nothing_is_wider_than_the_page(chromium, make, width):
    page = chromium.new_page()
    page.set_viewport_size({"width": width, "height": 800})
    page.set_content(LAB + make()._repr_html_())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    over = "[...document.querySelectorAll('div')].map((d) => d.scrollWidth - d.clientWidth)"
    assert max(page.evaluate(over)) <= 1
    pictures = [picture.bounding_box() for picture in page.locator("img").all()]
    assert pictures
    if make is diff:  # bars with an axis keep their shape
        (sky,) = pictures
        assert sky["width"] / sky["height"] == pytest.approx(804 / tall(make().tensors), rel=0.02)
    else:
        assert {picture["height"] for picture in pictures} == {12}, "strips get narrower, not lower"
    page.close()


def test_a_name_of_one_piece_scrolls_inside_its_table(chromium):
    page = chromium.new_page()
    page.set_viewport_size({"width": 320, "height": 800})
    page.set_content(LAB + History([sample.version(1, "x" * 300)], title="x" * 90)._repr_html_())
    assert page.evaluate("document.querySelector('div').scrollWidth") <= 320
    page.close()
