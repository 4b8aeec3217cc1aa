"""The examples of docs/integrations.md are run as they stand."""

import re
import warnings
from pathlib import Path

import pytest

import lmvp

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
torch = pytest.importorskip("torch")
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "integrations.md").read_text()
BLOCKS = {
    name: code
    for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    for name in re.findall(r"integrations\.(\w+)", code)
}


@pytest.fixture
def names(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield {"lmvp": lmvp}
    for run in lmvp.tracking.active_run.every():
        run.finish()


def test_lightning(names):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pl = pytest.importorskip("pytorch_lightning")

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def training_step(self, batch, _):
            loss = self.layer(batch[0]).pow(2).mean()
            self.log("train/loss", loss)
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    dataset = torch.utils.data.TensorDataset(torch.randn(32, 4))
    names |= {"Trainer": pl.Trainer, "module": Module(), "data": torch.utils.data.DataLoader(dataset, batch_size=8)}
    exec(BLOCKS["lightning"], names)
    assert lmvp.runs("digits")[0].status == "finished"
    assert len(lmvp.show_history("digits/mlp")) >= 1


def test_keras(names):
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(optimizer="adam", loss="mse")
    x = torch.randn(50, 4).numpy()
    names |= {"model": model, "x": x, "y": x[:, :1]}
    exec(BLOCKS["keras"], names)
    assert set(lmvp.runs("digits")[0].metrics) >= {"train/loss", "val/loss"}
    assert names["again"].count_params() == 5


def test_transformers(names):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip("transformers")
        pytest.importorskip("accelerate")
    config = transformers.GPT2Config(vocab_size=32, n_positions=8, n_embd=16, n_layer=1, n_head=2)
    ids = torch.arange(8)
    names |= {
        "Trainer": transformers.Trainer,
        "model": transformers.GPT2LMHeadModel(config),
        "arguments": transformers.TrainingArguments(
            "out", max_steps=2, logging_steps=1, report_to="none", use_cpu=True
        ),
        "texts": [{"input_ids": ids, "labels": ids}] * 4,
    }
    exec(BLOCKS["transformers"], names)
    assert "train/loss" in lmvp.runs("texts")[0].metrics
