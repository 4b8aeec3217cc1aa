"""The demo runs from nothing, and again on what it left."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def demo(home):
    return subprocess.run(
        [sys.executable, "-W", "ignore", str(ROOT / "tools" / "demo.py")],
        env={**os.environ, "LMVP_DEMO_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_the_demo_runs_twice(tmp_path):
    for module in ("skops", "nbclient", "ipykernel"):
        pytest.importorskip(module)
    first, second = demo(tmp_path / "home"), demo(tmp_path / "home")
    for run in (first, second):
        assert run.returncode == 0, run.stdout + run.stderr
        assert "read in another process: all as here" in run.stdout
        assert "newest first" in run.stdout
        assert "make lab" in run.stdout
    assert "digits/mlp@v4" in first.stdout
    assert "digits/mlp@v8" in second.stdout

    steps = [line.partition("#")[0].strip() for line in second.stdout.partition("Next steps:\n")[2].splitlines()]
    program = Path(sys.executable).parent / "lmvp"
    if program.is_relative_to(Path.cwd()):  # the demo shows such a path as a user types it
        program = program.relative_to(Path.cwd())
    assert steps[0] == f"LMVP_HOME={tmp_path / 'home'} {program} open digits/mlp"
    assert steps[1] == "make lab"
    shown = subprocess.run(
        [sys.executable, "-c", AFTERWARDS],
        env={**os.environ, "LMVP_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "/open#" in shown
    assert shown.splitlines()[-1] == "True 8"
    assert "best: digits/mlp@v" in first.stdout


AFTERWARDS = """
import lmvp
from lmvp import local
from lmvp.cli import main

main(["open", "digits/mlp", "--print"])
scores = {one.number: one.metrics["val_acc"] for one in lmvp.show_history("digits/mlp")}
best = lmvp.Client().version("digits/mlp@best").number
print(scores[best] == max(scores.values()), len(scores))
local.stop()
"""
"""The command that the demo ends with, and whether its alias `best` points at a version with the greatest accuracy."""
