"""Text and HTML tables of runs, and the formatting of their status, duration and params."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Final

from lmvp import hints
from lmvp.core import html_tables, number_format
from lmvp.core.sanitize import clean
from lmvp.views._text import Column, table

if TYPE_CHECKING:
    from lmvp.client.runs import Run, Runs

MARKS: Final = {"running": "●", "stale": "○", "finished": "■", "failed": "◆", "killed": "□"}
"""The mark before each status. Shapes distinguish the states for readers who do not see colors."""
_SHOWN, _METRICS, _PARAMS = 50, 3, 3
"""Maximum numbers of rows, of columns of metrics and of columns of params."""
_LONGEST = 10**4300
"""The integer from which `str` raises an error: Python limits the conversion to 4,300 digits."""


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
