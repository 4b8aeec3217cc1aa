"""The loops in machine code: the same bytes as those in numpy, whatever comes in, and numpy where there is no numba."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmvp.core.codecs import numbers, transforms
from lmvp.core.codecs.kinds import KINDS

fast = pytest.importorskip("lmvp.core.codecs.fast", exc_type=ImportError)

FLOATING = [kind for kind in KINDS.values() if kind.floating]
SIZES = [0, 1, 2, 8191, 8192, 8193, 65536, 65537, 200_001]


def some(kind, size, seed=0):
    """Return bits as numbers of all signs, exponents and mantissas have them, and a base not far from most."""
    random = np.random.default_rng([kind.number, size, seed])
    base = numbers.bits(random.bytes(size * kind.size), kind)
    near = base + random.integers(0, 5, size).astype(base.dtype)
    return np.where(random.random(size) < 0.9, near, base[::-1]).astype(base.dtype), base


@pytest.mark.parametrize("kind", FLOATING, ids=lambda kind: kind.number)
@pytest.mark.parametrize("size", SIZES)
def test_same_planes_same_segments_and_back(kind, size):
    new, base = some(kind, size)
    ours, theirs = fast.Grouping(base, kind), numbers.Grouping(base, kind)
    assert ours.ends == theirs.ends
    planes = ours.planes(new)
    assert all((a == b).all() for a, b in zip(planes, theirs.planes(new), strict=True))
    assert (ours.numbers(planes) == new).all()
    assert ours.numbers(planes).dtype == new.dtype


@given(st.sampled_from(FLOATING), st.binary(min_size=16, max_size=400), st.data())
@settings(max_examples=60, deadline=None)
def test_same_payload_for_any_bytes(kind, data, draw):
    base = draw.draw(st.binary(min_size=len(data), max_size=len(data)))
    payloads = {transforms.encode_delta(data, base, kind) for _ in each_way()}
    assert len(payloads) == 1
    assert {bytes(transforms.decode_delta(memoryview(*payloads), base)) for _ in each_way()} == {data}


def each_way():
    """Go through both ways of grouping, the way that is in use afterwards being the one before."""
    before = transforms._grouping
    try:
        for way in (numbers.Grouping, fast.Grouping):
            transforms._grouping = lambda way=way: way
            yield way
    finally:
        transforms._grouping = before


WITHOUT = """
import sys
sys.modules["numba"] = None
from lmvp.core.codecs import numbers, transforms
from lmvp.core.codecs.kinds import F32
payload = transforms.encode_delta(bytes(4000), bytes(range(200)) * 20, F32)
assert bytes(transforms.decode_delta(memoryview(payload), bytes(range(200)) * 20)) == bytes(4000)
print(transforms._grouping() is numbers.Grouping)
"""


def test_without_numba_numpy_does_it():
    run = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "True"
