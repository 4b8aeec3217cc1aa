"""The story of docs/team.md through pages alone: invited, proposed, reviewed, accepted, moved, rolled back."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from support.real_server import Server

from lmvp.client.models import Client

pytestmark = pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is not installed")
PASSWORD = "a long password"
FOCUSED = """() => {
  const here = document.activeElement;
  return (here.labels?.[0]?.innerText || here.innerText || "").trim();
}"""


def weights(head):
    rng = np.random.default_rng(0)
    return {f"blocks.{i}.w": rng.standard_normal((30, 30)) for i in range(3)} | {"head.w": np.full((5, 30), head)}


@pytest.fixture
def server(tmp_path, home):
    server = Server(tmp_path / "served")
    server.root = Client(server.url, server.start())
    server.root.add_user("ada", PASSWORD)
    ada = Client(server.url, server.root.create_token("t", scope="admin", user="ada").token)
    ada.update("digits/mlp", weights(0.0), message="first", metrics={"val/acc": 0.8}, create=True, progress=False)
    yield server
    server.end()


class Person:
    """Somebody with a browser; everything that a page should not do is remembered."""

    def __init__(self, chromium, server):
        self.server, self.context = server, chromium.browser.new_context()
        self.page, self.wrong = self.context.new_page(), []
        self.page.on("console", lambda said: self.wrong.append(said.text) if said.type == "error" else None)
        self.page.on("request", self.look)

    def look(self, request):
        if not request.url.startswith((self.server.url, "data:")):
            self.wrong.append(request.url)

    def open(self, path):
        self.page.goto(f"{self.server.url}/{path}")

    def press(self, words, within="body"):
        self.page.locator(within).get_by_role("button", name=words, exact=True).click()

    def follow(self, words):
        self.page.get_by_role("link", name=words, exact=True).first.click()

    def fill(self, label, words):
        self.page.get_by_label(label, exact=True).fill(words)

    def reads(self, words):
        self.page.get_by_text(words).first.wait_for(timeout=10_000)


@pytest.fixture
def people(chromium, server):
    people = [Person(chromium, server) for _ in range(2)]
    yield people
    for person in people:
        person.context.close()


def test_the_story_of_a_team_through_pages_alone(server, people):
    ada, grace = people
    ada.open("p/digits")
    ada.fill("Name", "ada")
    ada.fill("Password", PASSWORD)
    ada.press("Sign in")
    ada.page.wait_for_url("**/p/digits")
    ada.follow("Members")
    ada.press("Create invitation")
    link = ada.page.locator(".code code").inner_text()
    assert "/join?code=" in link
    grace.page.goto(link)
    grace.fill("Name", "grace")
    grace.fill("Password", PASSWORD)
    grace.press("Create account")
    grace.follow("digits")
    grace.reads("2 versions") if grace.page.get_by_text("2 versions").count() else grace.reads("1 version")
    token = server.root.create_token("t", scope="admin", user="grace").token
    client = Client(server.url, token)
    client.update("digits/mlp", weights(0.1), message="trained the head", metrics={"val/acc": 0.9}, propose=True,
                  progress=False)  # fmt: skip
    ada.open("p/digits")
    ada.reads("grace proposed")
    ada.follow("mlp c1")
    ada.reads("+0.1")
    assert ada.page.locator(".strip.tall i.c0").count() == 3, "the blocks are identical"
    ada.fill("Message to grace", "Nice. Which seed?")
    ada.press("Comment")
    ada.reads("Nice. Which seed?")
    grace.open("p/digits/mlp@c1")
    assert grace.page.get_by_role("button", name="Accept as v2").count() == 0, "she may not decide"
    grace.fill("Message", "Seed 7.")
    grace.press("Comment")
    grace.reads("Seed 7.")
    ada.open("p/digits/mlp@c1")
    ada.press("Accept as v2")
    ada.page.wait_for_url("**/p/digits/mlp@v2")
    ada.open("p/digits/mlp@v1")
    ada.fill("Alias", "production")
    ada.press("Set alias")
    ada.open("p/digits/mlp@v2")
    ada.fill("Alias", "production")
    ada.press("Set alias")
    ada.reads("production points at v1; it would be moved to v2")
    ada.press("Move production")
    ada.follow("mlp")
    ada.press("Move back to v1")
    ada.press("Move production")
    ada.page.locator("table").get_by_role("link", name="v1", exact=True).first.wait_for()
    assert server.root.version("digits/mlp@production").number == 1
    grace.open("p/digits/mlp")
    assert grace.page.get_by_role("button", name="Move back to v2").count() == 0
    grace.open("p/digits/-/activity")
    said = [" ".join(line.split()) for line in grace.page.locator(".feed li > span:first-child").all_inner_texts()]
    assert said == [
        "ada moved production to mlp v1",
        "ada moved production to mlp v2",
        "ada moved production to mlp v1",
        "ada accepted mlp c1",
        "grace commented on mlp c1",
        "ada commented on mlp c1",
        "grace proposed mlp c1",
        "ada published mlp v1",
        "ada created mlp",
    ]
    assert ada.wrong == grace.wrong == []


def test_what_is_removed_comes_back_and_what_cannot_be_done_is_told(server, people):
    ada, _ = people
    ada.open("p/digits/mlp@v1")
    ada.fill("Name", "ada")
    ada.fill("Password", PASSWORD)
    ada.press("Sign in")
    ada.page.wait_for_url("**/p/digits/mlp@v1")
    ada.fill("Alias", "no such name!")
    ada.press("Set alias")
    assert "no such name!" in ada.page.get_by_role("alert").inner_text()
    assert ada.page.get_by_label("Alias", exact=True).input_value() == "no such name!"
    ada.fill("Alias", "best")
    ada.press("Set alias")
    ada.press("Remove v1")
    assert "the alias 'best' stands at v1" in ada.page.get_by_role("alert").inner_text()
    ada.open("p/digits/mlp")
    ada.press("Remove")
    ada.open("p/digits/mlp@v1")
    ada.press("Remove v1")
    ada.page.wait_for_url("**/p/digits/mlp")
    ada.reads("No versions yet")
    ada.open("p/digits/-/removed")
    ada.press("Restore")
    ada.page.wait_for_url("**/p/digits/mlp@v1")
    ada.page.go_back()
    ada.page.reload()
    ada.reads("The trash is empty")


def test_two_people_do_not_overwrite_one_another(server, people):
    ada, _ = people
    ada.open("p/digits/mlp")
    ada.fill("Name", "ada")
    ada.fill("Password", PASSWORD)
    ada.press("Sign in")
    ada.page.get_by_text("Edit the model card").click()
    ada.fill("Model card (Markdown)", "Reads digits.\n\nAll of them.")
    server.root.set_card("digits/mlp", "somebody else's words")
    ada.press("Save")
    assert "somebody else has changed it" in ada.page.get_by_role("alert").inner_text()
    assert ada.page.get_by_label("Model card (Markdown)", exact=True).input_value() == "Reads digits.\n\nAll of them."
    assert server.root.models("digits")[0].description == "somebody else's words"
    ada.press("Save")
    ada.page.get_by_role("alert").wait_for(state="detached")
    assert server.root.models("digits")[0].description == "Reads digits.\n\nAll of them."


def test_by_keyboard_alone(server, people):
    """From the login to a version and an alias, with Tab and Enter; the focus is always seen."""
    ada, _ = people
    ada.open("p/digits")
    page = ada.page

    def tab_to(words):
        for _ in range(60):
            page.keyboard.press("Tab")
            here = page.evaluate(FOCUSED)
            if here == words:
                seen = page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
                assert seen != "none", words
                return
        raise AssertionError(f"{words} is not reached")

    tab_to("Name")
    page.keyboard.type("ada")
    tab_to("Password")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url("**/p/digits")
    tab_to("mlp")
    page.keyboard.press("Enter")
    page.wait_for_url("**/p/digits/mlp")
    tab_to("v1")
    page.keyboard.press("Enter")
    page.wait_for_url("**/p/digits/mlp@v1")
    tab_to("Alias")
    page.keyboard.type("best")
    page.keyboard.press("Enter")
    page.locator(".head .alias").wait_for()
    assert server.root.version("digits/mlp@best").number == 1
