"""`LMVPCallback`: a run for a training of Hugging Face's `Trainer`, and versions of its model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import lmvp
from lmvp.errors import InvalidArgument, MissingDependency
from lmvp.integrations.publishing import plain_params, publish
from lmvp.tracking.said import said

try:
    from transformers import TrainerCallback
except ImportError:
    raise MissingDependency("Transformers is not installed", hint="pip install transformers accelerate") from None

if TYPE_CHECKING:
    from lmvp.tracking.active import ActiveRun

_PREFIXES = {"eval_": "eval/", "test_": "test/", "predict_": "predict/"}


class LMVPCallback(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Logs what a `Trainer` logs: `train/loss`, `eval/loss`; its arguments and the model's config are params.

    Versions hold the weights as a state dict: `lmvp.download(name, into=model)` fills a model of the same class.

    Parameters
    ----------
    project : str, optional
        The current project if not given.
    name : str, optional
        What to call the run; the `run_name` of the arguments if that is set, or made up.
    model : str, optional
        The model that versions are of, in the same project.
    log_model : False, "end" or "checkpoint"
        Publish the weights at the end of the training, or with each checkpoint.
    resume : str, optional
        A run that goes on: what it logged after the step that training begins at no longer counts.
    run : ActiveRun, optional
        Log to this run, which is left as it is at the end.
    strict : bool
        Raise if a version cannot be published; by default a warning names it, and training goes on.
    **options
        For `lmvp.start_run`.

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
        """Begin a run, or go on with one from the step that the training begins at."""
        if not state.is_world_process_zero:
            return
        if not self._theirs:
            if self._run is not None:
                self._run.finish("killed", "the training before ended without a word")
            begin = {**self._begin, "name": self._begin["name"] or _run_name(args)}
            self._run = lmvp.start_run(**begin)
            if self._begin["resume"] and state.global_step:
                self._run.rewind(state.global_step)
        if self._run is not None:
            params = {"args": plain_params(args.to_sanitized_dict()), **_config(model)}
            self._run.params.update(said("params", params))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:  # noqa: ARG002
        """Log numbers at the step of the training."""
        if self._run is None or not state.is_world_process_zero:
            return
        values = {_name(key): value for key, value in (logs or {}).items() if isinstance(value, (int, float))}
        if state.epoch is not None:
            values["epoch"] = state.epoch
        self._run.log(values, state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:  # noqa: ARG002
        """Publish the weights with a checkpoint."""
        if self._log_model == "checkpoint":
            self._publish(state, model)

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:  # noqa: ARG002
        """Publish the weights at the end, and end the run."""
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
    """Return a number of the Trainer as LMVP groups it: `eval_loss` is `eval/loss`, `loss` is `train/loss`."""
    for before, after in _PREFIXES.items():
        if key.startswith(before):
            return after + key[len(before) :]
    return key if key == "epoch" else f"train/{key}"


def _run_name(args: Any) -> str | None:
    name = getattr(args, "run_name", None)
    return name if name and name != args.output_dir else None


def _config(model: Any) -> dict[str, Any]:
    config = getattr(model, "config", None)
    to_dict = getattr(config, "to_dict", None)
    return {"model": plain_params(to_dict())} if to_dict else {}
