"""What README shows works: its blocks are run as they stand."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell

import lmvp
from lmvp.commands import main

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()


def block(kind, containing):
    found = [text for language, text in re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL) if language == kind]
    return next(text for text in found if containing in text)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_notebook(home, folder):
    ip = InteractiveShell()
    ip.user_ns["model"] = {"w": np.arange(3.0)}
    for line in block("ipython", "%load_ext").splitlines():
        assert ip.run_cell(line).success, line
    assert ip.user_ns["again"]["w"].tolist() == [0, 1, 2]
    ip.run_line_magic("unload_ext", "lmvp_jupyter")
    ip.history_manager.end_session()


def test_python(home, folder):
    names = {"model": {"w": np.arange(3.0)}}
    exec(block("python", "import lmvp"), names)
    assert names["model"]["w"].tolist() == [0, 1, 2]
    assert names["paths"] == [Path("folder/weights.safetensors")]


def test_runs(home, folder, capsys):
    names = {"model": {"w": np.arange(3.0)}}
    exec(block("python", "start_run"), names)
    run = lmvp.runs("digits")[0]
    assert run.versions == ("digits/mlp@v1",)
    assert f"{run.name}" in capsys.readouterr().out
    with lmvp.start_run("digits", name="quiet-wren-44", params={"lr": 0.1}) as first:
        first.log({"metrics": 0.5})
    with lmvp.start_run("digits", name="bold-otter-7", params={"lr": 0.2}) as second:
        second.log({"val_acc": 0.95})
    ip = InteractiveShell()
    ip.run_line_magic("load_ext", "lmvp_jupyter")
    ip.run_line_magic("lmvp", "project digits")
    for line in block("ipython", "%lmvp runs").splitlines():
        assert ip.run_cell(line).success, line
    ip.run_line_magic("unload_ext", "lmvp_jupyter")
    ip.history_manager.end_session()


def test_the_shell(home, folder, capsys):
    from safetensors.numpy import save_file

    save_file({"w": np.arange(3.0)}, "weights.safetensors")
    for line in block("console", "lmvp push").splitlines():
        assert main(shlex.split(line)[1:]) == 0, line
    assert Path("folder/weights.safetensors").read_bytes() == Path("weights.safetensors").read_bytes()


def test_keeping_house(home, folder, capsys):
    for value in range(3):
        lmvp.update("digits/cnn", {"w": np.arange(3.0) + value}, metrics={"val_acc": value / 10})
    for line in block("console", "lmvp du").splitlines():
        assert main(shlex.split(line)[1:]) == 0, line
    assert [version.number for version in lmvp.show_history("archive/cnn")] == [3, 2, 1]
    assert main(["restore", "safe", "--data", "restored"]) == 0
    assert Path("restored/format.json").exists()


def test_make_has_what_is_promised():
    makefile = (Path(__file__).resolve().parent.parent / "Makefile").read_text()
    for target in ("demo", "test", "lab", "lint", "fix", "browser", "bench"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    assert README.index("make demo") < README.index("make test") < README.index("## In a notebook")
