"""Lightning logger: `LMVPLogger` logs a training to a run and publishes checkpoints as versions."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import lmvp
from lmvp.errors import InvalidArgument, MissingDependency
from lmvp.integrations.publishing import plain_params, publish

try:
    try:
        from pytorch_lightning.loggers.logger import Logger, rank_zero_experiment
        from pytorch_lightning.utilities import rank_zero_only
    except ImportError:
        from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
        from lightning.pytorch.utilities import rank_zero_only
except ImportError:
    raise MissingDependency("Lightning is not installed", hint="pip install pytorch-lightning") from None

if TYPE_CHECKING:
    from lmvp.tracking.active_run import ActiveRun

_STATUS = {"success": "finished", "finished": "finished", "failed": "failed", "interrupted": "killed"}
LogModel = bool | Literal["all", "best_and_last"]


class LMVPLogger(Logger):  # type: ignore[misc, unused-ignore]
    """A Lightning logger that logs to a run and publishes checkpoints as versions.

    Parameters
    ----------
    project : str, optional
        Default: the current project.
    name : str, optional
        The name of the run. Default: a random name.
    model : str, optional
        The model of the published versions, in the same project.
    log_model : bool, "all" or "best_and_last"
        The checkpoints to publish: the best and the last one at the end of the training (`True`, `"best_and_last"`), or
        each one when it is saved (`"all"`). The alias `best` points at the best one, `last` at the last one.
    params, tags : mapping, optional
        Params and tags of the run. The hyperparameters of the module are added to the params.
    resume : str, optional
        The id or name of a run to resume.
    prefix : str
        Prefix of the name of each metric.
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
    >>> trainer = Trainer(logger=LMVPLogger("digits", model="mlp", log_model=True))  # doctest: +SKIP
    """

    LOGGER_JOIN_CHAR = "/"

    def __init__(
        self,
        project: str | None = None,
        name: str | None = None,
        *,
        model: str | None = None,
        log_model: LogModel = False,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        resume: str | None = None,
        prefix: str = "",
        run: ActiveRun | None = None,
        strict: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        if log_model not in (True, False, "all", "best_and_last"):
            raise InvalidArgument(f"log_model={log_model!r}", hint="True, False, 'all' or 'best_and_last'")
        if log_model and not model:
            raise InvalidArgument("log_model= without model=", hint="name the model that the versions are of")
        self._begin = {"project": project, "name": name, "params": params, "tags": tags, "resume": resume, **options}
        self._model, self._log_model, self._prefix, self._strict = model, log_model, prefix, strict
        self._run, self._theirs = run, run is not None
        self._checkpoints: Any = None
        self._published: dict[str, float] = {}

    @property
    @rank_zero_experiment  # type: ignore[untyped-decorator, unused-ignore]
    def experiment(self) -> ActiveRun:
        """The run, started on first use; in a distributed training only on rank 0."""
        if self._run is None:
            # On first use: a logger that is only created must not start a run.
            self._run = lmvp.start_run(**self._begin)
        return self._run

    def _going(self) -> ActiveRun:
        """Return the run; resume it if it has ended, so that `fit` followed by `test` is one run."""
        if self._run is not None and self._run.ended and not self._theirs:
            self._run = lmvp.start_run(**{**self._begin, "resume": self._run})
        return self.experiment  # type: ignore[no-any-return, unused-ignore]

    @property
    def name(self) -> str | None:
        """The project of the run."""
        return self._run.project if self._run else self._begin["project"]

    @property
    def version(self) -> str | None:
        """The name of the run, or the `name` of the logger before the run starts."""
        return self._run.name if self._run else self._begin["name"]

    @property
    def save_dir(self) -> str | None:
        """None: the Trainer chooses the folder of checkpoints."""
        return None

    @rank_zero_only  # type: ignore[untyped-decorator, unused-ignore]
    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
        """Add hyperparameters to the params of the run."""
        self._going().params.update(_flat(plain_params(params)))

    @rank_zero_only  # type: ignore[untyped-decorator, unused-ignore]
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers at a step."""
        self._going().log({f"{self._prefix}{key}": value for key, value in metrics.items()}, step)

    @rank_zero_only  # type: ignore[untyped-decorator, unused-ignore]
    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Publish the saved checkpoint if `log_model` is "all"; otherwise remember the callback for the end."""
        self._checkpoints = checkpoint_callback
        if self._log_model == "all":
            self._publish_saved()

    @rank_zero_only  # type: ignore[untyped-decorator, unused-ignore]
    def finalize(self, status: str = "success") -> None:
        """Publish the remaining checkpoints, and end the run unless it was passed as `run=`."""
        if self._run is None:
            return
        if self._log_model and self._checkpoints is not None:
            self._publish_saved()
        if not self._theirs:
            self._run.finish(_STATUS.get(status, "finished"))

    def _publish_saved(self) -> None:
        """Publish each checkpoint that is new or has changed since it was published."""
        found = self._checkpoints
        paths = {found.best_model_path: "best", found.last_model_path: "last"}
        if self._log_model == "all":
            paths = {**dict.fromkeys(getattr(found, "best_k_models", {}), ""), **paths}
        for path, alias in paths.items():
            if path and Path(path).exists():
                self._publish(Path(path), alias, found)

    def _publish(self, path: Path, alias: str, found: Any) -> None:
        # Lightning overwrites `last.ckpt`, so the path alone does not identify a checkpoint.
        changed = path.stat().st_mtime
        if self._published.get(str(path)) == changed:
            return
        import torch

        # A checkpoint is a pickle, which can run code without `weights_only`.
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        score = found.best_k_models.get(str(path), found.best_model_score if alias == "best" else None)
        metrics = {found.monitor: float(score)} if found.monitor and score is not None else None
        version = publish(
            lambda: self._going().update(
                self._model or "",
                checkpoint["state_dict"],
                message=f"epoch {checkpoint.get('epoch')}, step {checkpoint.get('global_step')}",
                metrics=metrics,
                alias=[alias] if alias else (),
                progress=False,
            ),
            f"{path}; `lmvp push {self.name}/{self._model} {shlex.quote(str(path))}` does it later",
            strict=self._strict,
        )
        if version is not None:
            self._published[str(path)] = changed


def _flat(params: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in params.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{before}{key}/")
        else:
            flat[f"{before}{key}"] = value
    return flat
