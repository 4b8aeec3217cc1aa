"""`Run` and `Runs`: recorded runs, their tables in text and HTML, and the formatting of status, duration and params."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Final, Protocol, overload
from urllib.parse import quote

from lmvp import hints
from lmvp.core import html_tables, number_format
from lmvp.core.marimo import MarimoDisplay
from lmvp.core.optional import pandas_module
from lmvp.core.references import suggest
from lmvp.core.run_fields import stored_fields
from lmvp.core.sanitize import clean, one_line, printable
from lmvp.core.schemas.runs import Curves, KeyRecord, RunRecord, Status
from lmvp.core.validation import Params
from lmvp.errors import InvalidArgument
from lmvp.views._source import CurveSource
from lmvp.views._text import Column, table

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MARKS: Final = {"running": "●", "stale": "○", "finished": "■", "failed": "◆", "killed": "□"}
"""The mark before each status. Shapes distinguish the states for readers who do not see colors."""
_SHOWN, _METRICS, _PARAMS = 50, 3, 3
"""Maximum numbers of rows, of columns of metrics and of columns of params."""
_LONGEST = 10**4300
"""The integer from which `str` raises an error: Python limits the conversion to 4,300 digits."""


class RunSource(CurveSource, Protocol):
    """The methods of a client that a `Run` calls."""

    @property
    def url(self) -> str:
        """The URL of the server."""

    def run_record(self, project: str, run: str) -> RunRecord:
        """Return the record of a run."""

    def curves(
        self,
        project: str,
        runs: Iterable[str],
        keys: Iterable[str] = (),
        *,
        points: int = 1000,
        axis: str = "step",
        first: float | None = None,
        last: float | None = None,
    ) -> Curves:
        """Return downsampled curves of several runs and metrics."""

    def history_of(self, run: Run, keys: Iterable[str] | None) -> dict[str, npt.NDArray[np.void]]:
        """Return every point of a run."""

    def amend_run(
        self,
        project: str | None,
        run: str,
        *,
        name: str | None = None,
        notes: str | None = None,
        params: Params | None = None,
        tags: Mapping[str, str | None] | None = None,
        summary: Mapping[str, Any] | None = None,
    ) -> Run:
        """Change fields of a run."""

    def end_run(self, project: str, run: str, status: str = "killed") -> RunRecord:
        """End a run."""

    def delete_run(self, project: str, run: str, *, now: bool = False) -> None:
        """Remove a run."""

    def restore_run(self, project: str | None, run: str) -> Run:
        """Restore a removed run."""


class RunFields(dict[str, Any]):
    """A dict of params, tags, summary, metrics or environment of a run.

    In params, tags and summary, each change is sent to the server; the other fields are read-only. If the server
    refuses a change, the dict stays unchanged and the error is raised.
    """

    def __init__(self, run: Run, field: str, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self._run, self._field = run, field

    def _send(self, given: Mapping[str, Any]) -> None:
        if self._field not in ("params", "tags", "summary"):
            hint = "run.log and run.summary add to them" if self._field == "metrics" else None
            raise InvalidArgument(f"the {self._field} of a run cannot be set", hint=hint)
        # `stored_fields` accepts no None, but in a request None removes a value.
        removed = {key: None for key, value in given.items() if value is None}
        changed = {key: value for key, value in given.items() if value is not None}
        if self._field == "params":
            self._run.amend(params=given)
        else:
            self._run.amend(**{self._field: {**stored_fields(self._field, changed), **removed}})
        # The values of the record, not those of the caller: they are redacted and converted to plain data.
        super().clear()
        super().update(getattr(self._run.record, self._field))

    def __setitem__(self, key: str, value: Any) -> None:
        self._send({key: value})

    def __delitem__(self, key: str) -> None:
        if self._field == "params":
            raise InvalidArgument("a param of a run can be changed, not removed")
        # A request would succeed for a missing key.
        self[key]  # raise KeyError as a dict does
        self._send({key: None})

    def update(self, *others: Any, **more: Any) -> None:
        """Set several values in one request."""
        self._send(dict(*others, **more))

    def __ior__(self, other: Any) -> RunFields:  # type: ignore[override,misc]
        self._send(dict(other))
        return self

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Set a value if the key is missing."""
        if key not in self:
            self._send({key: default})
        return self[key]

    def pop(self, key: str, *default: Any) -> Any:
        """Remove a value and return it."""
        if key not in self and default:
            return default[0]
        value = self[key]
        del self[key]
        return value

    def popitem(self) -> tuple[str, Any]:
        """Remove the last value."""
        key = next(reversed(self))
        return key, self.pop(key)

    def clear(self) -> None:
        """Remove all values."""
        if self._field == "params":
            raise InvalidArgument("a param of a run can be changed, not removed")
        self._send(dict.fromkeys(self))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as a plain dict; a copy in another process is not connected to the server."""
        return dict, (dict(self),)


class RunView(Protocol):
    """The properties of a run that views read: a `Run`, or the record of a run on its server."""

    @property
    def record(self) -> RunRecord:
        """The record of the run: all fields, without points."""

    @property
    def id(self) -> str:
        """The id of the run, 32 hex digits."""

    @property
    def name(self) -> str:
        """The name of the run."""

    @property
    def project(self) -> str:
        """The project of the run."""


@dataclass(frozen=True)
class RecordedRun:
    """A run as the server recorded it, without a client."""

    record: RunRecord

    @property
    def id(self) -> str:
        """The id of the run, 32 hex digits."""
        return self.record.id

    @property
    def name(self) -> str:
        """The name of the run."""
        return self.record.name

    @property
    def project(self) -> str:
        """The project of the run."""
        return self.record.project


class Run(MarimoDisplay):
    """A run, with the record that the server had when it was read; `refresh` reads it again.

    The name, notes, params, tags and summary can be set, also after the end of the run. Each change is sent to the
    server at once.

    Parameters
    ----------
    client : RunSource
        The client whose server stores the run.
    record : RunRecord
        The record of the run.

    Examples
    --------
    >>> run = lmvp.runs("digits", where="status == 'finished'")[0]  # doctest: +SKIP
    >>> run.metrics["val_acc"], run.notes  # doctest: +SKIP
    (0.97, '')
    >>> run.notes = "baseline"  # doctest: +SKIP
    """

    def __init__(self, client: RunSource, record: RunRecord) -> None:
        self._client = client
        self._record = record

    def __setattr__(self, name: str, value: Any) -> None:
        # Without this check, a misspelt name, `run.note = "…"`, would look as if it were stored.
        if not name.startswith("_") and not hasattr(type(self), name):
            near = suggest(name, [each for each in dir(type(self)) if not each.startswith("_")])
            raise AttributeError(f"a run has no {name!r}" + (f"; did you mean {near!r}?" if near else ""))
        super().__setattr__(name, value)

    @property
    def record(self) -> RunRecord:
        """The record of the run: all fields, without points."""
        return self._record

    @property
    def id(self) -> str:
        """The id of the run, 32 hex digits."""
        return self._record.id

    @property
    def name(self) -> str:
        """The name of the run; `run.name = "baseline"` renames it."""
        return self._record.name

    @name.setter
    def name(self, name: str) -> None:
        self.amend(name=name)

    @property
    def notes(self) -> str:
        """Free text about the run; `run.notes = "too many epochs"` replaces it."""
        return self._record.notes

    @notes.setter
    def notes(self, notes: str) -> None:
        self.amend(notes=notes)

    @property
    def project(self) -> str:
        """The project of the run."""
        return self._record.project

    @property
    def status(self) -> Status:
        """`running`, `stale`, `finished`, `failed` or `killed`."""
        return self._record.status

    @property
    def params(self) -> Any:
        """The params; `run.params["lr"] = 0.1` sets one."""
        return RunFields(self, "params", self._record.params)

    @property
    def tags(self) -> Any:
        """The tags; `run.tags.update(by="ada")` sets tags, `del run.tags["by"]` removes one."""
        return RunFields(self, "tags", self._record.tags)

    @property
    def summary(self) -> Any:
        """The values that describe the run as a whole; `run.summary["best"] = 0.97` sets one."""
        return RunFields(self, "summary", self._record.summary)

    @property
    def metrics(self) -> dict[str, Any]:
        """The last value of each metric."""
        return RunFields(self, "metrics", self.record.metrics)

    @property
    def environment(self) -> dict[str, Any]:
        """The facts about the origin of the run: user, host, git, Python, packages, command."""
        return RunFields(self, "environment", self.record.environment)

    @property
    def versions(self) -> tuple[str, ...]:
        """References of the versions that the run produced."""
        return self._record.versions

    @property
    def url(self) -> str:
        """The URL of the run's page in the console."""
        return f"{self._client.url}/p/{quote(self.project)}/-/runs/{quote(self.id)}"

    @property
    def client(self) -> RunSource:
        """The client that reads the run."""
        return self._client

    def curves(self, runs: Iterable[Run], keys: Iterable[str], **how: Any) -> Curves:
        """Return curves of runs of the same project; see `Client.curves`."""
        return self._client.curves(self.project, [run.id for run in runs], keys, **how)

    def refresh(self) -> Run:
        """Read the record from the server again, and return this run."""
        self._record = self._client.run_record(self.project, self.id)
        return self

    def keys(self) -> list[KeyRecord]:
        """Return a record of each metric: last value, number of points, smallest and greatest value.

        Returns
        -------
        list of KeyRecord
            One record for each metric, without its points.
        """
        return self._client.metric_keys(self.project, self.id)

    def history(self, keys: Iterable[str] | str | None = None) -> dict[str, npt.NDArray[np.void]]:
        """Return every point, not a sample.

        Parameters
        ----------
        keys : str or iterable of str, optional
            Metrics. Default: all.

        Returns
        -------
        dict of str to array
            For each metric, a structured array of shape (n,), sorted by step, with the fields `step` (int64), `value`
            (float64) and `time` (float64, seconds since 1970).

        Raises
        ------
        NotFound
            If the run does not have one of the metrics.
        IntegrityError
            If points of the run are missing because a file of the server is damaged.

        Examples
        --------
        >>> run.history("train/loss")["train/loss"]["value"].min()  # doctest: +SKIP
        0.021
        """
        return self._client.history_of(self, [keys] if isinstance(keys, str) else keys)

    def to_pandas(self, keys: Iterable[str] | str | None = None) -> Any:
        """Return every point as a DataFrame.

        Parameters
        ----------
        keys : str or iterable of str, optional
            Metrics. Default: all.

        Returns
        -------
        pandas.DataFrame
            The columns `key`, `step`, `value` and `time` (UTC), one row for each point.

        Raises
        ------
        NotFound
            If the run does not have one of the metrics.
        IntegrityError
            If points of the run are missing because a file of the server is damaged.
        MissingDependency
            If pandas is not installed.

        Examples
        --------
        >>> run.to_pandas("train/loss").plot("step", "value")  # doctest: +SKIP
        """
        return frame_of(self.history(keys))

    def amend(self, **changes: Any) -> Run:
        """Change name, notes, params, tags or summary, and return this run.

        Parameters
        ----------
        **changes
            The keyword arguments of `Client.amend_run`.
        """
        self._record = self._client.amend_run(self.project, self.id, **changes).record
        return self

    def end(self, status: str = "killed") -> Run:
        """End a run whose process no longer exists, and return this run.

        Parameters
        ----------
        status : {"finished", "failed", "killed"}
            The final status of the run.
        """
        self._record = self._client.end_run(self.project, self.id, status)
        return self

    def delete(self, *, now: bool = False) -> None:
        """Remove the run and its points. Versions that the run produced stay.

        `restore` undoes the removal while the run is in the trash: 7 days by default.

        Parameters
        ----------
        now : bool
            Delete the run permanently instead of moving it to the trash.
        """
        self._client.delete_run(self.project, self.id, now=now)

    def restore(self) -> Run:
        """Restore the run from the trash, and return it.

        Raises
        ------
        NotFound
            If the run was deleted permanently.
        """
        self._record = self._client.restore_run(self.project, self.id).record
        return self

    def __repr__(self) -> str:
        return one_line(f"<Run {self.project}/{self.name} {self.id[:8]} {self.status}>")


def frame_of(history: dict[str, npt.NDArray[np.void]]) -> Any:
    """Return points as a DataFrame with the columns key, step, value and time (UTC)."""
    pandas = pandas_module()
    parts = [
        pandas.DataFrame(
            {
                "key": key,
                "step": rows["step"],
                "value": rows["value"],
                "time": pandas.to_datetime(rows["time"], unit="s", utc=True),
            }
        )
        for key, rows in history.items()
    ]
    return (
        pandas.concat(parts, ignore_index=True) if parts else pandas.DataFrame(columns=["key", "step", "value", "time"])
    )


class Runs(Sequence[Run]):
    """Runs of a project, a sequence of `Run`, newest first or in the order that was requested.

    Parameters
    ----------
    project : str
        The project of the runs.
    runs : sequence of Run
        The runs.
    total : int
        The number of runs that match on the server.

    Attributes
    ----------
    project : str
        The project of the runs.
    total : int
        The number of runs that match on the server, including those that a `limit` left out.

    Examples
    --------
    >>> runs = lmvp.runs("digits", limit=20)  # doctest: +SKIP
    >>> runs[0].name, len(runs), runs.total  # doctest: +SKIP
    ('quiet-wren-44', 20, 137)
    """

    def __init__(self, project: str, runs: Sequence[Run], total: int) -> None:
        self.project, self.total = project, total
        self._runs = list(runs)

    @overload
    def __getitem__(self, index: int) -> Run: ...
    @overload
    def __getitem__(self, index: slice) -> Runs: ...
    def __getitem__(self, index: int | slice) -> Run | Runs:
        if isinstance(index, slice):
            return Runs(self.project, self._runs[index], self.total)
        return self._runs[index]

    def __len__(self) -> int:
        return len(self._runs)

    def __repr__(self) -> str:
        return printable(runs_text(self))

    def _repr_html_(self) -> str:
        return runs_html(self)

    def to_pandas(self) -> Any:
        """Return a DataFrame with one row for each run.

        Returns
        -------
        pandas.DataFrame
            The columns `id`, `name`, `status`, `created_at`, `duration`, `author`, and one for each value, for example
            `params.lr`, `metrics.val_acc`, `tags.gpu` and `summary.best`.

        Raises
        ------
        MissingDependency
            If pandas is not installed.
        """
        return pandas_module().DataFrame([_row(run.record) for run in self])


def _row(record: RunRecord) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": record.id,
        "name": record.name,
        "status": record.status,
        "created_at": record.created_at,
        "duration": record.duration,
        "author": record.author,
    }
    for field in ("params", "metrics", "tags", "summary"):
        row |= {f"{field}.{key}": value for key, value in getattr(record, field).items()}
    return row


def status(word: str) -> str:
    """Return a status with its mark.

    Examples
    --------
    >>> status("running"), status("killed")
    ('● running', '□ killed')
    """
    return f"{MARKS.get(word, '')} {word}".strip()


def duration(seconds: float) -> str:
    """Format a duration in seconds with its two largest units.

    Examples
    --------
    >>> duration(4.2), duration(75), duration(9420), duration(200000)
    ('4 s', '1 min 15 s', '2 h 37 min', '2 d 7 h')
    """
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def value(given: Any) -> str:
    """Format a param, tag or number; a float with 6 significant digits.

    Examples
    --------
    >>> value(0.001), value(64), value(1 / 3), value(True), value("adam")
    ('0.001', '64', '0.333333', 'True', 'adam')
    """
    if isinstance(given, float):
        return f"{given:.6g}".replace("-", number_format.MINUS)
    if isinstance(given, int) and abs(given) >= _LONGEST:
        return number_format.one(given)
    return clean(str(given))


def runs_text(runs: Runs) -> str:
    """Return the first 50 runs as a table that fits the terminal; `runs_html` has the same columns."""
    if not runs:
        return f"no runs in {runs.project}; {_start(runs.project)}"
    shown = runs[:_SHOWN]
    lines = table(_columns(shown), shutil.get_terminal_size((120, 24)).columns)
    return "\n".join([*lines, *_note(runs, shown)])


def _start(project: str) -> str:
    """Return a hint that shows how to start a run. The shell has no verb for it, so its hint is Python code."""
    if hints.reader() == hints.MAGIC:
        return f"`%%lmvp run {project}` runs a cell as one"
    where = ", in Python, " if hints.reader() == hints.SHELL else " "
    return f"`with lmvp.start_run({project!r}) as run:`{where}starts one"


def runs_html(runs: Runs) -> str:
    """Return the first 50 runs as a static table."""
    if not runs:
        return f"<p>no runs in {escape(runs.project)}; {escape(_start(runs.project))}</p>"
    shown = runs[:_SHOWN]
    columns = _columns(shown)
    rows = list(zip(*([html_tables.safe(cell) for cell in column.cells] for column in columns), strict=True))
    right = [number for number, column in enumerate(columns) if column.right]
    notes = "".join(f"<p>{escape(note)}</p>" for note in _note(runs, shown))
    return html_tables.table([html_tables.key(column.head) for column in columns], rows, right, names=[0]) + notes


def _note(runs: Runs, shown: Sequence[Run]) -> list[str]:
    return [f"{len(shown)} of {runs.total:,}, newest first"] if len(shown) < runs.total else []


def _columns(runs: Sequence[Run]) -> list[Column]:
    """Return the columns of a table of runs; those with a higher `drop` are left out first on a narrow terminal."""
    records = [run.record for run in runs]
    params = _most([record.params for record in records], _PARAMS, differing=True)
    metrics = _most([record.metrics for record in records], _METRICS)
    columns = [
        Column("Run", [clean(record.name) for record in records], flexible=True, most=40),
        Column("Status", [status(record.status) for record in records]),
        Column("Started", [number_format.stamp(record.created_at) for record in records], drop=2),
        Column("Took", [duration(record.duration) for record in records], right=True, drop=1),
    ]
    for number, key in enumerate(params):
        cells = [value(record.params[key]) if key in record.params else "" for record in records]
        columns.append(Column(clean(key), cells, right=True, drop=4 + number, most=24))
    for key in metrics:
        column = number_format.column([_number(record.metrics.get(key)) for record in records])
        columns.append(Column(clean(key), column, right=True, drop=3))
    return columns


def _number(given: Any) -> float | None:
    """Return a metric as a number; None if it is missing or a faulty server sent another type."""
    try:
        return None if given is None else number_format.real(given)
    except (TypeError, ValueError):
        return None


def _most(mappings: Sequence[dict[str, Any]], count: int, *, differing: bool = False) -> list[str]:
    """Return the keys that occur in most mappings, in order of first occurrence.

    With `differing`, keys whose values are equal in all mappings are left out, unless all keys are.
    """
    seen: dict[str, list[Any]] = {}
    for mapping in mappings:
        for key, given in mapping.items():
            seen.setdefault(key, []).append(given)
    if differing and len(mappings) > 1:
        seen = {
            key: values for key, values in seen.items() if not _alike(values) or len(values) < len(mappings)
        } or seen
    best = sorted(seen, key=lambda key: -len(seen[key]))[:count]
    return [key for key in seen if key in best]


def _alike(values: Iterable[Any]) -> bool:
    """Return whether all values are equal; NaN counts as equal to NaN."""
    return len({"nan" if isinstance(each, float) and math.isnan(each) else repr(each) for each in values}) <= 1
