"""A run without output, for the processes of a distributed training that do not log."""

from __future__ import annotations

import time
from typing import Any

from lmvp.core.schemas.runs import NewRun
from lmvp.tracking.active_run import ActiveRun
from lmvp.tracking.destination import Target


class QuietRun(ActiveRun):
    """An `ActiveRun` that accepts all calls and stores nothing."""

    def __init__(self, client: Any, project: str, name: str) -> None:
        from lmvp.tracking.active_run import _record

        # `super().__init__` would create a journal, so only the fields that properties read are set.
        self._client, self._record = client, _record(NewRun(run="0" * 32, name=name), Target(project))
        for name in ("params", "tags", "summary"):
            setattr(self, f"_{name}", {})
        self._ended, self._cell, self._at_end = False, None, []
        self._began = time.monotonic()

    def log(self, values: Any, step: Any = None, time: Any = None) -> None:
        """Do nothing."""

    def log_batch(self, steps: Any, values: Any, time: Any = None) -> None:
        """Do nothing."""

    def rewind(self, step: int) -> None:
        """Do nothing."""

    def flush(self, timeout: float = 30.0) -> None:
        """Return at once."""

    def update(self, model: str, obj: Any, **options: Any) -> Any:
        """Publish nothing; return None."""

    def finish(self, status: str = "finished", error: str = "") -> None:  # noqa: ARG002
        """Mark the run as ended."""
        self._ended = True

    def history(self, keys: Any = None) -> Any:  # noqa: ARG002
        """Return an empty dict."""
        return {}
