"""What users write, in a real JupyterLab: publish, fetch, look, on a server that starts by itself."""

import os

import pytest
from support.waiting import counted

MODEL = """
import lmvp, numpy as np
rng = np.random.default_rng(0)
model = {f"blocks.{b}.{part}.weight": rng.random((64, 64), dtype="f4") for b in range(6) for part in ("attn", "mlp")}
model["head.weight"] = rng.random((64, 10), dtype="f4")
"""

TRAIN = """
for turn in range(6):
    for name in list(model)[-1 - 2 * turn:]:
        model[name] += 0.01
    message, metrics = f"train the last {2 * turn + 1} layers", {"val_acc": 0.93 + turn / 100}
    lmvp.update("digits/mlp", model, message=message, metrics=metrics)
lmvp.alias("digits/mlp@v5", "production");
"""

CELLS = [
    "%load_ext lmvp_jupyter",
    MODEL,
    '%lmvp push digits/mlp model -m "first try" --metric val_acc=0.91',
    TRAIN,
    "%lmvp history digits/mlp",
    "again = %lmvp pull digits/mlp@production\nlen(again)",
    "lmvp.showHistory('digits')",
    "%lmvp diff digits/mlp@v1 digits/mlp@v7",
    "%lmvp pull digits/mlp@prodution",
    "%lmvp",
    "%lmvp stop",
]


@pytest.fixture
def notebook(jupyterlab):
    opened = jupyterlab.open("magics.ipynb", CELLS, height=1500)
    yield opened
    opened.close()


def test_the_lines_of_the_readme(notebook):
    outputs = []
    for index in range(len(CELLS)):
        notebook.run(index)
        outputs.append(notebook.output(index))
    assert "digits/mlp@v1" in outputs[2].inner_text()
    table = outputs[4].locator("table.history")
    table.wait_for()
    outputs[6].locator("table.history").wait_for()
    counted(table.locator("tbody tr"), 7)
    assert "production" in table.inner_text()
    assert table.locator("tbody tr").first.locator(".strip i").count() >= 13
    assert "13" in outputs[5].inner_text()
    counted(outputs[6].locator("table.history tbody tr"), 7)
    assert "head" in outputs[7].inner_text()
    wrong = outputs[8].inner_text()
    assert "did you mean 'production'?" in wrong
    assert "Traceback" not in wrong
    assert "digits" in outputs[6].inner_text()
    assert "ended" in outputs[10].inner_text()
    if os.environ.get("LMVP_SHOTS"):
        for index in (2, 4, 6, 7, 8, 9):
            outputs[index].screenshot(path=f"{os.environ['LMVP_SHOTS']}/magics-{index}.png")
