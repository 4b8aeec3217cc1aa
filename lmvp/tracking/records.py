"""What is said of runs on the wire, as frozen structs. See docs/runs.md and docs/api.md."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec

from lmvp.errors import InvalidArgument
from lmvp.records import Request, Scalar, Struct, WireFloat, decode_float
from lmvp.records.frozen import copied, freeze_fields

Status: TypeAlias = Literal["running", "stale", "finished", "failed", "killed"]

_NOT_FINITE: Final = frozenset({"NaN", "Infinity", "-Infinity"})

STALE_AFTER: Final = 60.0
"""Seconds without a sign of life after which a running run is shown as stale."""


def _annotated(field: str, owner: str) -> tuple[str, str | None]:
    if field in ("metrics", "environment"):
        return copied(field, owner)
    message = f"the {field} of {owner} cannot be changed here: this is a copy of the server's record"
    return message, f"set `run.{field}[…]` of the Run that `lmvp.run` returns"


class RunRecord(Struct, frozen=True, kw_only=True):
    """What the server knows of a run, without its points.

    Attributes
    ----------
    id : str
        32 hex digits, made up by the client.
    name : str
        For people, as `quiet-wren-44`; several runs may bear one name.
    status : str
        `running`, `stale` (running, but no sign of life for `STALE_AFTER` seconds), `finished`, `failed`, `killed`.
    error : str
        The last line of the exception that ended it.
    seen_at : datetime
        The last sign of life.
    duration : float
        Seconds from the start to the end, or to the last sign of life; without the pauses before a resume.
    params : dict
        What the run was begun with.
    summary : dict
        Numbers and words that `run.summary` was given; they win over the last value of the metric of that name.
    metrics : dict of str to float
        The last value of each key, without `system/`; of a run with more than 1,000 keys, those of the first 1,000.
    environment : dict
        What made it: user, host, git, python, packages, command, and `code` where it was captured.
    versions : tuple of str
        References of the versions that it made.
    epoch : int
        The newest epoch.
    points, keys : int
        How many points were taken in, and keys there are.
    notes : str
        Free text about it.
    incomplete : str
        Why points are missing, if a file of the server is damaged; told of a single run, not in lists.
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
            values = {
                key: decode_float(value) if isinstance(value, str) and value in _NOT_FINITE else value
                for key, value in getattr(self, field).items()
            }
            msgspec.structs.force_setattr(self, field, values)
        fields = ("params", "tags", "summary", "metrics", "environment")
        freeze_fields(self, fields, _annotated, f"the run {self.id[:8]} of {self.project}")

    def __repr__(self) -> str:
        from lmvp.render.words import one_line

        return one_line(f"<Run {self.project}/{self.name} {self.id[:8]} {self.status}>")


class NewRun(Request, frozen=True, kw_only=True):
    """The first frame of a journal, and the body of `POST …/runs`: a run begins, goes on, or gets one writer more.

    Attributes
    ----------
    run : str
        32 hex digits made up by the client, so that sending it again changes nothing.
    epoch : int
        0, or, of a run that is resumed, what docs/runs.md says.
    resume : bool
        The run is there already and begins anew: its status is `running` again.
    joins : bool
        Only one writer more, of a run that another process began: nothing else here counts, and no run is made of it.
    format : int
        Version of the frames, 1.
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
    """The `update` frame, and the body of `PATCH …/runs/{run}`: what is new.

    Attributes
    ----------
    params, tags, summary, environment : dict
        Merged into what is there; a value of None takes a tag or a number of the summary away.
    name : str, optional
        The new name of the run.
    notes : str, optional
        Replaces the notes.
    """

    params: dict[str, Scalar] = msgspec.field(default_factory=dict)
    tags: dict[str, str | None] = msgspec.field(default_factory=dict)
    summary: dict[str, Any] = msgspec.field(default_factory=dict)
    environment: dict[str, Any] = msgspec.field(default_factory=dict)
    name: str | None = None
    notes: str | None = None


class RunEnd(Request, frozen=True, kw_only=True):
    """The `end` frame: how a run ended, and when."""

    status: Literal["finished", "failed", "killed"]
    ended_at: datetime
    error: str = ""


class NewPoints(Request, frozen=True, kw_only=True):
    """The body of `POST …/runs/{run}/metrics`: numbers by key, at one step.

    Attributes
    ----------
    step : int, optional
        Each key's greatest step + 1 if not given.
    time : float, optional
        Seconds since 1970; now if not given.
    """

    values: dict[str, WireFloat]
    step: Annotated[int, msgspec.Meta(gt=-(1 << 63), le=(1 << 63) - 1)] | None = None
    time: float | None = None

    def floats(self) -> dict[str, float]:
        """Return the values as floats.

        Raises
        ------
        InvalidArgument
            If one is a text that names no float.
        """
        for key, value in self.values.items():
            if isinstance(value, str) and value not in ("NaN", "Infinity", "-Infinity"):
                raise InvalidArgument(f"the metric {key[:80]!r} is the text {value[:40]!r}, not a number")
        return {key: decode_float(value) for key, value in self.values.items()}


class Applied(Struct, frozen=True, kw_only=True):
    """How far a writer's journal has been taken in, in bytes."""

    applied: int


class KeyRecord(Struct, frozen=True, kw_only=True):
    """What is known of a metric of a run without reading its points.

    Attributes
    ----------
    count : int
        Points taken in, those that others took the place of included.
    step, value, time : int, float, float
        The newest point: the one at the greatest step.
    first : int
        The smallest step.
    low, high : float, optional
        The smallest and the greatest finite value; None if there is none.
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
    """Points of a metric of a run, for a picture or for reading.

    Attributes
    ----------
    count : int
        How many points there are in the range; with fewer here, these are the least and the greatest of each stretch.
    steps, values, times : tuple
        As long as one another; in the order of the steps. Times are seconds since 1970.
    axis : tuple of float
        Where another key is the axis: its value at the same step, else empty.
    """

    run: str
    key: str
    count: int
    steps: tuple[int, ...]
    values: tuple[WireFloat, ...]
    times: tuple[float, ...]
    axis: tuple[WireFloat, ...] = ()


class Curves(Struct, frozen=True, kw_only=True):
    """The answer of `GET …/metrics`."""

    curves: tuple[Curve, ...]
