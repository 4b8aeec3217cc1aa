"""`--json`, `--quiet`, `help`, `python -m lmvp`, and shells and streams of all kinds."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import lmvp
from lmvp import errors
from lmvp.cli import main
from lmvp.cli.parser import OWN, SHELL, verbs_of
from lmvp.client.models import Client


@pytest.fixture
def digits(home):
    """Two versions of a model, an alias, and a run."""
    for value in (0.0, 1.0):
        lmvp.update("digits/mlp", {"w": np.full(4, value, np.float32)}, metrics={"acc": value})
    lmvp.alias("digits/mlp@v1", "best")
    with lmvp.start_run("digits", name="baseline", params={"lr": 0.1}, system_metrics=False) as run:
        run.log({"loss": 0.5}, step=0)
        run.log({"loss": float("nan")}, step=1)
    lmvp.sync()


def printed(capsys, *words):
    capsys.readouterr()
    assert main(words) == 0, words
    return capsys.readouterr().out


def test_json_has_the_fields_of_the_api(digits, capsys):
    read = {words: json.loads(printed(capsys, *words.split(), "--json")) for words in (
        "ls", "ls digits", "history digits/mlp", "show digits/mlp@v2", "diff digits/mlp@v1 @v2", "alias digits/mlp",
        "runs digits", "metrics digits/baseline", "du", "gc", "fsck", "status", "undelete", "sync", "cache",
        "members digits", "tokens", "users", "groups", "webhooks digits", "contributions digits", "rm digits/mlp@v2",
    )}  # fmt: skip
    assert [one["name"] for one in read["ls"]] == ["digits"]
    assert read["ls digits"][0]["latest"] == 2
    assert [one["number"] for one in read["history digits/mlp"]] == [2, 1]
    assert read["show digits/mlp@v2"]["tensors"][0]["shape"] == [4]
    assert read["diff digits/mlp@v1 @v2"]["metrics"] == [{"key": "acc", "before": 0.0, "after": 1.0}]
    assert read["alias digits/mlp"][0]["name"] == "best"
    assert read["runs digits"][0]["params"] == {"lr": 0.1}
    curve = read["metrics digits/baseline"]["curves"][0]
    assert (curve["key"], curve["steps"], curve["values"]) == ("loss", [0, 1], [0.5, "NaN"])
    assert read["du"]["rows"][0]["versions"] == 2
    assert read["fsck"]["problems"] == []
    assert read["status"]["project"] == "default"
    assert read["members digits"]["public"] is False
    assert read["rm digits/mlp@v2"]["versions"] == 1


def test_json_of_an_audit_entry_is_one_line(digits, capsys):
    lines = printed(capsys, "audit", "list", "digits", "--json").splitlines()
    assert {json.loads(line)["action"] for line in lines} >= {"version.create", "alias.move"}


def test_every_verb_takes_json_and_quiet(capsys):
    for verb in verbs_of(SHELL):
        help_text = printed_help(capsys, verb.name)
        assert "--json" in help_text, verb.name
        assert "--quiet" in help_text, verb.name


def printed_help(capsys, *words):
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["help", *words])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_quiet_prints_references_and_secrets_but_no_messages(digits, tmp_path, capsys):
    (tmp_path / "weights.bin").write_bytes(b"x")
    assert printed(capsys, "push", "digits/cnn", str(tmp_path / "weights.bin"), "-q") == "digits/cnn@v1\n"
    assert printed(capsys, "alias", "digits/cnn@v1", "best", "-q") == ""
    assert printed(capsys, "members", "digits", "invite", "-q").startswith("http")
    assert "mlp" in printed(capsys, "ls", "digits", "-q")


def test_help_lists_every_verb_under_a_heading(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    assert printed_help(capsys) == text
    indented = [line.split()[0] for line in text.splitlines() if line.startswith("  ") and line[2] not in " -"]
    assert sorted(indented) == sorted([*(verb.name for verb in verbs_of(SHELL)), *OWN])
    assert [line for line in text.splitlines() if line.endswith(":")] == [
        "Models:", "Runs:", "Contributions:", "Maintenance:", "Team:", "Server:", "options:",
    ]  # fmt: skip
    assert max(map(len, text.splitlines())) <= 80


def test_module_runs_the_command(home):
    done = subprocess.run([sys.executable, "-m", "lmvp", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"lmvp {lmvp.__version__}\n"


def test_version_pushed_by_the_command_keeps_no_code(home, tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"x")
    command = [sys.executable, "-m", "lmvp", "push", "digits/mlp", str(tmp_path / "weights.bin")]
    subprocess.run(command, capture_output=True, check=True)
    assert "code" not in Client().version("digits/mlp").environment


def test_ascii_stream_gets_escapes(digits):
    """A stream of ASCII, as under `LC_ALL=C` or in cron, cannot carry an arrow or a message in another script."""
    lmvp.update("digits/mlp", {"w": np.full(4, 2.0, np.float32)}, message="α → β")
    for words in (["history", "digits/mlp"], ["alias", "digits/mlp@v2", "best"], ["show", "digits/mlp"], ["nothing→"]):
        done = subprocess.run(
            [sys.executable, "-m", "lmvp", *words],
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        )
        assert b"Traceback" not in done.stderr, done.stderr
        assert (done.stdout + done.stderr).decode("ascii").strip()


def test_ascii_stream_of_python_gets_escapes(digits, monkeypatch):
    lmvp.update("digits/mlp", {"w": np.full(4, 2.0, np.float32)}, message="α → β")
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr("sys.stdout", stream)
    for value in (lmvp.showHistory("digits/mlp"), lmvp.show("digits/mlp"), lmvp.diff("digits/mlp@v1", "digits/mlp@v3")):
        print(value)
    stream.flush()
    assert b"\\u03b1 > \\u03b2" in stream.buffer.getvalue()


def test_completion_of_bash_knows_verbs_options_and_names(digits, tmp_path):
    pytest.importorskip("argcomplete")
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash on this machine")
    command = tmp_path / "bin" / "lmvp"
    command.parent.mkdir()
    command.write_text(f"#!{sys.executable}\nimport sys\nfrom lmvp.cli import main\nsys.exit(main())\n")
    command.chmod(0o755)
    script = """
        eval "$(lmvp completion bash)"
        for line in "lmvp pu" "lmvp pull --t" "lmvp pull digits/mlp@b" "lmvp metrics digits/ba" "lmvp ls di"; do
            COMP_LINE=$line COMP_POINT=${#line} COMP_TYPE=9 COMP_WORDS=($line) COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
            COMPREPLY=()
            _python_argcomplete lmvp "${COMP_WORDS[COMP_CWORD]}" ""
            echo "${COMPREPLY[@]}"
        done
    """
    env = {**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}"}
    done = subprocess.run([bash, "-c", script], capture_output=True, text=True, check=True, env=env)
    answers = [line.split() for line in done.stdout.splitlines()]
    assert answers[0] == ["push", "pull"]
    assert answers[1] == ["--to", "--trust"]
    assert answers[2] == ["best"], "bash takes an @ for the start of a word"
    assert answers[3] == ["digits/baseline"]
    assert answers[4] == ["digits"]


@pytest.mark.parametrize(
    ("words", "code"), [(["tcsh"], 2), (["bash", "zsh"], 2), (["bash"], 0), (["fish"], 0), ([], 0)]
)
def test_completion_knows_three_shells(words, code, capsys):
    pytest.importorskip("argcomplete")
    assert main(["completion", *words]) == code
    out, error = capsys.readouterr()
    assert bool(out) is (code == 0)
    assert ("bash, zsh, fish" in error) is (code == 2)


def test_exit_codes_are_those_of_the_page():
    page = (Path(__file__).parents[2] / "docs" / "shell.md").read_text("utf-8")
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    raised = {error.exit_code for error in vars(errors).values() if is_error(error)}
    assert listed == raised | {0, 130}


def is_error(value):
    return isinstance(value, type) and issubclass(value, lmvp.LmvpError)


def test_restore_prints_counts_as_json_and_no_bar_in_a_log(digits, tmp_path, capsys):
    assert main(["backup", str(tmp_path / "safe")]) == 0
    capsys.readouterr()
    assert main(["restore", str(tmp_path / "safe"), "--data", str(tmp_path / "one"), "--json"]) == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert (found["projects"], found["versions"], found["problems"]) == (1, 2, [])
    assert "chunks" not in told.err, "no progress bar where stderr is not a terminal"
    assert main(["restore", str(tmp_path / "safe"), "--data", str(tmp_path / "two"), "-q"]) == 0
    assert "".join(capsys.readouterr()) == ""


def test_verbs_with_their_own_options_take_json_and_quiet(capsys):
    for verb in OWN:
        with suppress(SystemExit):
            main([verb, "--help"])
        told = capsys.readouterr().out
        assert "--json" in told, verb
        assert "--quiet" in told, verb


def test_completion_prints_its_script_as_json(capsys):
    pytest.importorskip("argcomplete")
    assert main(["completion", "bash", "-q"]) == 0
    script = capsys.readouterr().out
    assert main(["completion", "bash", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"shell": "bash", "script": script.removesuffix("\n")}
