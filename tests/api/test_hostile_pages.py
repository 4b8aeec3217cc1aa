"""Pages of a contributor's hostile text, seen from outside: each is answered in time, and so is everybody else."""

import html
import re
import threading
import time
from contextlib import suppress

import pytest
import requests
from support.local_server import SharedServer

from lmvp.client.models import Client

HOSTILE = {
    "x.php": "<?php " + "$" * 100_000,
    "x.html": "&" * 200_000,
    "x.feature": " " * 200_000 + "x",
}
"""Each takes a lexer of Pygments minutes: its time grows with the square of the length."""
CARDS = {"images": "![" * 100_000, "links": "[[a](" * 40_000}
BUDGET = 30
"""Seconds for one page, also on a busy machine; formatting has 1 s of them."""
CROWD = 12


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = SharedServer(tmp_path_factory.mktemp("served") / "data")
    server.token = server.start()
    server.client = Client(server.url, server.token)
    folder = tmp_path_factory.mktemp("files")
    for name, text in HOSTILE.items():
        (folder / name).write_text(text)
    server.client.update("p/m", str(folder), create=True, progress=False)
    server.client.change_project("p", public=True)
    yield server
    server.kill()


def page_in_time(server, path):
    """Return the text of a page; fail if it takes longer than the budget."""
    begun = time.monotonic()
    try:
        answer = requests.get(f"{server.url}/{path}", timeout=BUDGET)
    except requests.ReadTimeout:
        pytest.fail(f"the page {path} is not answered within {BUDGET} s")
    assert answer.status_code == 200
    assert time.monotonic() - begun < BUDGET
    return answer.text


def text_of(page, element):
    found = re.search(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)[1]
    return html.unescape(re.sub("<[^>]+>", "", found))


@pytest.mark.parametrize("path", HOSTILE)
def test_page_of_a_hostile_file_is_answered_in_time_with_its_text(server, path):
    page = page_in_time(server, f"p/p/m@v1/-/view/{path}")
    assert text_of(page, "code").rstrip("\n") == HOSTILE[path].rstrip("\n")


@pytest.mark.parametrize("card", CARDS)
def test_page_of_a_hostile_card_is_answered_in_time_with_its_text(server, card):
    server.client.set_card("p/m", CARDS[card])
    assert CARDS[card] in html.unescape(page_in_time(server, "p/p/m"))


def test_api_is_answered_while_a_crowd_looks_at_a_hostile_file(server):
    def look():
        with suppress(requests.RequestException):  # the test is about the others
            requests.get(f"{server.url}/p/p/m@v1/-/view/x.php", timeout=BUDGET)

    crowd = [threading.Thread(target=look) for _ in range(CROWD)]
    for one in crowd:
        one.start()
    time.sleep(1)
    try:
        answer = requests.get(
            f"{server.url}/api/v1/projects", headers={"Authorization": f"Bearer {server.token}"}, timeout=BUDGET
        )
    except requests.ReadTimeout:
        pytest.fail(f"GET /projects is not answered within {BUDGET} s while {CROWD} look at a hostile file")
    finally:
        for one in crowd:
            one.join()
    assert answer.status_code == 200
