"""System metrics: processor, memory, disk, network and NVIDIA GPUs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any


class System:
    """Samples of this machine; rates cover the time between two calls of `sample`."""

    def __init__(self) -> None:
        import psutil

        self._psutil = psutil
        self._process = psutil.Process()
        self._before: dict[str, float] = {}
        self._cards = _cards()
        # The first call of each starts its measurement and returns 0.
        psutil.cpu_percent()
        self._process.cpu_percent()

    def sample(self, seconds: float) -> dict[str, float]:
        """Return the values that can be measured, by key, in bytes, percent, watts and degrees Celsius.

        Parameters
        ----------
        seconds : float
            Time since the previous call, for rates.
        """
        sampled: dict[str, float] = {}
        for measure in (self._processor, self._memory, self._traffic, self._gpus):
            with suppress(Exception):  # leave out values that this machine does not provide
                sampled |= measure(max(seconds, 1e-3))
        return {f"system/{key}": value for key, value in sampled.items()}

    def _processor(self, _: float) -> dict[str, float]:
        return {"cpu_percent": self._psutil.cpu_percent(), "process/cpu_percent": self._process.cpu_percent()}

    def _memory(self, _: float) -> dict[str, float]:
        memory = self._psutil.virtual_memory()
        return {
            "memory_percent": memory.percent,
            "memory_used_bytes": float(memory.total - memory.available),
            "process/memory_bytes": float(self._process.memory_info().rss),
        }

    def _traffic(self, seconds: float) -> dict[str, float]:
        disk, network = self._psutil.disk_io_counters(), self._psutil.net_io_counters()
        totals = {
            "disk/read_bytes_per_second": disk.read_bytes if disk else 0,
            "disk/write_bytes_per_second": disk.write_bytes if disk else 0,
            "network/received_bytes_per_second": network.bytes_recv,
            "network/sent_bytes_per_second": network.bytes_sent,
        }
        before, self._before = self._before, dict(totals)
        return {key: (total - before[key]) / seconds for key, total in totals.items() if key in before}

    def _gpus(self, _: float) -> dict[str, float]:
        return {
            f"gpu/{number}/{key}": value for number, card in enumerate(self._cards) for key, value in card().items()
        }


def _cards() -> list[Callable[[], dict[str, float]]]:
    """Return a function for each NVIDIA GPU that samples it; an empty list without driver or library."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount())]
    except Exception:  # noqa: BLE001 - the driver, the library or a GPU is missing
        return []

    def sampler(handle: Any) -> Callable[[], dict[str, float]]:
        def sample() -> dict[str, float]:
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            return {
                "utilization_percent": float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu),
                "memory_used_bytes": float(memory.used),
                "temperature_celsius": float(pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)),
                "power_watts": pynvml.nvmlDeviceGetPowerUsage(handle) / 1000,
            }

        return sample

    return [sampler(handle) for handle in handles]


# Seconds between two syncs; a power failure loses at most the points of this time.
_SYNC = 1.0


class Monitor(threading.Thread):
    """Calls `sync` once a second, and `measure` at a longer interval.

    Parameters
    ----------
    every : float
        Seconds between two calls of `measure`; 0 disables it.
    """

    def __init__(self, sync: Callable[[], None], measure: Callable[[float], None], every: float) -> None:
        super().__init__(name="lmvp-pulse", daemon=True)
        self._sync, self._measure, self._every = sync, measure, every
        self._end = threading.Event()

    def close(self) -> None:
        """Ask the thread to stop; it stops within a second."""
        self._end.set()

    def run(self) -> None:
        """Work until `close` is called."""
        began = measured = time.monotonic()
        while not self._end.wait(_SYNC):
            self._sync()
            now = time.monotonic()
            if self._every and (now - measured >= self._every or measured == began):
                measured = now
                _quietly(partial(self._measure, now - began))


def _quietly(work: Callable[[], None]) -> None:
    """Call a function and log its exception, which must not fail the training."""
    try:
        work()
    except Exception:
        import logging

        logging.getLogger("lmvp").debug("in the background of a run", exc_info=True)
