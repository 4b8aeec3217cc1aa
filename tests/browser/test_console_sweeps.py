"""Every page of the console in Chromium: it is quiet, fits, is reached by keys, prints, and holds with any words."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from console_pictures import FORMS, Looker, pages
from test_axe import findings

pytestmark = pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is not installed")


@pytest.mark.parametrize("form", FORMS)
def test_every_page_is_quiet_and_fits(server, browser, form, tmp_path):
    looker = Looker(browser, server.url, server.token, form)
    for name, where in pages(server.client).items():
        looker.shoot(where, tmp_path / f"{name}.png")
    assert looker.wrong == []


@pytest.mark.parametrize("form", ["light", "dark"])
def test_axe_finds_nothing(server, browser, form):
    looker = Looker(browser, server.url, server.token, form)
    found = {}
    for name in pages(server.client):
        looker.page.goto(f"{server.url}/{pages(server.client)[name]}")
        looker.page.wait_for_selector(".island:not([data-alive])", state="detached")
        found[name] = findings(looker.page, {})
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


TO_REACH = """() => {
  const all = document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex='0']");
  const shown = [...all].filter((one) => one.checkVisibility({ visibilityProperty: true }) && one.tabIndex >= 0
    && !one.disabled && one.type !== "hidden" && !(one.type === "radio" && !one.checked));
  shown.forEach((one, at) => { one.dataset.walk = at; });
  return shown.map((one) => one.outerHTML.slice(0, 120));
}"""
FOCUSED = """() => {
  const one = document.activeElement, style = getComputedStyle(one);
  return [one.dataset.walk ?? null, one === document.body, style.outlineStyle !== "none" || style.boxShadow !== "none"];
}"""


def test_a_keyboard_reaches_everything_on_every_page_and_shows_where_it_is(server, looker):
    for name, where in pages(server.client).items():
        looker.page.goto(f"{server.url}/{where}")
        looker.page.wait_for_selector(".island:not([data-alive])", state="detached")
        looker.page.wait_for_load_state("networkidle")  # histograms come, and a tree is drawn anew
        looker.page.evaluate("document.activeElement.blur(); getSelection().removeAllRanges()")
        wanted, reached, unseen, rounds = looker.page.evaluate(TO_REACH), set(), [], 0
        for _ in range(2 * len(wanted) + 60):
            looker.page.keyboard.press("Tab")
            at, ended, seen = looker.page.evaluate(FOCUSED)
            rounds += ended
            if rounds == 2:  # a field that has the focus from the start is not the first
                break
            if at is not None:
                reached.add(int(at))
                unseen += [] if seen else [wanted[int(at)]]
        assert [html for at, html in enumerate(wanted) if at not in reached] == [], name
        assert unseen == [], name


@pytest.mark.parametrize("form", ["light", "360"])
def test_hostile_and_endless_words_break_no_page(server, browser, form, tmp_path):
    words = "<img src=x onerror=alert(1)>\u202e\u0007" + "w" * 4000 + " " + "ש" * 1000
    client = server.client
    if form == "light":
        odd = {f"<img src=x onerror=alert(1)>{'w' * 180}.{at}": 0.5 for at in range(3)}
        client.update("odd-words/m", {"w" * 200: np.ones(3)}, message=words, metrics=odd, params=odd, create=True)
        client.update("odd-words/m", {"w" * 200: np.zeros(3)}, message=words, tags={"t": words[:900]}, propose=True)
        client.set_card("odd-words/m", f"# {words}\n\n{words}\n\n| {words} | b |\n|---|---|\n| {words} | c |\n")
        for name in ("<img src=x onerror=alert(1)>" + "w" * 60, "b" * 60):
            with client.start_run("odd-words", name=name, params=odd, tags={"t": words[:400]}) as run:
                run.log(odd, step=0)
    runs = [run.id for run in client.runs("odd-words")]
    looker = Looker(browser, server.url, server.token, form)
    looker.page.on("dialog", lambda dialog: looker.wrong.append(f"a dialog: {dialog.message}"))
    for where in ("", "p/odd-words", "p/odd-words/m", "p/odd-words/m@v1", "p/odd-words/m@c1", "p/odd-words/-/runs",
                  f"p/odd-words/-/runs/{runs[0]}", f"p/odd-words/-/compare?run={runs[0]}&run={runs[1]}",
                  "p/odd-words/-/activity", "p/odd-words/m/-/diff?from=v1&to=c1", "search?q=www",
                  "admin/audit?project=odd-words"):  # fmt: skip
        looker.shoot(where, tmp_path / "page.png")
    assert looker.wrong == []


def test_a_page_prints_on_white_and_without_its_forms(server, browser):
    looker = Looker(browser, server.url, server.token, "dark")
    for where in ("p/birdsong/tagger", "p/birdsong/-/runs", "p/birdsong/tagger@v12"):
        looker.page.goto(f"{server.url}/{where}")
        looker.page.emulate_media(media="print", color_scheme="dark")
        paper = looker.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == "rgb(252, 252, 250)"
        assert looker.page.locator("button:visible:not(.twig), input:visible").count() == 0
        assert looker.page.locator("table:visible").count() > 0
        looker.page.emulate_media(media="screen", color_scheme="dark")
