"""JSON data of the history table and of the metrics plot.

Numbers are formatted and the graph is laid out here, so that the JavaScript modules only draw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lmvp import hints
from lmvp.core import number_format
from lmvp.core.sanitize import clean
from lmvp.core.schemas import Layers, Version, encode_float
from lmvp.views import layer_strip
from lmvp.views._text import filled_by, nothing, value_of
from lmvp.views.snippets import pull_code
from lmvp.views.version_graph import lanes

if TYPE_CHECKING:
    from lmvp.views.history import History

POINTS = 1000
"""Maximum number of versions in a plot, the newest ones."""


KEYS = 400
"""Maximum number of metrics and params that the column menu offers."""


def history_data(history: History, columns: Sequence[str] | None = None, *, plain: bool = True) -> dict[str, Any]:
    """Return the data of `widgets/history.js`: up to 200 rows with their graph, layer strips and metrics.

    Parameters
    ----------
    history : History
    columns : sequence of str, optional
        Keys of metrics, and of params as `params.lr`. The metric of the history by default.
    plain : bool
        Whether the versions are neither filtered nor sorted. Only then a graph can be drawn. True by default.
    """
    shown = history[: _limit()]
    keys = list(dict.fromkeys(columns)) if columns is not None else [history.metric] if history.metric else []
    alone = len(history.models) <= 1
    low, high, ends = _track([value_of(v, history.metric) for v in shown])
    return {
        "title": clean(history.title),
        "total": history.total,
        "first": history.first,
        "older": shown.older,
        "pages": history.can_page,
        "columns": [{"key": key, "label": clean(key), "better": number_format.better(key)} for key in keys],
        "keys": _keys(history),
        "several": history.of_project,
        "metric": history.metric and clean(history.metric),
        "better": number_format.better(history.metric or ""),
        "scale": {"low": low, "high": high, "ends": ends},
        "rows": _rows(history, shown, alone, keys),
        "graph": lanes(shown) if alone and plain else [],
        "layers": layers_data(history.layers) if alone else None,
        "diff": hints.code("`lmvp diff BEFORE AFTER`"),
        "empty": None if shown else {"words": nothing(history), "code": filled_by(history)},
    }


def _limit() -> int:
    # Imported here, because `lmvp.views.history` imports this module.
    from lmvp.views.history import SHOWN

    return SHOWN


def _track(values: Sequence[float | None]) -> tuple[float, float, list[str]]:
    """Return the range of the small metric axis in the table, and the labels of its ends."""
    low, high = number_format.scale(v for v in values if v is not None)
    return low, high, number_format.ends(low, high)


def _keys(history: History) -> list[str]:
    """Return the keys that the column menu offers: metrics, then params."""
    params = dict.fromkeys(f"params.{key}" for version in history for key in version.params)
    return [*history.metrics, *params][:KEYS]


def _cells(shown: Sequence[Version], key: str) -> list[list[Any]]:
    """Return a column: for each version the value, the formatted value, and whether it is the best one."""
    if key.startswith("params.") and not any(key in version.metrics for version in shown):
        found = [version.params.get(key.removeprefix("params.")) for version in shown]
        return [["" if value is None else value, "" if value is None else clean(str(value)), False] for value in found]
    values = [value_of(version, key) for version in shown]
    finite = [value for value in values if value is not None and math.isfinite(value)]
    better = number_format.better(key)
    best = (max if better > 0 else min)(finite) if better and len(finite) > 1 else None
    return [
        [None if value is None else encode_float(value), written, value is not None and value == best]
        for value, written in zip(values, number_format.column(values), strict=True)
    ]


def _rows(history: History, shown: Sequence[Version], alone: bool, keys: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows of the table; `alone` states that all versions belong to one model."""
    values = [value_of(v, history.metric) for v in shown]
    columns = [_cells(shown, key) for key in keys]
    rows = []
    for at, (version, value, written) in enumerate(zip(shown, values, number_format.column(values), strict=True)):
        rows.append(
            {
                "key": version.number if alone else f"{version.model}@v{version.number}",
                "cells": [column[at] for column in columns],
                "number": version.number,
                "model": clean(version.model),
                "reference": version.reference,
                "parents": [p.number for p in version.parents],
                "message": clean(version.message),
                "author": clean(version.author),
                "at": number_format.iso(version.created_at),
                "aliases": [
                    # Not public: a name of `History` would be part of the API.
                    {"name": clean(alias), "protected": history._is_protected(version, alias)}  # noqa: SLF001
                    for alias in version.aliases
                ],
                "value": None if value is None else encode_float(value),
                "written": written,
                "sent": number_format.size(version.sent),
                "bytes": version.sent,
                "pull": pull_code(version, hints.reader()),
            }
        )
    return rows


def layers_data(layers: Layers) -> dict[str, Any] | None:
    """Return layer strips as JSON; None if the versions have none."""
    if not layers.strips:
        return None
    return {
        "axis": [[clean(layer.path), layer.group, round(layer_strip.weight(layer), 2)] for layer in layers.axis],
        "strips": layers.strips,
        "said": {number: layer_strip.summary(codes) for number, codes in layers.strips.items()},
        "amounts": layer_strip.has_amounts(layers.strips.values()),
    }


def plot_data(history: History, metric: str | None = None) -> dict[str, Any]:
    """Return the data of `widgets/metrics.js`: a metric over version numbers, oldest first.

    A line connects each version with its nearest ancestor that has the metric. NaN and infinities interrupt lines.

    Parameters
    ----------
    history : History
    metric : str, optional
        The key of the metric. The metric of the history by default.
    """
    key = metric or history.metric
    measured = [v for v in reversed(history) if value_of(v, key) is not None]
    versions = measured[-POINTS:] if len(history.models) == 1 else []
    values = [float(value_of(v, key) or 0.0) for v in versions]
    main = _main_line(history)
    low, high = number_format.bounds(values)
    return {
        "title": clean(history.title),
        "metric": key and clean(key),
        "points": [
            {
                "number": v.number,
                "label": v.name,
                "value": encode_float(value),
                "written": written,
                "main": v.number in main,
                "best": "best" in v.aliases,
                "message": clean(v.message),
            }
            for v, value, written in zip(versions, values, number_format.column(values), strict=True)
        ],
        "wires": _wires(history, versions, values, main),
        "low": low,
        "high": high,
        "summary": plot_summary(key, versions, values),
        "fact": f"{clean(key or '')} by version{_newest(len(versions), len(measured))}",
        "empty": None if versions else _no_points(history, key),
    }


def _main_line(history: Sequence[Version]) -> set[int]:
    """Return the version numbers along the first parents of the newest version."""
    by_number = {v.number: v for v in history}
    found: set[int] = set()
    version = history[0] if history else None
    while version and version.number not in found:  # a faulty server can report parents in a cycle
        found.add(version.number)
        version = by_number.get(version.parents[0].number) if version.parents else None
    return found or {v.number for v in history}


def _wires(
    history: Sequence[Version], versions: Sequence[Version], values: Sequence[float], main: set[int]
) -> list[list[int]]:
    """Return the lines of the plot: two indexes of points, and 1 if both are on the main line, otherwise 0."""
    by_number = {v.number: v for v in history}
    at = {v.number: i for i, v in enumerate(versions)}
    nearest: dict[int, int] = {}
    wires = []
    for i, version in enumerate(versions):
        for parent in version.parents:
            j = at.get(_with_metric(parent.number, by_number, at, nearest))
            if j is not None and math.isfinite(values[i]) and math.isfinite(values[j]):
                wires.append([j, i, int(version.number in main and versions[j].number in main)])
    return wires


def _with_metric(number: int, by_number: dict[int, Version], at: dict[int, int], nearest: dict[int, int]) -> int:
    """Return the nearest version along the first parents that has the metric, or the last version that is known.

    `nearest` caches the results, so that each version is visited once, even if a server reports parents in a cycle.
    """
    passed = []
    while number not in at and number not in nearest and number in by_number and by_number[number].parents:
        passed.append(number)
        nearest[number] = number
        number = by_number[number].parents[0].number
    found = nearest.get(number, number)
    nearest.update(dict.fromkeys(passed, found))
    return found


def plot_summary(metric: str | None, versions: Sequence[Version], values: Sequence[float]) -> str:
    """Return the alternative text of a plot: first, last, least and greatest value."""
    finite = [(value, v.name) for value, v in zip(values, versions, strict=True) if math.isfinite(value)]
    if not finite:
        return f"{clean(metric or 'metric')} by version: no finite value"
    written = dict(zip([v.name for v in versions], number_format.column(values), strict=True))
    (_, first), (_, last) = finite[0], finite[-1]
    least, most = min(finite)[1], max(finite)[1]
    ends = (
        f"{written[first]} at {first}" if first == last else f"{written[first]} at {first} to {written[last]} at {last}"
    )
    span = "" if len(finite) < 3 else f"; lowest {written[least]} at {least}, highest {written[most]} at {most}"
    odd = len(values) - len(finite)
    return f"{clean(metric or 'metric')} by version: {ends}{span}{f'; {odd} not finite' if odd else ''}"


def _newest(shown: int, measured: int) -> str:
    return f", the newest {shown:,} of {measured:,}" if shown < measured else ""


def _no_points(history: History, metric: str | None) -> dict[str, str]:
    """Return the message and the code that an empty plot shows."""
    if len(history.models) > 1:
        first = f"{clean(history[0].project)}/{clean(history[0].model)}"
        return {
            "words": f"{clean(history.title)} has several models. A plot is of one of them:",
            "code": hints.code(f"`lmvp history {first}`"),
        }
    what = f"the metric {clean(metric)}" if metric else "a metric"
    return {
        "words": f"No version of {clean(history.title)} has {what} yet. A version gets one when it is published:",
        "code": hints.code(f"`lmvp push {clean(history.title)} FILE --metric val/acc=0.97`"),
    }
