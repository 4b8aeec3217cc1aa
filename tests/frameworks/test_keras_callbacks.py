"""The callbacks in a real `fit` of Keras 3, on a real server."""

import numpy as np
import pytest

import lmvp

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
pytest.importorskip("torch")
keras = pytest.importorskip("keras")
from lmvp.integrations.keras import LMVPMetricsLogger, LMVPModelCheckpoint  # noqa: E402


@pytest.fixture
def model(home):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.Adam(0.05), loss="mse", metrics=["mae"])
    yield model
    for run in lmvp.tracking.active_run.every():
        run.finish()


@pytest.fixture
def data():
    x = np.random.default_rng(0).standard_normal((64, 4)).astype("float32")
    return x, x.sum(axis=1, keepdims=True)


def fit(model, data, *callbacks, epochs=3):
    return model.fit(*data, validation_split=0.25, epochs=epochs, batch_size=16, verbose=0, callbacks=callbacks)


def test_a_fit_is_a_run(model, data):
    logger = LMVPMetricsLogger("digits", "keras-run", params={"mine": 1}, system_metrics=False)
    told = fit(model, data, logger).history
    run = lmvp.run("keras-run", "digits")
    assert run.status == "finished"
    assert (run.params["mine"], run.params["epochs"], run.params["parameters"]) == (1, 3, 5)
    assert run.params["optimizer/name"] == "Adam"
    history = run.history()
    assert history["train/loss"]["value"].tolist() == pytest.approx(told["loss"])
    assert history["val/mae"]["value"].tolist() == pytest.approx(told["val_mae"])
    assert history["learning_rate"]["value"].tolist() == pytest.approx([0.05] * 3)
    assert history["train/loss"]["step"].tolist() == [0, 1, 2]


def test_batches_can_be_logged(model, data):
    fit(model, data, LMVPMetricsLogger("digits", "by-batch", log_freq=2, system_metrics=False))
    steps = lmvp.run("by-batch", "digits").history("batch/loss")["batch/loss"]["step"].tolist()
    assert steps == [0, 2, 4, 6, 8]


def test_versions_are_published_while_it_trains(model, data):
    logger = LMVPMetricsLogger("digits", "with-versions", system_metrics=False)
    fit(model, data, logger, LMVPModelCheckpoint("digits/dense"))
    versions = lmvp.show_history("digits/dense")
    assert [version.message for version in versions] == ["epoch 3", "epoch 2", "epoch 1"]
    assert {"train/loss", "val/loss", "val/mae", "train/mae"} == set(versions[0].metrics)
    best = min(versions, key=lambda version: version.metrics["val/loss"])
    assert "best" in best.aliases
    assert lmvp.run("with-versions", "digits").versions == ("digits/dense@v1", "digits/dense@v2", "digits/dense@v3")
    again = lmvp.download("digits/dense@v3", progress=False)
    assert again.predict(data[0], verbose=0) == pytest.approx(model.predict(data[0], verbose=0))


def test_only_the_best_weights(model, data):
    keep = LMVPModelCheckpoint("digits/w", save_best_only=True, save_weights_only=True, monitor="val_mae", mode="max")
    fit(model, data, keep, epochs=4)
    versions = lmvp.show_history("digits/w")
    values = [version.metrics["val/mae"] for version in versions][::-1]
    assert values == sorted(values)
    assert len(lmvp.download("digits/w", progress=False)) == 2


def test_a_second_fit_ends_what_a_failed_one_left(model, data):
    logger = LMVPMetricsLogger("digits", system_metrics=False)

    class Fails(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(model, data, logger, Fails())
    first = logger.run
    fit(model, data, logger)
    assert lmvp.run(first.id, "digits").status == "killed"
    assert lmvp.run(logger.run.id, "digits").status == "finished"


def test_training_goes_on_without_a_server(model, data, monkeypatch):
    monkeypatch.setenv("LMVP_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("lmvp.connection.ATTEMPTS", 1)
    with pytest.warns(UserWarning, match=r"not published: .*lmvp\.push"):
        fit(model, data, LMVPModelCheckpoint("digits/dense"), LMVPMetricsLogger("digits", system_metrics=False))
    with pytest.raises(lmvp.errors.ServerUnavailable):
        fit(model, data, LMVPModelCheckpoint("digits/dense", strict=True))


@pytest.mark.parametrize(
    "make", [lambda: LMVPMetricsLogger(log_freq="day"), lambda: LMVPModelCheckpoint("m", mode="up")]
)
def test_what_is_asked_for_wrongly(make):
    with pytest.raises(lmvp.errors.InvalidArgument):
        make()
