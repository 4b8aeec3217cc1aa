"""`tools/pip_progress.py`: pip's output as lines that tell how far it is."""

import subprocess
import sys
import zipfile
from pathlib import Path

TOOL = Path(__file__).resolve().parent.parent / "tools" / "pip_progress.py"


def run(*arguments):
    command = [sys.executable, TOOL, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def wheel(folder):
    """Write a wheel of an empty package; return its path."""
    path, info = folder / "empty_thing-1.0-py3-none-any.whl", "empty_thing-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: empty-thing\nVersion: 1.0\n")
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/RECORD", "")
    return path


def test_progress_tells_the_steps_of_an_install(tmp_path):
    done = run("--no-index", "--no-deps", "--target", str(tmp_path / "target"), str(wheel(tmp_path)))
    assert done.returncode == 0, done.stdout + done.stderr
    steps = [line.partition(": ")[2].rpartition(",")[0] for line in done.stdout.splitlines()]
    assert (steps[0], steps[-2:]) == ("starting", ["installing 1 packages", "done"])
    assert (tmp_path / "target" / "empty_thing-1.0.dist-info").is_dir()
    assert done.stderr == ""


def test_progress_shows_all_that_a_failed_pip_says(tmp_path):
    done = run("--no-index", "--target", str(tmp_path), "no-package-of-this-name")
    assert done.returncode != 0
    assert "No matching distribution found for no-package-of-this-name" in done.stderr
    assert ": failed, " in done.stdout.splitlines()[-1]
