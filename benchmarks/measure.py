"""Timing in interleaved rounds, and the result table."""

from __future__ import annotations

import gc
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass
class Row:
    """One row of the table: measurement, reference and target."""

    name: str
    value: float
    unit: str
    aim: str
    met: bool
    detail: str = ""


def seconds(work: Callable[[], object]) -> float:
    """Return the run time of a function in seconds."""
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def interleaved(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Time several functions in turn, so that a slow period of the machine affects all of them."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(seconds(work))
    return times


def ratio(name: str, over: Sequence[float], under: Sequence[float], limit: float, of: str) -> Row:
    """Return a row with the median of the ratios, pair by pair."""
    value = statistics.median(a / b for a, b in zip(over, under, strict=True))
    detail = f"{statistics.median(over):.3f} s against {statistics.median(under):.3f} s"
    return Row(name, value, f"× {of}", f"≤ {limit}", value <= limit, detail)


def at_most(name: str, value: float, unit: str, limit: float, detail: str = "") -> Row:
    """Return a row for a figure with an upper limit."""
    return Row(name, value, unit, f"≤ {limit:g}", value <= limit, detail)


def report(rows: Sequence[Row], folder: Path) -> None:
    """Print the table and save it as JSON."""
    width = max(len(row.name) for row in rows)
    for row in rows:
        mark = "ok  " if row.met else "MISS"
        print(f"{mark} {row.name:<{width}}  {row.value:9.3f} {row.unit:<14} {row.aim:<8} {row.detail}")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{time.strftime('%Y-%m-%dT%H-%M-%S')}.json"
    path.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    print(f"kept as {path}")
