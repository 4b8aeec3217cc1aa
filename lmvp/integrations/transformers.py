"""Hugging Face callback: `LMVPCallback` logs a training of `Trainer` to a run and publishes its weights as versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import lmvp
from lmvp.core.run_fields import stored_fields
from lmvp.errors import InvalidArgument, MissingDependency
from lmvp.integrations.publishing import plain_params, publish

try:
    from transformers import TrainerCallback
except ImportError:
    raise MissingDependency("Transformers is not installed", hint="pip install transformers accelerate") from None

if TYPE_CHECKING:
    from lmvp.tracking.active_run import ActiveRun

_PREFIXES = {"eval_": "eval/", "test_": "test/", "predict_": "predict/"}


class LMVPCallback(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """A callback that logs a training of `Trainer` to a run.

    Metrics are logged as `train/loss`, `eval/loss` and so on. The training arguments and the config of the model become
    params. Versions contain the weights as a state dict; `lmvp.download(name, into=model)` fills a model of the same
    class.

    Parameters
    ----------
    project : str, optional
        Default: the current project.
    name : str, optional
        The name of the run. Default: the `run_name` of the arguments, otherwise a random name.
    model : str, optional
        The model of the published versions, in the same project.
    log_model : False, "end" or "checkpoint"
        Publish the weights at the end of the training, or with each checkpoint.
    resume : str, optional
        The id or name of a run to resume. Points above the step at which the training begins no longer count.
    run : ActiveRun, optional
        Log to this run instead of a new one, and do not end it.
    strict : bool
        Raise the error if a version cannot be published. By default a warning names it, and the training continues.
    **options
        Further arguments of `lmvp.start_run`.

    Raises
    ------
    InvalidArgument
        If `log_model` is another value, or is set without `model`.

    Examples
    --------
    >>> callback = LMVPCallback("texts", model="gpt", log_model="end")
    >>> Trainer(model, args, train_dataset=data, callbacks=[callback]).train()  # doctest: +SKIP
    """

    def __init__(
        self,
        project: str | None = None,
        name: str | None = None,
        *,
        model: str | None = None,
        log_model: Literal[False, "end", "checkpoint"] = False,
        resume: str | None = None,
        run: ActiveRun | None = None,
        strict: bool = False,
        **options: Any,
    ) -> None:
        if log_model not in (False, "end", "checkpoint"):
            raise InvalidArgument(f"log_model={log_model!r}", hint="False, 'end' or 'checkpoint'")
        if log_model and not model:
            raise InvalidArgument("log_model= without model=", hint="name the model that the versions are of")
        self._begin = {"project": project, "name": name, "resume": resume, **options}
        self._model, self._log_model, self._strict = model, log_model, strict
        self._run, self._theirs = run, run is not None

    @property
    def run(self) -> ActiveRun | None:
        """The run; None before the first training."""
        return self._run

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:  # noqa: ARG002
        """Start the run, or resume it at the step at which the training begins."""
        if not state.is_world_process_zero:
            return
        if not self._theirs:
            if self._run is not None:
                self._run.finish("killed", "the training before ended without a word")
            begin = {**self._begin, "name": self._begin["name"] or _run_name(args)}
            self._run = lmvp.start_run(**begin)
            if self._begin["resume"] and state.global_step:
                # The earlier attempt may have logged beyond the checkpoint that is loaded now.
                self._run.rewind(state.global_step)
        if self._run is not None:
            params = {"args": plain_params(args.to_sanitized_dict()), **_config(model)}
            self._run.params.update(stored_fields("params", params))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:  # noqa: ARG002
        """Log numbers at the global step."""
        if self._run is None or not state.is_world_process_zero:
            return
        # `Trainer` also logs texts.
        values = {_name(key): value for key, value in (logs or {}).items() if isinstance(value, (int, float))}
        if state.epoch is not None:
            values["epoch"] = state.epoch
        self._run.log(values, state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:  # noqa: ARG002
        """Publish the weights, if `log_model` is "checkpoint"."""
        if self._log_model == "checkpoint":
            self._publish(state, model)

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:  # noqa: ARG002
        """Publish the weights if `log_model` is "end", and end the run unless it was passed as `run=`."""
        if self._run is None or not state.is_world_process_zero:
            return
        if self._log_model == "end":
            self._publish(state, model)
        if not self._theirs:
            self._run.finish()

    def _publish(self, state: Any, model: Any) -> None:
        run = self._run
        if run is None or not state.is_world_process_zero or model is None:
            return
        last: dict[str, Any] = next(
            (each for each in reversed(state.log_history) if "eval_loss" in each or "loss" in each), {}
        )
        metrics = {_name(key): value for key, value in last.items() if isinstance(value, float) and key != "epoch"}
        what = f"step {state.global_step}"
        publish(
            lambda: run.update(self._model or "", model.state_dict(), message=what, metrics=metrics, progress=False),
            f"{self._model}, {what}; `lmvp push {self._model} FILE` does it later",
            strict=self._strict,
        )


def _name(key: str) -> str:
    """Return the name of a metric in LMVP: `eval_loss` becomes `eval/loss`, `loss` becomes `train/loss`."""
    for before, after in _PREFIXES.items():
        if key.startswith(before):
            return after + key[len(before) :]
    return key if key == "epoch" else f"train/{key}"


def _run_name(args: Any) -> str | None:
    name = getattr(args, "run_name", None)
    # Trainer sets `run_name` to the output folder if the user does not set it.
    return name if name and name != args.output_dir else None


def _config(model: Any) -> dict[str, Any]:
    config = getattr(model, "config", None)
    to_dict = getattr(config, "to_dict", None)
    return {"model": plain_params(to_dict())} if to_dict else {}
