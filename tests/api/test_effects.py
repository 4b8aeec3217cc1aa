"""Options and arguments of the verbs: each has an effect, or is refused by name; nothing is silently ignored."""

import argparse
import re

import numpy as np
import pytest
from support.in_process import TOKEN, Served

import lmvp
from lmvp.cli import main
from lmvp.cli.parser import (
    NOTEBOOK,
    SHELL,
    make_parser,
    read,
    verbs_of,
)
from lmvp.errors import InvalidArgument


def parsed(line, host=SHELL):
    return read(make_parser(host, "lmvp", argparse.ArgumentParser), line.split(), host)


NO_EFFECT = {
    "tokens list name": "'name' has no effect on `lmvp tokens … list`",
    "tokens --days 3": "--days has no effect",
    "tokens --user ada": "--user has no effect",
    "tokens --project digits": "--project has no effect",
    "tokens --scope write": "--scope has no effect",
    "tokens revoke 12 --days 3": "--days has no effect on `lmvp tokens … revoke`",
    "identities list 12": "'12' has no effect",
    "identities disconnect 12 --user ada": "--user has no effect",
    "audit head digits": "'digits' has no effect on `lmvp audit … head`",
    "audit head --who ada": "--who has no effect",
    "audit head --action alias.": "--action has no effect",
    "audit head --target digits/": "--target has no effect",
    "audit head --since 2026-01-01": "--since has no effect",
    "audit head --until 2026-01-01": "--until has no effect",
    "audit head --limit 5": "--limit has no effect",
    "audit head --json": "--json has no effect",
    "users list ada": "'ada' has no effect",
    "users --admin": "--admin has no effect",
    "users passwd ada --admin": "--admin has no effect",
    "users disable ada --service": "--service has no effect",
    "users add ada --keep-tokens": "--keep-tokens has no effect",
    "users enable ada --keep-identities": "--keep-identities has no effect",
    "groups list vision": "'vision' has no effect",
    "groups remove vision ada": "['ada'] has no effect",
    "members digits list grace": "'grace' has no effect",
    "members digits invite grace": "'grace' has no effect on `lmvp members … invite`",
    "members digits everyone grace": "'grace' has no effect",
    "members digits remove grace --role owner": "--role has no effect",
    "members digits public --role viewer": "--role has no effect",
    "members digits add grace --days 3": "--days has no effect",
    "members digits invite --revoke 12": "--revoke has no effect",
    "members digits everyone --off": "--off has no effect",
    "webhooks digits list 12": "'12' has no effect",
    "webhooks digits test 12 --event run.": "--event has no effect",
    "devices deny ABCD-EFGH --scope read": "--scope has no effect on `lmvp devices … deny`",
    "alias digits/mlp best --remove --history": "--remove and --history exclude each other",
    "alias digits/mlp best --protect --unprotect": "--protect and --unprotect exclude each other",
    "alias digits/mlp best --history --protect": "--history and --protect exclude each other",
    "prune digits/mlp --forget --dry-run": "--forget and --dry-run exclude each other",
    "prune digits/mlp --forget --keep last:5": "--forget and --keep exclude each other",
    "prune digits/mlp --forget --save": "--forget and --save exclude each other",
    "sync --discard wren --dry-run": "--discard and --dry-run exclude each other",
    "sync --discard wren --force": "--discard and --force exclude each other",
    "require digits/mlp acc>0.5 --nothing": "--nothing and 'acc>0.5' exclude each other",
    "login https://x.example.org --with-token --scope read": "--with-token and --scope exclude each other",
}


@pytest.mark.parametrize("line", NO_EFFECT)
def test_option_without_an_effect_is_refused(line):
    with pytest.raises(InvalidArgument) as refused:
        parsed(line)
    assert refused.value.message.startswith(NO_EFFECT[line])
    assert refused.value.hint


@pytest.mark.parametrize(
    "line", ["pull m net --into net", "pull m --into net --to out", "pull m --trust my.Net --to out"]
)
def test_magic_refuses_an_option_without_an_effect(line):
    with pytest.raises(InvalidArgument, match="exclude each other"):
        parsed(line, NOTEBOOK)


@pytest.mark.parametrize(
    "line",
    [
        "tokens create ada --days 3 --scope write --user ada --project digits", "tokens revoke 12", "tokens",
        "audit list digits --who ada --limit 5 --json", "audit head", "users add ada --service --admin",
        "users passwd ada --keep-tokens --keep-identities", "groups add vision ada grace", "groups remove vision",
        "members digits add grace --role viewer", "members digits invite --role owner --days 3",
        "members digits public --off", "members digits everyone --role viewer",
        "members digits invitations --revoke 12", "webhooks digits add https://x.example.org --event run.",
        "webhooks digits remove 12", "devices approve ABCD-EFGH --scope read", "prune m --keep last:5 --save --dry-run",
        "prune m --forget", "sync --dry-run --force", "identities list --user ada", "identities disconnect 12",
    ],
)  # fmt: skip
def test_options_that_go_together_are_taken(line):
    assert parsed(line).verb == line.split()[0]


def test_names_in_of_and_excludes_exist():
    """A misspelt name there would refuse nothing, or everything."""
    for host in (SHELL, NOTEBOOK):
        for verb in verbs_of(host):
            flags = {argument.flags[-1] for argument in verb.arguments}
            what = next((one for one in verb.arguments if one.flags == ("what",)), None)
            for argument in verb.arguments:
                assert set(argument.excludes) <= flags, verb.name
                assert not argument.of or set(argument.of) < set(what.settings["choices"]), verb.name


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with Served(tmp_path_factory.mktemp("served") / "data") as server:
        yield server


@pytest.fixture
def model(served, home, tmp_path, monkeypatch, request):
    monkeypatch.setenv("LMVP_URL", served.url)
    monkeypatch.setenv("LMVP_TOKEN", TOKEN)
    monkeypatch.chdir(tmp_path)
    name = f"{re.sub('[^a-z]', '-', request.node.name)[:60].strip('-')}/net"
    for number in range(2):
        lmvp.update(name, {"w": np.full(9, float(number))}, create=True, progress=False, metrics={"acc": number})
    lmvp.alias(f"{name}@v1", "best")
    return name


REFUSED = {
    "alias {0} --remove": "`--remove` needs the name of an alias",
    "alias {0} --history": "`--history` needs the name of an alias",
    "alias {0} --protect": "`--protect` needs the name of an alias",
    "alias {0}@v2 best --remove": "`--remove` takes a model, and '{0}@v2' names a version",
    "alias {0}@v2 best --history": "`--history` takes a model, and '{0}@v2' names a version",
    "alias {0} best --yes": "`--yes` confirms the move of an alias, and nothing would move",
    "alias {0} --yes": "`--yes` confirms the move of an alias, and nothing would move",
    "alias {0} best --history --yes": "`--yes` confirms the move of an alias, and nothing would move",
    "amend {0}": "nothing to change",
    "pull {0} --trust my.Net": "`--trust` has no effect in a shell",
    "history {0} --limit 0": "`--limit` is int 0",
    "runs --limit -3": "`--limit` is int -3",
    "audit --limit 0": "`--limit` is int 0",
    "prune {0} --save": "`--save` needs the rule to save",
}


def test_verb_refuses_what_would_have_no_effect(model, capsys):
    for line, message in REFUSED.items():
        assert main(line.format(model).split()) == 2, line
        err = capsys.readouterr().err
        assert err.startswith(f"lmvp: {message.format(model)}"), line
        assert "\n  hint: " in err, line
    assert [(one.name, one.number) for one in lmvp.aliases(model)] == [("best", 1)]
    assert [one.revised for one in lmvp.history(model)] == [0, 0]


def test_limit_of_a_list_is_above_zero(model):
    for call in (
        lambda: lmvp.runs("default", limit=0),
        lambda: lmvp.audit(limit=0),
        lambda: lmvp.history(model, limit=0),
    ):
        with pytest.raises(InvalidArgument, match="`limit=` is int 0"):
            call()


def test_require_without_a_rule_shows_it(model, capsys):
    assert main(["require", model, "acc > 0.5"]) == 0
    capsys.readouterr()
    assert main(["require", model]) == 0
    assert capsys.readouterr().out == "net: contributions must meet acc > 0.5\n"
    assert lmvp.Client().model(model).require == "acc > 0.5"
    assert main(["require", model, "--nothing"]) == 0
    assert lmvp.Client().model(model).require == ""


def test_annotate_refuses_a_tag_that_is_not_there(model, capsys):
    project = model.partition("/")[0]
    with lmvp.start_run(project, name="wren", tags={"by": "ada"}, create=True, system_metrics=False):
        pass
    assert main(["annotate", f"{project}/wren", "--untag", "bye"]) == 3
    assert capsys.readouterr().err.endswith("lmvp: the run wren has no tag 'bye'\n  hint: its tags: by\n")
    assert main(["annotate", f"{project}/wren", "--tag", "by=grace", "--untag", "by"]) == 2
    assert lmvp.run("wren", project).tags == {"by": "ada"}
    assert main(["annotate", f"{project}/wren", "--untag", "by"]) == 0
    assert lmvp.run("wren", project).tags == {}


def test_name_of_a_resumed_run_is_stored(model):
    project = model.partition("/")[0]
    with lmvp.start_run(project, name="first", create=True, system_metrics=False) as run:
        run.log({"loss": 1.0}, step=0)
    with lmvp.start_run(project, name="second", resume=run.id, system_metrics=False) as again:
        assert again.name == "second"
    assert (again.id, lmvp.run(run.id, project).name) == (run.id, "second")


BEFORE_THE_VERB = [["-q", "ls"], ["--json", "history", "digits/mlp"]]


@pytest.mark.parametrize("words", BEFORE_THE_VERB)
def test_options_before_the_verb_are_named(home, capsys, words):
    assert main(words) == 2
    assert "options come after the verb" in capsys.readouterr().err


def test_option_of_notebooks_is_not_suggested_in_a_shell(home, capsys):
    assert main(["pull", "digits/mlp", "--into", "x"]) == 2
    assert "did you mean '--into'" not in capsys.readouterr().err


def test_rollback_of_a_model_asks_for_the_alias(home, capsys):
    lmvp.update("digits/mlp", {"w": np.zeros(2)}, progress=False)
    assert main(["rollback", "digits/mlp"]) == 2
    assert "'digits/mlp' names no alias" in capsys.readouterr().err


def test_missing_file_has_no_hint_of_python_in_a_shell(home, capsys, tmp_path):
    assert main(["push", "digits/mlp", str(tmp_path / "missing")]) == 3
    assert "quotes" not in capsys.readouterr().err
