"""What a page of the console costs in Chromium: until it is painted and can be used, bytes sent, requests made.

10,000 versions of a model, 2,000 runs with 10 million points in all. `LMVP_BENCH_SMALL=1` makes it a hundredth.
"""

from __future__ import annotations

import os
import secrets
import statistics
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import requests

from benchmarks.measure import Row, at_most
from lmvp import local
from lmvp.client import Client
from lmvp.tracking.frames import END, START, key_frame, note, points_frame
from lmvp.tracking.records import NewRun
from lmvp_server.routes import API

PART = 100 if os.environ.get("LMVP_BENCH_SMALL") else 1
VERSIONS, RUNS, POINTS = 10_000 // PART, 2_000 // PART, 5_000
ROUNDS = 5
INTERACTIVE, SENT = 500, 300
"""Milliseconds and kB at most."""

USABLE = """() => new Promise((done) => {
  const look = () => {
    const asleep = document.querySelector(".island:not([data-alive])");
    if (document.readyState === "complete" && !asleep) done(performance.now());
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


def run() -> list[Row]:
    """Return the rows of this benchmark."""
    client = Client()
    _versions(client)
    found = local.connection()
    ids = list(_runs(found.url, found.token))
    time.sleep(5)  # what is sealed in threads of its own
    compared = "&".join(f"run={one}" for one in ids[:10])
    pages = {
        "home": "",
        "project": "p/bench",
        "model": "p/bench/m",
        "version": "p/bench/m@latest",
        "diff": "p/bench/m/-/diff",
        "runs": "p/bench/-/runs",
        "runs, filtered": "p/bench/-/runs?where=metrics.acc+%3E+0.5&order=-metrics.acc",
        "run": f"p/bench/-/runs/{ids[0]}",
        "10 runs compared": f"p/bench/-/compare?{compared}",
        "search": "search?q=step",
    }
    return list(_look(found.url, found.token, pages))


def _versions(client: Client) -> None:
    weights = {f"blocks.{i}.w": np.zeros((8, 8), "float32") for i in range(6)}
    for number in range(VERSIONS):
        weights[f"blocks.{number % 6}.w"] = np.full((8, 8), number, "float32")
        metrics = {"acc": 1 - 1 / (1 + number)}
        client.update("bench/m", weights, message=f"step {number}", metrics=metrics, progress=False, create=True)


def _runs(url: str, token: str) -> Iterator[str]:
    """Log runs by their journals, as the client's own process would send them."""
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


def _look(url: str, token: str, pages: dict[str, str]) -> Iterator[Row]:
    import shutil

    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        context = browser.new_context(viewport={"width": 1280, "height": 800})
        page = context.new_page()
        page.goto(f"{url}/login")
        page.evaluate("document.querySelector('details').open = true")
        page.fill("#token", token)
        page.click("text=Sign in with it")
        for name, where in pages.items():
            costs = [_once(context, f"{url}/{where}") for _ in range(ROUNDS)]
            usable = statistics.median(cost["usable"] for cost in costs)
            paint = statistics.median(cost["paint"] for cost in costs)
            first = f"{costs[0]['requests']} requests, first visit {costs[0]['usable']:.0f} ms"
            detail = f"painted after {paint:.0f} ms, {first}"
            yield at_most(f"console, {name}: usable", usable, "ms", INTERACTIVE, detail)
            yield at_most(f"console, {name}: sent at first", costs[0]["bytes"] / 1000, "kB", SENT)
        browser.close()


def _once(context: Any, where: str) -> dict[str, float]:
    page = context.new_page()
    page.goto(where, wait_until="commit")
    usable = page.evaluate(USABLE)
    cost = page.evaluate(COST)
    page.close()
    return {**cost, "usable": usable}
