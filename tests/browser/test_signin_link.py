"""A sign-in link in a real browser: the code leaves the address and the history, and the page opens signed in."""

from __future__ import annotations

import numpy as np
import pytest
from support.in_process import TOKEN, Served

from lmvp.client.console import page_of
from lmvp.client.models import Client
from lmvp_jupyter.widgets import ConsoleButton


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with Served(tmp_path_factory.mktemp("links") / "data") as served:
        client = Client(served.url, TOKEN)
        client.update("digits/mlp", {"w": np.ones(3)}, create=True, progress=False)
        yield client


@pytest.fixture
def page(chromium):
    chromium.clear_cookies()
    page = chromium.new_page()
    yield page
    page.close()


def test_link_opens_its_page_and_leaves_no_code(client, page):
    link = page_of(client, "digits/mlp").signed_in_url()
    code = link.partition("#")[2]
    seen = []
    page.on("request", lambda request: seen.append((request.url, request.headers.get("referer", ""))))
    page.goto(link)
    page.wait_for_url(f"{client.url}/p/digits/mlp")
    assert page.locator("h1").first.inner_text() == "digits/mlp" or "mlp" in page.title()
    assert page.get_by_role("button", name="Sign out").count() == 1
    assert not any(code in each for request in seen for each in request)
    page.go_back()
    assert code not in page.url


def test_link_that_was_used_says_so(client, page):
    link = page_of(client).signed_in_url()
    page.goto(link)
    page.get_by_role("button", name="Sign out").wait_for()
    page.context.clear_cookies()
    page.goto("about:blank")
    page.goto(link)
    page.get_by_role("alert").wait_for()
    assert "This link was used" in page.get_by_role("alert").inner_text()


def test_link_page_takes_a_code_by_hand(client, page):
    code = page_of(client, "digits").signed_in_url().partition("#")[2]
    page.goto(f"{client.url}/open")
    page.get_by_label("Code").fill(code)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{client.url}/p/digits")


def test_button_opens_a_window_by_a_link_of_the_kernel(client, host):
    button = ConsoleButton(page_of(client, "digits/mlp"))
    page, watch = host.show(button)
    page.context.clear_cookies()
    with page.context.expect_page() as opened:
        page.get_by_role("button", name="Open the console").click()
    page.wait_for_function("window.sent?.length === 1")
    sent = []
    button.send = sent.append
    button._heard(button, page.evaluate("window.sent[0]"), [])
    page.evaluate("(message) => window.model.listeners['msg:custom'].forEach((hear) => hear(message))", sent[0])
    opened.value.wait_for_url(f"{client.url}/p/digits/mlp")
    assert opened.value.get_by_role("button", name="Sign out").count() == 1
    assert opened.value.evaluate("window.opener") is None
    assert watch.errors == []
    assert sent[0]["url"] not in page.content()
    opened.value.close()
    page.close()
    button.close()
