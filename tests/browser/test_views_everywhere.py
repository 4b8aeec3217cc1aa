"""Each view in JupyterLab and in Notebook 7, in both themes; the console below a base_url; pages by keys."""

from __future__ import annotations

import pytest
import requests
from conftest import Watch
from support.real_server import Server

CELLS = [
    """
%load_ext lmvp_jupyter
import lmvp, numpy as np
from lmvp_jupyter.widgets import MetricsPlot
w = {f"blocks.{b}.fc.weight": np.random.default_rng(b).standard_normal((20, 20)) for b in range(3)}
lmvp.update("every/mlp", w, metrics={"val/acc": 0.5}, progress=False)
lmvp.update("every/mlp", {k: v * 1.1 for k, v in w.items()}, metrics={"val/acc": 0.6}, progress=False)
with lmvp.start_run("every", name="every-view-1", system_metrics=False, plot=False) as run:
    run.log_batch(range(100), {"loss": np.linspace(1, 0, 100)})
""",
    "lmvp.showHistory('every/mlp')",
    "lmvp.diff('every/mlp@v1', '@v2')",
    "lmvp.show('every/mlp')",
    "MetricsPlot(lmvp.showHistory('every/mlp'))",
    "lmvp.run('every-view-1', 'every')",
    "from lmvp import local; local.stop()",
]
DRAWN = {
    1: ".lmvp-history .strip i",
    2: ".lmvp-diff .sky i",
    3: ".lmvp-model .histo",
    4: ".lmvp-plot canvas",
    5: ".lmvp-curves canvas",
}
PAINTED = """(canvas) => {
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  let painted = 0;
  for (let i = 3; i < data.length; i += 4) painted += data[i] > 0;
  return painted;
}"""
INK = (
    """(root) => getComputedStyle(root).color.match(/\\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0)"""
)


@pytest.mark.parametrize("where", ["JupyterLab 4", "Notebook 7"])
def test_every_view_is_drawn_in_both_themes(jupyterlab, where):
    if where == "Notebook 7":
        pytest.importorskip("notebook", reason="Notebook 7 is not installed")
        opened = jupyterlab.open_in_notebook_7("every7.ipynb", CELLS)
    else:
        opened = jupyterlab.open("every.ipynb", CELLS)
    opened.run(0)
    for cell, selector in DRAWN.items():
        shape = opened.run(cell).locator(selector).first
        shape.wait_for(state="visible")
        assert shape.bounding_box()["width"] > 2
        if selector.endswith("canvas"):
            assert shape.evaluate(PAINTED) > 200, "a canvas can be there, and blank"
    for dark in (True, False):
        opened.dark(dark)
        opened.page.wait_for_timeout(500)
        for cell in DRAWN:
            ink = opened.output(cell).locator(".lmvp").first.evaluate(INK)
            assert (ink > 500) == dark, f"text of cell {cell} is light on dark paper, and dark on light"
    opened.run(len(CELLS) - 1)
    assert not opened.watch.strangers
    assert not opened.watch.errors
    opened.close()


def test_the_console_lies_below_jupyters_base_url(jupyterlab):
    opened = jupyterlab.open(
        "console.ipynb", ["import lmvp, numpy as np", "lmvp.update('proxied/mlp', {'w': np.ones(3)})"]
    )
    opened.run(0)
    opened.run(1)
    page = jupyterlab.context.new_page()
    watch = Watch().over(page)
    page.goto(f"{jupyterlab.url}/lmvp")
    assert page.url.endswith("/user/ada/lmvp/")
    page.get_by_role("rowheader", name="mlp").first.wait_for()
    assert page.evaluate("getComputedStyle(document.querySelector('.bar')).borderBottomStyle") == "solid", (
        "styles came too"
    )
    assert not watch.errors
    assert not watch.strangers
    page.close()
    opened.run(1)
    opened.close()


@pytest.fixture
def served(home, tmp_path):
    server = Server(tmp_path / "served")
    server.token = server.start()
    yield server
    server.kill()


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1000, "light")])
def test_a_login_is_approved_by_keys_alone(chromium, served, width, scheme):
    code = requests.post(f"{served.url}/api/v1/device/code", json={"client_name": "ada@laptop"}, timeout=9).json()
    page = chromium.new_page()
    watch = Watch().over(page)
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 700})
    page.goto(f"{served.url}/device")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.type(code["user_code"].lower())
    page.keyboard.press("Enter")
    page.get_by_text("ada@laptop").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_label("Token of this server").focus()
    page.keyboard.type(served.token)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Approved").wait_for()
    assert served.token not in page.content()
    assert not watch.errors
    assert not watch.strangers
    page.close()
    body = {"device_code": code["device_code"]}
    assert requests.post(f"{served.url}/api/v1/device/token", json=body, timeout=9).json()["access_token"]
