"""Push and pull of about 500 MB of float32 in 60 tensors, compared with writing and syncing the same bytes."""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import lmvp
from benchmarks.measure import Row, at_most, interleaved, ratio
from lmvp import local

TENSORS, NUMBERS = 60, 2 << 20
ROUNDS = 7
_MIB = 1 << 20


class Model:
    """Weights that can be changed completely or partly, and functions to transfer them."""

    def __init__(self, folder: Path) -> None:
        random = np.random.default_rng(0)
        self.weights = {f"blocks.{i}.weight": random.random(NUMBERS, dtype=np.float32) for i in range(TENSORS)}
        self.pulled = {name: np.empty_like(value) for name, value in self.weights.items()}
        self.file = folder / "reference"

    def change(self, share: float) -> None:
        """Change all numbers of a share of the tensors."""
        for value in list(self.weights.values())[: max(1, round(share * TENSORS))]:
            value += np.float32(1e-3)

    def copy(self) -> None:
        """Write and sync a file, as `cp` and `sync` do: the reference."""
        with self.file.open("wb") as file:
            for value in self.weights.values():
                file.write(value)
            os.fsync(file.fileno())

    def push(self) -> None:
        """Push the weights."""
        lmvp.update("bench/model", self.weights, progress=False)

    def pull(self) -> None:
        """Pull the weights into new memory."""
        lmvp.download("bench/model", progress=False)

    def pull_into(self) -> None:
        """Pull the weights into existing memory."""
        lmvp.download("bench/model", into=self.pulled, progress=False)


def run() -> list[Row]:
    """Return the rows of this benchmark."""
    with tempfile.TemporaryDirectory() as folder:
        model = Model(Path(folder))
        lmvp.update("bench/warm", {"w": np.zeros(3)})
        rows = _memory(model)
        times = interleaved(
            {
                "cp": model.copy,
                "prepare": lambda: (model.change(1), model.file.unlink(), os.sync()),
                "push": model.push,
                "again": model.push,
                "pull": model.pull,
                "into": model.pull_into,
                "prepare2": lambda: (model.change(0.05), os.sync()),
                "5 %": model.push,
            },
            ROUNDS,
        )
    return [
        ratio("first push", times["push"], times["cp"], 1.5, "cp + fsync"),
        ratio("pull into new memory", times["pull"], times["cp"], 1.0, "cp + fsync"),
        ratio("pull in place", times["into"], times["cp"], 1.0, "cp + fsync"),
        ratio("unchanged push", times["again"], times["push"], 0.15, "first push"),
        ratio("push of 5 % changed", times["5 %"], times["push"], 0.2, "first push"),
        *rows,
    ]


def _memory(model: Model) -> list[Row]:
    """Measure the memory growth of server and client during a first push and a pull in place."""
    server, client = psutil.Process(local.connection().pid), psutil.Process()
    for value in model.pulled.values():
        value.fill(1)  # so that its pages are allocated before the measurement
    before = server.memory_info().rss, client.memory_info().rss
    with Peaks(server, client) as peaks:
        model.push()
        model.pull_into()
    grown = [(peak - start) / _MIB for peak, start in zip(peaks.most, before, strict=True)]
    return [
        at_most("memory above the model, server", grown[0], "MiB", 64),
        at_most("memory above the model, client", grown[1], "MiB", 64),
    ]


class Peaks:
    """Measures the peak resident memory of processes."""

    def __init__(self, *processes: Any) -> None:
        self.most = [0] * len(processes)
        self._processes, self._end = processes, threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Peaks:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(0.005):
            now = [process.memory_info().rss for process in self._processes]
            self.most = [max(pair) for pair in zip(self.most, now, strict=True)]
