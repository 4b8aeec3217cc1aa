"""Cost of console pages in Chromium: time until interactive, transferred bytes and number of requests.

The data are 10,000 versions of a model and 2,000 runs with 10 million points in total; `LMVP_BENCH_SMALL=1` uses a
hundredth. If `LMVP_BENCH_MLFLOW` names a Python with MLflow, the benchmark measures MLflow's pages with the same data
too.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import numpy as np
import requests

from benchmarks import mlflow_ui
from benchmarks.measure import Row, at_most
from lmvp import local
from lmvp.client.models import Client
from lmvp.core.run_frames import (
    END,
    START,
    key_frame,
    note,
    points_frame,
)
from lmvp.core.schemas.runs import NewRun
from lmvp_server.routes import API

PART = 100 if os.environ.get("LMVP_BENCH_SMALL") else 1
VERSIONS, RUNS, POINTS = 10_000 // PART, 2_000 // PART, 5_000
ROUNDS = 5
INTERACTIVE, SENT, LIMIT = 500, 300, 1 / 3
"""Limits: milliseconds, kB, and the fraction of the time of MLflow's page."""

USABLE = """(ready) => new Promise((done) => {
  const look = () => {
    const asleep = document.querySelector(".island:not([data-alive])");
    if (document.readyState === "complete" && !asleep && document.querySelector(ready)) done(performance.now());
    else requestAnimationFrame(look);
  };
  look();
})"""
COST = """() => {
  const all = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
  const paint = performance.getEntriesByName("first-contentful-paint")[0];
  const bytes = all.reduce((sum, each) => sum + each.transferSize, 0);
  return { bytes, requests: all.length, paint: paint ? paint.startTime : 0 };
}"""


@dataclass(frozen=True)
class Place:
    """A page: its name in the table, its URL, and the selector of its main content."""

    name: str
    url: str
    ready: str = "main"


def run() -> list[Row]:
    """Return the rows of this benchmark."""
    client = Client()
    _versions(client)
    found = local.connection()
    ids = list(_runs(found.url, found.token))
    time.sleep(5)  # background threads seal the runs
    ours = _costs(_ours(found.url, ids), lambda context: _sign_in(context, found.url, found.token))
    rows = [row for name, costs in ours.items() for row in _rows(name, costs)]
    if mlflow_ui.python() is None:
        print("LMVP_BENCH_MLFLOW names no Python that has MLflow: nothing to compare with")
        return rows
    with (
        tempfile.TemporaryDirectory() as folder,
        mlflow_ui.serving(Path(folder), VERSIONS, RUNS, POINTS) as (url, theirs),
    ):
        peers = _costs(_theirs(url, theirs), lambda _: None)
    return rows + [_beside(name, ours[name], costs) for name, costs in peers.items()]


def _ours(url: str, ids: list[str]) -> list[Place]:
    compared = "&".join(f"run={one}" for one in ids[:10])
    filtered = "where=metrics.acc+%3E+0.4&order=-metrics.acc"
    return [
        Place("home", f"{url}/"),
        Place("project", f"{url}/p/bench"),
        Place("model", f"{url}/p/bench/m"),
        Place("version", f"{url}/p/bench/m@latest"),
        Place("diff", f"{url}/p/bench/m/-/diff"),
        Place("runs", f"{url}/p/bench/-/runs"),
        Place("runs, filtered", f"{url}/p/bench/-/runs?{filtered}"),
        Place("run", f"{url}/p/bench/-/runs/{ids[0]}"),
        Place("10 runs compared", f"{url}/p/bench/-/compare?{compared}"),
        Place("search", f"{url}/search?q=step"),
    ]


def _theirs(url: str, ids: list[str]) -> list[Place]:
    compared = quote(json.dumps(ids[:10], separators=(",", ":")))
    chart = ".js-plotly-plot .main-svg"
    return [
        Place("home", f"{url}/#/experiments", 'a[href*="/experiments/1"]'),
        Place("model", f"{url}/#/models/m", 'a[href*="/models/m/versions/"]'),
        Place("version", f"{url}/#/models/m/versions/{VERSIONS}", 'a[href*="/runs/"]'),
        Place("runs", f"{url}/#/experiments/1/runs", 'a[href*="/experiments/1/runs/"]'),
        Place("run", f"{url}/#/experiments/1/runs/{ids[0]}/model-metrics", chart),
        Place("10 runs compared", f"{url}/#/compare-runs?runs={compared}&experiments=%5B%221%22%5D", chart),
    ]


def _versions(client: Client) -> None:
    weights = {f"blocks.{i}.w": np.zeros((8, 8), "float32") for i in range(6)}
    for number in range(VERSIONS):
        weights[f"blocks.{number % 6}.w"] = np.full((8, 8), number, "float32")
        metrics = {"acc": 1 - 1 / (1 + number)}
        client.update("bench/m", weights, message=f"step {number}", metrics=metrics, progress=False, create=True)


def _runs(url: str, token: str) -> Iterator[str]:
    """Log runs by sending their journals, as a client's sender does."""
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {token}"
    for number in range(RUNS):
        run = secrets.token_hex(16)
        new = NewRun(run=run, name=f"run-{number}", params={"lr": 0.1 / (1 + number % 7), "width": number % 5})
        data = note(START, msgspec.json.encode(new)) + key_frame(0, "loss") + key_frame(1, "acc")
        steps = range(POINTS // 2)
        data += points_frame(1.7e9, [(0, step, 1 / (1 + step) + number / RUNS) for step in steps])
        data += points_frame(1.7e9, [(1, step, step / POINTS) for step in steps])
        data += note(END, msgspec.json.encode({"status": "finished", "ended_at": "2026-11-26T12:00:00Z"}))
        where = f"{url}{API}/projects/bench/runs/{run}/writers/{'a' * 32}?from=0"
        session.put(where, data=data, timeout=60).raise_for_status()
        yield run


def _costs(places: list[Place], enter: Callable[[Any], None]) -> dict[str, list[dict[str, float]]]:
    """Load each page several times, each time with an empty cache."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        context = browser.new_context()
        enter(context)
        known = context.storage_state()
        found = {place.name: [_once(browser, known, place) for _ in range(ROUNDS)] for place in places}
        browser.close()
    return found


def _sign_in(context: Any, url: str, token: str) -> None:
    page = context.new_page()
    page.goto(f"{url}/login")
    page.evaluate("document.querySelector('details').open = true")
    page.fill("#token", token)
    page.click("text=Sign in with it")


def _once(browser: Any, known: Any, place: Place) -> dict[str, float]:
    context = browser.new_context(viewport={"width": 1280, "height": 800}, storage_state=known)
    page = context.new_page()
    page.set_default_timeout(120_000)
    page.goto(place.url, wait_until="commit")
    usable = page.evaluate(USABLE, place.ready)
    cost = page.evaluate(COST)
    context.close()
    return {**cost, "usable": usable}


def _median(costs: list[dict[str, float]], what: str) -> float:
    return statistics.median(cost[what] for cost in costs)


def _rows(name: str, costs: list[dict[str, float]]) -> Iterator[Row]:
    detail = f"painted after {_median(costs, 'paint'):.0f} ms, {costs[0]['requests']} requests"
    yield at_most(f"console, {name}: usable", _median(costs, "usable"), "ms", INTERACTIVE, detail)
    yield at_most(f"console, {name}: sent", _median(costs, "bytes") / 1000, "kB", SENT)


def _beside(name: str, ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> Row:
    value = _median(ours, "usable") / _median(theirs, "usable")
    detail = (
        f"{_median(ours, 'usable'):.0f} ms against {_median(theirs, 'usable'):.0f} ms, "
        f"{_median(ours, 'bytes') / 1000:.0f} kB against {_median(theirs, 'bytes') / 1000:.0f} kB"
    )
    return Row(f"console, {name}: usable", value, "× MLflow", f"≤ {LIMIT:.2f}", value <= LIMIT, detail)
