"""What moves on pages of the console moves, in Chromium, without an error and without another host."""

from __future__ import annotations

import re
import shutil
import sys
import time
from pathlib import Path

import pytest
import requests

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from console_pictures import Looker

pytestmark = pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is not installed")


def test_a_lost_connection_is_said_and_made_good(server, looker):
    with server.client.start_run("birdsong", params={}) as run:
        run.log({"train/loss": 4.0}, step=0)
        while not server.client.runs("birdsong", where="status == 'running' and points > 0"):
            time.sleep(0.1)
        looker.page.goto(f"{server.url}/p/birdsong/-/runs/{run.id}")
        looker.page.locator(".island[data-alive] .plot").first.wait_for()
        server.end()
        looker.page.get_by_text("Connection lost").wait_for(timeout=15_000)
        server.start()
        run.log({"train/loss": 0.25}, step=1)
        looker.page.get_by_text("Connection lost").wait_for(state="hidden", timeout=30_000)
        looker.page.wait_for_selector('.plot[aria-label*="to 0.25"]', timeout=30_000)
    looker.wrong[:] = [
        said for said in looker.wrong if "ERR_CONNECTION_REFUSED" not in said and "ERR_INCOMPLETE" not in said
    ]


def test_what_a_policy_forbids_is_noticed(server, browser):
    """The watch itself works: an inline script is refused, and said."""
    looker = Looker(browser, server.url, server.token, "light")
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
    page.get_by_role("combobox", name="Search").fill("cleaner labels")
    page.get_by_role("option").first.wait_for()
    page.keyboard.press("Enter")
    page.wait_for_url("**/p/birdsong/tagger@v12")
    page.keyboard.press("Control+k")
    page.get_by_role("combobox", name="Search").fill("no such thing anywhere")
    page.get_by_text("No match for “no such thing anywhere”.").wait_for()
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()


def test_runs_are_filtered_chosen_and_compared(server, looker):
    page = looker.page
    page.goto(f"{server.url}/p/birdsong/-/runs")
    page.get_by_label("Filter").fill("params.optimizer == 'adam'")
    page.get_by_role("button", name="Apply").click()
    boxes = page.get_by_role("checkbox", name="Select")
    assert boxes.count() == 3
    boxes.nth(0).check()
    boxes.nth(1).check()
    page.get_by_role("button", name="Compare selected").click()
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
    assert page.evaluate("navigator.clipboard.readText()") == 'model = lmvp.pull("birdsong/tagger@v12")'


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
    page.locator("#token").fill(server.token)
    page.get_by_text("Sign in with token").click()
    page.goto(f"{server.url}/p/birdsong/tagger/-/diff?from=v8&to=v12")
    assert page.locator(".still img, .still svg").first.is_visible()
    assert "26 layers" in page.locator(".still").inner_text() or "changed" in page.locator(".still").inner_text()


def test_upkeep_says_how_far_it_is(server, looker):
    looker.page.goto(f"{server.url}/admin/storage")
    looker.page.get_by_role("button", name="Verify all data").click()
    looker.page.get_by_text("0 problems").wait_for(timeout=15_000)
    looker.page.get_by_role("button", name="Collect garbage").click()
    looker.page.get_by_text(" freed").wait_for(timeout=15_000)


def test_what_was_typed_outlives_the_session(server, looker):
    page = looker.page
    page.goto(f"{server.url}/p/birdsong/tagger")
    page.get_by_text("Edit the model card").click()
    page.fill("#description", "Typed for an hour.")
    other = page.context.new_page()
    other.goto(f"{server.url}/account")
    other.get_by_role("button", name="Sign out everywhere").click()
    other.locator("#token").wait_for(state="attached")
    page.get_by_role("button", name="Save").click()
    page.get_by_role("heading", name="Form not sent").wait_for()
    assert page.locator("#kept-description").input_value() == "Typed for an hour."
    with page.expect_popup() as opened:
        page.get_by_role("link", name="Sign in in another tab").click()
    opened.value.evaluate("document.querySelector('details').open = true")
    opened.value.fill("#token", server.token)
    opened.value.click("text=Sign in with token")
    opened.value.get_by_role("heading", name="Projects").wait_for()
    page.get_by_role("button", name="Send").click()
    page.get_by_text("another session").wait_for()
    page.get_by_role("button", name="Send").click()
    page.locator(".prose", has_text="Typed for an hour.").wait_for()
    looker.wrong[:] = [said for said in looker.wrong if not re.search("status of 40[13]", said)]


def test_a_view_that_cannot_be_drawn_leaves_its_static_form(server, browser):
    looker = Looker(browser, server.url, server.token, "light")
    looker.page.route("**/widgets/metrics.js", lambda route: route.abort())
    looker.page.goto(f"{server.url}/p/birdsong/tagger")
    looker.page.locator(".island .still img").wait_for()
    assert "val/acc by version" in looker.page.locator(".island .still").inner_text()
