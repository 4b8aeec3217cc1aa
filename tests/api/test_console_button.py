"""`%lmvp open` in a notebook: a button that gets its link when it is clicked; no saved notebook holds a secret."""

from __future__ import annotations

import nbformat
import numpy as np
import pytest
import requests
from IPython.core.interactiveshell import InteractiveShell
from nbclient import NotebookClient

import lmvp
from lmvp.client.models import Client
from lmvp_jupyter.widgets import ConsoleButton

pytestmark = pytest.mark.notebook


@pytest.fixture
def page(home, monkeypatch):
    for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    lmvp.update("digits/mlp", {"w": np.ones(2)}, progress=False)
    return lmvp.open("digits/mlp")


def links():
    return [event.what for event in Client().events(action="session.link", limit=None)]


def test_button_gets_a_link_when_it_is_clicked(page):
    button, sent = ConsoleButton(page), []
    button.send = sent.append
    assert links() == [], "nothing is made before the click"
    button._heard(button, {"kind": "link"}, [])
    (message,) = sent
    assert message["kind"] == "link"
    address, _, code = message["url"].partition("#")
    assert (address, len(code) >= 43, links()) == (f"{Client().url}/open", True, ["p/digits/mlp"])
    assert requests.get(address, timeout=20).status_code == 200
    for kept in (button.data, button.static(), button.forms(), button.get_state(), repr(page)):
        assert code not in str(kept)
    for odd in ({"kind": "other"}, "text", None):
        button._heard(button, odd, [])
    assert len(sent) == 1
    button.close()


def test_button_knows_its_server(page):
    button = ConsoleButton(page)
    health = requests.get(f"{Client().url}/api/v1/health", timeout=20).json()
    assert button.data == {
        "url": f"{Client().url}/p/digits/mlp",
        "path": "p/digits/mlp",
        "instance": health["instance"],
    }
    button.close()


def test_button_tells_why_there_is_no_link(page, monkeypatch):
    monkeypatch.setenv("LMVP_URL", Client().url)
    monkeypatch.setenv("LMVP_TOKEN", "ended")
    button, sent = ConsoleButton(Client().open()), []
    button.send = sent.append
    button._heard(button, {"kind": "link"}, [])
    assert sent[0]["kind"] == "error"
    assert "this token is not known here" in sent[0]["message"]
    button.close()


@pytest.mark.parametrize(
    "code", ["%lmvp open digits/mlp", "%lmvp ui digits/mlp", 'import lmvp; lmvp.open("digits/mlp")']
)
def test_notebook_that_is_saved_holds_no_secret(page, tmp_path, code):
    cells = [nbformat.v4.new_code_cell("%load_ext lmvp_jupyter"), nbformat.v4.new_code_cell(code)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    saved = nbformat.writes(notebook)
    assert f"{Client().url}/p/digits/mlp" in saved
    assert "/open#" not in saved
    assert "lmvp-live-" in saved, "the button covers the address"
    assert links() == [], "the kernel asks for no link before the click"


def test_magic_prints_no_link(page):
    shell = InteractiveShell()
    shell.run_line_magic("load_ext", "lmvp_jupyter")
    shown = shell.run_line_magic("lmvp", "open digits/mlp")
    assert repr(shown).startswith(f"{Client().url}/p/digits/mlp")
    with pytest.raises(Exception, match="does not take '--print'"):
        shell.run_line_magic("lmvp", "open --print")
    shell.run_line_magic("unload_ext", "lmvp_jupyter")
    shell.history_manager.end_session()
