"""Moves of protected aliases: every way to make one asks, or takes a confirmation."""

import io
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import requests
from support.in_process import TOKEN, Served

import lmvp
from lmvp.cli import main

_numbers = itertools.count()


class Terminal(io.StringIO):
    """A standard input that says it is a terminal."""

    def isatty(self):
        return True


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with Served(tmp_path_factory.mktemp("served") / "data") as server:
        yield server


@pytest.fixture
def model(served, home, tmp_path, monkeypatch):
    """A model with three versions; `production`, which is protected, points at v1, `best` too."""
    monkeypatch.setenv("LMVP_URL", served.url)
    monkeypatch.setenv("LMVP_TOKEN", TOKEN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    name = f"p{next(_numbers)}/net"
    for number in range(3):
        lmvp.update(name, weights(number), create=True, progress=False)
    lmvp.alias(f"{name}@v1", "production")
    lmvp.alias(f"{name}@v1", "best")
    return name


def weights(number):
    return {"w": np.full(5000, float(number))}


def points_at(name, alias="production"):
    return {one.name.lower(): one.number for one in lmvp.aliases(name)}.get(alias)


def chunks(served):
    return sorted(path.name for path in (served.settings.data / "chunks").rglob("*") if path.is_file())


def exported(name):
    lmvp.alias(f"{name}@v3", "production", yes=True)
    lmvp.export(name, "kept", progress=False)
    lmvp.alias(f"{name}@v1", "production", yes=True)
    return "kept"


def moved_before(name):
    """Move production to v2 and back to v1: a rollback leads to v2."""
    lmvp.alias(f"{name}@v2", "production", yes=True)
    lmvp.alias(f"{name}@v1", "production", yes=True)


CALLS = {
    "alias": (lambda name, **yes: lmvp.alias(f"{name}@v2", "production", **yes), "moved to v2", 2),
    "alias of the latest": (lambda name, **yes: lmvp.alias(name, "PRODUCTION", **yes), "moved to v3", 3),
    "client": (lambda name, **yes: lmvp.Client().alias(f"{name}@v2", "production", **yes), "moved to v2", 2),
    "remove": (lambda name, **yes: lmvp.remove_alias(name, "production", **yes), "removed", None),
    "rollback": (lambda name, **yes: lmvp.rollback(f"{name}@production", **yes), "moved back to v2", 2),
    "push": (
        lambda name, **yes: lmvp.update(name, weights(9), alias="production", progress=False, **yes),
        "moved to the new version v4",
        4,
    ),
    "push of two": (
        lambda name, **yes: lmvp.push(name, weights(9), alias=["best", "production"], progress=False, **yes),
        "moved to the new version v4",
        4,
    ),
    "import": (
        lambda name, **yes: lmvp.import_model("kept", name, progress=False, **yes),
        "moved to v3 by this import",
        3,
    ),
}


@pytest.mark.parametrize("call", CALLS)
def test_protected_alias_moves_in_python_only_with_yes(model, served, call):
    act, target, after = CALLS[call]
    exported(model)
    moved_before(model)
    before = chunks(served)
    with pytest.raises(lmvp.ProtectedAlias) as refused:
        act(model)
    assert refused.value.message == f"the protected alias {model}@production points at v1; it would be {target}"
    assert "yes=True" in str(refused.value), "the call that confirms it"
    assert (points_at(model), points_at(model, "best"), len(lmvp.history(model))) == (1, 1, 3)
    assert chunks(served) == before, "nothing was sent"
    act(model, yes=True)
    assert points_at(model) == after


WORDS = {
    "alias": (("alias", "{0}@v2", "production"), "v1 → v2"),
    "push": (("push", "{0}", "w.bin", "--alias", "production"), "v1 → v4"),
    "rollback": (("rollback", "{0}@production"), "v1 → v2"),
    "remove": (("alias", "{0}", "production", "--remove"), "is removed"),
    "import": (("import", "kept", "{0}"), "3 versions"),
}


@pytest.mark.parametrize("verb", WORDS)
def test_protected_alias_moves_in_a_shell_only_if_confirmed(model, served, verb, capsys, monkeypatch):
    exported(model)
    moved_before(model)
    Path("w.bin").write_bytes(bytes(range(256)) * 99)
    before, (words, told) = chunks(served), WORDS[verb]
    words = [word.format(model) for word in words]
    assert main(words) == 2, "nobody can be asked"
    err = capsys.readouterr().err
    assert err.startswith(f"lmvp: the protected alias {model}@production points at v1; it would be ")
    assert err.endswith("\n  hint: `--yes` does it without a question\n")
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    assert main(words) == 2
    assert capsys.readouterr().err.startswith(f"the protected alias {model}@production points at v1; it would be ")
    assert (points_at(model), len(lmvp.history(model)), chunks(served)) == (1, 3, before)
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert main(words) == 0
    out = capsys.readouterr().out
    assert told in out
    assert points_at(model) != 1


@pytest.mark.parametrize("verb", WORDS)
def test_yes_confirms_in_a_script(model, verb, capsys):
    exported(model)
    moved_before(model)
    Path("w.bin").write_bytes(b"other weights")
    words, told = WORDS[verb]
    assert main([*(word.format(model) for word in words), "--yes"]) == 0
    assert told in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([words[0], "--help"])
    assert "--yes" in capsys.readouterr().out


def test_push_prints_the_move_of_each_alias(model, capsys):
    Path("w.bin").write_bytes(b"w")
    assert main(["push", model, "w.bin", "--alias", "best", "--alias", "first", "--no-progress"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [f"{model}@best: v1 → v4", f"{model}@first: v4, new"]
    assert main(["push", model, "w.bin", "--alias", "best", "-q"]) == 0
    assert capsys.readouterr().out == f"{model}@v4\n"


def test_alias_that_is_not_protected_moves_without_yes(model):
    assert lmvp.alias(f"{model}@v2", "best").number == 2
    assert repr(lmvp.rollback(f"{model}@best")) == f"<Alias {model}@best: v2 → v1>"
    assert lmvp.update(model, weights(7), alias="best", progress=False).aliases == ("best",)
    lmvp.remove_alias(model, "best")
    lmvp.Client().protect(f"{model}@production", on=False)
    assert lmvp.alias(f"{model}@v2", "production").number == 2


def test_protected_alias_takes_no_yes_where_it_does_not_move(model):
    assert lmvp.alias(f"{model}@v1", "production").number == 1
    other = f"{model}-2"
    assert lmvp.update(other, weights(0), alias="production", create=True, progress=False).aliases == ("production",)


def test_magics_refuse_to_move_a_protected_alias(model, capsys):
    from IPython.core.interactiveshell import InteractiveShell

    moved_before(model)
    shell = InteractiveShell()
    shell.run_line_magic("load_ext", "lmvp_jupyter")
    try:
        shell.user_ns["net"] = weights(9)
        lines = (f"push {model} net --alias production", f"push {model} net --alias production --no-wait",
                 f"alias {model}@v2 production", f"rollback {model}@production")  # fmt: skip
        for line in lines:
            with pytest.raises(lmvp.ProtectedAlias, match="points at v1") as refused:
                shell.run_line_magic("lmvp", line)
            assert refused.value.hint == "`--yes` does it without a question"
        assert (points_at(model), len(lmvp.history(model))) == (1, 3)
        assert repr(shell.run_line_magic("lmvp", f"alias {model}@v2 production --yes")).endswith("v1 → v2")
        capsys.readouterr()
        assert shell.run_line_magic("lmvp", f"push {model} net --alias production --yes").number == 4
        assert f"{model}@production: v2 → v4" in capsys.readouterr().out
        shell.user_ns["net"] = weights(10)
        pending = shell.run_line_magic("lmvp", f"push {model} net --alias production --yes --no-wait")
        assert pending.result(60).number == points_at(model) == 5
        assert repr(pending).endswith(f"{model}@production: v4 → v5")
    finally:
        shell.run_line_magic("unload_ext", "lmvp_jupyter")
        shell.history_manager.end_session()


def test_history_widget_asks_before_a_protected_alias_moves(model):
    from lmvp_jupyter.widgets import HistoryTable

    widget, said = HistoryTable(lmvp.history(model)), []
    widget.send = said.append
    key = widget.data["rows"][0]["key"]
    widget._heard(widget, {"kind": "alias", "key": key, "name": "production"}, [])
    words = f"the protected alias {model}@production points at v1; it would be moved to v3"
    assert said == [{"kind": "confirm", "of": "alias", "words": words, "asked": {"key": key, "name": "production"}}]
    assert points_at(model) == 1
    widget._heard(widget, {"kind": "alias", **said[0]["asked"], "yes": True}, [])
    assert (said[1]["kind"], points_at(model)) == ("done", 3)


class Browser(requests.Session):
    """A browser that is signed in to the console."""

    def __init__(self, url):
        super().__init__()
        self.url = url
        self.post(f"{url}/login", data={"_xsrf": self.xsrf("login"), "token": TOKEN}, timeout=30).raise_for_status()

    def xsrf(self, path):
        return re.search(r'name="_xsrf" value="([0-9a-f]+)"', self.get(f"{self.url}/{path}", timeout=30).text)[1]

    def fill(self, path, **fields):
        return self.post(f"{self.url}/{path}", data={"_xsrf": self.xsrf(path), **fields}, timeout=30)


FORMS = {
    "alias": ("p/{0}@v2", {"do": "alias", "name": "production"}, "moved to v2", 2),
    "rollback": ("p/{0}", {"do": "rollback", "alias": "production"}, "moved to v2", 2),
    "unalias": ("p/{0}", {"do": "unalias", "alias": "production"}, "removed", None),
}


@pytest.mark.parametrize("form", FORMS)
def test_console_asks_before_a_protected_alias_moves(model, served, form):
    moved_before(model)
    path, fields, target, after = FORMS[form]
    path, browser = path.format(model), Browser(served.url)
    page = browser.fill(path, **fields)
    assert page.status_code == 200, "a question, not an error"
    assert f"the protected alias {model}@production points at v1; it would be {target}" in page.text
    assert points_at(model) == 1
    # The page has a form that sends the same once more, with the confirmation.
    asked = re.search(r'<form method="post" class="note bad[^"]*".*?</form>', page.text, re.DOTALL)[0]
    again = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', asked))
    assert {**fields, "yes": "production"}.items() <= again.items()
    assert browser.post(f"{browser.url}/{path}", data=again, timeout=30).ok
    assert points_at(model) == after
    assert browser.fill(f"p/{model}@v3", do="alias", name="best").ok, "best is not protected"
    assert points_at(model, "best") == 3
