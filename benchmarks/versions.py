"""Ten thousand tiny versions: time of the first and the last push, and of listing them."""

from __future__ import annotations

import statistics

import numpy as np

import lmvp
from benchmarks.measure import Row, at_most, seconds

VERSIONS = 10_000
SAMPLE = 300


def run() -> list[Row]:
    """Return the rows of this benchmark."""
    weights = {"w": np.zeros(16, dtype=np.float32)}

    def create() -> None:
        weights["w"][0] += 1
        lmvp.update("bench/tiny", weights, message="one more", metrics={"acc": 0.5}, progress=False)

    for _ in range(20):
        create()
    first = [seconds(create) for _ in range(SAMPLE)]
    for _ in range(VERSIONS - 2 * SAMPLE - 20):
        create()
    last = [seconds(create) for _ in range(SAMPLE)]
    client = lmvp.Client()
    listing = [seconds(lambda: client.show_history("bench/tiny", limit=1000)) for _ in range(30)]
    return [
        at_most("create of a tiny version", 1000 * statistics.median(first), "ms", 4),
        at_most("the last create", statistics.median(last) / statistics.median(first), "× the first", 1.3),
        at_most("list 1,000 of 10,000", 1000 * statistics.median(listing), "ms", 5),
    ]
