"""What others wrote stays text: in tables of a terminal, in pages, in files for a spreadsheet, in headers."""

import csv
import io

import numpy as np
import pytest
import requests
from support.local_server import SharedServer

import lmvp
from lmvp.cli import main
from lmvp.client.models import Client

FORMULA = "=HYPERLINK(0)"
MARKUP = "<img src=x onerror=alert(1)>"
ESCAPES = "fine\x1b]0;owned\x07\x1b[2J\r\nfake line\u202etxt"


@pytest.fixture
def server(home, tmp_path, monkeypatch):
    server = SharedServer(tmp_path / "served")
    server.token = server.start()
    server.root = Client(server.url, server.token)
    monkeypatch.setenv("LMVP_URL", server.url)
    monkeypatch.setenv("LMVP_TOKEN", server.token)
    yield server
    server.end()


def push(client, message, **options):
    return client.update("digits/mlp", {"w": np.ones(3)}, message=message, progress=False, create=True, **options)


def shown(capsys, *words):
    assert main(list(words)) == 0
    return capsys.readouterr().out


def test_a_terminal_is_not_driven_by_messages(server, capsys):
    push(server.root, ESCAPES, params={"a": ESCAPES}, tags={"t": ESCAPES})
    server.root.update("digits/mlp", {"w": np.zeros(3)}, message=ESCAPES, propose=True, progress=False)
    server.root.comment("digits/mlp@c1", ESCAPES)
    for words in (
        ("history", "digits/mlp"),
        ("show", "digits/mlp@v1"),
        ("contributions", "digits"),
        ("comment", "digits/mlp@c1"),
        ("audit", "list", "digits"),
        ("diff", "digits/mlp@v1", "digits/mlp@c1"),
    ):
        said = shown(capsys, *words)
        assert not any(letter < " " and letter != "\n" for letter in said), words
        assert "\u202e" not in said, words
        assert not any(line.startswith("fake line") for line in said.splitlines()), words


def test_a_spreadsheet_runs_no_formulas_and_a_browser_no_markup(server):
    with lmvp.start_run("digits", name=FORMULA, create=True) as run:
        run.log({FORMULA: 1.0, MARKUP: 2.0})
    answer = requests.get(
        f"{server.url}/api/v1/projects/digits/metrics/export",
        headers={"Authorization": f"Bearer {server.token}"},
        timeout=30,
    )
    assert answer.headers["Content-Type"].startswith("text/csv")
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    cells = [cell for row in csv.reader(io.StringIO(answer.text)) for cell in row]
    assert f"'{FORMULA}" in cells
    assert not any(cell[:1] in "=+@\t\r" for cell in cells if cell)


def test_markup_in_names_and_messages_is_text_in_every_static_form(server):
    push(server.root, MARKUP, params={"p": MARKUP}, tags={"t": MARKUP})
    push(server.root, FORMULA)
    server.root.update("digits/mlp", {"w": np.zeros(3)}, message=MARKUP, propose=True, progress=False)
    import argparse

    from lmvp.cli.parser import SHELL, make_parser, read

    for words in (["contributions", "digits"], ["audit", "list", "digits"], ["runs", "digits"]):
        options = read(make_parser(SHELL, "lmvp", argparse.ArgumentParser), words, SHELL)
        found = options.act(options, None)
        html = found._repr_html_() if hasattr(found, "_repr_html_") else ""
        assert "<img" not in html
    for found in (lmvp.showHistory("digits/mlp"), lmvp.show("digits/mlp@v1")):
        html = found._repr_html_() if hasattr(found, "_repr_html_") else found._repr_mimebundle_()["text/html"]
        assert MARKUP not in html
        assert "&lt;img" in html


def test_names_never_break_a_header(server):
    answer = requests.post(
        f"{server.url}/api/v1/projects",
        json={"name": "digits\r\nSet-Cookie: x=1"},
        headers={"Authorization": f"Bearer {server.token}"},
        timeout=10,
    )
    assert answer.status_code == 400
    assert "Set-Cookie" not in answer.headers
    for path in ("projects/a%0d%0aSet-Cookie:x=1", "projects/%2e%2e%2fserver", "projects/a%00b"):
        answer = requests.get(
            f"{server.url}/api/v1/{path}", headers={"Authorization": f"Bearer {server.token}"}, timeout=10
        )
        assert answer.status_code in {400, 404}
        assert "Set-Cookie" not in answer.headers
