"""MLflow's server with the same versions, runs and points, to compare its pages.

`LMVP_BENCH_MLFLOW` names a Python that has MLflow. MLflow creates its store, and SQL statements fill it, because
logging ten million points through its API takes hours.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

_MAKE = """
import sys
from mlflow.tracking import MlflowClient
client = MlflowClient(sys.argv[1], sys.argv[1])
client.create_experiment("bench", artifact_location=sys.argv[2])
client.create_registered_model("m")
"""
START = 1_767_225_600_000
"""Milliseconds since 1970."""


def python() -> str | None:
    """Return the Python that has MLflow, if configured."""
    return os.environ.get("LMVP_BENCH_MLFLOW")


@contextmanager
def serving(folder: Path, versions: int, runs: int, points: int) -> Iterator[tuple[str, list[str]]]:
    """Run MLflow's server on a store with this much data; yield its URL and the ids of the runs, newest first."""
    executable, store = python(), folder / "mlflow.db"
    assert executable is not None
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    made = [executable, "-c", _MAKE, f"sqlite:///{store}", str(folder)]
    subprocess.run(made, check=True, env=environment, cwd=folder, capture_output=True)
    ids = list(_fill(store, versions, runs, points))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{store}", "--port", str(port)]
    process = subprocess.Popen(
        command, env=environment, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait(f"http://127.0.0.1:{port}/health")
        yield f"http://127.0.0.1:{port}", ids[::-1]
    finally:
        process.terminate()
        process.wait()


def _wait(url: str) -> None:
    for _ in range(1200):
        try:
            requests.get(url, timeout=5)
        except requests.ConnectionError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(url)


def _fill(store: Path, versions: int, runs: int, points: int) -> Iterator[str]:
    """Write runs with two metrics of `points / 2` steps each, and versions of a model; yield the ids of the runs."""
    with sqlite3.connect(store) as base:
        for number in range(runs):
            yield _run(base, number, runs, points // 2)
        last = f"{runs - 1:032x}"
        base.executemany(
            "INSERT INTO model_versions (name, version, creation_time, last_updated_time, description, current_stage,"
            " source, run_id, status) VALUES ('m', ?, ?, ?, ?, 'None', '/nowhere', ?, 'READY')",
            [(n, START + n, START + n, f"step {n - 1}", last) for n in range(1, versions + 1)],
        )


def _run(base: sqlite3.Connection, number: int, runs: int, steps: int) -> str:
    run, at = f"{number:032x}", START + 1000 * number
    base.execute(
        "INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status, start_time,"
        " end_time, source_version, lifecycle_stage, artifact_uri, experiment_id)"
        " VALUES (?, ?, 'LOCAL', '', '', 'ada', 'FINISHED', ?, ?, '', 'active', '/nowhere', 1)",
        (run, f"run-{number}", at, at + 500),
    )
    base.execute("INSERT INTO tags (key, value, run_uuid) VALUES ('mlflow.runName', ?, ?)", (f"run-{number}", run))
    params = {"lr": 0.1 / (1 + number % 7), "width": number % 5}
    base.executemany(
        "INSERT INTO params (key, value, run_uuid) VALUES (?, ?, ?)",
        [(key, str(value), run) for key, value in params.items()],
    )
    curves = {
        "loss": [1 / (1 + step) + number / runs for step in range(steps)],
        "acc": [step / steps / 2 for step in range(steps)],
    }
    for key, values in curves.items():
        base.executemany(
            "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, ?, ?, ?, 0)",
            [(key, value, at + step, run, step) for step, value in enumerate(values)],
        )
        base.execute(
            "INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid) VALUES (?, ?, ?, ?, 0, ?)",
            (key, values[-1], at + steps, steps - 1, run),
        )
    return run
