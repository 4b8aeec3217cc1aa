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
