"""Live views in a real marimo: its editor and its app, in Chromium."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pytest
from support.ports import reserved_port

import lmvp

marimo = pytest.importorskip("marimo", reason="marimo is not installed")

ROOT = Path(__file__).resolve().parent.parent.parent
CELLS = [
    "import time\nfrom pathlib import Path\nimport lmvp",
    'lmvp.history("digits/mlp")',
    'lmvp.diff("digits/mlp@v1", "digits/mlp@v2")',
    'lmvp.show("digits/mlp@v2")',
    'lmvp.open("digits/mlp")',
    """with lmvp.start_run("digits", name="live") as run:
    for step in range(20):
        run.log({"loss": 1 / (step + 1)}, step=step)
    while not Path("go").exists():
        time.sleep(0.05)
    for step in range(20, 40):
        run.log({"loss": 1 / (step + 1)}, step=step)""",
    """def missing():
    try:
        lmvp.pull("digits/none")
    except lmvp.NotFound as error:
        return str(error)
missing()""",
]
DRAWN = """() => {
  const inside = (root) => [...root.querySelectorAll("*")].flatMap(
    (e) => [e, ...(e.shadowRoot ? inside(e.shadowRoot) : [])]);
  return inside(document).filter((e) => e.tagName === 'CANVAS' && e.width).some((canvas) =>
    canvas.getContext('2d')?.getImageData(0, 0, canvas.width, canvas.height).data.some((value) => value > 0));
}"""


@pytest.fixture
def pushed(home):
    """Push two versions to a server of this test."""
    lmvp.push("digits/mlp", {"w": np.zeros(3)}, metrics={"acc": 0.5}, message="first", progress=False)
    lmvp.push("digits/mlp", {"w": np.ones(3)}, metrics={"acc": 0.75}, message="second", progress=False)


@pytest.fixture
def folder(tmp_path):
    """Write a notebook whose cells run at once, and nothing of the user's own configuration."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    (folder / "pyproject.toml").write_text("[tool.marimo.runtime]\nauto_instantiate = true\n")
    path = folder / "notebook.py"
    path.write_text(marimo_notebook(CELLS))
    return folder


def marimo_notebook(cells):
    from marimo._ast.cell import CellConfig
    from marimo._ast.codegen import generate_filecontents  # as `marimo edit` writes it

    return generate_filecontents(cells, ["_"] * len(cells), [CellConfig() for _ in cells])


@pytest.fixture
def served(folder, tmp_path):
    """Return what starts marimo on the notebook and gives its address; every marimo ends with the test."""
    started = []

    def serve(mode):
        port = reserved_port()
        command = [sys.executable, "-m", "marimo", "--yes", mode, "notebook.py", "--headless", "--no-token",
                   "--host", "127.0.0.1", "--port", str(port)]  # fmt: skip
        own = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config"), "PYTHONPATH": str(ROOT)}
        with (tmp_path / "marimo.log").open("wb") as log:
            process = subprocess.Popen(command, cwd=folder, env={**os.environ, **own}, stdout=log, stderr=log)
        started.append(process)
        deadline = time.monotonic() + 60
        while True:
            try:
                urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            except (URLError, OSError):
                is_starting = process.poll() is None and time.monotonic() < deadline
                assert is_starting, (tmp_path / "marimo.log").read_text()
                time.sleep(0.1)
            else:
                return f"http://127.0.0.1:{port}"

    yield serve
    for process in started:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("mode", ["run", "edit"])
def test_marimo_shows_live_views(mode, chromium, pushed, folder, served):
    from conftest import Watch

    page = chromium.new_page()
    page.set_viewport_size({"width": 1280, "height": 2400})
    watch = Watch().over(page)
    page.goto(served(mode))

    # the table of versions searches, and follows the pushes of others
    page.get_by_placeholder("Filter").wait_for(timeout=60_000)
    page.get_by_text("second").first.wait_for()
    lmvp.push("digits/mlp", {"w": np.full(3, 2.0)}, message="from elsewhere", progress=False)
    page.get_by_text("from elsewhere").first.wait_for(timeout=30_000)

    # the diff and the version are the live views too
    page.get_by_text("1 of 1 layer changed").first.wait_for()
    page.get_by_text("point at a bar, or use").first.wait_for()
    page.get_by_text('model = lmvp.pull("digits/mlp@v2")').first.wait_for()

    # the curves of a run are drawn while its cell runs
    page.get_by_text("step 19").first.wait_for(timeout=60_000)
    page.wait_for_function(DRAWN)
    assert page.get_by_text("running", exact=True).first.is_visible()
    (folder / "go").touch()
    page.get_by_text("step 39").first.wait_for(timeout=30_000)
    page.get_by_text("finished", exact=True).first.wait_for()

    # a hint is a Python call: marimo has no magics
    page.get_by_text("lmvp.push('digits/none', model)").first.wait_for()
    assert page.get_by_text("%lmvp").count() == 0
    assert watch.strangers == []
    page.close()


def test_marimo_button_opens_the_console_signed_in(chromium, pushed, folder, served):
    (folder / "notebook.py").write_text(marimo_notebook(['import lmvp\nlmvp.open("digits/mlp")']))
    page = chromium.new_page()
    page.goto(served("run"))
    with page.expect_popup(timeout=60_000) as popup:
        page.get_by_role("button").filter(has_text="Open").first.click()
    popup.value.get_by_role("heading", name="mlp").wait_for(timeout=30_000)
    popup.value.close()
    page.close()
