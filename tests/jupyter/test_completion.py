"""Names on Tab, in a real IPython shell."""

import numpy as np
import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell

import lmvp
from lmvp_jupyter.completion import candidates


@pytest.fixture
def ip(home):
    shell = InteractiveShell()
    shell.run_line_magic("load_ext", "lmvp_jupyter")
    yield shell
    shell.run_line_magic("unload_ext", "lmvp_jupyter")
    shell.history_manager.end_session()


def complete(ip, text):
    with provisionalcompleter():
        return [completion.text for completion in ip.Completer.completions(text, len(text))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hi", ["history"]),
        ("push digits/mlp m", ["model"]),
        ("push digits/mlp model --me", ["--message", "--metric"]),
        ("pull digits/mlp --into n", ["net"]),
        ("pull digits/m", ["digits/mlp", "digits/mlp@best"]),
        ("pull --to x digits/mlp@", ["digits/mlp@best"]),
        ("diff digits/mlp@best digits/mlp@b", ["digits/mlp@best"]),
        ("nonsense x", []),
    ],
)
def test_candidates(text, expected):
    assert candidates(text, ["model", "net", "_x"], lambda: ["digits/mlp", "digits/mlp@best"]) == expected


def test_verbs_complete_behind_an_assignment(ip):
    assert complete(ip, "v = %lmvp pu") == ["pull", "push"]


def test_models_and_aliases_complete(ip):
    lmvp.update("digits/mlp", {"w": np.zeros(2)}, alias="production")
    assert "digits/mlp@production" in complete(ip, "%lmvp pull digits/mlp@pro")


def test_tab_starts_no_server(ip, home):
    assert "digits/mlp" not in complete(ip, "%lmvp pull digits")
    assert not (home / "server.json").exists()
