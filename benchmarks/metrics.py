"""Logging, ingesting, reading and streaming metrics, each compared with a reference in the same run.

`log()` is measured in the training loop, with the server running, killed, and suspended so that it hangs, compared with
TensorBoard's `SummaryWriter` and a plain `file.write`. Then 1 and 10 million points are ingested, and 10 million are
read for a plot, compared with numpy reading the raw column from a file. Finally, 1,000 readers follow one run.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import requests

import lmvp
from benchmarks.measure import Row, at_most, seconds
from lmvp.tracking.active_run import ActiveRun

CALLS = 20_000
MILLION = 1_000_000
READERS = 1_000
_P50, _P99 = 5.0, 30.0
_PEERS = "trackio 5.8 / 33, MLflow async 12 / 446, Aim 56 / 145, by their own benchmarks"


class Server:
    """A separate server with a temporary data folder, which can be suspended, killed and restarted."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.port = 0
        self.start()

    def start(self) -> None:
        """Start the server, on the same port as before."""
        command = [sys.executable, "-m", "lmvp_server", "--data", str(self.data), "--port", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not self._answers():
            time.sleep(0.02)

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError("the server did not start")
        with suppress(FileNotFoundError, ValueError, KeyError, requests.RequestException):
            import json

            said = json.loads((self.data / "server.json").read_text())
            if said["pid"] == self.process.pid:
                self.url, self.token = said["url"], said["token"]
                self.port = int(self.url.rpartition(":")[2])
                return requests.get(f"{self.url}/api/v1/health", timeout=1).ok
        return False

    def kill(self) -> None:
        """Kill the server, as in a crash."""
        self.process.kill()
        self.process.wait()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Suspend the server: it accepts connections but does not answer."""
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.process.pid, signal.SIGCONT)

    def get(self, path: str, **options: Any) -> requests.Response:
        """Send a GET request without the LMVP client."""
        headers = {"Authorization": f"Bearer {self.token}"}
        answer = requests.get(f"{self.url}/api/v1{path}", headers=headers, timeout=120, **options)
        answer.raise_for_status()
        return answer


def run() -> Iterator[Row]:
    """Run all measurements."""
    with tempfile.TemporaryDirectory(prefix="lmvp-metrics-") as folder:
        server = Server(Path(folder) / "data")
        os.environ["LMVP_URL"], os.environ["LMVP_TOKEN"] = server.url, server.token
        try:
            yield from _calls(server, Path(folder))
            yield from _ingest(server)
            yield from _reading(server, Path(folder))
            yield from _watching(server)
        finally:
            server.kill()
            for name in ("LMVP_URL", "LMVP_TOKEN"):
                os.environ.pop(name, None)


# -- log()


def timed(call: Callable[[int], object], calls: int = CALLS) -> tuple[float, float, float]:
    """Return p50, p99 and the maximum of many consecutive calls, in microseconds."""
    clock, taken = time.perf_counter_ns, []
    for i in range(calls):
        before = clock()
        call(i)
        taken.append(clock() - before)
    taken.sort()
    return taken[calls // 2] / 1e3, taken[calls * 99 // 100] / 1e3, taken[-1] / 1e3


def _calls(server: Server, folder: Path) -> Iterator[Row]:
    yield from _beside(folder)
    yield from _log("up", started("up"))
    hanging = started("hanging")
    with server.hanging():
        yield from _log("hanging", hanging)
    hanging.finish()
    down = started("down")
    server.kill()
    yield from _log("down", down)
    server.start()
    down.finish()


def started(name: str) -> ActiveRun:
    """Return a run that the server already knows, without system metrics."""
    active = lmvp.start_run("bench", name=name, system_metrics=False, create=True)
    active.log({"loss": 1.0})
    time.sleep(1.0)  # wait for the background work at the start of a run
    return active


def _log(state: str, active: ActiveRun) -> Iterator[Row]:
    names = [f"train/metric_{i}" for i in range(20)]
    for count, values in ((1, {"loss": 0.5}), (20, dict.fromkeys(names, 0.5))):
        p50, p99, most = timed(lambda i, values=values: active.log(values, step=i))  # type: ignore[misc]
        what = f"log() of {count}, server {state}"
        limit = (_P50, _P99) if count == 1 else (4 * _P50, 4 * _P99)
        yield at_most(f"{what}: p50", p50, "µs", limit[0], _PEERS if count == 1 else "")
        yield at_most(f"{what}: p99", p99, "µs", limit[1], f"the longest {most:,.0f} µs")
    if state == "up":
        active.finish()


def _beside(folder: Path) -> Iterator[Row]:
    with (folder / "lines").open("w") as file:
        p50, p99, most = timed(lambda i: file.write(f"{i},loss,0.5,{time.time()}\n"))
    yield Row("a bare file.write: p50", p50, "µs", "", True, f"p99 {p99:.1f}, the longest {most:,.0f} µs")
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return
    with SummaryWriter(folder / "tensorboard") as writer:  # type: ignore[no-untyped-call]
        p50, p99, most = timed(lambda i: writer.add_scalar("loss", 0.5, i))
    yield Row("SummaryWriter.add_scalar: p50", p50, "µs", "", True, f"p99 {p99:.1f}, the longest {most:,.0f} µs")


# -- ingest


def column(n: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return a decreasing loss with noise in all digits."""
    rng = np.random.default_rng(0)
    return 2.0 / (1 + np.arange(n) / n * 20) + 0.05 * rng.standard_normal(n)


def _ingest(server: Server) -> Iterator[Row]:
    for millions in (1, 10):
        n = millions * MILLION
        values = column(n)
        active = started(f"batch{millions}")
        took = seconds(lambda active=active, values=values, n=n: _batches(active, values, n))  # type: ignore[misc]
        rate = n / took / 1e6
        name = f"log_batch of {millions} million points, to the end of finish()"
        yield Row(name, rate, "M points/s", "≥ 1", rate >= 1, f"{took:.2f} s")
    active = started("loop")
    took = seconds(lambda: _loop(active))
    rate = MILLION / took / 1e6
    yield Row(
        "log() of 1 million points, to the end of finish()", rate, "M points/s", "≥ 0.2", rate >= 0.2, f"{took:.2f} s"
    )
    yield _soon(server)


def _batches(active: ActiveRun, values: Any, n: int) -> None:
    for first in range(0, n, 100_000):
        active.log_batch(np.arange(first, first + 100_000), {"train/loss": values[first : first + 100_000]})
    active.finish()


def _loop(active: ActiveRun) -> None:
    log = active.log
    for i in range(MILLION):
        log({"train/loss": 0.5 + i * 1e-7}, step=i)
    active.finish()


def _soon(server: Server) -> Row:
    """Measure the time until other clients can read a point that is logged alone."""
    active = started("soon")
    delays = []
    for i in range(20):
        time.sleep(0.2 + 0.2 * random.random())
        active.log({"mark": float(i)}, step=i)
        before = time.perf_counter()
        while server.get(f"/projects/bench/runs/{active.id}").json()["metrics"].get("mark") != i:
            time.sleep(0.005)
        delays.append(time.perf_counter() - before)
    active.finish()
    return at_most("a point can be read after", statistics.median(delays), "s", 0.4, f"at most {max(delays):.2f} s")


# -- reads


def _reading(server: Server, folder: Path) -> Iterator[Row]:
    _settled(server)
    server.kill()
    size = sum(path.stat().st_size for path in _series(server, "batch10"))
    yield at_most("bytes a point, sealed", size / (10 * MILLION), "B", 8.0, f"{size / 1e6:.1f} MB for 10 million")
    server.start()
    reference = _raw(folder)
    path = "/projects/bench/metrics?run=batch10&key=train%2Floss&points=2000"
    first = seconds(lambda: server.get(path))
    server.kill()
    server.start()
    server.get(path.replace("batch10", "loop"))  # the first request of a server loads modules
    cold = seconds(lambda: server.get(path))
    warm = statistics.median(seconds(lambda: server.get(path)) for _ in range(15))
    zoom = statistics.median(
        seconds(lambda first=first: server.get(f"{path}&from={first}&to={first + 50_000}"))  # type: ignore[misc]
        for first in range(1_000_000, 9_000_000, 800_000)
    )
    few = statistics.median(seconds(lambda: server.get(path.replace("batch10", "batch1"))) for _ in range(15))
    raw = f"numpy reads and reduces the raw column in {reference * 1e3:.0f} ms"
    yield Row("the first read of a server that has just started", first * 1e3, "ms", "", True, "numpy is loaded by it")
    yield at_most("10 million points read for a plot, cold", cold * 1e3, "ms", 100, raw)
    yield at_most("10 million points read for a plot, warm", warm * 1e3, "ms", 100, f"{warm / reference:.2f} × numpy")
    yield at_most("50,000 of them, each time others", zoom * 1e3, "ms", 100)
    yield at_most("10 million against 1 million", warm / few, "×", 1.5, "the cost depends on the pixels")


def _settled(server: Server) -> None:
    """Wait until the server has sealed the finished runs."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if not any(path.suffix == ".wal" and path.stat().st_size > 4096 for path in _series(server, "batch10")):
            return
        time.sleep(0.5)
    raise RuntimeError("the series was not sealed")


def _series(server: Server, name: str) -> list[Path]:
    """Return the files of a run's series."""
    runs = (
        [item for item in server.get("/projects/bench/runs").json()["items"] if item["name"] == name]
        if (server.process.poll() is None)
        else []
    )
    if runs:
        _IDS[name] = runs[0]["id"]
    return [path for path in (server.data / "series").glob(f"*/{_IDS[name]}/*") if path.is_file()]


_IDS: dict[str, str] = {}


def _raw(folder: Path) -> float:
    """Return the seconds that numpy needs to reduce 10 million float64 values to min and max of 1,000 parts."""
    path = folder / "raw.npy"
    np.save(path, column(10 * MILLION))

    def read() -> None:
        parts = np.load(path).reshape(1000, -1)
        parts.min(axis=1), parts.max(axis=1)

    return statistics.median(seconds(read) for _ in range(5))


# -- live


def _watching(server: Server) -> Iterator[Row]:
    active = started("watched")
    delays, alone, crowd = asyncio.run(_crowd(server, active))
    active.finish()
    late = statistics.quantiles(delays, n=100)[98]
    yield at_most(
        f"{READERS:,} readers of one run see a point after, p99",
        late,
        "s",
        1.5,
        f"median {statistics.median(delays):.2f} s",
    )
    yield Row("log(): p50 with all these readers", crowd, "µs", "", True, f"{alone:.1f} µs without")


async def _crowd(server: Server, active: ActiveRun) -> tuple[list[float], float, float]:
    """Let many clients follow one run while it logs ten times per second; return the delays of the points."""
    logged: dict[int, float] = {}
    delays: list[float] = []
    alone = timed(lambda i: active.log({"noise": 0.5}, step=i), 2000)[0]
    tasks = [asyncio.create_task(_reader(server, active.id, logged, delays)) for _ in range(READERS)]
    await asyncio.sleep(3)
    taken = []
    for i in range(100):
        before = time.perf_counter()
        logged[i] = time.perf_counter()
        active.log({"mark": float(i)}, step=i)
        taken.append((time.perf_counter() - before) * 1e6)
        await asyncio.sleep(0.1)
    await asyncio.sleep(2)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return delays, alone, statistics.median(taken)


async def _reader(server: Server, run: str, logged: dict[int, float], delays: list[float]) -> None:
    import json

    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1 << 22)
    path = f"/api/v1/projects/bench/metrics/live?run={run}&key=mark"
    head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAuthorization: Bearer {server.token}\r\n\r\n"
    writer.write(head.encode())
    seen = -1
    while line := await reader.readline():
        if not line.startswith(b"data:") or b'"steps"' not in line:
            continue
        newest = max((step for curve in json.loads(line[5:])["curves"] for step in curve["steps"]), default=-1)
        if newest > seen and newest in logged:
            delays.append(time.perf_counter() - logged[newest])
        seen = max(seen, newest)
