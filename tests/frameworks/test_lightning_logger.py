"""`LMVPLogger` in a real Trainer, on a real server."""

import warnings

import pytest

import lmvp

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
torch = pytest.importorskip("torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pl = pytest.importorskip("pytorch_lightning")
    from lmvp.integrations.lightning import LMVPLogger


class Net(pl.LightningModule):
    def __init__(self, lr=0.1, layers=None):
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch, _):
        loss = self.layer(batch[0]).pow(2).mean()
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, _):
        self.log("val/loss", self.layer(batch[0]).pow(2).mean())

    def test_step(self, batch, _):  # noqa: PT019 - Lightning's own name
        self.log("test/loss", self.layer(batch[0]).pow(2).mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)


class Failing(Net):
    def on_train_epoch_end(self):
        raise ValueError("no more data")


@pytest.fixture
def data():
    torch.manual_seed(0)
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(64, 4)), batch_size=8)


@pytest.fixture
def trainer(home, tmp_path):
    def make(logger, **options):
        checkpoint = pl.callbacks.ModelCheckpoint(dirpath=tmp_path / "saved", monitor="val/loss", save_last=True)
        defaults = {"max_epochs": 3, "log_every_n_steps": 1, "enable_progress_bar": False, "accelerator": "cpu"}
        return pl.Trainer(logger=logger, callbacks=[checkpoint], **{**defaults, **options})

    yield make
    for run in lmvp.tracking.active_run.every():
        run.finish()


def test_a_fit_is_a_run_with_versions(trainer, data):
    logger = LMVPLogger("digits", model="net", log_model=True, tags={"kind": "test"}, system_metrics=False)
    fit = trainer(logger)
    fit.fit(Net(lr=0.05, layers={"a": 1}), data, data)
    run = lmvp.run(logger.experiment.id, "digits")
    assert (run.status, run.tags) == ("finished", {"kind": "test"})
    assert run.params["lr"] == 0.05
    assert run.params["layers/a"] == 1
    history = run.history()
    assert len(history["train/loss"]) == 24
    assert history["epoch"]["value"].max() == 2
    assert len(history["val/loss"]) == 3
    assert run.versions == ("digits/net@v1",)  # the best one is the last one: one content, one version
    version = lmvp.Client().version("digits/net@best")
    assert version.number == 1
    state = lmvp.download("digits/net@last", progress=False)
    assert state["layer.weight"].shape == (1, 4)
    lmvp.download("digits/net", into=Net(), progress=False)
    fit.test(Net(), data)
    again = lmvp.run(logger.experiment.id, "digits")
    assert again.id == run.id
    assert "test/loss" in logger.experiment.history()


def test_each_checkpoint_is_published_once(trainer, data, tmp_path):
    logger = LMVPLogger("digits", model="net", log_model="all", system_metrics=False)
    trainer(logger).fit(Net(), data, data)
    assert len(lmvp.show_history("digits/net")) == 3


def test_a_failing_fit_is_a_failed_run(trainer, data):
    logger = LMVPLogger("digits", "fails", system_metrics=False)
    with pytest.raises(ValueError, match="no more data"):
        trainer(logger).fit(Failing(), data, data)
    assert lmvp.run("fails", "digits").status == "failed"


def test_a_run_of_ones_own_is_left_as_it_is(trainer, data):
    with lmvp.start_run("digits", system_metrics=False) as run:
        trainer(LMVPLogger(run=run, prefix="mine/")).fit(Net(), data, data)
        assert not run.ended
        assert "mine/train/loss" in run.history()


def test_a_dry_run_logs_nothing(trainer, data):
    trainer(LMVPLogger("digits"), fast_dev_run=True).fit(Net(), data, data)
    with pytest.raises(lmvp.errors.NotFound):
        lmvp.runs("digits")


def test_training_goes_on_without_a_server(trainer, data, monkeypatch):
    monkeypatch.setenv("LMVP_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("lmvp.connection.ATTEMPTS", 1)
    logger = LMVPLogger("digits", model="net", log_model=True, system_metrics=False)
    with pytest.warns(UserWarning, match=r"not published: .*lmvp\.push"):
        trainer(logger).fit(Net(), data, data)
    assert list(logger.experiment.folder.parent.iterdir())


@pytest.mark.parametrize("options", [{"log_model": "some"}, {"log_model": True}])
def test_what_is_asked_for_wrongly(options):
    with pytest.raises(lmvp.errors.InvalidArgument):
        LMVPLogger("digits", **options)
