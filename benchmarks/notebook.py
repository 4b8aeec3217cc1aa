"""Time until the output of a cell is painted, in JupyterLab in Chromium, compared with plotly's `FigureWidget`."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.lab import ARGUMENTS, CHROMIUM, IDLE, jupyterlab
from benchmarks.measure import Row, at_most

ROUNDS = 3

FILL = """
%load_ext lmvp_jupyter
import lmvp, numpy as np
random = np.random.default_rng(0)
w = {f"blocks.{i}.weight": random.standard_normal((64, 64)).astype("f4") for i in range(100)}
lmvp.update("bench/hundred", w, progress=False)
lmvp.update("bench/hundred", {k: v * 1.01 for k, v in w.items()}, progress=False)
diff = lmvp.diff("bench/hundred@v1", "@v2")
for i in range(1000):
    lmvp.update("bench/many", {"w": np.full(8, i)}, message=f"Epoch {i}", metrics={"val/acc": i / 1000}, progress=False)
with lmvp.start_run("bench", name="a-million", system_metrics=False) as run:
    run.log_batch(range(1_000_000), {"loss": np.cumsum(random.standard_normal(1_000_000))})
lmvp.run("a-million", "bench").curves([lmvp.run("a-million", "bench")], ["loss"]); None
"""
PLOTLY = """
import plotly.graph_objects as go
x, y = np.arange(1_000_000), np.cumsum(random.standard_normal(1_000_000))
go.FigureWidget([go.Scattergl(x=x, y=y)])
"""
CELLS = [
    FILL,
    "lmvp.showHistory('bench/many')",
    "lmvp.run('a-million', 'bench')",
    "lmvp.diff('bench/hundred@v1', '@v2')",
    PLOTLY,
]

PAINTED = """async ([cell, selector]) => {
  const app = window.jupyterapp, notebook = app.shell.currentWidget.content;
  notebook.activeCellIndex = cell;
  const output = () => document.querySelectorAll('.jp-Notebook .jp-Cell')[cell].querySelector('.jp-Cell-outputWrapper');
  const painted = () => [...output().querySelectorAll(selector)].some((each) => {
    if (!each.getBoundingClientRect().height) return false;
    if (each.tagName !== 'CANVAS') return true;
    if (each.closest('.js-plotly-plot')) return each.closest('.js-plotly-plot')._fullData?.length > 0;
    const { data } = each.getContext('2d').getImageData(0, 0, each.width, each.height);
    return data.some((byte) => byte);
  });
  const begun = performance.now();
  app.commands.execute('notebook:run-cell');
  const gone = new Set(output().querySelectorAll(selector));
  while (!painted() || [...output().querySelectorAll(selector)].some((each) => gone.has(each))) {
    await new Promise((done) => requestAnimationFrame(done));
    if (performance.now() - begun > 60000) return NaN;
  }
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  return performance.now() - begun;
}"""


def run() -> list[Row]:
    """Return the rows of this benchmark; empty if no browser is installed."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return []
    if CHROMIUM is None:
        return []
    with jupyterlab(CELLS) as url, sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.goto(f"{url}/lab/tree/shown.ipynb?token=shown&reset")
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=120_000)
        page.wait_for_function(IDLE, timeout=120_000)
        page.evaluate(
            """async () => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = 0;
               await window.jupyterapp.commands.execute('notebook:run-cell'); }"""
        )
        history = _painted(page, 1, ".lmvp-history tbody tr")
        plot = _painted(page, 2, ".lmvp-curves canvas")
        diff = _painted(page, 3, ".lmvp-diff .sky i")
        plotly = _plotly(page)
        browser.close()
    beside = f"plotly {plotly:.0f} ms" if plotly == plotly else "no plotly here"
    return [
        at_most("history of 1,000 versions, painted", history, "ms", 400),
        at_most("plot of 1 million points, painted", plot, "ms", 600, beside),
        at_most("diff of 100 tensors, painted", diff, "ms", 500, "its numbers were there"),
    ]


def _painted(page: Any, cell: int, selector: str) -> float:
    """Return the median of several runs of a cell in milliseconds, without the first one, which loads code."""
    times = [page.evaluate(PAINTED, [cell, selector]) for _ in range(ROUNDS + 1)]
    return float(statistics.median(times[1:]))


def _plotly(page: Any) -> float:
    try:
        import plotly  # noqa: F401 - whether the kernel can import it
    except ImportError:
        return float("nan")
    return _painted(page, 4, ".js-plotly-plot canvas, .js-plotly-plot .main-svg")
