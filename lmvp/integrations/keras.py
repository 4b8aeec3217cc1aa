"""`LMVPMetricsLogger` and `LMVPModelCheckpoint`: a run for a `fit` of Keras 3, and versions of its model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import lmvp
from lmvp.errors import InvalidArgument, MissingDependency
from lmvp.integrations.publishing import publish
from lmvp.render import numbers

try:
    from keras.callbacks import Callback
except ImportError:
    raise MissingDependency("Keras is not installed", hint='pip install "keras>=3.3" and a backend') from None

if TYPE_CHECKING:
    from lmvp.tracking.active import ActiveRun


class LMVPMetricsLogger(Callback):  # type: ignore[misc, unused-ignore]
    """Logs the metrics of a `fit`: `train/loss` beside `val/loss`, so that they share a chart, and `learning_rate`.

    Epochs are the steps of what is logged at their end; `log_freq="batch"`, or every so many batches, logs `batch/loss`
    too. A `fit` that fails, or is interrupted, leaves the run open: it ends when the process ends, when the cell is run
    again, or with the next `fit` of this callback, as killed.

    Parameters
    ----------
    project : str, optional
        The current project if not given.
    name : str, optional
        What to call the run; made up if not given.
    params : mapping, optional
        Of the run; epochs, batch size and the optimizer's settings are added.
    log_freq : "epoch", "batch" or int
        When to log.
    run : ActiveRun, optional
        Log to this run, which is left as it is at the end.
    **options
        For `lmvp.start_run`.

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

    def on_train_begin(self, logs: Any = None) -> None:  # noqa: ARG002 - as Keras calls it
        """Begin the run."""
        if not self._theirs:
            if self._run is not None:
                self._run.finish("killed", "the training before ended without a word")
            self._run = lmvp.start_run(**self._begin)
        self._batch = 0
        self._told().params.update(_settings(self.params, self.model))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Log the batch, if batches are logged."""
        if self._every and self._batch % self._every == 0 and logs:
            self._told().log({f"batch/{key}": value for key, value in logs.items()}, self._batch)
        self._batch += 1

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Log the epoch."""
        values = {_name(key): value for key, value in (logs or {}).items() if key != "learning_rate"}
        self._told().log({**values, **_rate(self.model)}, epoch)

    def on_test_end(self, logs: Any = None) -> None:
        """Log an `evaluate` outside of a `fit`."""
        if self._run is not None and logs and self._theirs:
            self._run.log({f"test/{key}": value for key, value in logs.items()})

    def on_train_end(self, logs: Any = None) -> None:  # noqa: ARG002
        """End the run."""
        if not self._theirs:
            self._told().finish()

    def _told(self) -> ActiveRun:
        if self._run is None:
            raise InvalidArgument("LMVPMetricsLogger has no run", hint="it begins one in `fit`")
        return self._run


class LMVPModelCheckpoint(Callback):  # type: ignore[misc, unused-ignore]
    """Publishes versions of the model while it trains, as `keras.callbacks.ModelCheckpoint` writes files.

    The best one so far gets the alias `best`. Versions know the run that is active.

    Parameters
    ----------
    model_name : str
        `[project/]model`.
    monitor : str
        The metric that tells which is best, as Keras calls it: `val_loss`.
    mode : "auto", "min" or "max"
        Which way is better; "auto" goes by the name.
    save_best_only : bool
        Publish only what is better than all before.
    save_weights_only : bool
        Publish the weights by their names, without the architecture.
    save_freq : "epoch" or int
        At the end of each epoch, or every so many batches.
    strict : bool
        Raise if a version cannot be published; by default a warning names it, and training goes on.

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
        self._sign = {"min": -1, "max": 1}.get(mode) or numbers.better(monitor) or -1
        self._every = 0 if save_freq == "epoch" else int(save_freq)
        self._best: float | None = None
        self._batches = 0

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Publish the model, if it is time."""
        if not self._every:
            self._publish(f"epoch {epoch + 1}", logs or {})

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Publish the model every so many batches."""
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
    """Return a metric as LMVP groups it: `val_loss` is `val/loss`, `loss` is `train/loss`."""
    return f"val/{key[4:]}" if key.startswith("val_") else f"train/{key}"


def _rate(model: Any) -> dict[str, float]:
    rate = getattr(getattr(model, "optimizer", None), "learning_rate", None)
    try:
        return {} if rate is None else {"learning_rate": float(rate)}
    except (TypeError, ValueError):
        return {}


def _settings(params: Mapping[str, Any] | None, model: Any) -> dict[str, Any]:
    """Return what a `fit` was called with, and how the optimizer is set."""
    found = {key: value for key, value in (params or {}).items() if key in ("epochs", "steps", "batch_size") and value}
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None:
        config = optimizer.get_config()
        plain = {key: value for key, value in config.items() if isinstance(value, (bool, int, float, str))}
        found |= {f"optimizer/{key}": value for key, value in plain.items()}
        found["optimizer/name"] = type(optimizer).__name__  # Keras numbers the second one of a process: adam_1
    return {**found, "parameters": int(model.count_params())}
