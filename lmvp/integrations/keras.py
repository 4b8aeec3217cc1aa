"""Keras 3 callbacks: `LMVPMetricsLogger` logs a `fit` to a run, `LMVPModelCheckpoint` publishes versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import lmvp
from lmvp.core import number_format
from lmvp.errors import InvalidArgument, MissingDependency
from lmvp.integrations.publishing import publish

try:
    from keras.callbacks import Callback
except ImportError:
    raise MissingDependency("Keras is not installed", hint='pip install "keras>=3.3" and a backend') from None

if TYPE_CHECKING:
    from lmvp.tracking.active_run import ActiveRun


class LMVPMetricsLogger(Callback):  # type: ignore[misc, unused-ignore]
    """A callback that logs the metrics of a `fit` to a run.

    Training and validation metrics are logged as `train/loss` and `val/loss`, so that they share a chart, together with
    `learning_rate`. The step of metrics at the end of an epoch is the number of the epoch. With `log_freq="batch"` or
    an int, `batch/loss` and others are logged during the epoch too.

    If `fit` fails or is interrupted, Keras calls no callback, so the run stays open. It ends with the process, when the
    cell is run again, or as `killed` with the next `fit` of this callback.

    Parameters
    ----------
    project : str, optional
        Default: the current project.
    name : str, optional
        The name of the run. Default: a random name.
    params : mapping, optional
        Params of the run. Epochs, batch size and the settings of the optimizer are added.
    log_freq : "epoch", "batch" or int
        When to log: after each epoch, after each batch, or after this number of batches.
    run : ActiveRun, optional
        Log to this run instead of a new one, and do not end it.
    **options
        Further arguments of `lmvp.start_run`.

    Raises
    ------
    InvalidArgument
        If `log_freq` is another value.

    Examples
    --------
    >>> model.fit(x, y, validation_split=0.1, callbacks=[LMVPMetricsLogger("digits")])  # doctest: +SKIP
    """

    def __init__(
        self,
        project: str | None = None,
        name: str | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        log_freq: Literal["epoch", "batch"] | int = "epoch",
        run: ActiveRun | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if log_freq not in ("epoch", "batch") and not (isinstance(log_freq, int) and log_freq > 0):
            raise InvalidArgument(f"log_freq={log_freq!r}", hint="'epoch', 'batch', or a number of batches")
        self._begin = {"project": project, "name": name, "params": params, **options}
        self._every = 0 if log_freq == "epoch" else 1 if log_freq == "batch" else int(log_freq)
        self._run, self._theirs = run, run is not None
        self._batch = 0

    @property
    def run(self) -> ActiveRun | None:
        """The run; None before the first `fit`."""
        return self._run

    def on_train_begin(self, logs: Any = None) -> None:  # noqa: ARG002 - the signature is that of Keras
        """Start the run, and log the settings of the training as params."""
        if not self._theirs:
            if self._run is not None:
                self._run.finish("killed", "the training before ended without a word")
            self._run = lmvp.start_run(**self._begin)
        self._batch = 0
        self._told().params.update(_settings(self.params, self.model))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Log the metrics of the batch, if `log_freq` includes it."""
        if self._every and self._batch % self._every == 0 and logs:
            self._told().log({f"batch/{key}": value for key, value in logs.items()}, self._batch)
        self._batch += 1

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Log the metrics of the epoch."""
        values = {_name(key): value for key, value in (logs or {}).items() if key != "learning_rate"}
        self._told().log({**values, **_rate(self.model)}, epoch)

    def on_test_end(self, logs: Any = None) -> None:
        """Log the metrics of an `evaluate`, if the run was passed as `run=`."""
        if self._run is not None and logs and self._theirs:
            self._run.log({f"test/{key}": value for key, value in logs.items()})

    def on_train_end(self, logs: Any = None) -> None:  # noqa: ARG002
        """End the run, unless it was passed as `run=`."""
        if not self._theirs:
            self._told().finish()

    def _told(self) -> ActiveRun:
        if self._run is None:
            raise InvalidArgument("LMVPMetricsLogger has no run", hint="it begins one in `fit`")
        return self._run


class LMVPModelCheckpoint(Callback):  # type: ignore[misc, unused-ignore]
    """A callback that publishes versions of the model during the training, like `keras.callbacks.ModelCheckpoint`.

    The alias `best` points at the best version so far. Versions are linked to the active run.

    Parameters
    ----------
    model_name : str
        `[project/]model`.
    monitor : str
        The metric that determines the best version, with its name in Keras: `val_loss`.
    mode : "auto", "min" or "max"
        Whether a smaller or a greater value is better; "auto" derives it from the name of the metric.
    save_best_only : bool
        Publish only versions that are better than all before.
    save_weights_only : bool
        Publish the weights by their names, without the architecture.
    save_freq : "epoch" or int
        Publish at the end of each epoch, or after this number of batches.
    strict : bool
        Raise the error if a version cannot be published. By default a warning names it, and the training continues.

    Raises
    ------
    InvalidArgument
        If `mode` is another value.

    Examples
    --------
    >>> model.fit(x, y, callbacks=[LMVPModelCheckpoint("digits/mlp", save_best_only=True)])  # doctest: +SKIP
    """

    def __init__(
        self,
        model_name: str,
        *,
        monitor: str = "val_loss",
        mode: Literal["auto", "min", "max"] = "auto",
        save_best_only: bool = False,
        save_weights_only: bool = False,
        save_freq: Literal["epoch"] | int = "epoch",
        strict: bool = False,
    ) -> None:
        super().__init__()
        if mode not in ("auto", "min", "max"):
            raise InvalidArgument(f"mode={mode!r}", hint="'auto', 'min' or 'max'")
        self._name, self._monitor, self._best_only = model_name, monitor, save_best_only
        self._weights_only, self._strict = save_weights_only, strict
        # A metric with an unknown name counts as a loss.
        self._sign = {"min": -1, "max": 1}.get(mode) or number_format.better(monitor) or -1
        self._every = 0 if save_freq == "epoch" else int(save_freq)
        self._best: float | None = None
        self._batches = 0

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Publish the model, if `save_freq` is "epoch"."""
        if not self._every:
            self._publish(f"epoch {epoch + 1}", logs or {})

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Publish the model, if `save_freq` is an int and divides the number of batches so far."""
        self._batches += 1
        if self._every and self._batches % self._every == 0:
            self._publish(f"batch {self._batches}", logs or {})

    def _publish(self, message: str, logs: Mapping[str, Any]) -> None:
        value = logs.get(self._monitor)
        score = None if value is None else self._sign * float(value)
        better = score is not None and (self._best is None or score > self._best)
        if self._best_only and not better:
            return
        what = self._weights() if self._weights_only else self.model
        version = publish(
            lambda: lmvp.update(
                self._name,
                what,
                message=message,
                metrics={_name(key): float(each) for key, each in logs.items()},
                alias=["best"] if better else (),
                progress=False,
            ),
            f"{self._name}, {message}; `lmvp push {self._name} FILE` does it later",
            strict=self._strict,
        )
        if version is not None and better:
            self._best = score

    def _weights(self) -> dict[str, Any]:
        import keras

        return {weight.path: keras.ops.convert_to_numpy(weight) for weight in self.model.weights}


def _name(key: str) -> str:
    """Return the name of a metric in LMVP: `val_loss` becomes `val/loss`, `loss` becomes `train/loss`."""
    return f"val/{key[4:]}" if key.startswith("val_") else f"train/{key}"


def _rate(model: Any) -> dict[str, float]:
    rate = getattr(getattr(model, "optimizer", None), "learning_rate", None)
    try:
        return {} if rate is None else {"learning_rate": float(rate)}
    except (TypeError, ValueError):
        return {}


def _settings(params: Mapping[str, Any] | None, model: Any) -> dict[str, Any]:
    """Return the arguments of `fit` and the settings of the optimizer."""
    found = {key: value for key, value in (params or {}).items() if key in ("epochs", "steps", "batch_size") and value}
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None:
        config = optimizer.get_config()
        plain = {key: value for key, value in config.items() if isinstance(value, (bool, int, float, str))}
        found |= {f"optimizer/{key}": value for key, value in plain.items()}
        # Not the `name` of the optimizer: Keras numbers the instances in a process (adam_1).
        found["optimizer/name"] = type(optimizer).__name__
    return {**found, "parameters": int(model.count_params())}
