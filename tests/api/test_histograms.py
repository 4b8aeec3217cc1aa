"""Histograms of tensors over HTTP, on a real server."""

import math

import numpy as np
import pytest

import lmvp
from lmvp import errors
from lmvp.client.models import Client
from lmvp_server.services import histograms


@pytest.fixture
def client(home):
    random = np.random.default_rng(0)
    state = {
        "a.weight": random.standard_normal((300, 40)).astype("float32"),
        "a.bias": np.array([0, 0, 1, math.nan, math.inf], "float16"),
        "steps": np.arange(10),
        "flags": np.array([True, False, True]),
        "nothing": np.zeros((0, 3), "float32"),
        "lost": np.full(4, math.nan, "float32"),
    }
    lmvp.update("digits/mlp", state)
    lmvp.update("digits/mlp", {**state, "a.weight": state["a.weight"] * 3, "new": np.ones(2, "float32")})
    return Client(), state


def test_counts_are_those_of_numpy(client):
    client, state = client
    found = client.histograms("digits/mlp@v1", ["a.weight", "steps", "flags"], bins=20).tensors
    weight = found["a.weight"]
    expected, edges = np.histogram(state["a.weight"].astype(float), 20)
    assert weight.counts == tuple(expected)
    assert (weight.low, weight.high) == (edges[0], edges[-1])
    assert weight.mean == pytest.approx(state["a.weight"].mean(), abs=1e-6)
    assert weight.deviation == pytest.approx(state["a.weight"].std(), rel=1e-5)
    assert (weight.count, weight.zeros, weight.odd, weight.sampled) == (12_000, 0, 0, False)
    assert sum(found["steps"].counts) == 10
    assert (found["flags"].count, found["flags"].zeros) == (3, 1)


def test_odd_numbers_are_counted_apart(client):
    client, _ = client
    found = client.histograms("digits/mlp", ["a.bias", "lost", "nothing"], bins=2).tensors
    assert (found["a.bias"].counts, found["a.bias"].zeros, found["a.bias"].odd) == ((2, 1), 2, 2)
    assert (found["lost"].counts, found["lost"].odd) == ((0, 0), 4)
    assert found["nothing"].count == 0


def test_two_versions_share_their_bins(client):
    client, state = client
    found = client.histograms("digits/mlp@v2", ["a.weight", "new"], against="mlp@v1")
    after, before = found.tensors["a.weight"], found.before["a.weight"]
    assert (after.low, after.high) == (before.low, before.high)
    assert after.high == pytest.approx(3 * state["a.weight"].max())
    assert sum(after.counts) == sum(before.counts) == 12_000
    assert "new" not in found.before


def test_a_long_tensor_is_sampled(client, monkeypatch, tmp_path):
    client, _ = client
    size = histograms.BLOCKS * (4 << 20) + 8
    lmvp.update("digits/long", {"w": np.ones(size, "uint8")}, progress=False)
    found = client.histograms("digits/long", ["w"]).tensors["w"]
    assert found.sampled
    assert size / 3 < found.count < size


def test_what_is_wrong_is_said(client):
    client, _ = client
    with pytest.raises(errors.NotFound, match="no tensor 'b'"):
        client.histograms("digits/mlp", ["a.weight", "b"])
    for tensors, bins in (([], 28), (["x"] * 65, 28), (["a.weight"], 0), (["a.weight"], 9999)):
        with pytest.raises(errors.InvalidArgument, match="1 to 64"):
            client.histograms("digits/mlp", tensors, bins=bins)
