"""The widgets in a page of their own, as the console hosts them: every width, both themes, odd data."""

from __future__ import annotations

import math
import os
import shutil
from datetime import datetime, timezone

import pytest
from support import sample_history as sample

from lmvp import hints
from lmvp.core.schemas import Layer, Layers, Model
from lmvp.views.history import History
from lmvp.views.version import Showing
from lmvp_jupyter.bundle import module
from lmvp_jupyter.widgets import HistoryTable, MetricsPlot, ModelView

pytestmark = pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is not installed")

EVIL = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"


def calm(page, watch):
    """Nothing failed, nothing left this machine, and the page does not scroll sideways."""
    assert not watch.errors
    assert not watch.strangers
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


LONG = "a-very-long-name-that-somebody-thought-was-wise-" + "x" * 45
ODD = [(4, math.nan), (3, math.inf), (2, 0.5), (1, 0.4)]
HISTORIES = {
    "sample": sample.history(),
    "empty": History([], title="birdsong/tagger"),
    "one": sample.history()[12:],
    "long": sample.long_history(3000),
    "unmeasured": History([sample.version(2, parents=(1,)), sample.version(1)], title="birdsong/tagger"),
    "project": History([sample.version(2), sample.version(2, model="denoiser")], title="birdsong"),
    "odd": History([sample.version(n, metrics={"m": v}, parents=range(1, n)[-1:]) for n, v in ODD], title="m"),
    "names": History(
        [
            sample.version(
                2, "Lower the learning rate " * 9, aliases=(LONG, "best"), metrics={LONG: 1e15}, parents=(1,)
            ),
            sample.version(1, "First", metrics={LONG: 1e-12}),
        ],
        title=f"birdsong/{LONG}",
        layers=lambda _: Layers(axis=(Layer(path="body", group="body", size=9),), strips={"2": "x", "1": "+"}),
    ),
    "project of names": History(
        [
            sample.version(12, "Lower the rate " * 9, model=LONG, aliases=(LONG,)),
            sample.version(23, "First", aliases=("best",)),
        ],
        title="birdsong",
    ),
    "hostile": History(
        [sample.version(1, EVIL + "long " * 200, author=EVIL, aliases=(EVIL,), metrics={EVIL: 1.0})], title=EVIL
    ),
}


@pytest.mark.parametrize("name", HISTORIES)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("make", [HistoryTable, MetricsPlot])
def test_every_form(host, name, dark, make):
    page, watch = host.show(make(HISTORIES[name]), width=1600, dark=dark)
    for width in (1600, 1120, 700, 360):
        page.set_viewport_size({"width": width, "height": 700})
        page.evaluate("() => new Promise((done) => setTimeout(done, 100))")
        calm(page, watch)
    assert page.evaluate("window.hacked") is None
    page.close()


SIDEWAYS = "(() => { const s = document.querySelector('.scroll'); return s.scrollWidth - s.clientWidth })()"
OVERLAPS = """() => [...document.querySelectorAll("tbody tr")].flatMap((row) => {
  const parts = [...row.querySelectorAll(".v, .what > div > .clip, .alias, .strip, .metric, .opt")]
    .filter((node) => node.offsetWidth).map((node) => Object.assign(node.getBoundingClientRect(), { node }));
  return parts.flatMap((a, i) => parts.slice(i + 1)
    .filter((b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1)
    .map((b) => `${a.node.className} over ${b.node.className}`)); })"""


@pytest.mark.parametrize("name", ["sample", "names", "project of names"])
def test_long_names_stay_in_their_place(host, name):
    page, _ = host.show(HistoryTable(HISTORIES[name]))
    for width in (1600, 1120, 860, 700, 360):
        page.set_viewport_size({"width": width, "height": 700})
        page.evaluate("() => new Promise((done) => setTimeout(done, 100))")
        assert page.evaluate(OVERLAPS) == []
        assert page.evaluate(SIDEWAYS) <= 1
        if os.environ.get("LMVP_SHOTS"):
            page.screenshot(path=f"{os.environ['LMVP_SHOTS']}/{name.replace(' ', '-')}-{width}.png")
    page.close()


def test_the_first_rows_then_all(host):
    page, watch = host.show(HistoryTable(sample.long_history(3000)))
    rows = page.locator("tbody tr")
    assert rows.count() == 15
    assert page.locator(".lmvp").bounding_box()["height"] < 620
    page.get_by_role("button", name="Show all 200").click()
    assert rows.count() == 200
    assert page.get_by_text("2,800 older").is_visible()
    calm(page, watch)
    page.close()


def test_rows_sort_by_their_metric(host):
    page, watch = host.show(HistoryTable(sample.history()))
    versions = page.locator("tbody .v")
    page.get_by_role("button", name="val/f1").click()
    assert versions.first.inner_text() == "v12"
    assert page.locator("th[aria-sort=descending]").inner_text().startswith("val/f1")
    page.get_by_role("button", name="val/f1").click()
    assert versions.first.inner_text() == "v1"
    assert page.locator(".graph path").count() == 0, "the lines make sense in one order only"
    page.get_by_role("button", name="When").click()
    assert versions.first.inner_text() == "v13"
    calm(page, watch)
    page.close()


def test_values_that_are_no_numbers_sort_last(host):
    rows = [
        sample.version(n, metrics={"m": v} if v is not None else {})
        for n, v in ((4, math.nan), (3, None), (2, 1.0), (1, 2.0))
    ]
    page, _ = host.show(HistoryTable(History(rows, title="m")))
    for order in (["v1", "v2"], ["v2", "v1"]):
        page.locator("button[data-by='0']").click()
        assert page.locator("tbody .v").all_inner_texts()[:2] == order
    page.close()


@pytest.mark.parametrize(
    ("form", "code"),
    [
        (hints.MAGIC, "%lmvp diff birdsong/tagger@v6 birdsong/tagger@v11"),
        (hints.PYTHON, "lmvp.diff('birdsong/tagger@v6', 'birdsong/tagger@v11')"),
    ],
)
def test_the_chosen_rows_can_be_copied_as_code(host, form, code):
    host.context.grant_permissions(["clipboard-read", "clipboard-write"])
    with hints.using(form):
        page, watch = host.show(HistoryTable(sample.history()))
    page.get_by_label("Choose v11").check()
    page.get_by_label("Choose v6").check()
    assert page.evaluate("[model.get('selected'), model.saved]") == [[11, 6], 2]
    button = page.get_by_role("button", name="Copy diff v6 → v11")
    button.click()
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == code
    page.evaluate("model.set('selected', [])")
    assert not page.get_by_label("Choose v11").is_checked()
    calm(page, watch)
    page.close()


def test_the_table_is_one_for_a_screen_reader(host):
    page, _ = host.show(HistoryTable(sample.history()), width=360)
    table = page.get_by_role("table", name="Versions of birdsong/tagger")
    assert table.get_by_role("row").count() == 13
    assert table.get_by_role("rowheader", name="v12").count() == 1
    assert page.get_by_role("img", name="2 of 53 layers changed, 51 identical").count() == 2
    page.close()


def test_segments_line_up_down_the_rows(host):
    page, _ = host.show(HistoryTable(sample.history()))
    left = "i => i.getBoundingClientRect().x.toFixed(1)"
    lefts = page.evaluate(f"[...document.querySelectorAll('.strip')].map(s => [...s.children].map({left}).join())")
    assert len(set(lefts)) == 1
    page.close()


def test_very_deep_models_are_folded_to_the_width(host):
    axis = tuple(Layer(path=f"b.{i // 9}.{i}", group=f"b.{i // 9}", size=1000) for i in range(20_000))
    layers = Layers(axis=axis, strips={"1": "0" * 19_999 + "+"})
    history = History([sample.version(1)], title="birdsong/tagger", layers=lambda _: layers)
    for width in (360, 1120):
        page, watch = host.show(HistoryTable(history), width=width)
        strip = page.locator(".strip")
        assert strip.locator("i").count() < strip.bounding_box()["width"] / 2
        assert "new" in strip.locator("i").last.get_attribute("class")
        calm(page, watch)
        page.close()


LOAD_FOLD = """async (source) => {
  const url = URL.createObjectURL(new Blob([source], { type: 'text/javascript' }));
  window.fold = (await import(url)).fold;
}"""


def test_the_fold_of_python_and_of_the_page_agree(host):
    from lmvp.views.layer_strip import fold

    axes = [sample.AXIS, tuple(Layer(path=f"b.{i // 7}.{i}", group=f"b.{i // 7}", size=10**6) for i in range(900))]
    page, _ = host.show(HistoryTable(sample.history()))
    page.evaluate(LOAD_FOLD, module("strip.js"))
    for axis in axes:
        for width in (90, 300, 640, 2000):
            given = [[layer.path, layer.group, layer.size**0.25] for layer in axis]
            theirs = page.evaluate("([axis, width]) => fold(axis, width).map(s => [s.first, s.last])", [given, width])
            assert theirs == [[s.first, s.last] for s in fold(axis, width)]
    page.close()


INK = """() => {
  const canvas = document.querySelector('canvas');
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  let black = 0, white = 0;
  for (let i = 0; i < data.length; i += 4) {
    if (data[i + 3] > 128) { black += data[i] < 10; white += data[i] > 250; }
  }
  return { black, white };
}"""


def test_a_plot_is_drawn_in_the_ink_of_its_theme_and_follows_a_change(host):
    page, watch = host.show(MetricsPlot(sample.history()))
    ink = page.evaluate(INK)
    assert ink["black"] > 1000
    assert ink["white"] == 0
    page.evaluate("document.body.dataset.jpThemeLight = 'false'")
    page.wait_for_timeout(450)
    ink = page.evaluate(INK)
    assert ink["black"] == 0
    assert ink["white"] > 1000
    calm(page, watch)
    page.close()


def test_a_plot_is_read_with_the_arrow_keys(host):
    page, watch = host.show(MetricsPlot(sample.history()))
    plot = page.get_by_role("img", name="val/f1 by version")
    plot.focus()
    readout = page.locator("output")
    assert "highest 0.874 at v12" in readout.inner_text()
    page.keyboard.press("End")
    assert readout.inner_text() == "v13: val/f1 0.871, Calibrate the head on field recordings"
    page.keyboard.press("ArrowLeft")
    assert readout.inner_text().startswith("v12: val/f1 0.874")
    page.keyboard.press("Home")
    assert readout.inner_text().startswith("v1: val/f1 0.412")
    calm(page, watch)
    page.close()


def test_the_numbers_of_a_plot_as_a_table(host):
    page, _ = host.show(MetricsPlot(sample.history()))
    page.get_by_text("the numbers as a table").click()
    assert page.locator("details tbody tr").count() == 13
    page.close()


def test_a_view_that_goes_leaves_nothing_behind(host):
    for widget in (HistoryTable(sample.history()), MetricsPlot(sample.history())):
        page, watch = host.show(widget)
        page.evaluate("clean()")
        page.evaluate("model.set('data', model.get('data'))")
        page.evaluate("document.body.dataset.jpThemeLight = 'false'")
        page.wait_for_timeout(400)
        assert page.evaluate("Object.values(model.listeners).flat().length") == 0
        calm(page, watch)
        page.close()


RING = """() => { const a = document.activeElement, s = getComputedStyle(a), box = a.getBoundingClientRect();
  const reach = parseFloat(s.outlineWidth) + parseFloat(s.outlineOffset);
  const cut = [...document.querySelectorAll('.scroll')].filter((e) => e.contains(a)).some((e) => {
    const edge = e.getBoundingClientRect(); return box.left - reach < edge.left || box.right + reach > edge.right; });
  return { name: a.getAttribute('aria-label') ?? a.innerText, seen: s.outlineStyle === 'solid' && reach >= 2 && !cut };
}"""


@pytest.mark.parametrize("width", [1120, 360])
def test_everything_is_reached_by_the_keyboard_and_seen_when_it_is(host, width):
    for widget, last in (
        (HistoryTable(sample.long_history(300)), "Show all 200"),
        (MetricsPlot(sample.history()), "the numbers as a table"),
    ):
        page, watch = host.show(widget, width=width)
        reached = []
        for _ in range(40):
            page.keyboard.press("Tab")
            reached.append(page.evaluate(RING))
            if reached[-1]["name"] == last:
                break
        assert reached[-1]["name"] == last
        assert all(each["name"] and each["seen"] for each in reached), reached
        calm(page, watch)
        page.close()


def test_a_table_is_used_without_a_mouse(host):
    page, watch = host.show(HistoryTable(sample.long_history(300)))
    page.get_by_role("button", name="val/f1").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.dataset.by") == "0", "the focus stays where it was"
    page.get_by_role("button", name="Show all 200").focus()
    page.keyboard.press("Space")
    assert page.evaluate("document.activeElement.type") == "checkbox", "the focus goes to the first of the new rows"
    for key in ("k", "x", "ArrowDown", "Space"):
        page.keyboard.press(key)
    assert len(page.evaluate("model.get('selected')")) == 2
    calm(page, watch)
    page.close()


def test_copying_where_the_clipboard_is_closed_keeps_the_focus(host):
    page, watch = host.show(HistoryTable(sample.history()))
    page.evaluate("() => { navigator.clipboard.writeText = async () => { throw new Error('closed'); }; }")
    button = page.get_by_role("button", name="Copy pull v13")
    button.focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("document.activeElement.textContent") == "Copied"
    assert page.get_by_role("status").inner_text() == 'Copied: model = lmvp.pull("birdsong/tagger@v13")'
    calm(page, watch)
    page.close()


def test_nothing_moves_for_those_who_asked_for_it(host):
    page, _ = host.show(HistoryTable(sample.history()))
    moves = "getComputedStyle(document.querySelector('.btn')).transitionDuration"
    assert page.evaluate(moves) != "0s"
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate("getComputedStyle(document.querySelector('.btn')).transitionProperty") == "none"
    page.close()


def test_strips_keep_their_shades_where_the_system_sets_the_colours(host):
    page, _ = host.show(HistoryTable(sample.history()))
    page.emulate_media(forced_colors="active")
    shades = "new Set([...document.querySelectorAll('.strip i')].map((i) => getComputedStyle(i).backgroundColor)).size"
    assert page.evaluate(shades) >= 4
    page.close()


def model_view(card):
    at = datetime(2026, 11, 26, tzinfo=timezone.utc)
    model = Model(id="m", project="birdsong", name="tagger", created_at=at, description=card)
    return ModelView(Showing(sample.versions()[0], model, (), ()))


def test_card_of_a_model_is_formatted(host):
    text = "# Use\n\n**240** species, see [site](https://example.org).\n\n| a | b |\n|--|--|\n| 1 | 2 |"
    page, watch = host.show(model_view(text))
    card = page.locator(".lmvp-card")
    assert card.get_by_role("heading", name="Use").count() == 1
    assert card.locator("strong").inner_text() == "240"
    assert card.get_by_role("link", name="site").get_attribute("href") == "https://example.org"
    assert card.get_by_role("cell").all_inner_texts() == ["1", "2"]
    calm(page, watch)
    page.close()


def test_card_makes_no_element_that_is_not_allowed(host):
    view = model_view("plain")
    links = [["a", "javascript:hit=1", ["x"]], ["a", "/lab?reset", ["y"]]]
    view.data = {**view.data, "card": [["script", "", ["hit = 1"]], ["img", "x", []], *links, "<b>words</b>"]}
    page, watch = host.show(view)
    card = page.locator(".lmvp-card")
    assert card.locator("script, img, a, b").count() == 0
    assert "<b>words</b>" in card.inner_text()
    assert page.evaluate("window.hit") is None
    calm(page, watch)
    page.close()
