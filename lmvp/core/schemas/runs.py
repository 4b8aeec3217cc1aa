"""Request and response schemas of the runs API, as frozen structs. See docs/runs.md and docs/api.md."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec

from lmvp.core.schemas import (
    Request,
    Scalar,
    Struct,
    WireFloat,
    decode_float,
)
from lmvp.core.schemas.base import copied, freeze_fields
from lmvp.errors import InvalidArgument

Status: TypeAlias = Literal["running", "stale", "finished", "failed", "killed"]

_NOT_FINITE: Final = frozenset({"NaN", "Infinity", "-Infinity"})

STALE_AFTER: Final = 60.0
"""Seconds without a heartbeat after which a running run is shown as stale."""


def _annotated(field: str, owner: str) -> tuple[str, str | None]:
    if field in ("metrics", "environment"):
        return copied(field, owner)
    message = f"the {field} of {owner} cannot be changed here: this is a copy of the server's record"
    return message, f"set `run.{field}[…]` of the Run that `lmvp.run` returns"


class RunRecord(Struct, frozen=True, kw_only=True):
    """The record of a run: all fields that the server stores, without points.

    Attributes
    ----------
    id : str
        32 hex digits, chosen at random by the client.
    name : str
        A readable name such as `quiet-wren-44`; several runs can have the same name.
    status : str
        `running`, `stale` (running, but no heartbeat for `STALE_AFTER` seconds), `finished`, `failed` or `killed`.
    author : str
        The account that started the run.
    created_at, ended_at, seen_at : datetime
        The times of the start, of the end, and of the last heartbeat or frame.
    duration : float
        Seconds from the start to the end or the last heartbeat, without the pauses before a resume.
    error : str
        The last line of the exception that ended the run.
    params : dict
        The params of the run.
    tags : dict of str to str
        The tags of the run.
    summary : dict
        The values that were set with `run.summary`. They take precedence over the last value of a metric with the same
        name.
    metrics : dict of str to float
        The last value of each key, without `system/`. Of a run with more than 1,000 keys, only the first 1,000.
    environment : dict
        Facts about the origin: user, host, git, python, packages, command, and `code` if it was captured.
    versions : tuple of str
        References of the versions that the run produced.
    epoch : int
        The newest attempt.
    points, keys : int
        The numbers of points that were ingested, and of keys.
    revised : int
        The number of changes of the record.
    incomplete : str
        The reason why points are missing, if a file of the server is damaged. Only set when a single run is read, not
        in lists.
    notes : str
        Free text about the run.
    """

    id: str
    project: str
    name: str
    status: Status
    created_at: datetime
    author: str = ""
    ended_at: datetime | None = None
    seen_at: datetime | None = None
    duration: float = 0.0
    error: str = ""
    params: dict[str, Scalar] = msgspec.field(default_factory=dict)
    tags: dict[str, str] = msgspec.field(default_factory=dict)
    summary: dict[str, Any] = msgspec.field(default_factory=dict)
    metrics: dict[str, WireFloat] = msgspec.field(default_factory=dict)
    environment: dict[str, Any] = msgspec.field(default_factory=dict)
    versions: tuple[str, ...] = ()
    epoch: int = 0
    points: int = 0
    keys: int = 0
    revised: int = 0
    incomplete: str = ""
    notes: str = ""

    def __post_init__(self) -> None:
        for field in ("metrics", "summary", "params"):
            # JSON has no NaN and infinities; the wire format has their names as texts.
            values = {
                key: decode_float(value) if isinstance(value, str) and value in _NOT_FINITE else value
                for key, value in getattr(self, field).items()
            }
            msgspec.structs.force_setattr(self, field, values)
        fields = ("params", "tags", "summary", "metrics", "environment")
        # Without this, a change of a dict in the record would look as if it were stored.
        freeze_fields(self, fields, _annotated, f"the run {self.id[:8]} of {self.project}")

    def __repr__(self) -> str:
        from lmvp.core.sanitize import one_line

        return one_line(f"<Run {self.project}/{self.name} {self.id[:8]} {self.status}>")


class NewRun(Request, frozen=True, kw_only=True):
    """The first frame of a journal, and the body of `POST …/runs`: starts a run, resumes it, or adds a writer to it.

    Attributes
    ----------
    run : str
        32 hex digits, chosen by the client, so that a repeated request has no effect.
    epoch : int
        The attempt: 0, or the greater number of a resumed run; see docs/runs.md, "Values and attempts".
    resume : bool
        The run exists already; its status becomes `running` again.
    joins : bool
        This writer joins a run that another process starts. All other fields are ignored, and the frame does not create
        the run.
    create : bool
        Create the project if it does not exist, also on a shared server.
    format : int
        Version of the frame format, 1.
    """

    run: str
    name: str = ""
    started_at: datetime | None = None
    params: dict[str, Scalar] = msgspec.field(default_factory=dict)
    tags: dict[str, str] = msgspec.field(default_factory=dict)
    environment: dict[str, Any] = msgspec.field(default_factory=dict)
    author: str = ""
    epoch: int = 0
    resume: bool = False
    joins: bool = False
    create: bool = False
    format: int = 1


class RunUpdate(Request, frozen=True, kw_only=True):
    """The `update` frame, and the body of `PATCH …/runs/{run}`: changes of the record.

    Attributes
    ----------
    params, tags, summary, environment : dict
        Merged into the current values. A value of None removes a tag or an entry of the summary.
    name : str, optional
        The new name of the run.
    notes : str, optional
        The new notes.
    """

    params: dict[str, Scalar] = msgspec.field(default_factory=dict)
    tags: dict[str, str | None] = msgspec.field(default_factory=dict)
    summary: dict[str, Any] = msgspec.field(default_factory=dict)
    environment: dict[str, Any] = msgspec.field(default_factory=dict)
    name: str | None = None
    notes: str | None = None


class RunEnd(Request, frozen=True, kw_only=True):
    """The `end` frame, and the body of `POST …/end`: the final status of a run and the time of its end."""

    status: Literal["finished", "failed", "killed"]
    ended_at: datetime
    error: str = ""


class NewPoints(Request, frozen=True, kw_only=True):
    """The body of `POST …/runs/{run}/metrics`: numbers by key, at one step.

    Attributes
    ----------
    step : int, optional
        Default: the greatest step of each key + 1.
    time : float, optional
        Seconds since 1970. Default: now.
    """

    values: dict[str, WireFloat]
    # -2**63 is `AUTO`, so it is not a valid step.
    step: Annotated[int, msgspec.Meta(gt=-(1 << 63), le=(1 << 63) - 1)] | None = None
    time: float | None = None

    def floats(self) -> dict[str, float]:
        """Return the values as floats.

        Raises
        ------
        InvalidArgument
            If a value is a text other than `NaN`, `Infinity` and `-Infinity`.
        """
        for key, value in self.values.items():
            if isinstance(value, str) and value not in ("NaN", "Infinity", "-Infinity"):
                raise InvalidArgument(f"the metric {key[:80]!r} is the text {value[:40]!r}, not a number")
        return {key: decode_float(value) for key, value in self.values.items()}


class Applied(Struct, frozen=True, kw_only=True):
    """The offset in bytes up to which the server has applied a writer's journal."""

    applied: int


class KeyRecord(Struct, frozen=True, kw_only=True):
    """A summary of a metric of a run, which the server returns without reading its points.

    Attributes
    ----------
    count : int
        The number of ingested points, including those that a later point at the same step replaced.
    step, value, time : int, float, float
        The point at the greatest step.
    first : int
        The smallest step.
    low, high : float, optional
        The smallest and the greatest finite value; None if all values are NaN or infinite.
    """

    key: str
    count: int
    first: int
    step: int
    value: WireFloat
    time: float
    low: float | None = None
    high: float | None = None


class Curve(Struct, frozen=True, kw_only=True):
    """Points of a metric of a run, possibly downsampled.

    Attributes
    ----------
    count : int
        The number of points in the range. If it is greater than the number of points here, these are the minimum and
        maximum of each block.
    steps, values, times : tuple
        Columns of equal length, sorted by step. Times are seconds since 1970.
    axis : tuple of float
        If another metric is the x axis, its value at each step; otherwise empty.
    """

    run: str
    key: str
    count: int
    steps: tuple[int, ...]
    values: tuple[WireFloat, ...]
    times: tuple[float, ...]
    axis: tuple[WireFloat, ...] = ()


class Curves(Struct, frozen=True, kw_only=True):
    """The response of `GET …/metrics`."""

    curves: tuple[Curve, ...]
