"""Methods of `Client` that read, change and delete runs."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from lmvp.client._base import BaseClient, model_path
from lmvp.core.redaction import redact
from lmvp.core.references import Reference, check_name, suggest
from lmvp.core.run_fields import encoded, stored_fields
from lmvp.core.sanitize import escaped, quoted
from lmvp.core.schemas import Version
from lmvp.core.schemas.runs import (
    Curves,
    KeyRecord,
    RunEnd,
    RunRecord,
    RunUpdate,
)
from lmvp.core.validation import Params
from lmvp.errors import InvalidArgument, NotFound, ServerUnavailable
from lmvp.views.runs import Run, Runs

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

T = TypeVar("T")
_LENGTH = struct.Struct("<I")
_NUMBERS = {"<i8": "<i8", "<f8": "<f8"}
"""The allowed types of the columns of a block."""
_PART_LIMIT = 64 << 20
"""Largest head or column of a block of points, in bytes. The server sends blocks of at most 65,536 points."""
_COLUMNS = "application/x-lmvp-columns"
_VERSIONS, _RUNS_OF_MODEL = 1000, 40
"""Number of versions of a model that are searched for runs, and of runs that are listed; the length of a filter is
limited.
"""


class Tracking(BaseClient):
    """Methods of a client that read, change and delete runs."""

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
            A project, or `project/model` for the runs that produced the newest versions of a model. Default: the
            current project.
        where : str, optional
            Return only runs that match this filter, for example `metrics.val_acc > 0.9 and params.lr < 0.01`.
            docs/api.md, "Filters", describes the syntax.
        order : str, optional
            The field to sort by, in ascending order: `metrics.val_loss`. `-metrics.val_acc` sorts in descending order.
            Runs without the field come last.
        limit : int, optional
            The greatest number of runs to return; None for all.

        Returns
        -------
        Runs
            The runs; `total` is the number of runs that match.

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
        """Return the ids of the runs that produced the newest versions of a model."""
        versions, _ = self._some(f"{model_path(place)}/versions", Version, _VERSIONS)
        made = list(dict.fromkeys(version.run for version in versions if version.run))[:_RUNS_OF_MODEL]
        # A filter cannot contain a tuple of one element, so add an empty id.
        return (*made, "") if len(made) == 1 else tuple(made)

    def run(self, project: str | None = None, run: str | None = None, *, name: str | None = None) -> Run:
        """Return a run.

        Use `client.run("digits", "quiet-wren-44")`, `client.run("quiet-wren-44")` for a run of the current project, or
        the keywords of `lmvp.run`: `client.run(name="quiet-wren-44", project="digits")`.

        Parameters
        ----------
        project : str, optional
            The project; None for the current project. As the only argument, it is the name of the run.
        run : str, optional
            The id of the run, at least its first six digits, or its name. If several runs have the name, the newest one
            is returned.
        name : str, optional
            The same as `run`, as in `lmvp.run`.

        Returns
        -------
        Run
            The run.

        Raises
        ------
        NotFound
            If no run matches.
        InvalidArgument
            If several ids begin with these digits, or no run is named.

        Examples
        --------
        >>> client.run("digits", "quiet-wren-44").metrics  # doctest: +SKIP
        {'train/loss': 0.021}
        """
        if run is not None and name is not None:
            raise InvalidArgument("`run=` and `name=` exclude each other", hint="give one of them")
        wanted = run if run is not None else name
        if wanted is None:  # the only argument is the run, as in `lmvp.run`
            project, wanted = None, project
        if wanted is None:
            raise InvalidArgument("no run is named", hint='`client.run("digits", "quiet-wren-44")`')
        return Run(self, self.run_record(project or self.project, wanted))

    def run_record(self, project: str, run: str) -> RunRecord:
        """Return the record of a run."""
        return self._connection.get(_path(project, run), RunRecord)

    def metric_keys(self, project: str, run: str) -> list[KeyRecord]:
        """Return a record of each metric of a run: last value, number of points, smallest and greatest value."""
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
        """Return downsampled curves of several runs and metrics.

        Parameters
        ----------
        project : str
            The project of the runs.
        runs : iterable of str
            Ids of the runs.
        keys : iterable of str
            Metrics. Default: all.
        points : int
            The greatest number of points of a curve. Downsampling keeps the minimum and maximum of each range.
        axis : str
            The x axis: `step`, `time`, or another metric.
        first, last : float, optional
            The range of the axis, inclusive. Default: all.

        Returns
        -------
        Curves
            One curve for each run and metric.

        Raises
        ------
        NotFound
            If none of the runs has one of the metrics.
        TooLarge
            If the response would have too many curves or points.
        """
        # A dict, because `from` is a keyword of Python.
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
                # The server sends no block for an unknown key; a metric has at least one point.
                raise _no_such_metric(key, [each.key for each in self.metric_keys(run.project, run.id)])
        return {key: np.concatenate(found) for key, found in parts.items()}

    def export_metrics(
        self, to: str | Path, project: str | None = None, *, runs: Iterable[str] = (), keys: Iterable[str] = ()
    ) -> Path:
        """Write every point of a project, or of some runs and metrics, to a `.csv` or `.parquet` file.

        Parameters
        ----------
        to : str or Path
            The file to write; its suffix sets the format.
        project : str, optional
            Default: the current project.
        runs : iterable of str
            Ids of the runs. Default: all runs of the project.
        keys : iterable of str
            Metrics. Default: all.

        Returns
        -------
        Path
            The file. It is written completely or not at all.

        Raises
        ------
        InvalidArgument
            If the suffix is neither `.csv` nor `.parquet`.
        IntegrityError
            If points of one of the runs are missing because a file of the server is damaged.

        Examples
        --------
        >>> client.export_metrics("metrics.parquet", "digits", keys=["val/loss"])  # doctest: +SKIP
        """
        path = Path(to)
        kind = path.suffix[1:].lower()
        if kind not in ("csv", "parquet"):
            raise InvalidArgument(f"{path.name!r} ends neither in .csv nor in .parquet")
        query = {"run": list(runs), "key": list(keys), "format": kind}
        # A download that fails leaves a `.part` file, and an existing file unchanged.
        draft = path.with_name(f"{path.name}.part")
        with self._export(project or self.project, query) as answer, draft.open("wb") as file:
            for piece in answer.iter_content(1 << 20):
                file.write(piece)
        draft.replace(path)
        return path

    def end_run(self, project: str, run: str, status: str = "killed") -> RunRecord:
        """End a run whose process no longer exists."""
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
        """Change the name, notes, params, tags or summary of a run, also after its end.

        Parameters
        ----------
        project : str or None
            The project; None for the current project.
        run : str
            The id of the run, at least its first six digits, or its name.
        name, notes : str, optional
            Replace the current text. Default: no change.
        params, tags, summary : mapping, optional
            Merged into the current values. A value of None removes a tag or an entry of the summary.

        Returns
        -------
        Run
            The changed run.

        Raises
        ------
        AccessDenied
            If another account started the run and the caller is not a maintainer.
        """
        given = {"tags": dict(tags or {}), "summary": dict(summary or {})}
        merged = {
            field: {
                **encoded(stored_fields(field, {key: value for key, value in values.items() if value is not None})),
                **{key: None for key, value in values.items() if value is None},
            }
            for field, values in given.items()
        }
        new = [redact(each) if each is not None else None for each in (name, notes)]
        body = RunUpdate(name=new[0], notes=new[1], params=encoded(stored_fields("params", params)), **merged)
        path = _path(project or self.project, run)
        return Run(self, self._connection.send_json("PATCH", path, body, RunRecord))

    def delete_run(self, project: str, run: str, *, now: bool = False) -> None:
        """Remove a run and its points; see `Run.delete`."""
        self._connection.send("DELETE", _path(project, run) + ("?now=1" if now else ""))

    def restore_run(self, project: str | None, run: str) -> Run:
        """Restore a removed run, given by its id or its name; see `Run.restore`."""
        path = f"{_path(project or self.project, run)}/undelete"
        return Run(self, self._connection.send_json("POST", path, {}, RunRecord))

    def _export(self, project: str, query: dict[str, Any]) -> Any:
        from urllib.parse import urlencode

        path = f"/projects/{quote(project)}/metrics/export?{urlencode(escaped(query), doseq=True)}"
        return self._connection.stream("GET", path, None)

    def _blocks(self, project: str, runs: list[str], keys: Sequence[str]) -> Iterator[tuple[dict[str, Any], list[Any]]]:
        """Yield the head and the columns of each block of an export."""
        import numpy as np

        # Each block is a length (uint32), a head in JSON, and its columns; docs/api.md, "Columns".
        with self._export(project, {"run": runs, "key": list(keys), "format": "columns"}) as answer:
            take = _Taker(answer.iter_content(1 << 20))
            while prefix := take(4, may_end=True):
                try:
                    # An invalid head is reported as an unreadable response, like other errors of the protocol.
                    head = self._connection.decoded(take(_bounded(_LENGTH.unpack(prefix)[0])), dict[str, Any])
                    size = _bounded(8 * int(head["rows"]))
                    columns = [(size, np.dtype(_NUMBERS[dtype])) for _, dtype in head["columns"]]
                except (KeyError, TypeError, ValueError, OverflowError) as error:
                    raise self._connection.unreadable(error) from None
                yield head, [np.frombuffer(take(size), dtype) for size, dtype in columns]


def _bounded(size: int) -> int:
    """Return a size that the server states, if it is within the limit.

    A faulty or hostile server must not be able to fill the memory of its clients.

    Raises
    ------
    ValueError
        If the size is negative or above the limit.
    """
    if not 0 <= size <= _PART_LIMIT:
        raise ValueError(f"a part of {size:,} bytes; the limit is {_PART_LIMIT:,}")
    return size


class _Taker:
    """Reads exact numbers of bytes from a stream of pieces."""

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


def _path(project: str, run: str) -> str:
    return f"/projects/{quote(check_name(project, 'project name'))}/runs/{quoted(run)}"


def _no_such_metric(key: str, known: list[str]) -> Exception:
    near = suggest(key, known)
    return NotFound(f"this run has no metric {key[:80]!r}", hint=f"did you mean {near!r}?" if near else None)
