"""Names on Tab, in a real IPython shell."""

import numpy as np
import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell

import lmvp
from lmvp.cli import completion as names
from lmvp.cli.parser import NOTEBOOK, SHELL, verbs_of
from lmvp_jupyter.completion import candidates

pytestmark = pytest.mark.notebook


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
        ("he", ["help"]),
        ("help pru", ["prune"]),
        ("push ", ["digits/", "digits/mlp"]),
        ("push digits/mlp m", ["model"]),
        ("push digits/mlp model --me", ["--message", "--metric"]),
        ("pull digits/mlp --into n", ["net"]),
        ("pull digits/m", ["digits/mlp", "digits/mlp@best"]),
        ("pull --to x digits/mlp@", ["digits/mlp@best"]),
        ("diff digits/mlp@best digits/mlp@b", ["digits/mlp@best"]),
        ("rm digits/mlp@", ["digits/mlp@best"]),
        ("open digits/mlp@", ["digits/mlp@best"]),
        ("rm digits/mlp --", ["--yes", "--now", "--help"]),
        ("prune d", ["digits/", "digits/mlp"]),
        ("prune digits/mlp --", ["--keep", "--dry-run", "--save", "--forget", "--help"]),
        ("history d", ["digits/", "digits/mlp"]),
        ("du digits/m", ["digits/mlp"]),
        ("ls ", ["digits"]),
        ("project d", ["digits"]),
        ("fsck --r", ["--repair"]),
        ("gc ", []),
        ("compact --", ["--help"]),
        ("login d", []),
        ("nonsense x", []),
    ],
)
def test_candidates(text, expected):
    names = ["digits/", "digits/mlp", "digits/mlp@best"]
    assert candidates(text, ["model", "net", "_x"], lambda: names) == expected


@pytest.mark.parametrize("verb", verbs_of(NOTEBOOK), ids=lambda verb: verb.name)
def test_every_verb_completes_with_all_its_options(verb):
    assert verb.name in candidates(verb.name[:1], [], list)
    given = [argument for argument in verb.arguments if argument.only in (None, NOTEBOOK)]
    flags = {flag for argument in given for flag in argument.flags if flag.startswith("--")}
    assert set(candidates(f"{verb.name} --", [], list)) == {*flags, "--help"}


def test_every_argument_that_names_something_completes():
    """A verb that is new takes a place in the tables, or here."""
    free = {
        ("push", "object"), ("pull", "variable"), ("alias", "alias"), ("login", "url"), ("logout", "url"),
        ("export", "to"), ("import", "source"), ("backup", "to"), ("require", "rule"),
        ("undelete", "name"), ("fork", "to"), ("tokens", "what"), ("tokens", "name"), ("users", "what"),
        ("users", "name"), ("identities", "what"), ("identities", "id"), ("groups", "what"), ("groups", "name"),
        ("groups", "users"), ("members", "what"), ("members", "name"), ("webhooks", "what"), ("webhooks", "target"),
        ("devices", "what"), ("devices", "code"),
        ("audit", "what"),
    }  # fmt: skip
    known = free | names._VERSIONS | names._CONTRIBUTIONS | names._MODELS | names._PROJECTS | names._RUNS
    hosts = (NOTEBOOK, SHELL)
    places = {(verb.name, a.flags[0]) for host in hosts for verb in verbs_of(host) for a in verb.arguments}
    assert {place for place in places if not place[1].startswith("-")} == known


def test_verbs_complete_behind_an_assignment(ip):
    assert complete(ip, "v = %lmvp pu") == ["pull", "push"]


def test_models_and_aliases_complete(ip):
    lmvp.update("digits/mlp", {"w": np.zeros(2)}, alias="production")
    assert "digits/mlp@production" in complete(ip, "%lmvp pull digits/mlp@pro")


def test_what_is_proposed_completes(ip):
    lmvp.update("digits/mlp", {"w": np.zeros(2)}, alias="production")
    lmvp.update("digits/mlp", {"w": np.ones(2)}, propose=True)
    assert complete(ip, "%lmvp accept ") == ["digits/mlp@c1"]


def test_tab_starts_no_server(ip, home):
    assert "digits/mlp" not in complete(ip, "%lmvp pull digits")
    assert not (home / "server.json").exists()
