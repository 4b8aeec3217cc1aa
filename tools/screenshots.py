"""`make screenshots`: screenshots of each view for docs/, in a real JupyterLab, light and dark."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.lab import ARGUMENTS, CHROMIUM, IDLE, jupyterlab  # noqa: E402 - after the change of sys.path

IMAGES = ROOT / "docs" / "images"

MAKE = """
%load_ext lmvp_jupyter
import os, lmvp, numpy as np
from lmvp_jupyter.widgets import MetricsPlot
MACHINE = {"python": "3.12.7", "platform": "Linux-6.12-x86_64-with-glibc2.36", "host": "workstation"}
lmvp.core.environment._machine = lambda: MACHINE  # a picture is not of the machine that took it

random = np.random.default_rng(7)
SHAPES = {"norm1": (64,), "attn.qkv": (192, 64), "attn.proj": (64, 64), "norm2": (64,)}
SHAPES |= {"mlp.fc1": (256, 64), "mlp.fc2": (64, 256)}

def network(blocks, classes):
    w = {"stem.conv1.weight": (16, 1, 7, 7), "stem.conv2.weight": (64, 16, 3, 3)}
    for b in range(blocks):
        w |= {f"blocks.{b}.{part}.weight": shape for part, shape in SHAPES.items()}
    w |= {"head.norm.weight": (64,), "head.linear.weight": (classes, 64), "head.linear.bias": (classes,)}
    return {name: (0.1 * random.standard_normal(shape)).astype("f4") for name, shape in w.items()}

def moved(w, by, only=""):
    def step(v):
        return by * np.abs(v).mean() * random.uniform(0.3, 1.6) * random.standard_normal(v.shape)
    return {k: (v + step(v)).astype("f4") if k.startswith(only) else v for k, v in w.items()}

def publish(who, w, message, f1, loss, lr, **more):
    os.environ["LOGNAME"] = who
    lmvp.core.environment.user.cache_clear()
    metrics, quiet = {"val/f1": f1, "val/loss": loss}, {"progress": False, "capture": False}
    return lmvp.update("birdsong/tagger", w, message=message, metrics=metrics, params={"lr": lr}, **quiet, **more)

w = network(6, 40)
publish("ada", w, "First try", 0.612, 0.91, 1e-3)
w = moved(w, 0.4); publish("ada", w, "Train to convergence", 0.713, 0.62, 1e-3)
larger = network(8, 40)
w = {k: w.get(k, v) for k, v in larger.items()}
publish("grace", w, "Two more blocks on top", 0.768, 0.51, 1e-3)
w = moved(w, 0.06); publish("ada", w, "Continue, 20 more epochs", 0.791, 0.44, 5e-4)
w = moved(w, 0.004); publish("ada", w, "Lower learning rate for 10 epochs", 0.802, 0.41, 1e-4, alias="paper")
side = moved(w, 0.09, "head"); publish("grace", side, "Only the head, augmented recordings", 0.781, 0.45, 1e-3)
w = {**w, **{k: v for k, v in network(0, 132).items() if "head.linear" in k}}
publish("ada", w, "Head for 132 species", 0.744, 0.55, 1e-3, parent="v5")
w = moved(w, 0.2); publish("ada", w, "Retrain everything with mixup", 0.823, 0.36, 1e-3)
w = moved(w, 0.02); publish("ada", w, "Cosine schedule, 60 epochs", 0.848, 0.31, 5e-4)
v = moved(moved(w, 0.02, "blocks.6"), 0.12, ("blocks.7", "head"))
publish("grace", v, "Unfreeze the last two blocks", 0.839, 0.33, 2e-4, alias="field-test")
w = moved(w, 0.003)
publish("ada", w, "Average of v9 and v10", 0.874, 0.28, 2e-4, parent="v9", alias=["production", "best"])
w = moved(w, 0.03, "head"); publish("ada", w, "Calibrate the head on field recordings", 0.871, 0.27, 1e-4)
lmvp.Client().compact()
for name, lr in (("brisk-heron-41", 1e-3), ("calm-otter-7", 3e-4), ("dry-finch-12", 1e-4)):
    options = {"params": {"lr": lr, "epochs": 30}, "system_metrics": False, "plot": False}
    with lmvp.start_run("birdsong", name=name, **options) as run:
        steps, noise = np.arange(3000), random.standard_normal((2, 3000))
        run.log_batch(steps, {"train/loss": 0.25 + 2 * np.exp(-steps * lr * 6) + 0.06 * noise[0]})
        few = steps[::50]
        f1 = 0.87 - 0.6 * np.exp(-few * lr * 5)
        loss = 0.33 + 1.9 * np.exp(-few * lr * 5) + 0.01 * noise[1, ::50]
        run.log_batch(few, {"val/loss": loss, "val/f1": f1})
        run.summary["best_f1"] = round(float(f1.max()), 3)
"""
VIEWS = {
    "history": "%lmvp history birdsong/tagger",
    "diff": 'lmvp.diff("birdsong/tagger@v9", "@v10")',
    "model": "%lmvp show birdsong/tagger@production",
    "metrics-versions": 'MetricsPlot(lmvp.showHistory("birdsong/tagger"))',
    "metrics-run": "%lmvp metrics birdsong/brisk-heron-41 --smooth 15",
    "metrics-runs": 'MetricsPlot(lmvp.runs("birdsong"))',
    "runs": "%lmvp runs birdsong",
    "compare": "%lmvp compare birdsong/brisk-heron-41 birdsong/calm-otter-7",
}


def main() -> None:
    """Take all screenshots."""
    from playwright.sync_api import sync_playwright

    if CHROMIUM is None:
        sys.exit("no Chromium here")
    IMAGES.mkdir(parents=True, exist_ok=True)
    home = tempfile.mkdtemp(prefix="lmvp-shots-")
    cells = [MAKE, *VIEWS.values(), "from lmvp import local; local.stop()"]
    try:
        with jupyterlab(cells, LMVP_HOME=home, LOGNAME="ada") as url, sync_playwright() as started:
            browser = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            page = browser.new_page(viewport={"width": 1280, "height": 1200}, device_scale_factor=2)
            page.goto(f"{url}/lab/tree/shown.ipynb?token=shown&reset")
            page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=120_000)
            page.wait_for_function(IDLE, timeout=120_000)
            page.evaluate("window.jupyterapp.commands.execute('application:toggle-left-area')")
            for cell in range(len(VIEWS) + 1):
                _run(page, cell)
            page.locator(".lmvp-model .twig").nth(1).click()
            for theme in ("Light", "Dark"):
                change = "(theme) => window.jupyterapp.commands.execute('apputils:change-theme', { theme })"
                page.evaluate(change, f"JupyterLab {theme}")
                page.wait_for_timeout(1500)
                for at, name in enumerate(VIEWS, 1):
                    _shoot(page, at, IMAGES / f"{name}-{theme.lower()}.png")
            _run(page, len(VIEWS) + 1)
            browser.close()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _run(page: Any, cell: int) -> None:
    page.evaluate(
        """async (i) => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = i;
           await window.jupyterapp.commands.execute('notebook:run-cell'); }""",
        cell,
    )


def _shoot(page: Any, cell: int, path: Path) -> None:
    whole = page.locator(".jp-Notebook .jp-Cell").nth(cell)
    whole.scroll_into_view_if_needed()
    page.wait_for_timeout(600)
    whole.screenshot(path=path)
    _shrink(path)


def _shrink(path: Path) -> None:
    """Reduce the colours of a screenshot: a third of the size with equal sharpness."""
    from PIL import Image

    with Image.open(path) as picture:
        picture.convert("RGB").quantize(192).save(path, optimize=True)


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
