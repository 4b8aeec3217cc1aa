"""The `lmvp` command, against a real server."""

import io
import re
import subprocess
import sys

import numpy as np
import pytest

import lmvp
from lmvp.cli import main
from lmvp.client.models import Client


@pytest.fixture
def weights(tmp_path, monkeypatch):
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    path = folder / "weights.bin"
    path.write_bytes(bytes(range(256)))
    return path


def test_push_pull_history(home, weights, capsys):
    assert main(["push", "digits/mlp", "weights.bin", "-m", "first try", "--metric", "acc=0.5", "--tag", "by=ada"]) == 0
    assert capsys.readouterr().out.startswith("digits/mlp@v1  ")
    assert main(["pull", "digits/mlp", "--to", "out"]) == 0
    assert capsys.readouterr().out == "out/weights.bin\n"
    assert (weights.parent / "out" / "weights.bin").read_bytes() == weights.read_bytes()
    assert main(["history", "digits/mlp"]) == 0
    assert "first try" in capsys.readouterr().out


def test_a_pull_without_a_folder_makes_one_and_replaces_nothing(home, weights, capsys):
    main(["push", "digits/mlp", "weights.bin"])
    weights.write_bytes(b"edited since")
    assert main(["pull", "digits/mlp"]) == 0
    assert weights.read_bytes() == b"edited since"
    assert (weights.parent / "mlp" / "weights.bin").read_bytes() == bytes(range(256))
    assert main(["pull", "digits/mlp"]) == 2
    assert "--to FOLDER" in capsys.readouterr().err


def test_alias_without_a_revision_is_shown(home, weights, capsys):
    """`lmvp alias MODEL NAME` moves nothing, also where the model has a newer version."""
    for content in (b"one", b"two"):
        weights.write_bytes(content)
        assert main(["push", "digits/mlp", "weights.bin"]) == 0
    assert main(["alias", "digits/mlp", "production"]) != 0
    assert "lmvp alias digits/mlp@latest production" in capsys.readouterr().err
    assert main(["alias", "digits/mlp@v1", "production"]) == 0
    assert capsys.readouterr().out.endswith("digits/mlp@production: v1, new\n")
    assert main(["alias", "digits/mlp", "production"]) == 0
    assert re.search(r"production +v1 ", capsys.readouterr().out)
    assert [one.number for one in Client().aliases("digits/mlp")] == [1]


class Terminal(io.StringIO):
    """A standard input that says it is a terminal."""

    def isatty(self):
        return True


def test_protected_alias_moves_only_with_yes(home, weights, capsys, monkeypatch):
    for content in (b"one", b"two"):
        weights.write_bytes(content)
        assert main(["push", "digits/mlp", "weights.bin"]) == 0
    assert main(["alias", "digits/mlp@v1", "production"]) == 0

    def stands():
        return [one.number for one in Client().aliases("digits/mlp")]

    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(["alias", "digits/mlp@v2", "production"]) == 2
    assert "protected alias digits/mlp@production points at v1" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    assert main(["alias", "digits/mlp@v2", "production"]) == 2
    assert stands() == [1]
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert main(["alias", "digits/mlp@v2", "production"]) == 0
    assert "digits/mlp@production: v1 → v2" in capsys.readouterr().out
    assert main(["alias", "digits/mlp@v1", "production", "--yes"]) == 0
    assert "digits/mlp@production: v2 → v1" in capsys.readouterr().out
    assert main(["rollback", "digits/mlp@production", "--yes"]) == 0
    assert "digits/mlp@production: v1 → v2" in capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(["alias", "digits/mlp", "production", "--remove"]) == 2
    assert stands() == [2]
    assert main(["alias", "digits/mlp", "production", "--remove", "--yes"]) == 0
    assert stands() == []


def test_alias_ls_diff_status(home, weights, capsys):
    main(["push", "digits/mlp", "weights.bin"])
    weights.write_bytes(b"other")
    main(["push", "digits/mlp", "weights.bin"])
    for words, expected in (
        (["alias", "digits/mlp@v1", "best"], "digits/mlp@best: v1, new"),
        (["alias", "digits/mlp", "best"], "best   v1"),
        (["alias", "digits/mlp@v2", "best"], "digits/mlp@best: v1 → v2"),
        (["alias", "digits/mlp@v2", "best"], "digits/mlp@best: v2, as before"),
        (["alias", "digits/mlp"], "best   v2"),
        (["alias", "digits/mlp", "best", "--remove"], ""),
        (["alias", "digits/mlp"], "no aliases yet"),
        (["ls"], "digits"),
        (["ls", "digits"], "mlp    v2"),
        (["diff", "digits/mlp@v1", "@v2"], "weights.bin"),
        (["status"], "default"),
        (["stop"], "ended"),
    ):
        capsys.readouterr()
        assert main(words) == 0, words
        assert expected in capsys.readouterr().out, words


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["pull", "digits/none"], 3, "no project 'digits'"),
        (["push", "digits/mlp", "nothing.bin"], 3, "nothing.bin"),
        (["push", "../x", "weights.bin"], 2, "project name"),
        (["push", "digits/mlp", "weights.bin", "--metric", "acc=good"], 2, "not a number"),
        (["push", "digits/mlp", "weights.bin", "--metric", "acc"], 2, "KEY=VALUE"),
        (["push", "digits/mlp", "weights.bin", "--alias", "latest"], 2, "reserved"),
    ],
)
def test_mistakes_are_told_without_a_traceback(home, weights, capsys, words, code, said):
    assert main(words) == code
    error = capsys.readouterr().err
    assert error.startswith("lmvp: ")
    assert said in error


def test_as_a_process(home, weights):
    command = [sys.executable, "-c", "import sys; from lmvp.cli import main; sys.exit(main())"]
    made = subprocess.run([*command, "push", "digits/mlp", "weights.bin"], capture_output=True, text=True, check=True)
    assert made.stdout.startswith("digits/mlp@v1")
    wrong = subprocess.run([*command, "push", "--nonsense"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "usage: lmvp" in wrong.stderr


def test_help_and_version(capsys):
    assert main([]) == 0
    assert "history" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"lmvp {lmvp.__version__}\n"


def test_login_checks_the_token_and_keeps_it(home, monkeypatch, capsys):
    from lmvp import config, local

    lmvp.update("digits/mlp", {"w": np.zeros(2)})
    server = local.connection()
    monkeypatch.setattr("sys.stdin", io.StringIO("wrong\n"))
    assert main(["login", server.url]) == 5
    assert "the file `token` of its data folder" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", io.StringIO(server.token + "\n"))
    assert main(["login", server.url]) == 0
    assert config.token_for(server.url) == server.token
    assert server.token not in "".join(capsys.readouterr())
    assert main(["logout"]) == 0
    assert config.token_for(server.url) is None


def test_the_server_is_among_the_verbs(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert re.search(r"^ +server +Run a server for a team\.$", capsys.readouterr().out, re.MULTILINE)
    assert main(["serve"]) == 2
    assert "did you mean 'server'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["histroy", "digits"], "lmvp has no verb 'histroy'", "did you mean 'history'?"),  # codespell:ignore
        (["quux"], "lmvp has no verb 'quux'", "`lmvp --help` tells what there is"),
        (["push", "mlp", "x", "--massage", "hi"], "`lmvp push` does not take '--massage'", "did you mean '--message'?"),
        (["cache", "wipe"], "`lmvp cache` does not take 'wipe'", "`lmvp cache --help` tells what there is"),
        (["--quux"], "`lmvp` does not take '--quux'", "`lmvp --help` tells what there is"),
    ],
)
def test_a_verb_or_option_that_is_not_there_is_answered_with_the_one_meant(words, message, hint, capsys):
    assert main(words) == 2
    assert capsys.readouterr().err == f"lmvp: {message}\n  hint: {hint}\n"


def test_slips_are_told_with_the_way_out(home, weights, capsys):
    main(["push", "digits/mlp", "weights.bin"])
    for words, message, hint in (
        (
            ["ls", "digits/mlp"],
            "'digits/mlp' is a model, not a project",
            "`lmvp history digits/mlp` lists its versions",
        ),
        (["push", "a/b", "x", "--metric", "acc"], "--metric 'acc' is not KEY=VALUE", "write --metric val_acc=0.97"),
        (["prune", "digits/mlp"], "digits/mlp has no rule of its own", "say what stays; a rule is made of `last:N`"),
        (["export", "digits/mlp", "m.tar.gz"], "m.tar.gz is a name of another kind", "a .tar, or a folder: m.tar, m"),
        (
            ["history", "digits/mlp", "--limit", "0"],
            "`--limit` is int 0",
            "give a whole number above 0, or None for all",
        ),
    ):
        capsys.readouterr()
        assert main(words) == 2, words
        said = capsys.readouterr().err
        assert message in said
        assert hint in said
    assert not (weights.parent / "m.tar.gz").exists()


@pytest.fixture
def digits(home, weights):
    """A project `digits` with a model, a contribution and two runs, while the current project is `default`."""
    lmvp.update("digits/mlp", weights)
    weights.write_bytes(b"other")
    lmvp.update("digits/mlp", weights)
    weights.write_bytes(b"proposed")
    lmvp.update("digits/cnn", weights)
    weights.write_bytes(b"proposed too")
    lmvp.update("digits/mlp", weights, propose=True)
    for name, lr in (("first", 0.1), ("second", 0.2)):
        with lmvp.start_run("digits", name=name, params={"lr": lr}, system_metrics=False) as run:
            run.log({"loss": lr})


PROJECT = "did you mean 'digits/'? 'digits/' is a project, and 'digits/model' a model of it"
UNQUALIFIED = {
    "metrics first": "did you mean 'digits/first'?",
    "metrics mlp": "did you mean 'digits/mlp'?",
    "compare first second": "did you mean 'digits/first'?",
    "show mlp": "did you mean 'digits/mlp'?",
    "pull mlp@v1": "did you mean 'digits/mlp'?",
    "history mlp": "did you mean 'digits/mlp'?",
    "alias mlp best": "did you mean 'digits/mlp'?",
    "accept mlp@c1": "did you mean 'digits/mlp'?",
    "rm mlp@v1": "did you mean 'digits/mlp'?",
    "rm digits": PROJECT,
    "rm digits --yes": PROJECT,
}


@pytest.mark.parametrize("default", [False, True], ids=["without default", "with default"])
def test_name_without_its_project_is_found_in_another(digits, weights, capsys, default):
    if default:
        lmvp.update("default/other", weights)
    for line, meant in UNQUALIFIED.items():
        assert (line, main(line.split())) == (line, 3)
        assert meant in capsys.readouterr().err, line


def test_runs_without_a_project_name_those_that_have_runs(digits, weights, capsys):
    assert main(["runs"]) == 3
    assert "did you mean `lmvp runs digits`?" in capsys.readouterr().err
    lmvp.update("default/other", weights)
    assert main(["runs"]) == 0
    assert capsys.readouterr().out == "no runs in project 'default'; did you mean `lmvp runs digits`?\n"


def test_second_name_has_the_project_of_the_first(digits, capsys):
    for line in ("compare digits/first second", "metrics digits/first second", "diff digits/mlp@v1 cnn"):
        assert (line, main(line.split())) == (line, 0)
        assert capsys.readouterr().err == ""


def test_status_of_a_server_that_does_not_answer_states_what_is_known(home, monkeypatch, capsys):
    monkeypatch.setenv("LMVP_URL", "http://127.0.0.1:9")
    for token in ("", "secret"):
        monkeypatch.setenv("LMVP_TOKEN", token)
        assert main(["status"]) == 8
        told = capsys.readouterr()
        assert "http://127.0.0.1:9 (does not answer)" in told.out
        assert "default" in told.out
        assert "127.0.0.1:9" in told.err


def test_login_with_token_refuses_an_empty_standard_input(home, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(["login", "http://127.0.0.1:9", "--with-token"]) == 2
    told = capsys.readouterr().err
    assert "standard input has no token" in told
    assert "--with-token" in told.partition("hint:")[2]
