"""`%lmvp` in a real IPython shell, against a real server."""

import re

import numpy as np
import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

import lmvp
from lmvp.cli.parser import NOTEBOOK, SHELL, verbs_of
from lmvp.cli.tables import Status
from lmvp.errors import InvalidArgument, NotFound

pytestmark = pytest.mark.notebook


@pytest.fixture
def ip(home):
    shell = InteractiveShell()
    shell.run_line_magic("load_ext", "lmvp_jupyter")
    yield shell
    shell.run_line_magic("unload_ext", "lmvp_jupyter")
    shell.history_manager.end_session()


def run(ip, line):
    return ip.run_line_magic("lmvp", line)


def test_push_and_pull_a_variable(ip):
    ip.user_ns["model"] = {"w": np.arange(4.0)}
    version = run(ip, 'push digits/mlp model -m "first try" --metric val_acc=0.97 --param lr=0.001 --alias best')
    assert (version.reference, version.message, version.metrics) == ("digits/mlp@v1", "first try", {"val_acc": 0.97})
    assert version.params == {"lr": 0.001}
    assert version.aliases == ("best",)
    assert run(ip, "pull digits/mlp@best")["w"].tolist() == [0, 1, 2, 3]
    assert run(ip, "pull digits/mlp@best again") is None
    assert ip.user_ns["again"]["w"].tolist() == [0, 1, 2, 3]


def test_pull_into_and_to(ip, tmp_path):
    ip.user_ns["model"] = {"w": np.arange(4.0)}
    run(ip, "push digits/mlp model")
    ip.user_ns["net"] = {"w": np.zeros(4)}
    assert run(ip, "pull digits/mlp --into net") is None
    assert ip.user_ns["net"]["w"].tolist() == [0, 1, 2, 3]
    paths = run(ip, f"pull digits/mlp --to {tmp_path / 'out'}")
    assert [path.name for path in paths] == ["weights.safetensors"]


def test_history_alias_diff_ls(ip):
    for value in (1.0, 2.0):
        ip.user_ns["model"] = {"w": np.full(3, value)}
        run(ip, "push digits/mlp model")
    assert [v.number for v in run(ip, "history digits/mlp")] == [2, 1]
    assert "production" in repr(run(ip, "alias digits/mlp@v2 production"))
    assert run(ip, "diff digits/mlp@v1 digits/mlp@v2").tensors
    assert "mlp" in repr(run(ip, "ls digits"))
    assert "digits" in repr(run(ip, "ls"))


def test_the_project_holds_for_plain_python_too(ip):
    run(ip, "project birds")
    assert lmvp.update("song", {"w": np.zeros(2)}).reference == "birds/song@v1"


def test_status_starts_no_server(ip, home):
    assert isinstance(run(ip, ""), Status)
    assert isinstance(run(ip, "status"), Status)
    assert not (home / "server.json").exists()


@pytest.mark.parametrize("line", ["push only", "history --limit many"])
def test_bad_arguments_are_usage_errors(ip, line):
    with pytest.raises(UsageError, match="hint: %lmvp"):
        run(ip, line)


def test_an_unknown_variable_names_the_nearest(ip):
    ip.user_ns["model"] = {"w": np.zeros(2)}
    with pytest.raises(lmvp.LmvpError, match="did you mean 'model'"):
        run(ip, "push digits/mlp modle")  # codespell:ignore


def test_errors_show_no_traceback(ip, capsys):
    result = ip.run_cell("%lmvp pull digits/none")
    shown = "".join(capsys.readouterr())
    assert isinstance(result.error_in_exec, lmvp.LmvpError)
    assert "Traceback" not in shown
    assert "no project 'digits'" in shown


def test_values_can_be_assigned(ip):
    ip.user_ns["model"] = {"w": np.zeros(2)}
    assert ip.run_cell("v = %lmvp push digits/mlp model").success
    assert ip.user_ns["v"].number == 1


def test_help_is_printed(ip, capsys):
    assert run(ip, "push --help") is None
    assert "--metric" in capsys.readouterr().out
    assert run(ip, "help pull") is None
    assert "--into" in capsys.readouterr().out
    assert "push" in ip.find_line_magic("lmvp").__doc__


@pytest.mark.parametrize("line", ["help", "--help", "-h"])
def test_help_lists_every_verb(ip, capsys, line):
    assert run(ip, line) is None
    text = capsys.readouterr().out
    assert text.startswith("usage: %lmvp VERB [OPTION ...]\n")
    listed = [words[0] for words in map(str.split, re.findall(r"^  (\w.*)", text, re.MULTILINE))]
    assert sorted({verb.name for verb in verbs_of(NOTEBOOK)} - {*listed}) == []


def test_a_cell_form_says_what_to_write(ip):
    with pytest.raises(UsageError, match="other verbs take one %"):
        ip.run_cell_magic("lmvp", "push x y", "1")


def test_unloading_takes_the_magic_away(ip):
    ip.run_line_magic("unload_ext", "lmvp_jupyter")
    assert ip.find_line_magic("lmvp") is None
    ip.run_line_magic("load_ext", "lmvp_jupyter")
    assert ip.find_line_magic("lmvp") is not None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("psuh x y", "%lmvp has no verb 'psuh'\n  hint: did you mean 'push'?"),  # codespell:ignore
        ("push a b --mesage x", "`%lmvp push` does not take '--mesage'\n  hint: did you mean '--message'?"),
        ("server --port 80", "%lmvp has no verb 'server'\n  hint: `lmvp server` is for the shell"),
    ],
)
def test_a_verb_or_option_that_is_not_there_is_answered_with_the_one_meant(ip, line, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        run(ip, line)


@pytest.mark.parametrize(
    "word", ["{acc}", "$acc", "acc", "{scores['val']}", "$box.acc", "box.acc", "{tensor}", "tensor"]
)
def test_metric_takes_the_value_of_a_variable(ip, word):
    box = type("Box", (), {"acc": 1 / 3})
    ip.user_ns |= {"model": {"w": np.arange(4.0)}, "acc": 1 / 3, "box": box, "scores": {"val": 1 / 3}}
    ip.user_ns["tensor"] = np.array(1 / 3)
    assert run(ip, f"push digits/mlp model --metric val_acc={word}").metrics == {"val_acc": 1 / 3}


def test_values_of_variables_stand_in_all_options(ip):
    ip.user_ns |= {"model": {"w": np.arange(4.0)}, "acc": 0.9123, "name": "mlp", "lr": 1e-5, "size": np.int64(3)}
    ip.user_ns |= {"text": "3", "flag": True, "best": 0.5}
    ip.user_ns["accs"] = [0.1, 0.9]
    line = (
        "push digits/{name} model -m 'acc {acc:.2f}, $5 {unknown} $name' --param lr=lr --param size={size} "
        "--param text=$text --param flag=flag --param kind=sgd --metric top={max(accs, default=0)} "
        "--tag of=$name --tag with=model"
    )
    version = run(ip, line)
    assert version.reference == "digits/mlp@v1"
    assert version.metrics == {"top": 0.9}
    assert version.message == "acc 0.91, $5 {unknown} mlp"
    assert version.params == {"lr": 1e-5, "size": 3, "text": "3", "flag": True, "kind": "sgd"}
    assert isinstance(version.params["text"], str)
    assert version.tags == {"of": "mlp", "with": "model"}
    assert run(ip, "amend digits/mlp --metric val_acc=$acc").metrics == {"top": 0.9, "val_acc": 0.9123}
    assert len(run(ip, "history digits/mlp --where 'metrics.val_acc > {best}'")) == 1
    with ip.run_cell_magic("lmvp", "run digits --param lr={lr} --param size=size", "run") as made:
        assert made.params == {"lr": 1e-5, "size": 3}


def test_number_of_moves_of_an_alias_is_no_value(ip):
    ip.user_ns["model"] = {"w": np.arange(4.0)}
    run(ip, "push digits/mlp model --alias best")
    ip.user_ns["model"] = {"w": np.arange(5.0)}
    run(ip, "push digits/mlp model --alias best")
    assert len(run(ip, "pull digits/mlp@best@{1}")["w"]) == 4


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("{ac}", "no variable 'ac', in '{ac}'\n  hint: did you mean 'acc'?"),
        ("$ac", "no variable 'ac'"),
        ("{1/0}", "'{1/0}', not a number"),
        ("{int('x')}", "raises ValueError"),
        ("model", "the metric 'val_acc' is a dict, not a number"),
        ("ac", "the metric 'val_acc' is 'ac', not a number\n  hint: in a notebook, {name} and $name stand"),
    ],
)
def test_value_that_is_no_number_is_named(ip, word, told):
    ip.user_ns |= {"model": {"w": np.arange(4.0)}, "acc": 0.9}
    with pytest.raises(InvalidArgument) as error:
        run(ip, f"push digits/mlp model --metric val_acc={word}")
    assert told in str(error.value)


@pytest.fixture
def digits(ip):
    """A project `digits` with two versions and two runs, while the current project is `default`."""
    for name, rate in (("A", 0.1), ("B", 0.2)):
        with lmvp.start_run("digits", name=name, params={"lr": rate}, system_metrics=False, plot=False) as begun:
            begun.log({"loss": rate})
        lmvp.update("digits/mlp", {"w": np.full(3, rate)})
    lmvp.alias("digits/mlp@v1", "production")


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("metrics A", "did you mean 'digits/A'?"),
        ("runs", "did you mean `%lmvp runs digits`?"),
        ("compare A B", "did you mean 'digits/A'?"),
        ("accept mlp@c1", "did you mean 'digits/mlp'?"),
        ("rm digits", "did you mean 'digits/'?"),
        ("rm mlp@v1", "did you mean 'digits/mlp'?"),
        ("alias mlp production", "did you mean 'digits/mlp'?"),
    ],
)
def test_name_without_its_project_is_found_in_another(ip, digits, line, meant):
    with pytest.raises(NotFound) as error:
        run(ip, line)
    assert meant in str(error.value)


def test_second_run_has_the_project_of_the_first(ip, digits):
    assert re.search(r"lr +0\.1 +0\.2", repr(run(ip, "compare digits/A B")))


def test_alias_without_a_revision_is_shown(ip, digits):
    assert re.search(r"production +v1 ", repr(run(ip, "alias digits/mlp production")))
    with pytest.raises(InvalidArgument, match="protected alias digits/mlp@production points at v1"):
        run(ip, "alias digits/mlp@v2 production")
    assert [one.number for one in lmvp.aliases("digits/mlp")] == [1]
    assert "v1 → v2" in repr(run(ip, "alias digits/mlp@v2 production --yes"))


SECRETS = (
    "tokens create ada-laptop",
    "members digits invite --role viewer",
    "webhooks digits add https://hooks.example.org/lmvp",
    "users add ada",
    "users passwd ada",
)


def test_notebook_has_every_verb_of_the_shell():
    verbs = {host: {verb.name for verb in verbs_of(host)} for host in (SHELL, NOTEBOOK)}
    assert verbs[SHELL] - verbs[NOTEBOOK] == set()


def test_team_verbs_show_tables_in_a_notebook(ip, home):
    lmvp.push("digits/mlp", {"w": np.zeros(2)})
    shown = {line: str(run(ip, line)) for line in ("members digits", "groups", "users", "audit list digits", "tokens")}
    assert "no members" in shown["members digits"]
    assert "no groups" in shown["groups"]
    assert "version.create" in shown["audit list digits"]


@pytest.mark.parametrize("line", SECRETS)
def test_notebook_prints_and_reads_no_secret(ip, home, line, capsys):
    lmvp.push("digits/mlp", {"w": np.zeros(2)})
    with pytest.raises(InvalidArgument, match="a notebook is saved with its output") as refused:
        run(ip, line)
    assert "run it in a terminal" in str(refused.value)
    client = lmvp.Client()
    assert [*client.tokens(), *client.invitations("digits"), *client.webhooks("digits"), *client.users()] == []
