"""Every page of the console in Chromium: no error is said, no other host is asked, and what moves moves."""

from __future__ import annotations

import re
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import requests

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from console_pictures import FORMS, Looker, fill, pages
from real_server import Server
from test_axe import findings

from lmvp.client import Client

pytestmark = pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("console"))
    token = server.start()
    fill(server.url, token)
    server.client = Client(server.url, token)
    yield server
    server.end()


@pytest.fixture(scope="module")
def browser(chromium):
    """The browser of the session, which makes contexts of its own for each look."""
    assert chromium.browser is not None
    return chromium.browser


@pytest.fixture
def looker(server, browser):
    looker = Looker(browser, server.url, (server.data / "token").read_text().strip(), "light")
    yield looker
    assert looker.wrong == []


@pytest.mark.parametrize("form", FORMS)
def test_every_page_is_quiet_and_fits(server, browser, form, tmp_path):
    looker = Looker(browser, server.url, (server.data / "token").read_text().strip(), form)
    for name, where in pages(server.client).items():
        looker.shoot(where, tmp_path / f"{name}.png")
    assert looker.wrong == []


@pytest.mark.parametrize("form", ["light", "dark"])
def test_axe_finds_nothing(server, browser, form):
    looker = Looker(browser, server.url, (server.data / "token").read_text().strip(), form)
    found = {}
    for name in pages(server.client):
        looker.page.goto(f"{server.url}/{pages(server.client)[name]}")
        looker.page.wait_for_selector(".island:not([data-alive])", state="detached")
        found[name] = findings(looker.page, {})
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_a_lost_connection_is_said_and_made_good(server, looker):
    with server.client.start_run("birdsong", params={}) as run:
        run.log({"train/loss": 4.0}, step=0)
        while not server.client.runs("birdsong", where="status == 'running' and points > 0"):
            time.sleep(0.1)
        looker.page.goto(f"{server.url}/p/birdsong/-/runs/{run.id}")
        looker.page.locator(".island[data-alive] .plot").first.wait_for()
        server.end()
        looker.page.get_by_text("The connection is lost").wait_for(timeout=15_000)
        server.start()
        run.log({"train/loss": 0.25}, step=1)
        looker.page.get_by_text("The connection is lost").wait_for(state="hidden", timeout=30_000)
        looker.page.wait_for_selector('.plot[aria-label*="to 0.25"]', timeout=30_000)
    looker.wrong[:] = [
        said for said in looker.wrong if "ERR_CONNECTION_REFUSED" not in said and "ERR_INCOMPLETE" not in said
    ]


def test_what_a_policy_forbids_is_noticed(server, browser):
    """The watch itself works: an inline script is refused, and said."""
    looker = Looker(browser, server.url, (server.data / "token").read_text().strip(), "light")
    looker.page.evaluate("document.body.append(Object.assign(document.createElement('script'), {textContent: '1'}))")
    looker.page.wait_for_timeout(200)
    assert any("Content Security Policy" in said for said in looker.wrong)


def test_a_run_is_followed_while_it_goes_on(server, looker):
    with server.client.start_run("birdsong", params={"lr": 0.5}) as run:
        run.log({"train/loss": 4.0}, step=0)
        for _ in range(100):
            if server.client.runs("birdsong", where="status == 'running' and points > 0"):
                break
            time.sleep(0.1)
        looker.page.goto(f"{server.url}/p/birdsong/-/runs/{run.id}")
        readout = looker.page.locator(".island[data-alive] .plot").first
        readout.wait_for()
        for step in range(1, 40):
            run.log({"train/loss": 4.0 / step}, step=step)
        looker.page.wait_for_selector('.plot[aria-label*="to 0.10"]', timeout=15_000)
    looker.page.get_by_text("finished").first.wait_for(timeout=15_000)


def test_a_zoom_asks_for_finer_lines(server, looker):
    run = server.client.runs("birdsong", where="status == 'finished'")[0]
    looker.page.goto(f"{server.url}/p/birdsong/-/runs/{run.id}")
    box = looker.page.locator(".u-over").first
    box.wait_for()
    place = box.bounding_box()
    with looker.page.expect_response(lambda answer: "/-/curves?" in answer.url and "from=" in answer.url) as told:
        looker.page.mouse.move(place["x"] + 40, place["y"] + 40)
        looker.page.mouse.down()
        looker.page.mouse.move(place["x"] + 160, place["y"] + 40, steps=5)
        looker.page.mouse.up()
    lines = [line for group in told.value.json()["groups"] for line in group["lines"]]
    assert lines
    assert 0 < len(lines[0]["steps"]) < 399


def test_the_palette_finds_and_leads(server, looker):
    page = looker.page
    page.goto(f"{server.url}/p/birdsong")
    page.keyboard.press("Control+k")
    page.get_by_role("combobox", name="Find").fill("cleaner labels")
    page.get_by_role("option").first.wait_for()
    page.keyboard.press("Enter")
    page.wait_for_url("**/p/birdsong/tagger@v12")
    page.keyboard.press("Control+k")
    page.get_by_role("combobox", name="Find").fill("no such thing anywhere")
    page.get_by_text("nothing has no such thing anywhere in it").wait_for()
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()


def test_runs_are_filtered_chosen_and_compared(server, looker):
    page = looker.page
    page.goto(f"{server.url}/p/birdsong/-/runs")
    page.get_by_label("Filter").fill("params.optimizer == 'adam'")
    page.get_by_role("button", name="Show").click()
    boxes = page.get_by_role("checkbox", name="Choose")
    assert boxes.count() == 3
    boxes.nth(0).check()
    boxes.nth(1).check()
    page.get_by_role("button", name="Compare the chosen").click()
    page.get_by_role("heading", name="2 runs").wait_for()
    page.locator(".island[data-alive]").wait_for()
    assert page.locator("svg.space circle").count() == 2
    looker.page.goto(f"{server.url}/p/birdsong/-/runs?where=metrics.x+%3E")
    assert "breaks off" in page.locator("#where-help").inner_text()
    assert page.get_by_label("Filter").input_value() == "metrics.x >"
    looker.wrong.clear()  # the browser says that the page was a 400, which it was


def test_the_theme_is_kept(server, looker):
    page = looker.page
    page.goto(f"{server.url}/p/birdsong/tagger")
    page.get_by_text("dark", exact=True).click()
    page.goto(f"{server.url}/p/birdsong")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 20, 22)"
    page.get_by_text("system", exact=True).click()
    page.goto(f"{server.url}/")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(252, 252, 250)"


def test_code_is_copied(server, looker):
    page = looker.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(f"{server.url}/p/birdsong/tagger@v12")
    page.get_by_role("button", name="Copy").last.click()
    assert page.evaluate("navigator.clipboard.readText()") == 'model = lmvp.download("birdsong/tagger@v12")'


def test_a_second_click_does_nothing(server, looker):
    page = looker.page
    page.goto(f"{server.url}/p/birdsong/tagger@c1")
    page.get_by_label("Message").fill("once")
    page.get_by_role("button", name="Comment").dblclick()
    page.get_by_text("root once").wait_for()
    assert [said.words for said in server.client.contribution("birdsong/tagger@c1").comments] == ["once"]


def test_a_download_goes_on_where_it_broke_off(server, looker):
    cookies = {cookie["name"]: cookie["value"] for cookie in looker.page.context.cookies()}
    path = server.client.manifest(server.client.version("birdsong/tagger@v12")).files[0].path
    where = f"{server.url}/p/birdsong/tagger@v12/-/files/{path}"
    whole = requests.get(where, cookies=cookies, timeout=30).content
    rest = requests.get(where, cookies=cookies, headers={"Range": "bytes=1000-"}, timeout=30)
    assert (rest.status_code, rest.content) == (206, whole[1000:])
    assert requests.get(where, timeout=30).status_code == 401


def test_without_a_script_a_page_says_the_same(server, browser):
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(f"{server.url}/login")
    if not page.locator("#token").is_visible():
        page.locator("summary").click()
    page.locator("#token").fill((server.data / "token").read_text().strip())
    page.get_by_text("Sign in with it").click()
    page.goto(f"{server.url}/p/birdsong/tagger/-/diff?from=v8&to=v12")
    assert page.locator(".still img, .still svg").first.is_visible()
    assert "26 layers" in page.locator(".still").inner_text() or "changed" in page.locator(".still").inner_text()


def test_upkeep_says_how_far_it_is(server, looker):
    looker.page.goto(f"{server.url}/admin/storage")
    looker.page.get_by_role("button", name="Check everything").click()
    looker.page.get_by_text("0 problems").wait_for(timeout=15_000)
    looker.page.get_by_role("button", name="Collect garbage").click()
    looker.page.get_by_text("free again").wait_for(timeout=15_000)


def test_what_was_typed_outlives_the_session(server, looker):
    page = looker.page
    page.goto(f"{server.url}/p/birdsong/tagger")
    page.get_by_text("Edit the card").click()
    page.fill("#description", "Typed for an hour.")
    other = page.context.new_page()
    other.goto(f"{server.url}/account")
    other.get_by_role("button", name="Sign out everywhere").click()
    other.locator("#token").wait_for(state="attached")
    page.get_by_role("button", name="Save").click()
    page.get_by_role("heading", name="Not sent").wait_for()
    assert page.locator("#kept-description").input_value() == "Typed for an hour."
    with page.expect_popup() as opened:
        page.get_by_role("link", name="Sign in in another tab").click()
    opened.value.evaluate("document.querySelector('details').open = true")
    opened.value.fill("#token", (server.data / "token").read_text().strip())
    opened.value.click("text=Sign in with it")
    opened.value.get_by_role("heading", name="Projects").wait_for()
    page.get_by_role("button", name="Send it").click()
    page.get_by_text("another session").wait_for()
    page.get_by_role("button", name="Send it").click()
    page.locator(".prose", has_text="Typed for an hour.").wait_for()
    looker.wrong[:] = [said for said in looker.wrong if not re.search("status of 40[13]", said)]


def test_a_view_that_cannot_be_drawn_leaves_its_static_form(server, browser):
    looker = Looker(browser, server.url, (server.data / "token").read_text().strip(), "light")
    looker.page.route("**/widgets/metrics.js", lambda route: route.abort())
    looker.page.goto(f"{server.url}/p/birdsong/tagger")
    looker.page.locator(".island .still img").wait_for()
    assert "val/acc by version" in looker.page.locator(".island .still").inner_text()


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
    looker = Looker(browser, server.url, (server.data / "token").read_text().strip(), form)
    looker.page.on("dialog", lambda dialog: looker.wrong.append(f"a dialog: {dialog.message}"))
    for where in ("", "p/odd-words", "p/odd-words/m", "p/odd-words/m@v1", "p/odd-words/m@c1", "p/odd-words/-/runs",
                  f"p/odd-words/-/runs/{runs[0]}", f"p/odd-words/-/compare?run={runs[0]}&run={runs[1]}",
                  "p/odd-words/-/activity", "p/odd-words/m/-/diff?from=v1&to=c1", "search?q=www",
                  "admin/audit?project=odd-words"):  # fmt: skip
        looker.shoot(where, tmp_path / "page.png")
    assert looker.wrong == []


def test_a_page_prints_on_white_and_without_its_forms(server, browser):
    looker = Looker(browser, server.url, (server.data / "token").read_text().strip(), "dark")
    for where in ("p/birdsong/tagger", "p/birdsong/-/runs", "p/birdsong/tagger@v12"):
        looker.page.goto(f"{server.url}/{where}")
        looker.page.emulate_media(media="print", color_scheme="dark")
        paper = looker.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == "rgb(252, 252, 250)"
        assert looker.page.locator("button:visible:not(.twig), input:visible").count() == 0
        assert looker.page.locator("table:visible").count() > 0
        looker.page.emulate_media(media="screen", color_scheme="dark")
