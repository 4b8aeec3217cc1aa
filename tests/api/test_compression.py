"""What is compressed: pages, styles, scripts and curves; never what holds a secret, nor a part of a file."""

import re

import numpy as np
import pytest
from api.test_console import PASSWORD, Browser
from support.local_server import SharedServer

from lmvp.client.models import Client


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = SharedServer(tmp_path_factory.mktemp("small") / "data")
    server.root = Client(server.url, server.start())
    server.root.add_user("ada", PASSWORD, admin=True)
    server.root.update("digits/mlp", {"w": np.ones((40, 40))}, create=True, progress=False)
    with server.root.start_run("digits", name="first") as run:
        for step in range(300):
            run.log({"loss": 1 / (1 + step)}, step=step)
    yield server
    server.end()


SMALL = (
    "",
    "p/digits",
    "p/digits/mlp",
    "p/digits/-/runs",
    "p/digits/-/runs/first",
    "p/digits/-/curves?run=first",
    "account",
    "static/look.css",
    "static/vendor/uPlot-1.6.32.iife.min.js",
)


def sent(browser, path):
    """Count the bytes of a body, as they travel."""
    with browser.look(path, headers={"Accept-Encoding": "gzip"}, stream=True) as answer:
        return len(answer.raw.read(decode_content=False))


@pytest.mark.parametrize("path", SMALL)
def test_what_is_read_often_is_small(server, path):
    ada = Browser(server, "ada")
    small, whole = (ada.look(path, headers={"Accept-Encoding": coding}) for coding in ("gzip", "identity"))
    assert small.headers["Content-Encoding"] == "gzip"
    assert small.headers["Vary"] == whole.headers["Vary"] == "Accept-Encoding"
    assert "Content-Encoding" not in whole.headers
    assert sent(ada, path) < len(whole.content) / 1.2
    mask = re.compile(rb'"[0-9a-f]{128}"|>\d+ s ago<')
    assert mask.sub(b"", small.content) == mask.sub(b"", whole.content)


@pytest.mark.parametrize("path", ["login", "p/digits/mlp@v1/-/files/weights.safetensors", "api/v1/projects"])
def test_other_answers_are_as_they_are(server, path):
    ada = Browser(server, "ada")
    token = (
        {"Authorization": f"Bearer {server.root.create_token('t', scope='admin', user='ada').token}"}
        if "api" in path
        else {}
    )
    assert "Content-Encoding" not in ada.look(path, headers={"Accept-Encoding": "gzip", **token}).headers


def test_a_secret_that_is_shown_once_is_not_compressed(server):
    ada = Browser(server, "ada")
    page = ada.look("account").text
    xsrf = re.search(r'name="_xsrf" value="([0-9a-f]+)"', page)[1]
    form = {"_xsrf": xsrf, "do": "make_token", "name": "laptop", "scope": "read", "days": "7"}
    answer = ada.post(f"{server.url}/account", data=form, timeout=20)
    assert re.search(r"<code>lmvp_[^<]+</code>", answer.text)
    assert "Content-Encoding" not in answer.headers


def test_what_forms_carry_is_masked_anew_in_each_page(server):
    ada = Browser(server, "ada")
    found = [re.search(r'name="_xsrf" value="([0-9a-f]+)"', ada.look("account").text)[1] for _ in range(2)]
    assert found[0] != found[1]


def test_a_part_of_a_file_is_a_part_of_the_file(server):
    ada = Browser(server, "ada")
    part = ada.look("static/look.css", headers={"Accept-Encoding": "gzip", "Range": "bytes=10-2009"})
    whole = ada.look("static/look.css", headers={"Accept-Encoding": "identity"})
    assert (part.status_code, part.content) == (206, whole.content[10:2010])
