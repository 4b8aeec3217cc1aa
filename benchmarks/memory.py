"""Memory growth of client and server during push and pull, beyond the model.

The model is sent raw over loopback, and compressed over a slower link. It is bf16, in tensors of 32 MiB. All values
change a little between the pushes, so that deltas are sent over the slower link.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

import lmvp
from benchmarks.links import load_codecs, proxy
from benchmarks.measure import Row, at_most
from benchmarks.transfer import Peaks
from lmvp import local

SIZES = {"100 MB": 100_000_000, "1 GB": 1_000_000_000, "4 GB": 4_000_000_000}
CODED = ("100 MB", "1 GB")
"""Sizes that are also sent over the slower link."""

MBITS = 250
_TENSOR = 16 << 20
_MIB = 1 << 20
LIMIT = 64


def run() -> list[Row]:
    """Return the rows of this benchmark."""
    load_codecs()
    lmvp.update("memory/warm", {"w": torch.zeros(3)}, progress=False)
    rows = []
    for name, size in SIZES.items():
        model = [torch.empty(_TENSOR, dtype=torch.bfloat16) for _ in range(max(1, size // (2 * _TENSOR)))]
        weights = {f"blocks.{number}.weight": tensor for number, tensor in enumerate(model)}
        for tensor in model:
            tensor.normal_(std=0.02)
        into = {key: torch.zeros_like(tensor) for key, tensor in weights.items()}
        rows += _loopback(name, weights, into)
        if name in CODED:
            rows += _coded(name, weights, into)
        local.stop()  # its folder is cleared for the next, larger model
        shutil.rmtree(Path(os.environ["LMVP_HOME"]) / "chunks", ignore_errors=True)
        shutil.rmtree(Path(os.environ["LMVP_HOME"]) / "records", ignore_errors=True)
        lmvp.update("memory/warm", {"w": torch.zeros(3)}, progress=False)
    return rows


def _loopback(name: str, weights: dict[str, torch.Tensor], into: dict[str, torch.Tensor]) -> list[Row]:
    client = lmvp.Client()
    return _measured(f"{name}, loopback", client, weights, into)


def _coded(name: str, weights: dict[str, torch.Tensor], into: dict[str, torch.Tensor]) -> list[Row]:
    server = local.connection()
    with (
        tempfile.TemporaryDirectory(dir=os.environ["LMVP_HOME"]) as cache,
        proxy(int(server.url.rpartition(":")[2]), MBITS) as port,
    ):
        os.environ["LMVP_CACHE"] = cache
        try:
            client = lmvp.Client(f"http://127.0.0.1:{port}", server.token)
            client.download("memory/m", into=into, progress=False)
            for tensor in weights.values():
                tensor.mul_(1 + 2**-8)
            return _measured(f"{name}, {MBITS} Mbit/s", client, weights, into)
        finally:
            del os.environ["LMVP_CACHE"]


def _measured(
    name: str, client: lmvp.Client, weights: dict[str, torch.Tensor], into: dict[str, torch.Tensor]
) -> list[Row]:
    steps: dict[str, Callable[[], object]] = {
        "push": lambda: client.update("memory/m", weights, progress=False),
        "pull": lambda: client.download("memory/m", into=into, progress=False),
    }
    rows = []
    server, here = psutil.Process(local.connection().pid), psutil.Process()
    before = server.memory_info().rss, here.memory_info().rss
    for step, work in steps.items():
        if step == "pull" and "Mbit" in name:
            shutil.rmtree(os.environ["LMVP_CACHE"] + "/chunks", ignore_errors=True)  # else the cache is used
        with Peaks(server, here) as peaks:
            work()
        for side, peak, start in zip(("server", "client"), peaks.most, before, strict=True):
            rows.append(at_most(f"{name}, {step}, {side}", (peak - start) / _MIB, "MiB", LIMIT))
    assert all(torch.equal(into[key], tensor) for key, tensor in weights.items())
    return rows
