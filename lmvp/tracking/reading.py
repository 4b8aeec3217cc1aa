"""Runs as they are read: `Run`, `Runs`, and the verbs of a client that return them."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload
from urllib.parse import quote

from lmvp.arguments import Params
from lmvp.base_client import BaseClient, model_path
from lmvp.errors import InvalidArgument, MissingDependency, ServerUnavailable
from lmvp.live import MarimoDisplay
from lmvp.records import Version
from lmvp.redaction import redact
from lmvp.references import Reference, check_name, suggest
from lmvp.text import escaped, quoted
from lmvp.tracking.records import Curves, KeyRecord, RunEnd, RunRecord, RunUpdate, Status

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

T = TypeVar("T")
_LENGTH = struct.Struct("<I")
_NUMBERS = {"<i8": "<i8", "<f8": "<f8"}
"""The types of the columns of a block."""
_PART_LIMIT = 64 << 20
"""Bytes of the head or a column of a block of points, at most; the server sends pages of 65,536 points or fewer."""
_COLUMNS = "application/x-lmvp-columns"
_VERSIONS, _RUNS_OF_MODEL = 1000, 40
"""Versions of a model whose runs are listed, and those runs, at most: a filter has room for so many ids."""


class RunFields(dict[str, Any]):
    """Params, tags or summary of a run: a change is sent to the server, which may refuse it. The rest cannot be set."""

    def __init__(self, run: Run, field: str, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self._run, self._field = run, field

    def _send(self, given: Mapping[str, Any]) -> None:
        from lmvp.tracking.said import said

        if self._field not in ("params", "tags", "summary"):
            hint = "run.log and run.summary add to them" if self._field == "metrics" else None
            raise InvalidArgument(f"the {self._field} of a run cannot be set", hint=hint)
        removed = {key: None for key, value in given.items() if value is None}
        changed = {key: value for key, value in given.items() if value is not None}
        if self._field == "params":
            self._run.amend(params=given)
        else:
            self._run.amend(**{self._field: {**said(self._field, changed), **removed}})
        super().clear()
        super().update(getattr(self._run.record, self._field))

    def __setitem__(self, key: str, value: Any) -> None:
        self._send({key: value})

    def __delitem__(self, key: str) -> None:
        if self._field == "params":
            raise InvalidArgument("a param of a run can be changed, not removed")
        self[key]  # as a dict, it raises KeyError
        self._send({key: None})

    def update(self, *others: Any, **more: Any) -> None:
        """Set several at once."""
        self._send(dict(*others, **more))

    def __ior__(self, other: Any) -> RunFields:  # type: ignore[override,misc]
        self._send(dict(other))
        return self

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Set one if it is not there."""
        if key not in self:
            self._send({key: default})
        return self[key]

    def pop(self, key: str, *default: Any) -> Any:
        """Remove one."""
        if key not in self and default:
            return default[0]
        value = self[key]
        del self[key]
        return value

    def popitem(self) -> tuple[str, Any]:
        """Remove the last one."""
        key = next(reversed(self))
        return key, self.pop(key)

    def clear(self) -> None:
        """Remove all."""
        if self._field == "params":
            raise InvalidArgument("a param of a run can be changed, not removed")
        self._send(dict.fromkeys(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


class Run(MarimoDisplay):
    """A run, as the server knew it when it was asked; `refresh` asks again.

    Its name, notes, params, tags and summary can be set, also after its end: each change goes to the server at once.

    Parameters
    ----------
    client : Tracking
        Speaks to the server that has it.
    record : RunRecord
        What is known of it.
    """

    def __init__(self, client: Tracking, record: RunRecord) -> None:
        self._client = client
        self._record = record

    def __setattr__(self, name: str, value: Any) -> None:
        # A misspelt name, `run.note = "…"`, must not look as if it were stored.
        if not name.startswith("_") and not hasattr(type(self), name):
            near = suggest(name, [each for each in dir(type(self)) if not each.startswith("_")])
            raise AttributeError(f"a run has no {name!r}" + (f"; did you mean {near!r}?" if near else ""))
        super().__setattr__(name, value)

    @property
    def record(self) -> RunRecord:
        """All that the server knows of it, without its points."""
        return self._record

    @property
    def id(self) -> str:
        """32 hex digits."""
        return self._record.id

    @property
    def name(self) -> str:
        """Its name; `run.name = "baseline"` renames it."""
        return self._record.name

    @name.setter
    def name(self, name: str) -> None:
        self.amend(name=name)

    @property
    def notes(self) -> str:
        """Free text about it; `run.notes = "too many epochs"` replaces it."""
        return self._record.notes

    @notes.setter
    def notes(self, notes: str) -> None:
        self.amend(notes=notes)

    @property
    def project(self) -> str:
        """The project that it is in."""
        return self._record.project

    @property
    def status(self) -> Status:
        """`running`, `stale`, `finished`, `failed` or `killed`."""
        return self._record.status

    @property
    def params(self) -> Any:
        """Its params; `run.params["lr"] = 0.1` sets one."""
        return RunFields(self, "params", self._record.params)

    @property
    def tags(self) -> Any:
        """Its tags; `run.tags.update(by="ada")` sets some, `del run.tags["by"]` removes one."""
        return RunFields(self, "tags", self._record.tags)

    @property
    def summary(self) -> Any:
        """Its results, beside the last values of metrics; `run.summary["best"] = 0.97` sets one."""
        return RunFields(self, "summary", self._record.summary)

    @property
    def metrics(self) -> dict[str, Any]:
        """The last value of each metric."""
        return RunFields(self, "metrics", self.record.metrics)

    @property
    def environment(self) -> dict[str, Any]:
        """What made it: user, host, git, Python, packages, command."""
        return RunFields(self, "environment", self.record.environment)

    @property
    def versions(self) -> tuple[str, ...]:
        """References of the versions that it made."""
        return self._record.versions

    @property
    def url(self) -> str:
        """Its page in the console of the server."""
        return f"{self._client.url}/p/{quote(self.project)}/-/runs/{quote(self.id)}"

    @property
    def client(self) -> Tracking:
        """What it asks."""
        return self._client

    def curves(self, runs: Iterable[Run], keys: Iterable[str], **how: Any) -> Curves:
        """Return curves of runs of its project; see `Client.curves`."""
        return self._client.curves(self.project, [run.id for run in runs], keys, **how)

    def refresh(self) -> Run:
        """Ask the server anew; return this run."""
        self._record = self._client.run_record(self.project, self.id)
        return self

    def keys(self) -> list[KeyRecord]:
        """Return what is known of each metric: last value, count, least and greatest."""
        return self._client.metric_keys(self.project, self.id)

    def history(self, keys: Iterable[str] | str | None = None) -> dict[str, npt.NDArray[np.void]]:
        """Return every point, not a sample.

        Parameters
        ----------
        keys : str or iterable of str, optional
            Metrics; all of them if not given.

        Returns
        -------
        dict of str to array
            By metric, in the order of the steps: a structured array of shape (n,) with the fields `step` (int64),
            `value` (float64) and `time` (float64, seconds since 1970).

        Raises
        ------
        NotFound
            If the run has no such metric.

        Examples
        --------
        >>> run.history("train/loss")["train/loss"]["value"].min()  # doctest: +SKIP
        0.021
        """
        return self._client.history_of(self, [keys] if isinstance(keys, str) else keys)

    def to_pandas(self, keys: Iterable[str] | str | None = None) -> Any:
        """Return every point as a DataFrame with the columns key, step, value, and time (UTC).

        Raises
        ------
        MissingDependency
            If pandas is not installed.
        """
        return frame_of(self.history(keys))

    def amend(self, **changes: Any) -> Run:
        """Change name, notes, params, tags or summary; see `Client.amend_run`."""
        self._record = self._client.amend_run(self.project, self.id, **changes).record
        return self

    def end(self, status: str = "killed") -> Run:
        """End a run whose process is gone and did not say how it ended."""
        self._record = self._client.end_run(self.project, self.id, status)
        return self

    def delete(self, *, now: bool = False) -> None:
        """Remove it and its points; versions that it made stay.

        `restore` undoes it for a week, or as long as the server keeps what is removed.

        Parameters
        ----------
        now : bool
            Delete it permanently.
        """
        self._client.delete_run(self.project, self.id, now=now)

    def restore(self) -> Run:
        """Undo `delete`; return this run.

        Raises
        ------
        NotFound
            If it is deleted permanently.
        """
        self._record = self._client.restore_run(self.project, self.id).record
        return self

    def __repr__(self) -> str:
        from lmvp.render.words import one_line

        return one_line(f"<Run {self.project}/{self.name} {self.id[:8]} {self.status}>")


class Runs(Sequence[Run]):
    """Runs of a project, newest first.

    Attributes
    ----------
    project : str
        Where they are.
    total : int
        How many there are, with those that are not in here.
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
        from lmvp.render.runs import runs_text
        from lmvp.render.words import printable

        return printable(runs_text(self))

    def _repr_html_(self) -> str:
        from lmvp.render.runs import runs_html

        return runs_html(self)

    def to_pandas(self) -> Any:
        """Return a DataFrame with a row for each run: name, status, times, `params.…`, `metrics.…`, `tags.…`."""
        pandas = pandas_module()
        return pandas.DataFrame([_row(run.record) for run in self])


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


class Tracking(BaseClient):
    """The verbs of a client around runs."""

    def runs(
        self,
        project: str | None = None,
        *,
        where: str | None = None,
        order: str | None = None,
        limit: int | None = 200,
    ) -> Runs:
        """Return the runs of a project, newest first or in another order.

        Parameters
        ----------
        project : str, optional
            The current project if not given; `project/model` returns the runs that made the newest versions of a model.
        where : str, optional
            Only those that match: `metrics.val_acc > 0.9 and params.lr < 0.01`; docs/api.md, "Filters".
        order : str, optional
            The field to sort by: `metrics.val_loss`; `-metrics.val_acc` sorts from the greatest to the least. Runs
            without the field come last.
        limit : int, optional
            At most so many; None: all.

        Examples
        --------
        >>> client.runs("digits", where="status == 'finished'", order="-metrics.val_acc")[0]  # doctest: +SKIP
        """
        given, _, model = (project or self.project).partition("/")
        name = check_name(given, "project name")
        if model:
            made = self._runs_of_model(Reference.parse(f"{name}/{model}"))
            if not made:
                return Runs(name, [], 0)
            where = f"({where}) and id in {made}" if where else f"id in {made}"
        query = {key: value for key, value in (("where", where), ("order", order)) if value}
        records, total = self._some(f"/projects/{quote(name)}/runs", RunRecord, limit, **query)
        return Runs(name, [Run(self, record) for record in records], total)

    def _runs_of_model(self, place: Reference) -> tuple[str, ...]:
        """Return the ids of the runs that made the newest versions of a model."""
        versions, _ = self._some(f"{model_path(place)}/versions", Version, _VERSIONS)
        made = list(dict.fromkeys(version.run for version in versions if version.run))[:_RUNS_OF_MODEL]
        return (*made, "") if len(made) == 1 else tuple(made)  # the language of filters has tuples of two and more

    def run(self, project: str | None, run: str) -> Run:
        """Return a run, by its id, six or more digits of it, or its name."""
        return Run(self, self.run_record(project or self.project, run))

    def run_record(self, project: str, run: str) -> RunRecord:
        """Return what the server knows of a run."""
        return self._connection.get(_path(project, run), RunRecord)

    def metric_keys(self, project: str, run: str) -> list[KeyRecord]:
        """Return what is known of each metric of a run."""
        return self._list(f"{_path(project, run)}/metrics", KeyRecord)

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
        """Return curves of several runs and metrics, as many points as a picture has room for.

        Parameters
        ----------
        points : int
            At most so many for each: the least and the greatest of each stretch are there.
        axis : str
            `step`, `time`, or another metric.
        first, last : float, optional
            A range of the axis.
        """
        query = {"run": list(runs), "key": list(keys), "points": points, "axis": axis, "from": first, "to": last}
        given = {name: value for name, value in query.items() if value is not None}
        return self._connection.get(f"/projects/{quote(project)}/metrics", Curves, **given)

    def history_of(self, run: Run, keys: Iterable[str] | None) -> dict[str, npt.NDArray[np.void]]:
        """Return every point of a run; see `Run.history`."""
        import numpy as np

        wanted = None if keys is None else list(keys)
        parts: dict[str, list[Any]] = {key: [] for key in wanted or ()}
        for head, columns in self._blocks(run.project, [run.id], wanted or ()):
            rows = np.empty(head["rows"], [("step", "<i8"), ("value", "<f8"), ("time", "<f8")])
            for field, column in zip(rows.dtype.names or (), columns, strict=True):
                rows[field] = column
            parts.setdefault(head["key"], []).append(rows)
        for key, found in parts.items():
            if not found:
                raise _no_such_metric(key, [each.key for each in self.metric_keys(run.project, run.id)])
        return {key: np.concatenate(found) for key, found in parts.items()}

    def export_metrics(
        self, to: str | Path, project: str | None = None, *, runs: Iterable[str] = (), keys: Iterable[str] = ()
    ) -> Path:
        """Write every point of a project, or of some runs and metrics, to a `.csv` or `.parquet` file.

        Returns
        -------
        Path
            The file, which is there whole or not at all.
        """
        path = Path(to)
        kind = path.suffix[1:].lower()
        if kind not in ("csv", "parquet"):
            raise InvalidArgument(f"{path.name!r} ends neither in .csv nor in .parquet")
        query = {"run": list(runs), "key": list(keys), "format": kind}
        draft = path.with_name(f"{path.name}.part")
        with self._export(project or self.project, query) as answer, draft.open("wb") as file:
            for piece in answer.iter_content(1 << 20):
                file.write(piece)
        draft.replace(path)
        return path

    def end_run(self, project: str, run: str, status: str = "killed") -> RunRecord:
        """End a run whose process is gone."""
        from datetime import datetime, timezone

        body = RunEnd(status=status, ended_at=datetime.now(timezone.utc))  # type: ignore[arg-type]
        return self._connection.send_json("POST", f"{_path(project, run)}/end", body, RunRecord)

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
        """Rename or annotate a run, also one that has ended; what is not given stays.

        Parameters
        ----------
        name, notes : str, optional
            Replace the ones that it has.
        params, tags, summary : mapping, optional
            Are merged into what is there; a value of None removes a tag or a number of the summary.

        Raises
        ------
        AccessDenied
            If it is the run of somebody else, and the caller is no maintainer.
        """
        from lmvp.tracking.said import encoded, said

        given = {"tags": dict(tags or {}), "summary": dict(summary or {})}
        merged = {
            field: {
                **encoded(said(field, {key: value for key, value in values.items() if value is not None})),
                **{key: None for key, value in values.items() if value is None},
            }
            for field, values in given.items()
        }
        new = [redact(each) if each is not None else None for each in (name, notes)]
        body = RunUpdate(name=new[0], notes=new[1], params=encoded(said("params", params)), **merged)
        path = _path(project or self.project, run)
        return Run(self, self._connection.send_json("PATCH", path, body, RunRecord))

    def delete_run(self, project: str, run: str, *, now: bool = False) -> None:
        """Remove a run and its points; see `Run.delete`."""
        self._connection.send("DELETE", _path(project, run) + ("?now=1" if now else ""))

    def restore_run(self, project: str | None, run: str) -> Run:
        """Restore a removed run, by its id or its name; see `Run.restore`."""
        path = f"{_path(project or self.project, run)}/undelete"
        return Run(self, self._connection.send_json("POST", path, {}, RunRecord))

    def _export(self, project: str, query: dict[str, Any]) -> Any:
        from urllib.parse import urlencode

        path = f"/projects/{quote(project)}/metrics/export?{urlencode(escaped(query), doseq=True)}"
        return self._connection.stream("GET", path, None)

    def _blocks(self, project: str, runs: list[str], keys: Sequence[str]) -> Iterator[tuple[dict[str, Any], list[Any]]]:
        """Yield head and columns of each block of an export."""
        import numpy as np

        with self._export(project, {"run": runs, "key": list(keys), "format": "columns"}) as answer:
            take = _Taker(answer.iter_content(1 << 20))
            while prefix := take(4, may_end=True):
                try:
                    head = self._connection.decoded(take(_bounded(_LENGTH.unpack(prefix)[0])), dict[str, Any])
                    size = _bounded(8 * int(head["rows"]))
                    columns = [(size, np.dtype(_NUMBERS[dtype])) for _, dtype in head["columns"]]
                except (KeyError, TypeError, ValueError, OverflowError) as error:
                    raise self._connection.unreadable(error) from None
                yield head, [np.frombuffer(take(size), dtype) for size, dtype in columns]


def _bounded(size: int) -> int:
    """Return a size that a server states; a server must not fill the memory of its clients.

    Raises
    ------
    ValueError
        If no part of a block has that size.
    """
    if not 0 <= size <= _PART_LIMIT:
        raise ValueError(f"a part of {size:,} bytes; the limit is {_PART_LIMIT:,}")
    return size


class _Taker:
    """Takes a stream apart by lengths."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._held = pieces, bytearray()

    def __call__(self, size: int, *, may_end: bool = False) -> bytes:
        import requests

        while len(self._held) < size:
            try:
                piece = next(self._pieces, None)
            except requests.RequestException as error:
                raise ServerUnavailable(f"the points broke off: {error}", hint="ask again") from error
            if piece is None:
                if may_end and not self._held:
                    return b""
                raise ServerUnavailable("the points broke off", hint="ask again")
            self._held += piece
        taken = bytes(self._held[:size])
        del self._held[:size]
        return taken


def frame_of(history: dict[str, npt.NDArray[np.void]]) -> Any:
    """Return points as a DataFrame with the columns key, step, value, and time (UTC)."""
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


def pandas_module() -> Any:
    """Return pandas."""
    try:
        import pandas
    except ImportError:
        raise MissingDependency("pandas is not installed", hint="pip install pandas") from None
    return pandas


def _path(project: str, run: str) -> str:
    return f"/projects/{quote(check_name(project, 'project name'))}/runs/{quoted(run)}"


def _no_such_metric(key: str, known: list[str]) -> Exception:
    from lmvp.errors import NotFound
    from lmvp.references import suggest

    near = suggest(key, known)
    return NotFound(f"this run has no metric {key[:80]!r}", hint=f"did you mean {near!r}?" if near else None)
